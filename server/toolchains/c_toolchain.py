"""gcc or clang, whatever its name: asked of the program itself.

The predefined macros say which of the two it is.  The identity is the digest of the driver, of the programs that it runs
(`-print-prog-name`: cc1, cc1plus, as) and of the libraries that these load, and where the driver stands: from there it finds headers,
specs and whatever else it reads, which are inputs like any other, and so is a program that is not among these.
"""

from __future__ import annotations

import glob
import os
import re
import time
from collections.abc import Callable, Sequence

from sccache_py.compilers import c_options
from sccache_py.compilers.c_dialects import CLANG, GCC
from sccache_py.compilers.gcc import C
from sccache_py.keys import KeyHash
from sccache_py.model import Reason, Request
from sccache_py.server.filesystem.sight import Sight
from sccache_py.server.running.observer import image_of, started_by
from sccache_py.server.toolchains import compiler as programs
from sccache_py.server.toolchains.compiler import LOADERS_CACHE, Compiler, Stamps, all_are, stamp, startup_libraries

# Names of compilers: gcc, x86_64-linux-gnu-g++-12, clang++, cc, c99-gcc, a wrapper `my-cc.sh`.
_NAMES = re.compile(r"(^|[-_.])(gcc|g\+\+|clang|clang\+\+|cc|c\+\+|c89|c99)([-_.]|$)")

# Programs that run a compiler on their own terms; a link named gcc may lead to one.
_LAUNCHERS = re.compile(r"ccache|distcc|icecc|sccache|sccache-py|buildcache|fastbuild|cachepot|kache|zccache|colorgcc")

# Compilers that say __GNUC__ and are something else.
_OTHERS = ("__INTEL_COMPILER", "__NVCC__", "__NVCOMPILER", "__OPEN64__", "__PGI", "__TINYC__", "__EMSCRIPTEN__", "__CUDACC__")

# Below a directory of libraries, what is built for newer processors (ld.so(8)).
_FOR_PROCESSORS = "glibc-hwcaps"

_GCC_PROGRAMS = ("cc1", "cc1plus", "as", "cc1obj", "cc1objplus")
_CLANG_PROGRAMS = ("as",)

_BEFORE_ITS_OWN = ("COMPILER_PATH", "GCC_EXEC_PREFIX")  # where gcc looks for its programs first


def key(request: Request) -> tuple[str | None, ...] | None:
    """What the answer may depend on, wherever the caller stands.  None: it is not worth a question."""
    if not (_is_compilers_name(request) or _reads_as_compile(request.argv[1:])):
        return None
    env = request.env
    return (
        request.program,
        request.argv[0],
        *(env.get(n) for n in ("PATH", "COMPILER_PATH", "GCC_EXEC_PREFIX", "GCC_ROOT", "BINUTILS_ROOT", "LD_LIBRARY_PATH")),
    )


def _is_compilers_name(request: Request) -> bool:
    return _NAMES.search(os.path.basename(request.program)) is not None


def _reads_as_compile(words: Sequence[str]) -> bool:
    """Whether a program of any name (mpicc, compile.sh) is called as a compiler is.  sccache asks each and every program."""
    return ("-c" in words or "-S" in words) and any(
        os.path.splitext(word)[1] in c_options.EXTENSIONS for word in words if not word.startswith("-")
    )


