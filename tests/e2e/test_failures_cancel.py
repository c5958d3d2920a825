"""Compiles that are cut short: by a signal, by the client's death, by the server's; and those that wait for each other.

What holds for all of them: the compiler is gone soon, its token is back, nothing half is stored, and the next compile works.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package

from stage import Gate, Outcome, World, finish, gate, is_alive, tree, wait_until, world

__all__ = ["gate", "world"]  # fixtures

pytestmark = pytest.mark.slow

# What the design grants (≤ 2 s), and some for a machine that is busy.
DEATH_S = 3.0


def in_use(world: World) -> int:
    used = world.ask("stats")["surroundings"]["jobserver"]["in_use"]
    assert isinstance(used, int)
    return used


def waiting(world: World) -> int:
    found = world.ask("stats")["surroundings"]["jobserver"]["waiting"]
    assert isinstance(found, int)
    return found


def assert_as_if_nothing_had_been(world: World, line: list[str]) -> None:
    """Tokens are back, nothing is stored, nothing is left over, and the same compile works."""
    wait_until(lambda: in_use(world) == 0)
    wait_until(lambda: world.ask("ping")["connections"] == 1)
    assert world.counts().total("cache_writes") == 0
    world.wipe()
    assert world.run(*line).returncode == 0
    assert {"libgated.rlib", "libgated.rmeta", "gated.d"} == set(tree(world.out))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_to_the_client_ends_the_compiler_and_then_the_client(world: World, gate: Gate, number: signal.Signals) -> None:
    """Ctrl-C must stop the machine from compiling, and make must see that it was Ctrl-C.

    (rustc 1.95 catches SIGINT and exits with 1 after 100 ms; the client dies by it all the same.)
    """
    line = world.gated(gate)
    client = world.start(*line)
    compiler = gate.arrived()
    began = time.monotonic()
    client.send_signal(number)
    ended = finish(client)
    assert time.monotonic() - began < DEATH_S
    assert ended.returncode == -number
    assert not is_alive(compiler)
    gate.let_pass()
    assert_as_if_nothing_had_been(world, line)


def test_a_signal_shows_as_it_does_without_the_cache(world: World, gate: Gate) -> None:
    """Nothing is printed that the compiler would not have printed."""
    line = world.gated(gate)
    outcomes = []
    for start in (world.start_plain, world.start):
        process = start(*line)
        os.kill(gate.arrived(), 0)
        process.send_signal(signal.SIGTERM)
        outcomes.append(finish(process))
    assert outcomes[0] == outcomes[1]


def test_a_compiler_that_ignores_the_signal_is_killed_all_the_same(world: World, gate: Gate) -> None:
    """A stopped compiler hears no SIGTERM; who pressed Ctrl-C must not have to look for it in ps."""
    line = world.gated(gate)
    client = world.start(*line)
    compiler = gate.arrived()
    os.kill(compiler, signal.SIGSTOP)
    began = time.monotonic()
    client.send_signal(signal.SIGTERM)
    ended = finish(client)
    assert time.monotonic() - began < DEATH_S + 2
    assert ended.returncode == -signal.SIGTERM
    wait_until(lambda: not is_alive(compiler))
    gate.let_pass()
    assert_as_if_nothing_had_been(world, line)


def test_killing_the_client_ends_the_compiler(world: World, gate: Gate) -> None:
    """kill -9, the OOM killer, a CI runner's timeout: nobody is left to say so but the end of the connection."""
    line = world.gated(gate)
    client = world.start(*line)
    compiler = gate.arrived()
    client.kill()
    finish(client)
    wait_until(lambda: not is_alive(compiler), DEATH_S)
    gate.let_pass()
    assert_as_if_nothing_had_been(world, line)


