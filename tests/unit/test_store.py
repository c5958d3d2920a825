"""One contract, every store; and what only the one on disk has to bear: other people's rows, torn files, a damaged database."""

from __future__ import annotations

import os
import pickle
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from sccache_py.errors import StoreBusy, StoreError
from sccache_py.server.store.base import Store
from sccache_py.server.store.disk import DiskStore
from sccache_py.server.store.memory import MemoryStore
from sccache_py.server.store.reading import ReadingStore

LIMIT = 1 << 20


@pytest.fixture
def disk(tmp_path) -> Iterator[DiskStore]:
    store = DiskStore(str(tmp_path / "cache"), LIMIT)
    yield store
    store.close()


@pytest.fixture
def memory() -> Iterator[MemoryStore]:
    store = MemoryStore(LIMIT)
    yield store
    store.close()


@pytest.fixture
def reading(tmp_path) -> Iterator[ReadingStore]:
    DiskStore(str(tmp_path / "read"), LIMIT).close()
    store = ReadingStore(str(tmp_path / "read"), LIMIT)
    yield store
    store.close()


@pytest.fixture(params=["disk", "memory", "reading"])
def store(request) -> Store:
    found: Store = request.getfixturevalue(request.param)
    return found


def put_file(store: Store, key: bytes, content: bytes) -> None:
    path = store.scratch_path()
    Path(path).write_bytes(content)
    assert store.adopt_file(key, path) == store.file_path(key)


def file(store: Store, key: bytes) -> bytes | None:
    path = store.file_path(key)
    return None if path is None else Path(path).read_bytes()


# -- the contract -----------------------------------------------------------------------------------------------------


def test_what_is_written_together_is_there_together(store):
    with store.together():
        store.put(b"k", b"one")
        store.update(b"m", lambda old: (old or b"") + b"two")
    assert (store.get(b"k"), store.get(b"m")) == (b"one", b"two")


def test_what_is_written_together_is_not_there_in_part(disk):
    def fail() -> None:
        with disk.together():
            disk.put(b"k", b"two")
            disk.put(b"m", b"two")
            raise StoreError("trouble")

    disk.put(b"k", b"one")
    with pytest.raises(StoreError):
        fail()
    assert (disk.get(b"k"), disk.get(b"m")) == (b"one", None)


def test_a_value_comes_back_as_it_was(store):
    """Bytes, and nothing else."""
    assert store.get(b"k") is None
    for value in (b"", b"one", bytes(range(256)) * 500):
        store.put(b"k", value)
        assert store.get(b"k") == value
    assert store.has(b"k")
    store.delete(b"k")
    assert store.get(b"k") is None
    assert not store.has(b"k")


def test_a_file_comes_back_as_it_was(store):
    """It is moved, not copied: what was in the scratch space is gone from there."""
    assert store.file_path(b"f") is None
    path = store.scratch_path()
    Path(path).write_bytes(b"content")
    store.adopt_file(b"f", path)
    assert file(store, b"f") == b"content"
    assert not os.path.exists(path) or isinstance(store, MemoryStore)
    put_file(store, b"f", b"other")
    assert file(store, b"f") == b"other"
    store.delete(b"f")
    assert store.file_path(b"f") is None


def test_deleting_what_is_not_there_is_no_error(store):
    """Another server may have been faster."""
    store.delete(b"none")


def test_adopting_a_file_that_is_gone_is_a_store_error(store):
    """The scratch space may have been swept."""
    with pytest.raises(StoreError):
        store.adopt_file(b"f", store.scratch_path())


def test_scratch_names_are_never_the_same(store):
    """Four threads copy at once."""
    assert len({store.scratch_path() for _ in range(100)}) == 100


def test_an_update_sees_what_is_there(store):
    """A manifest gains a variant without losing those of another server."""
    seen = []

    def change(old: bytes | None) -> bytes:
        seen.append(old)
        return (old or b"") + b"x"

    store.update(b"k", change)
    store.update(b"k", change)
    assert seen == [None, b"x"]
    assert store.get(b"k") == b"xx"


def test_culling_takes_the_longest_unused_first(store):
    """What was just used is what will be used."""
    for number in range(10):
        put_file(store, b"f%d" % number, bytes(150_000))
    store.mark_used([b"f0", b"f1"])
    assert store.size_bytes() > LIMIT
    assert store.cull() > 0
    assert store.size_bytes() <= LIMIT
    assert store.has(b"f0")
    assert store.has(b"f1")
    assert not store.has(b"f2")
    assert store.cull() == 0


# -- the store on disk ------------------------------------------------------------------------------------------------


def test_another_server_sees_what_this_one_stored(disk):
    """Sandboxes and users' shells share one cache directory."""
    put_file(disk, b"f", b"content")
    disk.put(b"k", b"value")
    other = DiskStore(disk.location, LIMIT)
    try:
        assert other.get(b"k") == b"value"
        assert file(other, b"f") == b"content"
    finally:
        other.close()


def rows(store: DiskStore, statement: str, *values: object) -> None:
    with sqlite3.connect(os.path.join(store.location, "cache.db")) as database:
        database.execute(statement, values)
    database.close()


