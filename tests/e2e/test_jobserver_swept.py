"""The FIFO of a build inside the pool: who may remove it, and when."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package

from stage import PATIENCE_S, World, finish, wait_until, world
from test_jobserver import turnstile

__all__ = ["turnstile", "world"]  # fixtures

pytestmark = pytest.mark.slow


def fifos(world: World) -> list[Path]:
    return [p / "tokens" for p in (world.directory / "sccache-py").iterdir() if p.name.startswith("jobserver-")]


def test_what_a_build_goes_by_is_not_swept_by_the_next_server(world: World, turnstile: Any) -> None:
    """A make below would say "jobserver unavailable: using -j1"; once the build has ended nothing keeps the name."""
    stops = turnstile("build")
    build = world.start("--jobserver=fifo", "--", "sh", "-c", f"{stops.recipe}; {stops.recipe}")
    stops.has(1)
    killed = world.kill_server()
    wait_until(lambda: not Path(f"/proc/{killed}").exists())
    assert world.run(*world.crate()).returncode == 0
    assert len(world.server_pids()) == 2
    (fifo,) = fifos(world)
    assert fifo.is_fifo()
    stops.let_pass()
    stops.has(1)
    build.send_signal(signal.SIGSTOP)  # who is killed together with its server cleans up nothing
    world.kill_server()
    build.kill()
    build.wait(PATIENCE_S)
    assert world.run(*world.crate("other")).returncode == 0
    assert not fifos(world)


def test_a_server_of_another_sandbox_does_not_sweep_what_a_build_goes_by(world: World, turnstile: Any) -> None:
    """The runtime directory is shared (bubblewrap, flatpak); a process of that number is not there."""
    stops = turnstile("build")
    build = world.start("--jobserver=fifo", "--", "sh", "-c", stops.recipe)
    stops.has(1)
    (fifo,) = fifos(world)
    script = '"$0" --start-server && "$0" --stop-server'
    other = world.run_plain("unshare", "--pid", "--fork", "--mount-proc", "sh", "-c", script, str(world.client))
    if b"unshare failed" in other.stderr:
        pytest.skip("no namespaces here")
    assert other.returncode == 0, other.stderr
    assert fifo.is_fifo()
    stops.let_pass()
    assert finish(build).returncode == 0
