"""Which toolchain it is: two copies are the same programs, and each finds its headers from where it stands."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package

from c_world import one_compiler, shared_server  # noqa: F401 - fixtures

pytestmark = pytest.mark.slow


def answer_of(*words: str) -> str:
    return subprocess.run(words, stdout=subprocess.PIPE, text=True, timeout=60, check=True).stdout.strip()


def headers_of(compiler: str) -> Path:
    """The directory of stddef.h."""
    return Path(os.path.realpath(answer_of(compiler, "-print-file-name=include")))


def copy_of(compiler: str, root: Path, value: int) -> Path:
    """The same programs with a stddef.h that says `value`.  Programs and headers stand to each other as in the original."""
    program = Path(os.path.realpath(shutil.which(compiler) or pytest.skip(f"no {compiler}")))
    headers = headers_of(compiler)
    prefix = Path(os.path.commonpath((program, headers)))
    mine = root / headers.relative_to(prefix)
    shutil.copytree(headers, mine)
    for part in headers.parent.iterdir():
        if part != headers:
            (mine.parent / part.name).symlink_to(part)
    copy = root / program.relative_to(prefix)
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(program, copy)
    with open(mine / "stddef.h", "a") as f:
        f.write(f"#define VALUE {value}\n")
    named = copy.with_name(compiler)
    if named != copy:
        named.symlink_to(copy.name)
    return named


def test_a_copy_of_a_toolchain_has_headers_of_its_own(c, tmp_path):
    """SDKs, conda environments and buildroot's trees: the compiler is the same to the byte, its headers need not be."""
    one, two = (str(copy_of(c.name, tmp_path / name, number)) for number, name in enumerate(("one", "two")))
    c.write("x.c", "#include <stddef.h>\nint x = VALUE;\n")
    args = ("-c", "x.c", "-o", c.object())
    first = c.compile_twice(*args, rustc=one)
    assert c.compile_twice(*args, rustc=two) != first
    assert c.expect("hit", *args, rustc=one) == first


@pytest.mark.parametrize("place", [".", "glibc-hwcaps/x86-64-v2"])
def test_a_library_that_ld_so_finds_first_makes_another_compiler(c, tmp_path, place):
    """`module load` and conda put directories into LD_LIBRARY_PATH, which get libraries later."""
    program = shutil.which(c.name) if not c.is_gcc else answer_of("gcc", "-print-prog-name=cc1")
    loads = answer_of("ldd", program).splitlines()
    found = next(words[2] for line in loads if len(words := line.split()) > 3 and words[0].startswith(("libmpc", "libLLVM")))
    if place != "." and f"{Path(place).name} (supported" not in answer_of("/lib64/ld-linux-x86-64.so.2", "--help"):
        pytest.skip("no such processor")
    mine = tmp_path / place / Path(found).name
    kept = tmp_path / "kept"
    kept.write_bytes(Path(found).read_bytes() + b"\n")
    c.write("x.c", "int x;\n")
    how = {"env": {"LD_LIBRARY_PATH": str(tmp_path)}}
    args = ("-c", "x.c", "-o", c.object())
    c.compile_twice(*args, **how)
    mine.parent.mkdir(parents=True, exist_ok=True)
    kept.rename(mine)
    c.expect("miss", *args, **how)
    mine.rename(kept)
    c.expect("hit", *args, asks=True, **how)


def test_a_compiler_that_is_told_not_to_resolve_its_name_says_that_name(c, tmp_path):
    """/bin/clang and /usr/bin/clang are one, and by -no-canonical-prefixes, which Bazel says always, each names its own headers."""
    if c.is_gcc:
        pytest.skip("clang's")
    copy = copy_of(c.name, tmp_path / "one", 1)
    (tmp_path / "link").symlink_to("one")
    through = tmp_path / "link" / copy.relative_to(tmp_path / "one")
    c.write("x.c", "#include <stddef.h>\n")
    args = ("-no-canonical-prefixes", "-MD", "-MF", str(c.o / "x.d"), "-c", "x.c", "-o", c.object())
    c.compile_twice(*args, rustc=str(copy))
    c.compile_twice(*args, rustc=str(through))


