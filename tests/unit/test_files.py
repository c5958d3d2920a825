"""What the server knows of files: a digest may be remembered only as long as nothing can have changed unseen."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

import pytest

from sccache_py.keys import digest
from sccache_py.model import OwnOutputs
from sccache_py.server.filesystem import files
from sccache_py.server.filesystem.files import FileMemo, Names, by_the_clock_now, coarse_ns, copy_descriptor, hash_path, publish, write_all
from sccache_py.server.filesystem.sight import Sight
from sccache_py.server.filesystem.stamps import stamp_of


def wait_for_a_tick() -> None:
    """Until the coarse clock has passed now: files may have timestamps of the fine one, which is ahead of it (Linux 6.13)."""
    now = time.time_ns()
    while coarse_ns() <= now:
        os.sched_yield()


def now(memo: FileMemo, path: Path) -> bytes | None:
    """A new request's look."""
    return Sight(memo).hash_now(str(path))


def put(path: Path, content: bytes, times: tuple[int, int] | None = None) -> None:
    """In place: same inode."""
    with open(path, "r+b" if path.exists() else "wb") as f:
        f.write(content)
        f.truncate()
    if times is not None:
        os.utime(path, ns=times)


@pytest.fixture
def known(tmp_path):
    """A memo that knows a file."""
    path = tmp_path / "file"
    put(path, b"one")
    wait_for_a_tick()
    memo = FileMemo()
    assert now(memo, path) == digest(b"one")
    assert memo.known(str(path), stamp_of(path.stat())) is not None
    return memo, path


def test_an_unchanged_file_is_not_read_again(known):
    """That is what makes a hit cheap: seen by an access that would fail."""
    memo, path = known
    assert Sight(memo).digest(str(path)) == digest(b"one")
    assert memo.known(str(path), stamp_of(path.stat())) == digest(b"one")


def test_a_change_in_place_with_the_same_size_and_mtime_is_seen(known):
    """ctime tells; nobody can set it."""
    memo, path = known
    st = path.stat()
    put(path, b"two", (st.st_atime_ns, st.st_mtime_ns))
    assert path.stat().st_mtime_ns == st.st_mtime_ns
    assert now(memo, path) == digest(b"two")


def test_a_replacement_that_keeps_size_and_mtime_is_seen(known):
    """mv and unpackers keep mtimes."""
    memo, path = known
    st = path.stat()
    other = path.with_name("other")
    put(other, b"two", (st.st_atime_ns, st.st_mtime_ns))
    other.rename(path)
    assert now(memo, path) == digest(b"two")


def test_a_link_that_points_elsewhere_is_seen(known, tmp_path):
    """The path is the same."""
    memo, path = known
    put(tmp_path / "two", b"two")
    link = tmp_path / "link"
    link.symlink_to(path)
    wait_for_a_tick()
    assert now(memo, link) == digest(b"one")
    link.unlink()
    link.symlink_to(tmp_path / "two")
    assert now(memo, link) == digest(b"two")


def test_changes_within_one_tick_of_the_clock_are_all_seen(tmp_path):
    """Two contents of one size within one tick may have equal stamps: such a digest must not be remembered."""
    memo = FileMemo()
    path = tmp_path / "file"
    for number in range(1000):
        content = b"%04d" % number
        put(path, content)
        assert now(memo, path) == digest(content)


def test_one_look_never_mixes_two_moments(known):
    """A file that changes while a request is answered counts as what it was first seen to be."""
    memo, path = known
    sight = Sight(memo)
    assert sight.digest(str(path)) == digest(b"one")
    put(path, b"two")
    assert sight.digest(str(path)) == digest(b"one")


@pytest.mark.parametrize("make", [Path.mkdir, lambda p: os.mkfifo(p), lambda p: p.symlink_to("nowhere"), lambda p: None])
def test_what_is_no_regular_file_has_no_digest(tmp_path, make):
    """And reading a FIFO would wait for its writer for ever."""
    path = tmp_path / "x"
    make(path)
    assert now(FileMemo(), path) is None
    assert Sight(FileMemo()).digest(str(path)) is None
    assert hash_path(str(path)) is None


def test_names_with_a_nul_are_no_files(tmp_path):
    """A stored condition may be damaged."""
    assert Sight(FileMemo()).digest(f"{tmp_path}/a\0b") is None
    assert Sight(FileMemo()).names(f"{tmp_path}/a\0b") is None


def test_large_files_are_left_to_a_thread(tmp_path):
    """Hashing them would stop the event loop."""
    path = tmp_path / "large"
    path.write_bytes(bytes(1 << 20))
    sight = Sight(FileMemo())
    assert sight.digest(str(path)) is Sight.UNHASHED
    assert list(sight.unhashed) == [str(path)]
    sight.hash_all()
    assert sight.digest(str(path)) == digest(bytes(1 << 20))


# -- what was looked at, and not read ---------------------------------------------------------------------------------


def state(path: Path) -> bytes | None:
    return Sight(FileMemo()).state(str(path), lambda path, resolved, is_directory: resolved)


def test_what_a_look_can_show_is_told_apart(tmp_path):
    """A file of a size, a directory, a link to somewhere: each may decide what a macro makes."""
    put(tmp_path / "file", b"one")
    put(tmp_path / "longer", b"three")
    (tmp_path / "directory").mkdir()
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "other").symlink_to("longer")
    (tmp_path / "place").symlink_to("directory")
    put(tmp_path / "directory" / "inside", b"one")
    found = [state(tmp_path / n) for n in ("file", "longer", "directory", "link", "other", "place", "place/inside")]
    assert None not in found
    assert len(set(found)) == len(found)
    assert state(tmp_path / "none") is None


