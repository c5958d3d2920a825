"""Which compiler is this, really?  From the program that the caller named to an identity that goes into every key.

For rustc the real binary is the one in the sysroot that the program would use *here*: a rustup proxy chooses by RUSTUP_TOOLCHAIN,
by rust-toolchain files above the cwd and by its settings.  The identity is the digest of that binary, of the libraries that it
starts with (the driver, LLVM), and of the host's standard library and linker below the sysroot.  It is remembered with the stat
of each of these, so that a request costs stats and no process.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from dataclasses import replace

from sccache_py.compilers.rustc import Rustc
from sccache_py.conditions import search_path
from sccache_py.keys import KeyHash
from sccache_py.model import Reason, Request
from sccache_py.server.filesystem.files import FileMemo
from sccache_py.server.filesystem.search import find_program
from sccache_py.server.filesystem.sight import Sight
from sccache_py.server.running.observer import image_of, started_by
from sccache_py.server.toolchains import c_toolchain
from sccache_py.server.toolchains.compiler import LOADERS_CACHE, Compiler, Stamps, all_are, ask, stamp, startup_libraries

log = logging.getLogger(__name__)

_RUST_NAMES = re.compile(r"rustc|clippy-driver")
# What is no compiler for us is asked again after this time: its parts may not all have been installed.
_REJECTED_S = 10.0

_Key = tuple[str | None, ...]

_TOOLCHAIN_FILES = ("rust-toolchain", "rust-toolchain.toml")


class Toolchains:
    def __init__(self, memo: FileMemo, threads: Executor) -> None:
        self._memo = memo
        self._threads = threads
        self._known: dict[_Key, Compiler] = {}
        self._rejected: dict[_Key, tuple[float, Stamps]] = {}
        self._under_way: dict[_Key, asyncio.Future[Compiler | Reason]] = {}

    def find_now(self, request: Request, sight: Sight) -> Compiler | Reason | None:
        """What is known already; None: identify() must be awaited."""
        key = _key(request)
        if key is None:
            return Reason.UNSUPPORTED_COMPILER
        found = self._known.get(key) or self._known.get((*key, request.cwd))
        if found is not None:
            return found if found.still_is(sight) else None
        since, stamps = self._rejected.get((*key, request.cwd), (0.0, []))
        return Reason.UNSUPPORTED_COMPILER if stamps and time.monotonic() - since < _REJECTED_S and all_are(stamps) else None

    async def identify(self, request: Request) -> Compiler | Reason:
        """Ask the compiler itself; equal questions at the same time are asked once."""
        key = _key(request)
        if key is None:
            return Reason.UNSUPPORTED_COMPILER
        here = (*key, request.cwd)
        under_way = self._under_way.get(here)
        if under_way is None:
            under_way = asyncio.ensure_future(asyncio.get_running_loop().run_in_executor(self._threads, self._identify, request))
            self._under_way[here] = under_way
            under_way.add_done_callback(lambda _: self._under_way.pop(here, None))
        found = await asyncio.shield(under_way)
        if isinstance(found, Compiler):
            self._known[here if found.cwd_matters else key] = found
        else:
            program = os.path.join(request.cwd, request.program)
            self._rejected[here] = time.monotonic(), [(program, stamp(program))]
        return found

    def _identify(self, request: Request) -> Compiler | Reason:
        try:
            if _RUST_NAMES.search(os.path.basename(request.program)):
                return _identify_rust(request, lambda: Sight(self._memo))
            if _is_given_rustc(request):
                return _identify_wrapped(request, lambda: Sight(self._memo))
            return c_toolchain.identify(request, lambda: Sight(self._memo))
        except (OSError, subprocess.SubprocessError, ValueError) as e:
            log.warning("%s: not understood as a compiler: %s", request.program, e)
            return Reason.UNSUPPORTED_COMPILER


def _key(request: Request) -> _Key | None:
    """What the choice of a toolchain may depend on, wherever the caller stands (a rustup proxy without RUSTUP_TOOLCHAIN, a script or a
    relative path also look at the cwd).  None: it is no compiler that we know."""
    wrapped = (request.argv[1], request.env.get("PATH")) if _is_given_rustc(request) else ()
    if wrapped or _RUST_NAMES.search(os.path.basename(request.program)):
        env = request.env
        return (request.program, *wrapped, env.get("RUSTUP_TOOLCHAIN"), env.get("RUSTUP_HOME"), env.get("HOME"), env.get("LD_LIBRARY_PATH"))
    return c_toolchain.key(request)


def _is_given_rustc(request: Request) -> bool:
    """Whether it is a workspace's wrapper (cargo-auditable), which cargo calls with rustc's name first; clippy-driver is a compiler."""
    if "CARGO" not in request.env or len(request.argv) < 2 or not request.argv[1].endswith("rustc"):
        return False  # nearly all
    return os.path.basename(request.argv[1]) == "rustc" and not _RUST_NAMES.search(os.path.basename(request.program))


def _identify_wrapped(request: Request, look: Callable[[], Sight]) -> Compiler | Reason:
    """That rustc, and the wrapper; what the wrapper reads beside is observed as of any program."""
    program, rustc = os.path.join(request.cwd, request.program), request.argv[1]
    if "/" not in rustc:
        rustc = find_program(rustc, search_path(request.env.get("PATH")) or [])
    inner = _identify_rust(replace(request, program=rustc, argv=request.argv[1:]), look) if rustc else Reason.UNSUPPORTED_COMPILER
    before, image, digest = stamp(program), image_of(program), look().hash_now(program)
    if isinstance(inner, Reason) or digest is None:
        return Reason.UNSUPPORTED_COMPILER
    identity = KeyHash()
    identity.field("place", os.fsencode(program))  # it may look at $0
    identity.field("wrapper", digest)
    identity.field("rustc", inner.identity)
    return replace(
        inner,
        program=program,
        identity=identity.key(),
        image=started_by(image),
        is_script=True,
        cwd_matters=inner.cwd_matters or bool(image.script) or not os.path.isabs(request.program),
        stamps=[(program, before), *inner.stamps],
        choosing=inner.choosing + 1,
    )


def _identify_rust(request: Request, look: Callable[[], Sight]) -> Compiler | Reason:
    program = os.path.join(request.cwd, request.program)
    image = image_of(program)
    name = os.path.basename(program)
    before = ["--rustc"] if "clippy" in name else []
    sysroot = ask(request, program, [*before, "--print=sysroot"])
    if not sysroot or not os.path.isdir(sysroot):
        return Reason.UNSUPPORTED_COMPILER

    real = program
    # Its directories too: the programs of two toolchains may be one file, linked twice, but directories never are.
    bin_ = os.path.dirname(program)
    stamps: Stamps = [(path, stamp(path)) for path in (program, bin_ + "/", os.path.dirname(bin_) + "/")]
    if _is_rustup(program):
        real = os.path.join(sysroot, "bin", name)
        image = image_of(real)
        stamps += [(path, stamp(path)) for path in _rustup_files(request)]
    choosing = len(stamps)
    interpreter = started_by(image)

    host = re.search(r"^host: (\S+)$", ask(request, program, [*before, "-vV"]), re.MULTILINE)
    if host is None:
        return Reason.UNSUPPORTED_COMPILER
    # Not all below lib/: for a distribution's rustc the sysroot is /usr.  Other targets' libraries are inputs like any file.
    own = os.path.join(sysroot, "lib", "rustlib", host[1])
    libraries = startup_libraries(request, real)
    files = list(dict.fromkeys([real, *libraries, *files_below(own)]))
    stamps += [(path, stamp(path)) for path in (LOADERS_CACHE, *files) if path != program]
    stamps += [(path, stamp(path)) for path in sorted({os.path.dirname(f) for f in files})]

    identity = KeyHash()
    sight = look()
    for path in files:
        # A link that leads nowhere is that: Debian's rustc has some for programs of a package which need not be there (lld).
        digest = b"" if os.path.islink(path) and not os.path.exists(path) else sight.hash_now(path)
        if digest is None:
            return Reason.UNSUPPORTED_COMPILER
        identity.field(os.path.relpath(path, sysroot) if path.startswith(f"{sysroot}/") else os.path.basename(path), digest)
    if not all_are(stamps):
        return Reason.UNSUPPORTED_COMPILER  # it is being installed at this moment
    return Compiler(
        # A proxy also sets variables, which a crate may ask for; what cargo starts has them already.
        program=real if request.env.get("RUSTUP_TOOLCHAIN") else program,
        driver=Rustc(),
        identity=identity.key(),
        covered=tuple(dict.fromkeys((own + "/", os.path.realpath(own) + "/", real, os.path.realpath(real), *libraries))),
        image=interpreter,
        is_script=bool(image.script),
        cwd_matters=bool(image.script)
        or not os.path.isabs(request.program)
        or (real != program and not request.env.get("RUSTUP_TOOLCHAIN")),
        place=os.path.join(sysroot, "lib", "rustlib"),
        stamps=stamps,
        choosing=choosing,
        checked_at=time.monotonic(),
    )


def _is_rustup(program: str) -> bool:
    """rustup's proxies are links, hard or symbolic, to the program that stands beside them as `rustup`."""
    if os.path.basename(os.path.realpath(program)).startswith("rustup"):
        return True
    try:
        return os.path.samefile(program, os.path.join(os.path.dirname(program), "rustup"))
    except OSError:
        return False


def _rustup_files(request: Request) -> Iterable[str]:
    """What a proxy's choice depends on, there or not (rustup's book, "Overrides")."""
    home = request.env.get("RUSTUP_HOME") or os.path.join(request.env.get("HOME", "/"), ".rustup")
    yield os.path.join(home, "settings.toml")
    # A toolchain may be a link, which can be pointed elsewhere.
    toolchains = os.path.join(home, "toolchains")
    yield toolchains
    try:
        yield from (os.path.join(toolchains, name, "") for name in sorted(os.listdir(toolchains)))
    except OSError:
        pass
    directory = request.cwd
    while True:
        for name in _TOOLCHAIN_FILES:
            yield os.path.join(directory, name)
        parent = os.path.dirname(directory)
        if parent == directory:
            return
        directory = parent


def files_below(directory: str) -> list[str]:
    return sorted(os.path.join(place, name) for place, _, names in os.walk(directory) for name in names)
