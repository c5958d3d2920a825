"""The disk of the cache stands still, as under `fsfreeze` for a snapshot: builds go on, and when it moves again so does the cache."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package

from stage import World, as_root, open_world, wait_until

pytestmark = pytest.mark.slow

# Beyond what the store keeps inside its database.
BIG = "pub static BIG: [u8; 100000] = [7; 100000];\n"


@pytest.fixture
def world(native: Any) -> Iterator[World]:
    with open_world(native.client) as world:
        world.cache.mkdir(mode=0o700)
        yield world


@pytest.fixture
def freeze(world: World, tmp_path: Path) -> Iterator[Callable[[bool], None]]:
    """Freezes (or thaws) a file system of its own that is mounted over the cache directory."""

    def run(*command: str | Path) -> bool:
        return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode == 0

    def frozen(freeze: bool) -> None:
        assert run("fsfreeze", "--freeze" if freeze else "--unfreeze", world.cache)

    image = tmp_path / "image"
    with image.open("wb") as f:
        f.truncate(64 << 20)
    if not (run("mkfs.ext4", "-q", image) and run("mount", "-o", "loop", image, world.cache)):
        pytest.skip("no loop mounts here")
    yield frozen
    run("fsfreeze", "--unfreeze", world.cache)
    world.run("--stop-server")
    run("umount", "-l", world.cache)


def compile_as_without(world: World, name: str, text: str = "") -> None:
    assert world.same_as_plain(*world.crate(name, text)).returncode == 0


@as_root
def test_a_disk_that_stands_still_holds_up_no_build(world: World, freeze: Callable[[bool], None]) -> None:
    compile_as_without(world, "known")
    freeze(True)
    compile_as_without(world, "known")
    for number in range(6):  # as many as there are threads that copy, and more
        compile_as_without(world, f"big{number}", BIG)
        compile_as_without(world, f"small{number}")
    compile_as_without(world, "known")
    freeze(False)
    world.settle()
    before = world.counts().total("cache_hits")

    def is_stored() -> bool:
        compile_as_without(world, "later", BIG)
        return world.counts().total("cache_hits") > before

    wait_until(is_stored)
    assert list((world.cache / "scratch").iterdir()) == []


@as_root
def test_a_server_that_starts_while_the_disk_stands_still_goes_when_nobody_builds(world: World, freeze: Callable[[bool], None]) -> None:
    """It keeps its results in memory; the next one has the cache again."""
    compile_as_without(world, "known")
    world.run("--stop-server")
    freeze(True)
    compile_as_without(world, "other")
    compile_as_without(world, "other")
    server = world.server_pid()
    freeze(False)
    wait_until(lambda: not Path(f"/proc/{server}").exists())
    compile_as_without(world, "known")
    assert world.counts().total("cache_hits") == 1 + 2  # of the first server, and now