def wrap(place: Path, name: str, words: str) -> None:
    """A program that calls the real one of that name with more words."""
    real = answer_of("gcc", f"-print-prog-name={name}")
    place.mkdir(parents=True, exist_ok=True)
    (place / name).write_text(f'#!/bin/sh\nexec {shutil.which(real)} "$@" {words}\n')
    (place / name).chmod(0o755)


@pytest.mark.parametrize("below", ["", "MACHINE"])
@pytest.mark.parametrize("name", ["as", "cc1"])
def test_a_program_that_appears_where_gcc_looks_first_makes_another_compiler(c, name, below):
    """COMPILER_PATH names directories before its own; what was found elsewhere is not what would be found now."""
    if not c.is_gcc:
        return
    c.write("x.c", "int f(int x) { return x + 1; }\n")
    place = c.p / "tools" / (answer_of("gcc", "-dumpmachine") if below else "")
    place.mkdir(parents=True)
    env = {"COMPILER_PATH": str(c.p / "tools")}
    first, second = ("--defsym Z=1", "--defsym Z=2") if name == "as" else ("-O2", "-O0 -fno-pic")
    args = ("-c", "x.c", "-o", c.object())
    c.expect("miss", *args, env=env)
    wrap(place, name, first)
    one = c.expect("miss", *args, env=env)
    wrap(place, name, second)
    assert c.expect("miss", *args, env=env) != one
    (place / name).unlink()
    c.expect("hit", *args, env=env, asks=True)


def test_the_program_that_splits_debug_information_is_found_along_path(c):
    """gcc has objcopy do it, which it finds like any command; cross toolchains and conda bring their own."""
    c.write("x.c", "int f(int x) { return x + 1; }\n")
    place = c.p / "tools"
    place.mkdir()
    env = {"PATH": f"{place}:/usr/bin:/bin"}
    args = ("-g", "-gsplit-dwarf", "-c", "x.c", "-o", c.object())
    if c.left_out("C without observation: -gsplit-dwarf", *args, env=env):
        return
    c.expect("miss", *args)
    c.expect("hit", *args, env=env, asks=True)
    (place / "objcopy").write_text('#!/bin/sh\necho mine >&2\nexec /usr/bin/objcopy "$@"\n')
    (place / "objcopy").chmod(0o755)
    c.expect("miss" if c.is_gcc else "hit", *args, env=env, asks=True)
    c.expect("hit", *args, asks=True)


@pytest.mark.parametrize("env", [{"COMPILER_PATH": "tools"}, {"PATH": "tools:/usr/bin:/bin"}, {"PATH": ":/usr/bin:/bin"}], ids=str)
def test_a_relative_directory_of_programs_is_another_in_another_directory(c, env):
    """An empty word of PATH is the working directory."""
    c.write("x.c", "int f(int x) { return x + 1; }\n")
    for number, place in enumerate(("one", "two")):
        wrap(c.p / place / "tools", "as", f"--defsym Z={number}")
        wrap(c.p / place, "as", f"--defsym Z={number}")
    args = ("-c", "../x.c", "-o", c.object())
    one = c.expect("miss", *args, env=env, cwd=c.p / "one")
    two = c.expect("miss" if c.is_gcc else "hit", *args, env=env, cwd=c.p / "two", asks=True)
    assert (one != two) == c.is_gcc
    c.expect("hit", *args, env=env, cwd=c.p / "one", asks=True)


