"""Stored files are packed behind the answer: every hit before, during and after gives the same bytes, and whatever dies costs nothing."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package

from stage import World, open_world, tree, wait_until

pytestmark = pytest.mark.slow

# Beyond what the store keeps inside its database, and easy to pack.
BIG = "pub static BIG: [u8; 200000] = [7; 200000];\n"


@pytest.fixture
def world(native: Any) -> Iterator[World]:
    with open_world(native.client) as world:
        world.env["SCCACHE_CACHE_ZSTD_LEVEL"] = "3"
        yield world


def stored(world: World) -> dict[str, list[Path]]:
    """The store's files: plain and packed."""
    with contextlib.closing(sqlite3.connect(world.cache / "cache.db")) as database:
        rows = database.execute("SELECT key, filename FROM Cache WHERE filename IS NOT NULL").fetchall()
    found: dict[str, list[Path]] = {"o": [], "p": []}
    for key, name in rows:
        found[chr(key[0])].append(world.cache / name)
    return found


def all_is_packed(world: World) -> bool:
    files = stored(world)
    return not files["o"] and bool(files["p"])


def test_a_stored_file_is_packed_and_its_hits_are_the_same(world: World) -> None:
    line = world.crate("unit", BIG)
    assert world.same_as_plain(*line, times=2).returncode == 0
    wait_until(lambda: all_is_packed(world))
    assert sum(p.stat().st_size for p in stored(world)["p"]) < 50_000
    # This server knows where the plain file was.
    assert world.same_as_plain(*line, times=2).returncode == 0
    assert world.counts().total("cache_hits") == 3
    assert list(world.cache.glob("scratch/*")) == []


def test_level_0_keeps_files_as_they_are(world: World) -> None:
    world.env["SCCACHE_CACHE_ZSTD_LEVEL"] = "0"
    line = world.crate("unit", BIG)
    assert world.same_as_plain(*line, times=2).returncode == 0
    assert world.run("--stop-server").returncode == 0
    assert stored(world)["o"]
    assert not stored(world)["p"]


def test_stopping_packs_what_is_not_packed_yet(world: World) -> None:
    """A CI job saves the cache directory after --stop-server."""
    lines = [world.crate(f"unit{i}", BIG.replace("7", str(i))) for i in range(3)]
    for line in lines:
        assert world.run(*line).returncode == 0
    assert world.run("--stop-server").returncode == 0
    assert all_is_packed(world)
    for line in lines:
        assert world.same_as_plain(*line, times=1).returncode == 0
    assert world.counts().total("cache_hits") == 3


def test_a_packed_cache_is_read_by_a_server_that_does_not_pack(world: World) -> None:
    line = world.crate("unit", BIG)
    assert world.run(*line).returncode == 0
    assert world.run("--stop-server").returncode == 0
    assert all_is_packed(world)
    world.env["SCCACHE_CACHE_ZSTD_LEVEL"] = "0"
    assert world.same_as_plain(*line, times=1).returncode == 0
    assert world.counts().total("cache_hits") == 1


def test_a_result_stored_anew_is_packed_anew(world: World) -> None:
    """SCCACHE_RECACHE: what is packed is what was stored last."""
    line = world.crate("unit", BIG)
    assert world.run(*line).returncode == 0
    wait_until(lambda: all_is_packed(world))
    world.env["SCCACHE_RECACHE"] = "1"
    assert world.same_as_plain(*line, times=1).returncode == 0
    wait_until(lambda: world.counts().total("cache_writes") == 2)
    del world.env["SCCACHE_RECACHE"]
    assert world.same_as_plain(*line, times=1).returncode == 0
    wait_until(lambda: all_is_packed(world))
    assert world.same_as_plain(*line, times=1).returncode == 0
    assert world.counts().total("cache_hits") == 2


def test_the_next_server_packs_what_is_left_but_nothing_damaged(world: World) -> None:
    """A checksum made now would vouch for the damage."""
    world.env["SCCACHE_CACHE_ZSTD_LEVEL"] = "0"
    lines = [world.crate(f"unit{i}", BIG.replace("7", str(i))) for i in range(2)]
    assert world.run(*lines[0]).returncode == 0
    assert world.run("--stop-server").returncode == 0
    damaged = stored(world)["o"]
    assert world.run(*lines[1]).returncode == 0
    assert world.run("--stop-server").returncode == 0
    for plain in damaged:
        with plain.open("r+b") as f:
            f.seek(plain.stat().st_size // 2)
            f.write(b"!")
    world.env["SCCACHE_CACHE_ZSTD_LEVEL"] = "3"
    world.run("--start-server")
    wait_until(lambda: sorted(stored(world)["o"]) == sorted(damaged))
    assert stored(world)["p"]
    assert world.same_as_plain(*lines[1], times=1).returncode == 0
    assert world.same_as_plain(*lines[0], times=2).returncode == 0
    counts = world.counts()
    assert (counts.total("cache_read_errors"), counts.total("cache_hits")) == (1, 2)


def test_a_damaged_packed_file_is_a_miss_and_mends(world: World) -> None:
    line = world.crate("unit", BIG)
    assert world.run(*line).returncode == 0
    wait_until(lambda: all_is_packed(world))
    packed = max(stored(world)["p"], key=lambda p: p.stat().st_size)
    data = bytearray(packed.read_bytes())
    data[len(data) // 2] ^= 0xFF
    packed.write_bytes(data)
    assert world.same_as_plain(*line, times=2).returncode == 0
    counts = world.counts()
    assert (counts.total("compilations"), counts.total("cache_hits"), counts.total("cache_read_errors")) == (2, 1, 1)


def test_a_packing_process_that_dies_costs_nothing(world: World) -> None:
    """Whoever kills it (an out-of-memory killer): files stay plain, the next server packs them."""
    world.run("--start-server")
    server = world.server_pid()
    line = world.crate("unit", BIG)
    assert world.run(*line).returncode == 0

    def packers() -> list[int]:
        children = [f.read_text().split() for f in Path(f"/proc/{server}/task").glob("*/children")]
        return [int(pid) for pids in children for pid in pids if b"--pack" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    wait_until(packers)
    for pid in packers():
        os.kill(pid, signal.SIGSTOP)
    assert world.same_as_plain(*line, times=1).returncode == 0
    for pid in packers():
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: packers() == [])
    assert world.same_as_plain(*line, times=1).returncode == 0
    assert world.run("--stop-server").returncode == 0
    assert stored(world)["o"]
    assert world.same_as_plain(*line, times=1).returncode == 0
    assert world.counts().total("cache_hits") == 3


def test_what_is_stored_anew_before_it_was_packed_is_packed_as_it_is_now(world: World) -> None:
    """SCCACHE_RECACHE, of a compiler that makes no two outputs alike: the pack of the first is not the second's."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    (world.cwd / "a.h").write_text("#include <stdio.h>\n")
    line = ["gcc", "a.h", "-o", "out/a.gch"]
    assert world.run(*line).returncode == 0
    first = tree(world.out)
    world.settle()
    world.env["SCCACHE_RECACHE"] = "1"
    assert world.run(*line).returncode == 0
    second = tree(world.out)
    assert second != first
    world.settle()
    del world.env["SCCACHE_RECACHE"]
    wait_until(lambda: stored(world)["p"])
    world.wipe()
    assert world.run(*line).returncode == 0
    assert tree(world.out) == second
    assert world.counts().total("cache_hits") == 1
