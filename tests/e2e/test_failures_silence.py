"""A server that is there and does not answer: stopped, stuck, or full.  The compile works all the same, and nobody waits for long.

Who gives a server up kills it: what it had begun must not be written over what is built from then on.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package

from stage import Gate, Outcome, World, finish, gate, is_alive, tree, wait_until, world

__all__ = ["gate", "world"]  # fixtures

pytestmark = pytest.mark.slow

# What is promised is about 15 s; the rest is for a busy machine.
SOON_S = 40.0

PYTHON_CLIENT = """\
#!{python} -P
import sys
sys.path.insert(0, {root!r})
from sccache_py.client.fallback import main
sys.exit(main())
"""


@pytest.fixture(params=["native", "python"])
def client(request: pytest.FixtureRequest, world: World) -> Path:
    if request.param == "native":
        return world.client
    (world.directory / "python").mkdir()
    return world.program("python/sccache-py", PYTHON_CLIENT)


def pass_by(seconds: float) -> None:
    """It is the time itself that is waited for."""
    give_up = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() > give_up)


def stop(world: World) -> int:
    pid = world.server_pid()
    os.kill(pid, signal.SIGSTOP)
    return pid


def test_a_stopped_server_is_given_up_and_replaced(world: World, client: Path) -> None:
    """Somebody's `kill -STOP`, a debugger that was left: the build waits for seconds, and not for ever."""
    line = world.crate()
    assert world.run(*line) == Outcome(0, b"", b"")
    world.settle()
    world.wipe()
    pid = stop(world)
    began = time.monotonic()
    assert finish(world.start(*line, client=client)) == Outcome(0, b"", b"")
    assert time.monotonic() - began < SOON_S
    assert len(tree(world.out)) == 3
    wait_until(lambda: not is_alive(pid))
    world.wipe()
    assert world.run(*line) == Outcome(0, b"", b"")
    assert len(world.server_pids()) == 2
    assert world.counts().total("cache_hits") == 1


def test_a_compile_of_a_stopped_server_ends_before_another_begins(world: World, client: Path, gate: Gate) -> None:
    """Two compilers must never write one file."""
    compile_ = world.start(*world.gated(gate), client=client)
    first = gate.arrived()
    pid = stop(world)
    gate.arrived()  # the second one
    assert not is_alive(first)
    assert not is_alive(pid)
    gate.let_pass()
    assert finish(compile_) == Outcome(0, b"", b"")
    assert len(tree(world.out)) == 3


def test_a_server_that_works_is_waited_for_however_long_that_takes(world: World, client: Path, gate: Gate) -> None:
    """A compile of minutes, or one that waits for a token: a server that says that it lives is left alone."""
    world.env["SCCACHE_JOBS"] = "1"
    slow = world.start(*world.gated(gate), client=client)
    gate.arrived()
    other = world.start(*world.crate("other"), client=client)
    pass_by(18.0)  # longer than a silent one is waited for
    assert other.poll() is None
    gate.let_pass()
    assert finish(slow) == Outcome(0, b"", b"")
    assert finish(other) == Outcome(0, b"", b"")
    assert len(world.server_pids()) == 1
    assert world.counts().total("compilations") == 2


def test_a_client_that_was_stopped_itself_takes_no_server_for_dead(world: World, client: Path, gate: Gate) -> None:
    """Ctrl-Z, lunch, fg: the time went by for the client, too."""
    compile_ = world.start(*world.gated(gate), client=client)
    gate.arrived()
    pid = world.server_pid()
    for _ in range(2):
        os.kill(compile_.pid, signal.SIGSTOP)
        pass_by(9.0)
        os.kill(compile_.pid, signal.SIGCONT)
    gate.let_pass()
    assert finish(compile_) == Outcome(0, b"", b"")
    assert is_alive(pid)
    assert world.counts().total("compilations") == 1


def test_who_asks_a_stopped_server_is_told_so(world: World) -> None:
    """In seconds, by name, and without an end to it: looking harms nothing."""
    world.run("--start-server")
    pid = stop(world)
    for words in (["--show-stats"], ["--zero-stats"], ["--show-jobs"]):
        began = time.monotonic()
        said = world.run(*words)
        assert time.monotonic() - began < 12.0
        assert said.returncode == 2
        assert f"the server (process {pid}) does not answer".encode() in said.stderr
    os.kill(pid, signal.SIGCONT)
    assert world.server_pid() == pid


def test_a_stopped_server_can_be_stopped(world: World) -> None:
    """What --stop-server is for: afterwards there is none."""
    world.run("--start-server")
    pid = stop(world)
    said = world.run("--stop-server")
    assert said.returncode == 2
    assert b"it was killed" in said.stderr
    wait_until(lambda: not is_alive(pid))
    assert world.run("--start-server").returncode == 0


def test_a_build_does_not_wait_for_the_tokens_of_a_stopped_server(world: World) -> None:
    """`sccache-py --jobserver -- make` waits as long as it takes for a token, but not for one that nobody gives."""
    world.run("--start-server")
    stop(world)
    began = time.monotonic()
    said = world.run("--jobserver", "--", "echo", "built")
    assert time.monotonic() - began < SOON_S
    assert (said.returncode, said.stdout) == (0, b"built\n")


def test_a_full_server_sends_away_who_waits_for_room(world: World, gate: Gate) -> None:
    """Whoever is not let in hears nothing, and would take the server for dead; and what it works on is others'."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (136, 136))

    world.env["SCCACHE_JOBS"] = "1"
    assert world.run("--start-server", preexec_fn=limit).returncode == 0
    line = world.gated(gate)
    slow = world.start(*line)
    gate.arrived()
    crowd = [world.start(*world.crate(f"unit{i}")) for i in range(24)]
    wait_until(lambda: sum(c.poll() is not None for c in crowd) >= 12)
    assert slow.poll() is None
    gate.let_pass()
    assert [finish(c) for c in (slow, *crowd)] == [Outcome(0, b"", b"")] * 25
    assert len(world.server_pids()) == 1