class Bomb:
    """What a pickle can do: make a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return open, (self.path, "w")


@pytest.mark.parametrize("mode", [1, 3, 4])
def test_a_planted_pickle_does_nothing(disk, tmp_path, mode):
    """diskcache unpickles what a row says is a pickle (CVE-2025-69872)."""
    planted = tmp_path / "exploded"
    disk.put(b"k", b"value")
    rows(disk, "UPDATE Cache SET value = ?, mode = ?", pickle.dumps(Bomb(str(planted))), mode)
    with pytest.raises(StoreError):
        disk.get(b"k")
    with pytest.raises(StoreError):
        disk.file_path(b"k")
    assert not planted.exists()
    disk.put(b"k", b"mended")
    assert disk.get(b"k") == b"mended"


@pytest.mark.parametrize("name", ["../victim", "/etc/hostname", "aa/bb/../../../victim", "scratch/x", "cache.db", b"../victim", 7])
def test_a_planted_file_name_is_neither_read_nor_removed(disk, tmp_path, name):
    """A planted `../victim` made a plain `set` delete that file."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    put_file(disk, b"f", b"content")
    rows(disk, "UPDATE Cache SET filename = ?", name)
    with pytest.raises(StoreError):
        disk.file_path(b"f")
    put_file(disk, b"f", b"again")
    disk.delete(b"f")
    disk.cull()
    disk.sweep_orphans()
    assert victim.read_text() == "precious"
    assert os.path.exists("/etc/hostname") or not isinstance(name, str)
    assert os.path.exists(os.path.join(disk.location, "cache.db"))


@pytest.mark.parametrize(
    "damage", [lambda v: v[:-1], lambda v: v[:10], lambda v: b"", lambda v: v[:-1] + bytes((v[-1] ^ 1,)), lambda v: b"x" + v]
)
def test_a_torn_or_flipped_value_is_no_value(disk, damage):
    """A result with one wrong bit would be a wrong object file."""
    disk.put(b"k", b"value" * 100)
    with sqlite3.connect(os.path.join(disk.location, "cache.db")) as database:
        ((stored,),) = database.execute("SELECT value FROM Cache").fetchall()
        database.execute("UPDATE Cache SET value = ?", (damage(bytes(stored)),))
    database.close()
    with pytest.raises(StoreError):
        disk.get(b"k")
    disk.put(b"k", b"mended")
    assert disk.get(b"k") == b"mended"


def test_an_update_of_a_damaged_value_starts_anew(disk):
    """So that a damaged manifest is mended by the next store."""
    disk.put(b"k", b"value")
    rows(disk, "UPDATE Cache SET value = ?", b"damaged")
    disk.update(b"k", lambda old: b"new" if old is None else b"kept")
    assert disk.get(b"k") == b"new"


def test_a_file_that_vanished_is_none(disk):
    """Somebody tidied up."""
    put_file(disk, b"f", b"content")
    path = disk.file_path(b"f")
    assert path is not None
    os.unlink(path)
    assert disk.file_path(b"f") is None
    put_file(disk, b"f", b"again")
    assert file(disk, b"f") == b"again"


@pytest.mark.parametrize("content", [b"", b"not a database" * 1000, b"SQLite format 3\0" + bytes(5000)])
def test_a_damaged_database_is_moved_aside(tmp_path, content):
    """The cache is never why a build fails; and what is there may be worth a look."""
    directory = tmp_path / "cache"
    first = DiskStore(str(directory), LIMIT)
    first.put(b"k", b"value")
    first.close()
    (directory / "cache.db").write_bytes(content)
    for name in ("cache.db-wal", "cache.db-shm"):
        (directory / name).unlink(missing_ok=True)
    again = DiskStore(str(directory), LIMIT)
    try:
        assert again.get(b"k") is None
        again.put(b"k", b"new")
        assert again.get(b"k") == b"new"
        if content:
            assert len(list(directory.glob("damaged-*"))) == 1
    finally:
        again.close()


def test_of_damaged_databases_the_last_is_kept(tmp_path):
    """A sick disk would fill up with them: they count for no limit, and nobody looks at the others."""
    directory = tmp_path / "cache"
    for n in (1, 2):
        (directory / f"damaged-{n}").mkdir(parents=True)
        (directory / f"damaged-{n}" / "cache.db").write_bytes(b"earlier")
    (directory / "damaged-2" / "notes").write_text("of the administrator's")
    (directory / "cache.db").write_bytes(b"not a database" * 1000)
    DiskStore(str(directory), LIMIT).close()
    kept = sorted(directory.glob("damaged-*/cache.db"))
    assert [path.read_bytes()[:3] for path in kept] == [b"not"]
    assert (directory / "damaged-2" / "notes").exists()
    assert not (directory / "damaged-1").exists()


def test_a_removed_directory_is_made_again(disk, tmp_path):
    """`rm -rf ~/.cache` while the server runs."""
    disk.put(b"k", b"value")
    (tmp_path / "cache").rename(tmp_path / "gone")
    disk.put(b"k", b"new")
    put_file(disk, b"f", b"content")
    assert disk.get(b"k") == b"new"
    assert file(disk, b"f") == b"content"


