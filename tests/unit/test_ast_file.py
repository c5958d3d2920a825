"""Where a precompiled header of clang's names its sources."""

from __future__ import annotations

import shutil
import struct
import subprocess

import pytest

from sccache_py.compilers.ast_file import names, told_sources


def block(number, body, width=5):
    body += b"\0" * (-len(body) % 4)
    return struct.pack("<II", 1 | number << 2 | width << 10, len(body) // 4) + body


def told(data):
    return told_sources(len(data), lambda at, size: data[at : at + size])


def test_names_are_looked_for_in_the_control_block_alone():
    """The others have all that was declared, which is most of a file."""
    assert told(b"CPCH" + block(0, b"info") + block(15, b"/p/a.h") + block(8, b"b.h")) == b"/p/a.h\0\0"


@pytest.mark.parametrize(
    ("told", "is_named"),
    [(b"..../p/config.h", True), (b"..../config.h/p/x.h", True), (b"..../p/c++config.h", False), (b"", False)],
)
def test_a_name_that_ends_as_another_does_is_another(told, is_named):
    """`config.h`, and libstdc++'s `c++config.h`, which is in nearly every header."""
    assert names(told, "config.h") == is_named


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"CPCH",
        b"BC\xc0\xde" + block(15, b"a.h"),
        b"CPCH" + block(15, b"a.h")[:-1],
        b"CPCH" + block(15, b"a.h") + block(15, b"b.h"),
        b"CPCH" + block(15, b"a.h") + b"\1\0\0\0",
        b"CPCH" + block(15, b"a.h") + b"\0" * 8,
        b"CPCH" + struct.pack("<II", 1 | (0x80 | 15) << 2, 1) + b"a.h\0",
        b"CPCH" + struct.pack("<II", 1 | 15 << 2, 1 << 30) + b"a.h\0",
    ],
)
def test_a_file_that_is_built_otherwise_tells_nothing(data):
    """Then every source may be one of its own."""
    assert told(data) is None


@pytest.mark.slow
@pytest.mark.parametrize("clang", ["clang", *(f"clang-{version}" for version in range(14, 30))])
def test_what_clang_was_told_to_include_is_named(clang, tmp_path):
    """By its name as it is spelled, however it was found; not what is only declared there."""
    if shutil.which(clang) is None:
        pytest.skip(f"no {clang}")
    (tmp_path / "inc").mkdir()
    (tmp_path / "inc" / "a.h").write_text("#include <sub-1.h>\nint no_source_of_it(void);\n")
    (tmp_path / "inc" / "real.h").write_text("#define S 1\n")
    (tmp_path / "inc" / "sub-1.h").symlink_to("real.h")
    subprocess.run([clang, "-Iinc", "-x", "c-header", "inc/a.h", "-o", "a.pch"], cwd=tmp_path, check=True)
    said = told((tmp_path / "a.pch").read_bytes())
    assert said is not None
    assert names(said, "a.h")
    assert names(said, "sub-1.h")
    assert not names(said, "no_source_of_it")