@pytest.mark.parametrize(
    ("name", "env"),
    [
        ("gcc", {"DEPENDENCIES_OUTPUT": "log rule"}),
        ("gcc", {"SUNPRO_DEPENDENCIES": "log rule"}),
        ("clang", {"CC_PRINT_OPTIONS": "1", "CC_PRINT_OPTIONS_FILE": "log"}),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else value,
)
def test_what_a_compiler_is_asked_is_not_in_the_callers_log(c, name, env):
    """A file of rules for make would have one more, for /dev/null."""
    if c.name != name:
        pytest.skip(f"{name}'s")
    c.write("x.c", "int x;\n")
    (c.p / "bin").mkdir()
    env = {**env, "PATH": f"{c.p}/bin:/usr/bin:/bin"}  # under which nobody asked it yet
    words = (shutil.which(name), "-c", "x.c", "-o", "x.o")
    subprocess.run(words, cwd=c.p, env={**c.world.env, **env}, timeout=60, check=True)
    plain = (c.p / "log").read_bytes()
    (c.p / "log").unlink()
    c.world.run([str(c.world.client), *words], c.p, env)
    assert (c.p / "log").read_bytes() == plain


def test_what_others_make_a_compiler_say_is_not_remembered(c):
    """By this variable clang says what it would run, instead of its macros."""
    if c.is_gcc:
        pytest.skip("clang's")
    c.write("x.c", "int x;\n")
    (c.p / "bin").mkdir()
    env = {"PATH": f"{c.p}/bin:/usr/bin:/bin"}
    args = ("-c", "x.c", "-o", c.object())
    c.refused("variable CCC_OVERRIDE_OPTIONS", *args, env={**env, "CCC_OVERRIDE_OPTIONS": "# +-###"})
    c.expect("miss", *args, env=env)
    c.expect("hit", *args, env=env)


@pytest.fixture
def configured(c):
    """A clang that reads options from a file beside it, which no command line names."""
    real = Path(shutil.which("clang-19") or shutil.which("clang") or "").resolve()
    if c.is_gcc or not c.observed:
        pytest.skip("only clang has such files, and only observation sees them")
    (c.p / "bin").mkdir()
    (c.p / "bin/clang").symlink_to(real)
    asked = subprocess.run([c.p / "bin/clang", "-no-canonical-prefixes", "-v"], capture_output=True, text=True, check=True)
    (c.p / "bin/clang.cfg").write_text("-frecord-command-line\n")
    again = subprocess.run([c.p / "bin/clang", "-no-canonical-prefixes", "-v"], capture_output=True, text=True, check=True)
    if "Configuration file" in asked.stderr or "Configuration file" not in again.stderr:
        pytest.skip("a clang before version 16")
    return c


@pytest.mark.parametrize("options", ["-frecord-command-line", "-fprofile-instr-generate -fcoverage-mapping"])
def test_what_a_default_configuration_file_adds_may_name_anything(configured, options):
    """Names of outputs and the cwd, short or compressed, so that nobody finds them in the object."""
    c = configured
    c.write("bin/clang.cfg", options + "\n")
    clang = {"rustc": str(c.p / "bin/clang")}
    for place in ("one", "two"):
        c.write(f"{place}/x.c", "int f(void) { return 1; }\n")
    words = ("-no-canonical-prefixes", "-c", "x.c", "-o")
    for place in ("one", "two"):
        c.expect("miss", *words, c.object(), cwd=c.p / place, **clang)
        c.expect("hit", *words, c.object(), cwd=c.p / place, **clang)
        c.expect("miss", *words, c.object("y.o"), cwd=c.p / place, **clang)


def test_a_default_configuration_file_that_says_native_is_not_stored(configured):
    """The processor is in the key only where the command line asks for it."""
    c = configured
    c.write("bin/clang.cfg", "-march=native\n")
    c.write("x.c", "int f(void) { return 1; }\n")
    words = ("-no-canonical-prefixes", "-c", "x.c", "-o", c.object())
    c.not_stored("a configuration file says native", *words, rustc=str(c.p / "bin/clang"))
