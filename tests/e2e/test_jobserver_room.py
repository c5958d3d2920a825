"""A check on the house takes the place of the compile that began last: that one stands still, and always goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package

from stage import Gate, World, finish, gate, is_alive, wait_until, world

__all__ = ["gate", "world"]  # fixtures

pytestmark = pytest.mark.slow


def is_stopped(pid: int) -> bool:
    """proc(5), stat."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


@dataclass
class Scene:
    """One token: a compile that has it and stands still, and a check that runs; both are at their gates."""

    build: subprocess.Popen[bytes]
    compiler: int
    gate: Gate
    check: subprocess.Popen[bytes]
    check_gate: Gate

    def let_build(self) -> None:
        self.gate.let_pass()
        assert finish(self.build).returncode == 0

    def let_check(self) -> None:
        self.check_gate.let_pass()
        assert finish(self.check).returncode == 0


@pytest.fixture
def scene(world: World, gate: Gate) -> Iterator[Scene]:
    world.env["SCCACHE_JOBS"] = "1"
    build = world.start(*world.gated(gate, "big"), start_new_session=True)
    compiler = gate.arrived()
    assert not is_stopped(compiler)
    check_gate = Gate(world.directory)
    # A build of its own, whose only compile writes metadata alone.
    line = " ".join([str(world.client), *world.gated(check_gate, "checked")]).replace("metadata,link,dep-info", "metadata,dep-info")
    check = world.start_plain("/bin/bash", "-c", f"{line}; exit $?", start_new_session=True)
    wait_until(lambda: is_stopped(compiler))
    check_gate.arrived()
    yield Scene(build, compiler, gate, check, check_gate)
    check_gate.close()


def test_a_compile_stands_still_while_a_check_runs_on_the_house(scene: Scene) -> None:
    scene.let_check()
    wait_until(lambda: not is_stopped(scene.compiler))
    scene.let_build()


def test_it_stands_still_no_longer_than_a_moment(scene: Scene) -> None:
    """The check might wait for what it holds."""
    scene.let_build()
    scene.let_check()


def test_what_stands_still_ends_with_its_client(scene: Scene) -> None:
    scene.build.kill()
    wait_until(lambda: not is_alive(scene.compiler))
    scene.let_check()


def test_what_stands_still_ends_with_the_server(scene: Scene, world: World) -> None:
    """And its client compiles by itself."""
    os.kill(world.server_pid(), signal.SIGKILL)
    wait_until(lambda: not is_alive(scene.compiler))
    scene.check_gate.let_pass()  # another one: that of the check died, too
    scene.let_build()
    scene.let_check()
