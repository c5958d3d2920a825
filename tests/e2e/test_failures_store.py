"""The cache directory is full, read-only, gone or damaged: compiles work, nothing wrong comes out, and the damage mends.

Each test damages the directory as a disk, an administrator or a crash would, and compares every compile with one without the cache.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package

from stage import Gate, Outcome, World, as_root, finish, open_world, tree, wait_until

pytestmark = pytest.mark.slow


# Beyond what the store keeps inside its database.
BIG = "pub static BIG: [u8; 100000] = [7; 100000];\n"


@pytest.fixture
def world(native: Any) -> Iterator[World]:
    with open_world(native.client) as world:
        world.cache.mkdir(mode=0o700)
        yield world


@pytest.fixture
def mount(world: World) -> Iterator[Callable[..., None]]:
    """Mounts a tmpfs of a size over the cache directory."""

    def mounted(options: str) -> None:
        if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", world.cache], stderr=subprocess.DEVNULL, check=False).returncode:
            pytest.skip("no mounts here")

    yield mounted
    while subprocess.run(["umount", "-l", world.cache], stderr=subprocess.DEVNULL, check=False).returncode == 0:
        pass


def value_files(world: World) -> list[Path]:
    return sorted(world.cache.glob("[0-9a-f][0-9a-f]/*/*"))


def compile_as_without(world: World, line: list[str], times: int = 1) -> None:
    assert world.same_as_plain(*line, times=times).returncode == 0


# --- no room ---


@as_root
def test_a_full_disk_costs_hits_and_nothing_else(world: World, mount: Callable[..., None]) -> None:
    """A cache on a small partition fills it before its own limit is reached."""
    mount("size=600k")
    big = BIG.replace("100000", "400000")
    for i in range(4):
        compile_as_without(world, world.crate(f"unit{i}", big.replace("7", str(i))))
    counts = world.counts()
    assert counts.total("compilations") == 4
    assert counts.total("cache_write_errors") + sum(counts.reasons().values()) >= 3
    assert "Traceback" not in world.log()
    assert list(world.cache.glob("scratch/*")) == [], "what could not be stored must not take room, too"


@as_root
def test_a_disk_without_inodes_costs_hits_and_nothing_else(world: World, mount: Callable[..., None]) -> None:
    """A file could still be made, but not the directory that it goes to."""
    mount("size=50m,nr_inodes=30")
    world.run("--start-server")
    with contextlib.suppress(OSError):
        for i in range(30):
            (world.cache / f"ballast{i}").touch()
    for i in range(2):
        (world.cache / f"ballast{i}").unlink()
    compile_as_without(world, world.crate("unit", BIG))
    assert world.counts().total("cache_write_errors") == 1
    assert list(world.cache.glob("scratch/*")) == [], "what could not be stored must not take room, too"


@as_root
def test_a_disk_that_has_room_again_is_used_again(world: World, mount: Callable[..., None]) -> None:
    """Somebody cleaned up; nobody restarts a cache's server for that."""
    mount("size=1m")
    world.run("--start-server")
    ballast = world.cache / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as f:
        while f.write(b"x" * 4096):
            pass
    compile_as_without(world, world.crate("unit", BIG))
    assert world.counts().total("cache_writes") == 0
    ballast.unlink()
    compile_as_without(world, world.crate("unit", BIG), times=2)
    assert world.counts().total("cache_hits") == 1


def test_a_limit_that_is_too_small_for_anything_stores_nothing(world: World) -> None:
    """SCCACHE_CACHE_SIZE=1K."""
    world.env["SCCACHE_CACHE_SIZE"] = "1K"
    compile_as_without(world, world.crate("unit", BIG), times=3)
    assert world.counts().total("compilations") == 3


# --- no directory ---


@as_root
def test_a_read_only_cache_directory_costs_hits_and_nothing_else(world: World, mount: Callable[..., None]) -> None:
    """An image with the cache mounted read-only."""
    mount("size=1m,ro")
    compile_as_without(world, world.crate("unit", BIG), times=2)
    assert "cannot be used" in world.log()


