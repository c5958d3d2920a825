"""What watches compilers takes memory, and may find none: that costs nobody a compile, and few a hit."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package

from stage import Gate, World, as_root, finish, gate, wait_until, world

__all__ = ["gate", "world"]  # fixtures

pytestmark = pytest.mark.slow


def records(world: World) -> int:
    """How many the running server keeps."""
    return len(list(Path("/dev/shm").glob(f"sccache-py-{os.getuid()}-{world.server_pid()}-*")))


def test_who_waits_for_a_token_takes_no_memory_for_a_record(world: World, gate: Gate) -> None:
    """`make -j500` on four processors: 2 GB of /dev/shm, and of 64 MB, which a container has, the most compiles were not cached."""
    if not os.access("/dev/shm", os.W_OK):
        pytest.skip("no /dev/shm")
    world.env["SCCACHE_JOBS"] = "1"
    first = world.start(*world.gated(gate))
    gate.arrived()
    others = [world.start(*world.crate(f"unit{i}")) for i in range(12)]
    wait_until(lambda: world.ask("stats")["surroundings"]["jobserver"]["waiting"] == len(others))
    assert records(world) == 1
    gate.let_pass()
    assert [finish(client).returncode for client in (first, *others)] == [0] * 13
    world.settle()
    assert records(world) <= 4


@as_root
@pytest.mark.parametrize("options", ["size=8k", "size=6m"])
def test_a_small_shared_memory_costs_no_hit(world: World, options: str) -> None:
    """A container's may be full of other things: the records then lie on disk."""
    world.hits_where(f"mount -t tmpfs -o {options} none /dev/shm")
    assert not list((world.directory / "sccache-py").glob("sccache-py-*")), "records of a server that is gone"


FORBIDDEN = """\
#!/bin/sh
exec strace -f -qq -o {calls} -e inject=flock:error=EPERM -e inject=fallocate:error=EPERM {server} "$@"
"""


def test_where_the_kernel_refuses_locks_and_allocation_a_compile_is_watched_all_the_same(world: World) -> None:
    """Sandboxes forbid what they do not know: without either nothing would be cached."""
    calls = world.directory / "calls"
    program = world.directory / "sandboxed-server"
    program.write_text(FORBIDDEN.format(calls=calls, server=world.server))
    program.chmod(0o755)
    world.env["SCCACHE_PY_SERVER"] = str(program)
    if shutil.which("strace") is None or world.run_plain("strace", "-qq", "-o", "/dev/null", "true").returncode != 0:
        pytest.skip("strace cannot trace here")
    line = world.crate()
    assert world.same_as_plain(*line, times=3).returncode == 0
    assert world.counts().total("cache_hits") == 2
    assert {"flock(", "fallocate("} <= set(re.findall(r"\w+\(", calls.read_text()))
