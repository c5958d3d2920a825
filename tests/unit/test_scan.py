"""One pass over a file: copy, digest, search."""

from __future__ import annotations

import os

import pytest

from sccache_py.keys import digest
from sccache_py.server.filesystem import scan
from sccache_py.server.filesystem.files import FileShrank

MOVABLE = [("out", [b"/out/path"]), ("x", [b"/out/path/deps", b"/absent"]), ("up", [b"/out"])]


@pytest.mark.parametrize("cloning", [True, False])
@pytest.mark.parametrize("begins", [0, 5, 60, 63, 64, 100, 126, 127, 190])
@pytest.mark.parametrize("piece", [16, 64, 4096])
def test_a_path_in_an_output_is_found_wherever_it_lies(tmp_path, monkeypatch, begins, piece, cloning):
    """It may begin in one piece of those that are read and end in another; the digest is that of the whole."""
    monkeypatch.setattr(scan, "_PIECE_BYTES", piece)
    if cloning:  # no file system here need be able to
        monkeypatch.setattr(scan, "clone", lambda source, target: os.sendfile(target, source, 0, 200) == 200)
    content = bytearray(b"-" * 200)
    content[begins : begins + 9] = b"/out/path"
    made, copy = tmp_path / "out", tmp_path / "copy"
    made.write_bytes(content[:200])
    with open(made, "rb") as source, open(copy, "wb") as target:
        found = scan.copy_and_search(source.fileno(), target.fileno(), 200, MOVABLE)
        assert scan.shows_any(source.fileno(), [b"/absent", b"/out/path"])
        assert not scan.shows_any(source.fileno(), [b"/out/path/"])
    assert found == (digest(bytes(content[:200])), {"out", "up"})
    assert copy.read_bytes() == content[:200]


def test_a_needle_longer_than_what_is_kept_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(scan, "_LONGEST_NEEDLE", 10)
    needle = b"/n" * 20
    made = tmp_path / "out"
    made.write_bytes(b"." * 50 + needle + b".")
    with open(made, "rb") as source:
        assert scan.shows_any(source.fileno(), [needle])


def test_what_an_earlier_file_left_in_the_buffer_is_not_found(tmp_path):
    made = tmp_path / "out"
    for content, expected in ((b"..../out", True), (b"....", False), (b"", False)):
        made.write_bytes(content)
        with open(made, "rb") as source:
            assert scan.shows_any(source.fileno(), [b"/out"]) is expected


def test_a_file_that_shrinks_is_no_output(tmp_path):
    made = tmp_path / "out"
    made.write_bytes(b"short")
    with open(made, "rb") as source, open(tmp_path / "copy", "wb") as target, pytest.raises(FileShrank):
        scan.copy_and_search(source.fileno(), target.fileno(), 6, MOVABLE)