@as_root
def test_a_cache_directory_that_becomes_read_only_costs_hits_and_nothing_else(world: World, mount: Callable[..., None]) -> None:
    """A disk with errors is remounted read-only under the server."""
    mount("size=4m")
    compile_as_without(world, world.crate("before", BIG), times=2)
    # Over itself: what is open for writing keeps a file system from becoming read-only as a whole.
    subprocess.run(["mount", "--bind", world.cache, world.cache], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", world.cache], check=True)
    compile_as_without(world, world.crate("before", BIG))
    compile_as_without(world, world.crate("after", BIG), times=2)
    assert "Traceback" not in world.log()
    assert world.run("--stop-server").returncode == 0


@as_root
def test_what_is_in_a_read_only_cache_directory_hits(world: World) -> None:
    """A cache that was filled elsewhere, mounted into a container; new results are kept for the server's life."""
    before = world.crate("before", BIG)
    compile_as_without(world, before, times=2)
    hits = world.counts().total("cache_hits")
    world.run("--stop-server")
    subprocess.run(["mount", "--bind", world.cache, world.cache], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", world.cache], check=True)
        compile_as_without(world, before, times=2)
        compile_as_without(world, world.crate("after", BIG), times=2)
        assert world.counts().total("cache_hits") == hits + 3
        assert "can only be read" in world.log()
        assert "Traceback" not in world.log()
        assert world.run("--stop-server").returncode == 0
        shown = world.run("--show-stats")  # what is stored, with no server
        assert shown.returncode == 0
        assert re.search(rf"^Cache hits +{hits}$".encode(), shown.stdout, re.MULTILINE)
    finally:
        subprocess.run(["umount", world.cache], check=True)


def test_a_cache_directory_that_cannot_be_made_costs_hits_and_nothing_else(world: World) -> None:
    """SCCACHE_DIR below a file."""
    world.env["SCCACHE_DIR"] = str(world.directory / "pids" / "cache")
    compile_as_without(world, world.crate("unit", BIG), times=2)
    assert "cannot be used" in world.log()


def test_a_cache_directory_that_vanished_is_made_again(world: World) -> None:
    """rm -rf ~/.cache while the server runs: SQLite goes on writing into deleted files, and nobody would ever see them again."""
    line = world.crate("unit", BIG)
    compile_as_without(world, line, times=2)
    shutil.rmtree(world.cache)
    compile_as_without(world, line)
    compile_as_without(world, line)
    assert "Traceback" not in world.log()
    hits = world.counts().total("cache_hits")
    world.run("--stop-server")
    compile_as_without(world, line)
    assert world.counts().total("cache_hits") == hits + 1, "nothing was stored after the directory went"


def test_a_cache_directory_that_vanished_and_came_back_empty_is_used(world: World) -> None:
    """The same by an administrator who recreates it at once."""
    line = world.crate("unit", BIG)
    compile_as_without(world, line, times=2)
    shutil.rmtree(world.cache)
    world.cache.mkdir()
    compile_as_without(world, line, times=3)
    assert world.run("--stop-server").returncode == 0
    assert (world.cache / "cache.db").exists()
    compile_as_without(world, line)
    assert world.counts().total("cache_hits") >= 1


# --- damage ---


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def lengthen(path: Path) -> None:
    with path.open("ab") as f:
        f.write(b"more")


def replace_by_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def replace_by_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("restarted", [False, True], ids=["running", "restarted"])
@pytest.mark.parametrize("damage", [cut, empty, flip, lengthen, Path.unlink, replace_by_directory, replace_by_fifo])
def test_a_damaged_file_is_a_miss_and_the_next_compile_mends_it(world: World, damage: Callable[[Path], None], restarted: bool) -> None:
    """A crash or a bad disk: never somebody else's bytes in an rlib."""
    line = world.crate("unit", BIG)
    compile_as_without(world, line, times=2)
    if restarted:
        world.run("--stop-server")
    files = value_files(world)
    assert files
    for path in files:
        damage(path)
    compile_as_without(world, line)
    assert world.counts().total("compilations") == 2
    compile_as_without(world, line)
    assert world.counts().total("compilations") == 2, "it was not mended"
    assert "Traceback" not in world.log()


def spoil(world: World, statement: str, *values: object) -> int:
    with sqlite3.connect(world.cache / "cache.db") as database:
        return database.execute(statement, values).rowcount


ROWS = {
    "cut": "UPDATE Cache SET value = substr(value, 1, length(value) / 2) WHERE value IS NOT NULL",
    "empty": "UPDATE Cache SET value = x'' WHERE value IS NOT NULL",
    "of text": "UPDATE Cache SET value = 'text' WHERE value IS NOT NULL",
    "of numbers": "UPDATE Cache SET value = 5 WHERE value IS NOT NULL",
    "null": "UPDATE Cache SET value = NULL WHERE value IS NOT NULL",
    "flipped": "UPDATE Cache SET value = substr(value, 1, length(value) - 1) || x'ff' WHERE value IS NOT NULL",
    "said to be pickles": "UPDATE Cache SET mode = 4",
    "said to be of unknown mode": "UPDATE Cache SET mode = 'x'",
    "that name other files": "UPDATE Cache SET filename = '../../../../etc/passwd' WHERE filename IS NOT NULL",
    "that name files of ours that are not there": "UPDATE Cache SET filename = '00/00/' || hex(randomblob(14)) || '.val'",
    "gone": "DELETE FROM Cache",
    "of files gone": "DELETE FROM Cache WHERE filename IS NOT NULL",
    "of values gone": "DELETE FROM Cache WHERE filename IS NULL",
    "without settings": "DELETE FROM Settings",
}


@pytest.mark.parametrize("rows", ROWS, ids=lambda name: name.replace(" ", "-"))
def test_damaged_rows_are_misses_and_the_next_compile_mends_them(world: World, rows: str) -> None:
    """The same inside the database, of which we believe nothing."""
    line = world.crate("unit", BIG)
    compile_as_without(world, line, times=2)
    world.run("--stop-server")
    spoil(world, ROWS[rows])
    compile_as_without(world, line)
    compile_as_without(world, line)
    assert world.counts().total("cache_hits") >= 1
    compile_as_without(world, line)
    assert "Traceback" not in world.log()
    assert Path("/etc/passwd").exists()


def test_each_single_byte_of_a_value_may_flip(world: World) -> None:
    """Not only where we thought of it."""
    line = world.crate()
    compile_as_without(world, line, times=2)
    world.run("--stop-server")
    with sqlite3.connect(world.cache / "cache.db") as database:
        rows = database.execute("SELECT rowid, value FROM Cache WHERE value IS NOT NULL").fetchall()
        for rowid, value in rows:
            spoilt = bytearray(value)
            spoilt[rowid * 7919 % len(spoilt)] ^= 0x40
            database.execute("UPDATE Cache SET value = ? WHERE rowid = ?", (spoilt, rowid))
    compile_as_without(world, line)
    assert world.counts().total("cache_misses") == 1
    compile_as_without(world, line)
    assert world.counts().total("cache_hits") == 1


@pytest.mark.parametrize("name", ["cache.db", "cache.db-wal"])
@pytest.mark.parametrize("garbage", [b"", b"garbage", b"SQLite format 3\0" + b"\xff" * 5000], ids=["empty", "short", "long"])
def test_a_database_that_is_none_is_started_anew(world: World, name: str, garbage: bytes) -> None:
    """A torn page or an unclean end; old statistics are worth less than a cache that works."""
    line = world.crate("unit", BIG)
    compile_as_without(world, line)
    world.run("--stop-server")
    (world.cache / name).write_bytes(garbage)
    compile_as_without(world, line)
    compile_as_without(world, line)
    assert world.counts().total("cache_hits") >= 1
    assert world.run("--stop-server").returncode == 0
    compile_as_without(world, line)
    assert "Traceback" not in world.log()


def test_a_database_that_is_damaged_under_a_running_server_costs_hits_only(world: World) -> None:
    """The disk fails while we read."""
    line = world.crate("unit", BIG)
    compile_as_without(world, line, times=2)
    with (world.cache / "cache.db").open("r+b") as f:
        f.write(b"\xff" * 8192)
    compile_as_without(world, line)
    compile_as_without(world, world.crate("other", BIG), times=2)
    assert world.run("--show-stats").returncode == 0
    assert world.run("--stop-server").returncode == 0
    compile_as_without(world, line, times=2)
    assert world.counts().total("cache_hits") >= 1
    assert "Traceback" not in world.log()


def spoil_page(world: World, index: str) -> None:
    """Of the database, the page where an index begins: nothing that is read on opening."""
    with sqlite3.connect(world.cache / "cache.db") as database:
        ((page,),) = database.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (index,)).fetchall()
        ((size,),) = database.execute("PRAGMA page_size").fetchall()
    database.close()
    with (world.cache / "cache.db").open("r+b") as f:
        f.seek((page - 1) * size)
        f.write(b"\xff" * size)


@pytest.mark.parametrize("index", ["Cache_key_raw", "Cache_expire_time"])
def test_a_damaged_page_does_not_end_caching_for_good(world: World, index: str) -> None:
    """Each store failed of it, in every server that opened the database after; and nothing was culled any more."""
    compile_as_without(world, world.crate("before", BIG), times=2)
    world.run("--stop-server")
    spoil_page(world, index)
    for i in range(3):
        compile_as_without(world, world.crate(f"after{i}", BIG))
    hits = world.counts().total("cache_hits")
    compile_as_without(world, world.crate("after2", BIG))
    assert world.counts().total("cache_hits") == hits + 1
    world.run("--stop-server")
    compile_as_without(world, world.crate("after2", BIG))
    assert world.counts().total("cache_hits") == hits + 2
    assert "Traceback" not in world.log()


def test_a_database_that_is_locked_when_the_server_starts_holds_up_nobody(world: World) -> None:
    """diskcache asks for a minute before it gives up, and whoever came meanwhile waited for that."""
    world.run(*world.crate("first"))
    world.run("--stop-server")
    locker = sqlite3.connect(world.cache / "cache.db", isolation_level=None)
    locker.execute("BEGIN EXCLUSIVE")
    world.run("--show-stats")  # which may say that it cannot, but says it
    compile_as_without(world, world.crate("second", BIG), times=2)
    locker.close()
    assert world.run("--stop-server").returncode == 0
    compile_as_without(world, world.crate("first"))
    assert world.counts().total("cache_hits") >= 1


def test_a_database_that_somebody_holds_locked_delays_nothing(world: World) -> None:
    """A backup, or another server's long write: a compile does not wait for it."""
    world.run(*world.crate("first"))
    world.settle()
    locker = sqlite3.connect(world.cache / "cache.db", isolation_level=None)
    locker.execute("BEGIN EXCLUSIVE")
    compile_as_without(world, world.crate("second", BIG), times=2)
    locker.execute("ROLLBACK")
    locker.close()
    compile_as_without(world, world.crate("second", BIG), times=2)
    assert world.counts().total("cache_hits") >= 1
    assert world.counts().total("cache_write_errors") + world.counts().total("cache_timeouts") >= 1


def test_a_server_that_was_killed_while_it_stored_leaves_a_good_cache(world: World) -> None:
    """Whatever was written by then is whole or not there."""
    lines = [world.crate(f"unit{i}", BIG.replace("7", str(i))) for i in range(6)]
    for line in lines:
        assert world.run(*line).returncode == 0
    world.kill_server()
    for line in lines:
        compile_as_without(world, line, times=2)
    assert "Traceback" not in world.log()


# --- whose cache is it ---


def test_the_cache_is_for_nobody_elses_eyes(world: World) -> None:
    """It holds code, and environment variables that went into it."""
    shutil.rmtree(world.cache)
    os.umask(old := os.umask(0))
    compile_as_without(world, world.crate("unit", BIG))
    assert stat.S_IMODE(world.cache.stat().st_mode) == 0o700
    assert stat.S_IMODE((world.directory / "sccache-py").stat().st_mode) == 0o700
    assert os.umask(old) == old


def test_in_a_cache_that_others_may_enter_they_can_change_nothing(world: World) -> None:
    """`mkdir -p /var/cache/x`: whoever can write to a directory in it can take files away."""
    world.cache.chmod(0o755)
    compile_as_without(world, world.crate("unit", BIG))
    assert value_files(world)
    assert [path for path in world.cache.rglob("*") if path.stat().st_mode & 0o022] == []


# --- modes ---


def test_read_only_mode_hits_and_stores_nothing(world: World) -> None:
    """Pull requests of strangers may use the cache and not fill it."""
    compile_as_without(world, world.crate("known", BIG))
    world.run("--stop-server")
    world.env["SCCACHE_LOCAL_RW_MODE"] = "READ_ONLY"
    compile_as_without(world, world.crate("known", BIG))
    compile_as_without(world, world.crate("strange", BIG), times=2)
    counts = world.counts()
    assert counts.total("cache_hits") == 1
    assert counts.total("compilations") == 3
    assert counts.reasons() == {"read-only cache": 2}


def test_a_recache_compiles_and_stores_over_what_was_there(world: World) -> None:
    """SCCACHE_RECACHE for one build whose entries are doubted."""
    line = world.crate("unit", BIG)
    compile_as_without(world, line)
    world.env["SCCACHE_RECACHE"] = "1"
    compile_as_without(world, line, times=2)
    assert world.counts().total("forced_recaches") == 2
    assert world.counts().total("compilations") == 3
    del world.env["SCCACHE_RECACHE"]
    compile_as_without(world, line)
    assert world.counts().total("cache_hits") == 1


def test_no_cache_compiles_and_touches_nothing(world: World) -> None:
    """SCCACHE_NO_CACHE for one build."""
    line = world.crate("unit", BIG)
    compile_as_without(world, line, times=2)
    world.env["SCCACHE_NO_CACHE"] = "1"
    compile_as_without(world, line, times=2)
    counts = world.counts()
    assert (counts.total("cache_hits"), counts.total("compilations")) == (1, 1)
    assert counts.reasons() == {"SCCACHE_NO_CACHE": 2}


def test_two_servers_share_one_directory(world: World) -> None:
    """Each sandbox has its own server; the cache is one."""
    world.env["SCCACHE_SERVER_UDS"] = str(world.directory / "one.sock")
    line = world.crate("unit", BIG)
    assert world.run(*line) == Outcome(0, b"", b"")
    first = tree(world.out)
    wait_until(lambda: value_files(world))
    world.env["SCCACHE_SERVER_UDS"] = str(world.directory / "two.sock")
    world.wipe()
    clients = []
    for i in range(10):
        world.env["SCCACHE_SERVER_UDS"] = str(world.directory / f"{('one', 'two')[i % 2]}.sock")
        clients.append(world.start(*world.crate(f"unit{i}", BIG.replace("7", str(i)))))
    assert [finish(c) for c in clients] == [Outcome(0, b"", b"")] * 10
    world.wipe()
    assert world.run(*line) == Outcome(0, b"", b"")
    assert tree(world.out) == first
    for name in ("one", "two"):
        world.env["SCCACHE_SERVER_UDS"] = str(world.directory / f"{name}.sock")
        assert world.run("--stop-server").returncode == 0
    shown = world.show_stats()
    assert shown["compile_requests"] == 12
    assert shown["cache_errors"]["counts"] == {}


def test_an_entry_that_goes_while_it_is_read_is_a_miss(world: World) -> None:
    """Another server culls what this one remembers."""
    line = world.crate("unit", BIG)
    compile_as_without(world, line, times=2)
    for path in value_files(world):
        path.unlink()
    gate = Gate(world.directory)
    compile_as_without(world, line)
    gate.close()
    compile_as_without(world, line)
    counts = world.counts()
    assert (counts.total("compilations"), counts.total("cache_hits")) == (2, 2)