def test_a_client_that_waits_for_a_token_dies_at_once(world: World, gate: Gate) -> None:
    """With all tokens taken by long compiles Ctrl-C must not wait for one of them."""
    world.env["SCCACHE_JOBS"] = "1"
    holder = world.start(*world.gated(gate, "holder"))
    gate.arrived()
    queued = world.start(*world.crate("queued"))
    wait_until(lambda: waiting(world) == 1)
    began = time.monotonic()
    queued.send_signal(signal.SIGINT)
    assert finish(queued).returncode == -signal.SIGINT
    assert time.monotonic() - began < 1
    wait_until(lambda: waiting(world) == 0)
    gate.let_pass()
    assert finish(holder).returncode == 0
    assert_tokens_work(world)


def assert_tokens_work(world: World) -> None:
    assert world.run(*world.crate("after")).returncode == 0
    wait_until(lambda: in_use(world) == 0)


@pytest.mark.parametrize("by", ["signal", "kill"])
def test_a_client_that_waits_for_another_compile_dies_at_once(world: World, gate: Gate, by: str) -> None:
    """It waits for the result of an equal compile; that is no reason to stay."""
    line = world.gated(gate)
    leader = world.start(*line)
    gate.arrived()
    follower = world.start(*line)
    wait_until(lambda: world.counts().total("joined_flights") == 1)
    began = time.monotonic()
    follower.send_signal(signal.SIGINT if by == "signal" else signal.SIGKILL)
    finish(follower)
    assert time.monotonic() - began < 1
    wait_until(lambda: world.ask("ping")["connections"] == 2)
    gate.let_pass()
    assert finish(leader).returncode == 0


def into_directories_of_their_own(world: World, line: list[str], count: int) -> list[list[str]]:
    """The same compile, told to leave its outputs in out0, out1, …"""
    lines = []
    for i in range(count):
        out = world.cwd / f"out{i}"
        out.mkdir()
        lines.append([f"--out-dir={out}" if a.startswith("--out-dir") else a for a in line])
    return lines


def test_equal_compiles_at_the_same_time_run_one_compiler(world: World, gate: Gate) -> None:
    """Ten checkouts in one CI machine, one cold cache."""
    world.env["SCCACHE_JOBS"] = "1"
    holder = world.start(*world.gated(gate, "holder"))
    gate.arrived()
    line = world.crate("unit")
    clients = [world.start(*each) for each in into_directories_of_their_own(world, line, 6)]
    wait_until(lambda: world.counts().total("joined_flights") == len(clients) - 1)
    gate.let_pass()
    assert [finish(c) for c in (holder, *clients)] == [Outcome(0, b"", b"")] * 7
    counts = world.counts()
    assert counts.total("compilations") == 2
    assert counts.total("cache_hits") == len(clients) - 1
    world.run_plain(*line)
    plain = {name: content for name, content in tree(world.out).items() if not name.endswith(".d") and "unit" in name}
    for i in range(6):
        assert plain.items() <= tree(world.cwd / f"out{i}").items()


def test_when_the_leader_is_killed_one_of_those_who_waited_takes_over(world: World, gate: Gate) -> None:
    """And only one, for the others would hit: a cancelled build must not multiply the work of the next."""
    world.env["SCCACHE_JOBS"] = "8"
    first, *others = into_directories_of_their_own(world, world.gated(gate), 4)
    leader = world.start(*first)
    gate.arrived()
    followers = [world.start(*each) for each in others]
    wait_until(lambda: world.counts().total("joined_flights") == 3)
    leader.kill()
    finish(leader)
    gate.arrived()
    wait_until(lambda: world.counts().total("joined_flights") == 5)
    gate.let_pass(8)
    assert [finish(f).returncode for f in followers] == [0, 0, 0]