def identify(request: Request, look: Callable[[], Sight]) -> Compiler | Reason:
    """Raises OSError, subprocess.SubprocessError."""
    program = os.path.join(request.cwd, request.program)
    real = os.path.realpath(program)
    if _LAUNCHERS.fullmatch(os.path.basename(real)):
        return Reason.UNSUPPORTED_COMPILER
    stamps: Stamps = [(program, stamp(program))]
    absent: dict[str, list[str]] = {}
    image = image_of(program)
    # A program of another name runs a compiler with options that it knows from anywhere, as a script does.
    is_wrapper = bool(image.script) or not _is_compilers_name(request)
    driver = _driver(request, program, is_wrapper)
    if driver is None:
        return Reason.UNSUPPORTED_COMPILER

    in_path = _directories(request, "PATH")
    path = [os.path.join(request.cwd, d) for d in in_path]
    by_name = [request.program, *_directories(request, *_BEFORE_ITS_OWN)]  # … of which a relative one is another in another directory
    files = [real]
    covered = {program, real, *(os.path.join(d, os.path.basename(request.argv[0])) for d in path)}
    for name in _GCC_PROGRAMS if driver.dialect is GCC else _CLANG_PROGRAMS:
        found = _ask(request, program, f"-print-prog-name={name}")
        if found == name:
            # gcc leaves it to PATH.  A program of that name that appears earlier there is another toolchain.
            places = [os.path.join(d, name) for d in path]
            found = next((p for p in places if os.access(p, os.X_OK)), "")
            covered.update(places)
            by_name += in_path[: places.index(found) + 1] if found else in_path
            for passed in places[: places.index(found)] if found else places:
                if os.path.lexists(passed):
                    stamps.append((passed, stamp(passed)))
                else:
                    absent.setdefault(os.path.dirname(passed), []).append(name)
        if found.startswith("/") and os.path.isfile(found):
            covered |= {found, os.path.realpath(found)}
            files.append(found)
    if driver.dialect is GCC and any(request.env.get(name) for name in _BEFORE_ITS_OWN):
        for place, names in _looked_through(request, program):
            absent.setdefault(place, []).extend(name for name in names if not os.path.lexists(os.path.join(place, name)))
            files += [file for name in names if os.path.isfile(file := os.path.join(place, name))]
    libraries = list(dict.fromkeys(library for file in files for library in startup_libraries(request, file)))
    covered.update(libraries)
    files += libraries
    # Where ld.so looks first (ld.so(8)): a library that appears there makes another compiler.
    names = sorted({os.path.basename(library) for library in libraries})
    for directory in request.env.get("LD_LIBRARY_PATH", "").split(":"):
        if directory.startswith("/"):
            for_processors = os.path.join(directory, _FOR_PROCESSORS)
            stamps.append((for_processors, stamp(for_processors)))
            for place in (directory, *glob.glob(f"{glob.escape(for_processors)}/*")):
                missing = [name for name in names if not os.path.lexists(os.path.join(place, name))]
                absent.setdefault(place, []).extend(missing)
    stamps.append((LOADERS_CACHE, stamp(LOADERS_CACHE)))
    stamps += [(file, stamp(file)) for file in dict.fromkeys(files)]
    identity = KeyHash()
    # Two copies of a toolchain are the same programs, each with headers of its own beside it.
    for place in (os.path.realpath(os.path.dirname(program)), os.path.dirname(real)):
        identity.field("place", os.fsencode(place))
    if is_wrapper:
        identity.field("script", os.fsencode(program))  # it may look at $0
    elif driver.dialect is CLANG:
        identity.field("name", os.fsencode(os.path.basename(request.argv[0])))  # aarch64-linux-gnu-clang++: target and language
    sight = look()
    for file in dict.fromkeys(files):
        digest = sight.hash_now(file)
        if digest is None:
            return Reason.UNSUPPORTED_COMPILER
        identity.field(os.path.basename(file), digest)
    if not all_are(stamps):
        return Reason.UNSUPPORTED_COMPILER  # it is being installed at this moment
    return Compiler(
        program=program,
        driver=driver,
        identity=identity.key(),
        covered=tuple(covered),
        image=started_by(image),
        is_script=is_wrapper,
        cwd_matters=is_wrapper or not all(map(os.path.isabs, by_name)),
        stamps=stamps,
        absent=list(absent.items()),
        checked_at=time.monotonic(),
    )


def _ask(request: Request, program: str, *words: str) -> str:
    env = {name: value for name, value in request.env.items() if name not in c_options.NOT_FOR_QUESTIONS}
    return programs.ask(request, program, list(words), env)


def _directories(request: Request, *variables: str) -> list[str]:
    """What they list; an empty word is the directory of the call."""
    return [d or "." for variable in variables if variable in request.env for d in request.env[variable].split(":")]


def _looked_through(request: Request, program: str) -> list[tuple[str, list[str]]]:
    """Where gcc looks for its programs before its own directories, and for which: one that appears there makes another compiler."""
    said = _ask(request, program, "-print-search-dirs").partition("programs: =")[2].partition("\n")[0]
    ours = [os.path.normpath(os.path.join(request.cwd, d)) for d in _directories(request, *_BEFORE_ITS_OWN)]
    names = [*_GCC_PROGRAMS, f"{_ask(request, program, '-dumpmachine')}-as"]
    places = [os.path.normpath(os.path.join(request.cwd, place)) for place in said.split(":")]
    return [(place, names) for place in dict.fromkeys(places) if any(f"{place}/".startswith(f"{d}/") for d in ours)]


def _driver(request: Request, program: str, is_wrapper: bool) -> C | None:
    defines = (line.split(" ", 2) for line in _ask(request, program, "-dM", "-E", "-x", "c", "/dev/null").splitlines())
    macros = {words[1]: words[2] for words in defines if len(words) == 3}
    if "__GNUC__" not in macros or any(m.startswith(_OTHERS) for m in macros):
        return None
    called = os.path.basename(request.argv[0])
    dialect, told = (CLANG, macros.get("__clang_major__", "")) if "__clang__" in macros else (GCC, macros["__GNUC__"])
    return C(dialect, "++" in called, is_wrapper, int(told) if told.isdigit() else 0, called)