def test_another_content_of_the_same_size_looks_the_same(tmp_path):
    """Nobody opened it."""
    put(tmp_path / "file", b"one")
    before = state(tmp_path / "file")
    put(tmp_path / "file", b"two")
    assert state(tmp_path / "file") == before


# -- directories ------------------------------------------------------------------------------------------------------


def test_a_name_that_appears_is_seen_however_many_are_asked_for(tmp_path):
    """A header earlier on the search path; with few names each is looked at, with many the directory is listed."""
    wait_for_a_tick()
    memo = FileMemo()
    many = [f"n{i}" for i in range(40)]
    for names in (many[:1], many):
        for _ in range(3):
            assert Sight(memo).lacks(str(tmp_path), names)
        put(tmp_path / names[-1], b"")
        assert not Sight(memo).lacks(str(tmp_path), names)
        (tmp_path / names[-1]).unlink()
        assert Sight(memo).lacks(str(tmp_path), names)
    assert Sight(memo).lacks(str(tmp_path / "none"), many)


def test_names_that_appear_within_one_tick_are_all_seen(tmp_path):
    """A directory's stamp may be the same before and after."""
    memo = FileMemo()
    for number in range(300):
        name = f"n{number}"
        assert Sight(memo).names(str(tmp_path)) == Names.of(str(tmp_path))
        put(tmp_path / name, b"")
        assert Sight(memo).names(str(tmp_path)) == Names.of(str(tmp_path))
        assert name in Names.of(str(tmp_path)).all


def test_a_listing_leaves_out_this_units_own_outputs(tmp_path):
    """They are there or not, depending on what ran before."""
    own = OwnOutputs(frozenset((f"{tmp_path}/libx.rlib",)), (f"{tmp_path}/libx.",), frozenset(("rmeta",)))
    before = Sight(FileMemo()).listing_digest(str(tmp_path), own)
    put(tmp_path / "libx.rlib", b"")
    put(tmp_path / "libx.rmeta", b"")
    assert Sight(FileMemo()).listing_digest(str(tmp_path), own) == before
    put(tmp_path / "libx.rs", b"")
    assert Sight(FileMemo()).listing_digest(str(tmp_path), own) != before


# -- making files -----------------------------------------------------------------------------------------------------


_LARGE = 1 << 20


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    """No reader ever sees half of it, and what fails leaves nothing behind."""
    target = tmp_path / "out"
    target.write_bytes(b"old")

    def fill(fd: int) -> None:
        os.write(fd, b"new")
        assert target.read_bytes() == b"old"

    def fail(fd: int) -> None:
        fill(fd)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        publish(str(target), 0o640, fail, _LARGE)
    assert target.read_bytes() == b"old"
    publish(str(target), 0o640, fill, _LARGE)
    assert target.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("there", [True, False])
def test_of_a_small_file_that_cannot_be_written_nothing_is_left(tmp_path, there):
    target = tmp_path / "out"
    if there:
        target.write_bytes(b"old")

    def fail(fd: int) -> None:
        os.write(fd, b"ne")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        publish(str(target), 0o644, fail, 3)
    assert os.listdir(tmp_path) == []


def test_two_that_write_one_small_file_both_can(tmp_path):
    target = tmp_path / "out"

    def other_first(fd: int) -> None:
        if not target.stat().st_size:  # it is the one that has the name
            publish(str(target), 0o644, lambda other: write_all(other, b"new"), 3)
        write_all(fd, b"new")

    publish(str(target), 0o644, other_first, 3)
    assert target.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["out"]


def test_a_small_file_that_came_after_it_was_looked_for_is_replaced(tmp_path, monkeypatch):
    target = tmp_path / "out"
    target.write_bytes(b"of somebody else")
    monkeypatch.setattr(files, "find_target", lambda path: (path, None))
    publish(str(target), 0o644, lambda fd: write_all(fd, b"new"), 3)
    assert target.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("size", [3, _LARGE])
def test_a_hard_link_to_the_old_file_keeps_the_old_content(tmp_path, size):
    """cargo links target/debug/libx.rlib to deps/libx.rlib."""
    target, uplifted = tmp_path / "out", tmp_path / "uplifted"
    target.write_bytes(b"old")
    os.link(target, uplifted)
    publish(str(target), 0o644, lambda fd: write_all(fd, b"new"), size)
    assert target.read_bytes() == b"new"
    assert uplifted.read_bytes() == b"old"


def test_what_is_no_file_is_written_through():
    """`-o /dev/null` must not make a file of /dev/null."""
    publish("/dev/null", 0o644, lambda fd: write_all(fd, b"gone"), 4)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


@pytest.mark.parametrize("size", [0, 1, 4096, (1 << 20) + 1])
def test_a_copy_is_the_same_and_of_its_own(tmp_path, size):
    """By reference or byte by byte: writing to one must not show in the other."""
    source, target = tmp_path / "a", tmp_path / "b"
    content = os.urandom(size)
    source.write_bytes(content)
    with open(source, "rb") as a, open(target, "wb") as b:
        copy_descriptor(a.fileno(), b.fileno(), size)
    assert target.read_bytes() == content
    source.write_bytes(b"other")
    assert target.read_bytes() == content


def test_a_clock_that_was_set_back_makes_no_compile_younger_than_what_it_read():
    """NTP steps, a virtual machine that was resumed: what is edited after that has times from before the compile began."""
    second = 1_000_000_000
    assert by_the_clock_now(1000 * second, 5 * second, 1005 * second) == 1000 * second
    assert by_the_clock_now(1000 * second, 5 * second, 1005 * second - 4_000_000) == 1000 * second  # a tick behind
    assert by_the_clock_now(1000 * second, 5 * second, 4605 * second) == 1000 * second  # set forward
    assert by_the_clock_now(1000 * second, 5 * second, 975 * second) == 970 * second