def test_orphans_are_swept_when_they_are_old(disk):
    """A server that was killed between moving a file and naming it."""
    put_file(disk, b"f", b"content")
    kept = disk.file_path(b"f")
    assert kept is not None
    young = Path(disk.location, "scratch", "1-1")
    old = Path(disk.location, "scratch", "1-2")
    lost = Path(os.path.dirname(kept), "0" * 28 + ".val")
    for path in (young, old, lost):
        path.write_text("x")
    for path in (old, lost, Path(kept)):
        os.utime(path, (1, 1))
    assert disk.sweep_orphans() == 2
    assert young.exists()
    assert os.path.exists(kept)


def test_only_bytes_are_stored(disk):
    """Anything else would have to be pickled."""
    for value in ("text", 1, None, ["list"]):
        with pytest.raises((StoreError, TypeError)):
            disk.put(b"k", value)
        with pytest.raises((StoreError, TypeError)):
            disk.put(value, b"v")


# -- a directory that may only be read --------------------------------------------------------------------------------


def test_what_can_be_read_is_found_and_what_is_new_stays_in_memory(tmp_path, disk):
    disk.put(b"k", b"value")
    put_file(disk, b"f", b"file")
    disk.close()
    before = (tmp_path / "cache" / "cache.db").read_bytes()
    store = ReadingStore(str(tmp_path / "cache"), LIMIT)
    assert (store.get(b"k"), file(store, b"f"), store.has(b"f"), store.get(b"no")) == (b"value", b"file", True, None)
    store.update(b"k", lambda old: (old or b"") + b" more")
    put_file(store, b"g", b"new file")
    assert (store.get(b"k"), file(store, b"g")) == (b"value more", b"new file")
    store.delete(b"k")
    store.delete(b"f")
    assert (store.get(b"k"), store.has(b"k"), store.file_path(b"f")) == (None, False, None)
    store.put(b"k", b"again")
    assert store.get(b"k") == b"again"
    store.close()
    assert (tmp_path / "cache" / "cache.db").read_bytes() == before


def test_a_directory_that_another_writes_to_is_not_read(tmp_path, disk):
    """SQLite is told that nothing changes; it would believe anything."""
    disk.put(b"k", b"value")
    with pytest.raises(StoreError, match="in use"):
        ReadingStore(str(tmp_path / "cache"), LIMIT)
    disk.close()
    store = ReadingStore(str(tmp_path / "cache"), LIMIT)
    assert store.get(b"k") == b"value"
    other = DiskStore(str(tmp_path / "cache"), LIMIT)
    other.put(b"k", b"other")
    assert store.get(b"k") is None
    other.close()
    assert store.get(b"k") == b"other"
    store.close()


@pytest.mark.parametrize("content", [b"", b"not a database" * 1000, b"SQLite format 3\0" + bytes(5000)])
def test_nothing_is_read_where_there_is_no_database(tmp_path, content):
    (tmp_path / "cache.db").write_bytes(content)
    with pytest.raises(StoreError):
        ReadingStore(str(tmp_path), LIMIT)


def test_a_row_that_is_not_ours_or_torn_is_not_taken(tmp_path, disk):
    for key in (b"torn", b"kind", b"place"):
        disk.put(key, b"value")
    disk.close()
    with sqlite3.connect(tmp_path / "cache" / "cache.db") as database:
        database.execute("UPDATE Cache SET value = ? WHERE key = ?", (b"x" * 40, b"torn"))
        database.execute("UPDATE Cache SET mode = 4 WHERE key = ?", (b"kind",))
        database.execute("UPDATE Cache SET mode = 2, filename = '../../etc/passwd' WHERE key = ?", (b"place",))
    database.close()
    with sqlite3.connect(tmp_path / "cache" / "cache.db") as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    store = ReadingStore(str(tmp_path / "cache"), LIMIT)
    for key in (b"torn", b"kind"):
        with pytest.raises(StoreError):
            store.get(key)
    with pytest.raises(StoreError):
        store.file_path(b"place")
    store.close()


def test_only_the_first_waits_for_another_processs_lock(disk: DiskStore) -> None:
    """All that is stored goes through one thread: were each to wait in vain, a large make would wait for them all."""

    def patience_ms() -> int:
        ((found,),) = disk._cache._sql("PRAGMA busy_timeout").fetchall()
        return int(found)

    disk.put(b"k", b"v")
    patient = patience_ms()
    locker = sqlite3.connect(os.path.join(disk.location, "cache.db"), isolation_level=None)
    locker.execute("BEGIN EXCLUSIVE")
    for _ in range(2):
        with pytest.raises(StoreBusy):
            disk.put(b"k", b"w")
        assert patience_ms() == 0
    assert disk.get(b"k") == b"v"
    locker.execute("ROLLBACK")
    locker.close()
    disk.update(b"k", lambda old: b"w")
    assert disk.get(b"k") == b"w"
    assert patience_ms() == patient > 0