def test_equal_lines_with_other_files_get_other_results(world: World, gate: Gate) -> None:
    """Two checkouts differ in a module: the same recipe, at the same time, must not give one the other's code."""
    world.env["SCCACHE_JOBS"] = "1"
    holder = world.start(*world.gated(gate, "holder"))
    gate.arrived()
    clients = []
    for name, number in (("one", 1), ("two", 2), ("three", 1)):
        directory = world.directory / name
        directory.mkdir()
        (directory / "lib.rs").write_text("mod inner; pub fn f() -> u32 { inner::VALUE }\n")
        (directory / "inner.rs").write_text(f"pub const VALUE: u32 = {number};\n")
        line = [
            *world.crate()[:3],
            "--crate-type=lib",
            "--emit=metadata",
            f"--remap-path-prefix={directory}=/src",
            "--out-dir=out",
            "lib.rs",
        ]
        clients.append(world.start(*line, cwd=directory))
    wait_until(lambda: world.ask("ping")["connections"] == 5)
    gate.let_pass()
    assert [finish(c).returncode for c in (holder, *clients)] == [0] * 4
    results = [tree(world.directory / name / "out") for name in ("one", "two", "three")]
    assert results[0] == results[2] != results[1]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT, signal.SIGTERM])
def test_a_compiler_that_dies_by_a_signal_takes_the_client_with_it(world: World, gate: Gate, number: signal.Signals) -> None:
    """The OOM killer took rustc: cargo says "signal: 9" and must go on saying so."""
    line = world.gated(gate)
    outcomes = []
    for start in (world.start_plain, world.start):
        process = start(*line)
        os.kill(gate.arrived(), number)
        outcomes.append(finish(process))
    assert outcomes[1].returncode == outcomes[0].returncode == -number
    assert outcomes[1].stdout == outcomes[0].stdout
    # Addresses in a crash report differ from run to run.
    assert bool(outcomes[1].stderr) == bool(outcomes[0].stderr)
    gate.let_pass()
    assert_as_if_nothing_had_been(world, line)


def test_a_dead_server_leaves_one_compiler_and_right_outputs(world: World, gate: Gate) -> None:
    """The OOM killer took the server in the middle: the client ends that compile and runs its own, never two at a time."""
    line = world.gated(gate)
    plain = world.start_plain(*line)
    gate.arrived()
    gate.let_pass()
    expected = finish(plain), tree(world.out)
    world.wipe()

    client = world.start(*line)
    first = gate.arrived()
    os.kill(world.server_pid(), signal.SIGKILL)
    second = gate.arrived()
    assert second != first
    assert not is_alive(first), "two compilers write the same files"
    gate.let_pass()
    assert (finish(client), tree(world.out)) == expected


def test_a_compiler_whose_client_and_server_are_both_killed_ends(world: World, gate: Gate) -> None:
    """A container's memory limit takes them together; the next build must not find a second writer of its files."""
    client = world.start(*world.gated(gate))
    compiler = gate.arrived()
    server = world.server_pid()
    client.send_signal(signal.SIGSTOP)  # so that it does not see the server's end
    os.kill(server, signal.SIGKILL)
    client.kill()
    finish(client)
    wait_until(lambda: not is_alive(compiler))


def test_a_compile_after_the_servers_death_starts_a_new_one(world: World) -> None:
    """Its socket is still there, and leads nowhere."""
    assert world.run(*world.crate()).returncode == 0
    world.settle()
    first = world.kill_server()
    world.wipe()
    assert world.run(*world.crate()).returncode == 0
    assert world.server_pid() != first
    assert world.counts().total("cache_hits") == 1


def test_a_killed_server_leaves_no_record_files_behind(world: World, gate: Gate) -> None:
    """Each is 4 MiB of memory that nobody would ever free."""
    client = world.start(*world.gated(gate))
    gate.arrived()
    pid = world.server_pid()
    records = lambda: [p for p in Path("/dev/shm").glob("sccache-py-*") if f"-{pid}-" in p.name]  # noqa: E731
    had_records = bool(records())
    os.kill(pid, signal.SIGKILL)
    gate.arrived()
    gate.let_pass()
    finish(client)
    assert world.run(*world.crate()).returncode == 0
    assert had_records
    assert not records()
