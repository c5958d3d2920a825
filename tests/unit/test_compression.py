"""Packs: what comes out is what went in, or an error."""

from __future__ import annotations

import os
import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sccache_py.keys import digest
from sccache_py.server.store.compression import CompressionError, Unpacking, pack_files


def unpack(pack: Path, sizes: list[int]) -> list[tuple[bytes, bytes]]:
    """(content, digest) of each."""
    fd = os.open(pack, os.O_RDONLY)
    found = []
    try:
        with Unpacking(fd) as files, tempfile.TemporaryFile() as out:
            for size in sizes:
                out.seek(0)
                out.truncate()
                told = files.next_file(out.fileno(), size)
                out.seek(0)
                found.append((out.read(), told))
    finally:
        os.close(fd)
    return found


def make(directory: Path, contents: list[bytes], level: int = 1) -> Path:
    paths = []
    for number, content in enumerate(contents):
        path = directory / f"{number}.bin"
        path.write_bytes(content)
        paths.append(str(path))
    assert pack_files(paths, str(directory / "pack"), level) == [digest(content) for content in contents]
    return directory / "pack"


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 700_000), min_size=1, max_size=4), st.integers(1, 12), st.integers(0, 9))
def test_what_was_packed_comes_out(sizes: list[int], level: int, seed: int) -> None:
    block = random.Random(seed).randbytes(100_000)
    contents = [(block * 8)[:size] for size in sizes]
    with tempfile.TemporaryDirectory() as directory:
        pack = make(Path(directory), contents, level)
        assert unpack(pack, sizes) == [(content, digest(content)) for content in contents]


def test_a_file_that_repeats_another_costs_next_to_nothing(tmp_path: Path) -> None:
    """An .rlib and its .rmeta, megabytes apart."""
    block = random.Random(1).randbytes(5_000_000)
    pack = make(tmp_path, [block, b"head" + block])
    assert pack.stat().st_size < 5_200_000


def test_a_torn_pack_is_an_error(tmp_path: Path) -> None:
    content = random.Random(1).randbytes(300_000)
    pack = make(tmp_path, [content])
    with pack.open("r+b") as f:
        f.truncate(200_000)
    with pytest.raises(CompressionError):
        unpack(pack, [len(content)])


def test_what_follows_a_pack_is_an_error(tmp_path: Path) -> None:
    pack = make(tmp_path, [b"content" * 1000])
    with pack.open("ab") as f:
        f.write(b"more")
    with pack.open("rb") as f, open(os.devnull, "wb") as out, Unpacking(f.fileno()) as read:
        read.next_file(out.fileno(), 7000)
        with pytest.raises(CompressionError):
            read.end()


def test_what_is_no_pack_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "pack").write_bytes(b"not a frame" * 100)
    with pytest.raises(CompressionError):
        unpack(tmp_path / "pack", [10])


def test_a_flipped_byte_shows_in_the_digest_or_is_an_error(tmp_path: Path) -> None:
    content = random.Random(1).randbytes(1000) * 300
    pack = make(tmp_path, [content])
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.write_bytes(data)
    try:
        ((_, told),) = unpack(pack, [len(content)])
    except CompressionError:
        return
    assert told != digest(content)
