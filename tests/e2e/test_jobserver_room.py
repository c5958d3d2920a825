"""A check on the house takes the place of the compile that began last: that one stands still, and always goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package

from stage import Gate, World, finish, gate, is_alive, wait_until, world

__all__ = ["gate", "world"]  # fixtures

pytestmark = pytest.mark.slow


def is_stopped(pid: int) -> bool:
    """proc(5), stat."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def check(world: World, gate: Gate) -> subprocess.Popen[bytes]:
    """A build of its own, whose only compile writes metadata alone."""
    line = " ".join([str(world.client), *world.gated(gate, "checked")]).replace("metadata,link,dep-info", "metadata,dep-info")
    return world.start_plain("/bin/bash", "-c", f"{line}; exit $?", start_new_session=True)


def test_a_compile_stands_still_while_a_check_runs_on_the_house(world: World, gate: Gate) -> None:
    world.env["SCCACHE_JOBS"] = "1"
    build = world.start(*world.gated(gate, "big"), start_new_session=True)
    big = gate.arrived()
    assert not is_stopped(big)
    check_gate = Gate(world.directory)
    checking = check(world, check_gate)
    wait_until(lambda: is_stopped(big))
    check_gate.arrived()
    check_gate.let_pass()
    assert finish(checking).returncode == 0
    wait_until(lambda: not is_stopped(big))
    gate.let_pass()
    assert finish(build).returncode == 0
    check_gate.close()


def test_it_stands_still_no_longer_than_a_moment(world: World, gate: Gate) -> None:
    """The check might wait for what it holds."""
    world.env["SCCACHE_JOBS"] = "1"
    build = world.start(*world.gated(gate, "big"), start_new_session=True)
    big = gate.arrived()
    check_gate = Gate(world.directory)
    checking = check(world, check_gate)
    wait_until(lambda: is_stopped(big))
    check_gate.arrived()
    gate.let_pass()
    assert finish(build).returncode == 0
    check_gate.let_pass()
    assert finish(checking).returncode == 0
    check_gate.close()


def test_what_stands_still_ends_with_its_client(world: World, gate: Gate) -> None:
    world.env["SCCACHE_JOBS"] = "1"
    build = world.start(*world.gated(gate, "big"), start_new_session=True)
    big = gate.arrived()
    check_gate = Gate(world.directory)
    checking = check(world, check_gate)
    wait_until(lambda: is_stopped(big))
    build.kill()
    wait_until(lambda: not is_alive(big))
    check_gate.arrived()
    check_gate.let_pass()
    assert finish(checking).returncode == 0
    check_gate.close()


def test_what_stands_still_ends_with_the_server(world: World, gate: Gate) -> None:
    """And its client compiles by itself."""
    world.env["SCCACHE_JOBS"] = "1"
    build = world.start(*world.gated(gate, "big"), start_new_session=True)
    big = gate.arrived()
    check_gate = Gate(world.directory)
    checking = check(world, check_gate)
    wait_until(lambda: is_stopped(big))
    os.kill(world.server_pid(), signal.SIGKILL)
    wait_until(lambda: not is_alive(big))
    gate.let_pass()
    check_gate.let_pass(2)
    for ended in (finish(build), finish(checking)):
        assert ended.returncode == 0
    check_gate.close()
