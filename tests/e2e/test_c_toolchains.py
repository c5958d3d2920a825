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
