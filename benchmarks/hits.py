"""Workloads `hit` and `roundtrip`: what one call costs its caller."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks import machine
from benchmarks.contenders import Contender
from benchmarks.measure import Bench, Once, all_at_work, alternate, once
from benchmarks.sources import Compile, write_all

HIT = "hit"
ROUNDTRIP = "roundtrip"

_WARMUPS = 3
_PAIRS = 30
# The compiler itself takes seconds for C++; its pairs are fewer.
_SLOW_PAIRS = 10
_PASSED = "not cached: the cost of passing it through"


def hit(bench: Bench) -> None:
    """The same compile again and again, by everybody in turn."""
    compiles = write_all(bench.work / "sources", bench.rustc)
    with all_at_work(bench.contenders, bench.rooms, bench.results) as contenders:
        for compile_ in compiles:
            _hit_case(bench, compile_, [c for c in contenders if compile_.language in c.languages])


def _hit_case(bench: Bench, compile_: Compile, contenders: list[Contender]) -> None:
    cpu: dict[str, list[float]] = {c.name: [] for c in contenders}
    before = {c.name: c.hits() for c in contenders}
    rounds = bench.rounds_or(_SLOW_PAIRS if compile_.language == "c++" else _PAIRS)
    work = {c.name: _call(c, compile_, cpu[c.name]) for c in contenders}
    timed = alternate(work, rounds, _WARMUPS, bench.results, compile_.case, lambda who: bench.tick(f"{compile_.case}: {who}"))
    notes = {}
    for contender in contenders:
        was, now = before[contender.name], contender.hits()
        if was is not None and now is not None and now - was < rounds:
            notes[contender.name] = _PASSED
    bench.results.add_all(HIT, compile_.case, "ms", timed, notes)
    for name, values in cpu.items():
        bench.results.add(HIT, f"{compile_.case}: client's processor time", name, "ms", values[_WARMUPS:], detail=True)


def _call(contender: Contender, compile_: Compile, cpu: list[float]) -> Callable[[], float]:
    compiler, outputs = compile_.command()
    argv, env = contender.command(compiler), contender.environment()

    def run() -> float:
        took: Once = once(argv, env, compile_.cwd, outputs)
        cpu.append(took.cpu_seconds * 1e3)
        return took.seconds * 1e3

    return run


def roundtrip(bench: Bench) -> None:
    """Our client against a server that says "exit 0" at once; beside it a program that does nothing at all."""
    ours = next((c for c in bench.contenders if c.name == "sccache-py"), None)
    if ours is None or ours.program is None:
        return
    with ours.at_work(bench.rooms):
        assert ours.room is not None
        path = str(ours.room.runtime / "echo")
        server = subprocess.Popen([sys.executable, "-P", str(Path(__file__).with_name("instant.py")), path], stdout=subprocess.PIPE)
        try:
            assert server.stdout is not None
            server.stdout.readline()  # it listens
            env = ours.environment() | {"SCCACHE_SERVER_UDS": path}
            place = bench.work / "sources"
            place.mkdir(parents=True, exist_ok=True)
            cpu: list[float] = []

            def nothing() -> float:
                return once(["true"], env, place).seconds * 1e3

            def client() -> float:
                took = once([str(ours.program), "gcc", "-c", "five.c", "-o", "/dev/null"], env, place)
                cpu.append(took.cpu_seconds * 1e3)
                return took.seconds * 1e3

            work = {"process that does nothing": nothing, "sccache-py": client}
            rounds = bench.rounds_or(200)
            case = "client's round trip, a server that answers at once"
            timed = alternate(work, rounds, 20, bench.results, case, lambda who: bench.tick(f"round trip: {who}"))
            bench.results.add_all(ROUNDTRIP, case, "ms", timed, {})
            bench.results.add(ROUNDTRIP, f"{case}: client's processor time", "sccache-py", "ms", cpu[20:], detail=True)
        finally:
            server.kill()
            server.wait()


def server_cost(bench: Bench, contender: Contender, compile_: Compile, calls: int) -> tuple[float, float]:
    """(client's, servers') processor seconds of one hit; the contender is at work and has the entry."""
    compiler, outputs = compile_.command()
    argv, env = contender.command(compiler), contender.environment()
    for _ in range(_WARMUPS):
        once(argv, env, compile_.cwd, outputs)
    servers = contender.servers()
    machine.wait_for_rest(servers)
    before, client = machine.cpu_seconds(servers), 0.0
    for n in range(calls):
        bench.tick(f"processor time of a hit: {contender.name} {n}")
        client += once(argv, env, compile_.cwd, outputs).cpu_seconds
    return client / calls, (machine.cpu_seconds(servers) - before) / calls
