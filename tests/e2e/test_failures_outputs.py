"""Outputs that cannot be written, or not in the usual way: the same with the cache as without.

`World.same_as_plain` runs each line without the cache, then as a miss, then as a hit, and compares exit status, stdout, stderr and
every output with its mode.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package

from stage import Outcome, World, finish, tree, world

__all__ = ["world"]  # fixtures

pytestmark = pytest.mark.slow


def test_an_output_directory_that_is_missing_is_the_compilers_to_complain_of(world: World) -> None:
    """What rustc makes it makes, what it refuses it refuses, in its own words."""
    line = world.crate()
    assert world.same_as_plain(*line).returncode == 0
    for out in (world.cwd / "missing", world.cwd / "missing" / "deeply", world.cwd / "unit.rs"):
        moved = [f"--out-dir={out}" if a.startswith("--out-dir") else a for a in line]
        plain = world.run_plain(*moved)
        subprocess.run(["rm", "-rf", world.cwd / "missing"], check=True)
        assert world.run(*moved) == plain
        subprocess.run(["rm", "-rf", world.cwd / "missing"], check=True)


@pytest.fixture
def unwritable(world: World) -> Iterator[Callable[[], None]]:
    """Makes the output directory unwritable, for root, too."""

    def make() -> None:
        if os.getuid() != 0:
            world.out.chmod(0o555)
        elif subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", world.out], stderr=subprocess.DEVNULL, check=False).returncode:
            pytest.skip("no mounts here")

    yield make
    if os.getuid() != 0:
        world.out.chmod(0o755)
    else:
        subprocess.run(["umount", "-l", world.out], stderr=subprocess.DEVNULL, check=False)


def test_an_output_directory_that_is_not_writable_is_the_compilers_to_complain_of(world: World, unwritable: Callable[[], None]) -> None:
    """Also where we know the result."""
    line = world.crate()
    assert world.same_as_plain(*line).returncode == 0
    unwritable()
    plain = world.run_plain(*line)
    assert plain.returncode == 1
    assert world.run(*line) == plain
    unknown = world.crate("unknown")
    plain = world.run_plain(*unknown)
    assert world.run(*unknown) == plain


def test_an_output_that_is_read_only_is_the_compilers_to_complain_of(world: World) -> None:
    """We could rename over it; rustc says "output file … is not writeable", even to root."""
    line = world.crate()
    assert world.same_as_plain(*line).returncode == 0
    for name in tree(world.out):
        (world.out / name).chmod(0o444)
    plain = world.run_plain(*line)
    assert world.run(*line) == plain


def test_an_output_that_is_a_directory_is_the_compilers_to_complain_of(world: World) -> None:
    """Nothing is renamed over, nothing removed."""
    line = world.crate()
    assert world.same_as_plain(*line).returncode == 0
    (world.out / "libunit.rlib").unlink()
    (world.out / "libunit.rlib").mkdir()
    plain = world.run_plain(*line)
    assert world.run(*line) == plain
    assert (world.out / "libunit.rlib").is_dir()


def test_an_output_that_is_a_fifo_holds_up_nobody_else(world: World) -> None:
    """Its reader may never come; the compiler waits for it, the server serves the others."""
    line = world.crate()
    assert world.same_as_plain(*line).returncode == 0
    (world.out / "unit.d").unlink()
    os.mkfifo(world.out / "unit.d")
    stuck = world.start(*line)
    others = [world.start(*world.crate(f"other{i}")) for i in range(6)]
    assert [finish(c) for c in others] == [Outcome(0, b"", b"")] * 6
    assert world.ask("ping")
    reader = os.open(world.out / "unit.d", os.O_RDONLY)
    said = b""
    while part := os.read(reader, 1 << 16):
        said += part
    os.close(reader)
    assert b"unit.rs" in said
    assert finish(stuck) == Outcome(0, b"", b"")


def test_outputs_go_through_symbolic_links_as_the_compilers_do(world: World) -> None:
    """Some build systems link their output directories into a cache of their own."""
    line = world.crate()
    trees = []
    for run in (world.run_plain, world.run, world.run):
        world.wipe()
        (world.out / "elsewhere").mkdir()
        (world.out / "unit.d").symlink_to(world.out / "elsewhere" / "unit.d")
        assert run(*line) == Outcome(0, b"", b"")
        trees.append((tree(world.out), (world.out / "unit.d").is_symlink()))
        if run == world.run:
            world.settle()
    assert trees[0] == trees[1] == trees[2]


@pytest.mark.parametrize("mask", [0o077, 0o027, 0o000, 0o222])
def test_the_umask_is_the_callers(world: World, mask: int) -> None:
    """Also where the result is another's, who had another umask."""
    line = world.crate()
    assert world.same_as_plain(*line, umask=0o022).returncode == 0
    assert world.same_as_plain(*line, umask=mask).returncode == (1 if mask == 0o222 else 0)
    program = world.crate("program", "fn main() {}\n")
    program = [a for a in program if not a.startswith(("--crate-type", "--emit"))]
    assert world.same_as_plain(*program, umask=0o022).returncode == 0
    assert world.same_as_plain(*program, umask=mask).returncode == (1 if mask == 0o222 else 0)


def test_a_directory_that_passes_its_access_list_on_knows_no_umask(world: World) -> None:
    """A build directory that a group shares: its members could not write what came from the cache."""
    everyone = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", tag, 7, 0xFFFFFFFF) for tag in (1, 4, 0x20))
    modes = []
    for client in (world.client, world.client, "env"):
        world.wipe()
        try:
            os.setxattr(world.out, "system.posix_acl_default", everyone)
        except OSError as e:
            pytest.skip(f"no access lists here: {e}")
        for line in (world.crate(), ["gcc", "-g", "-MD", "-c", "-x", "c", "/dev/null", "-o", f"{world.out}/x.o"]):
            assert world.run_plain(client, *line, umask=0o022).returncode == 0
        world.settle()
        modes.append({path.name: path.stat().st_mode for path in world.out.iterdir()})
    assert world.counts().total("cache_hits") == 2
    assert modes == [modes[0]] * 3
