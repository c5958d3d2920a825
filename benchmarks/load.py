"""Workloads `throughput` and `latency`: many hits at once, and hits while a big build runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import figures, machine, tools
from benchmarks.contenders import Contender
from benchmarks.measure import CONTROL, PLAIN, Attic, Bench, Failed, all_at_work, alternate, once
from benchmarks.sources import Compile, write_all

THROUGHPUT = "throughput"
LATENCY = "latency"

_HITS = 1000
_PAUSE_S = 0.05

# Outputs of so many clients at once do not meet; what the next one writes there is written over.
_DIRECTORIES = 128


def throughput(bench: Bench) -> None:
    """1,000 hits, each with an output of its own, by as many clients as processors, and by 64."""
    compiles = {c.case: c for c in write_all(bench.work / "sources", bench.rustc)}
    for case in ("C, 5 system headers", "Rust lib"):
        compile_ = compiles[case]
        those = [c for c in bench.those_for(compile_.language) if c.name not in (PLAIN, CONTROL)]
        with all_at_work(those, bench.rooms, bench.results) as contenders:
            for clients in (len(os.sched_getaffinity(0)), 64):
                title = f"{case}: hits per second, {clients} clients"
                work = {c.name: _crowd(c, compile_, clients) for c in contenders}
                before = {c.name: c.hits() for c in contenders}
                timed = alternate(work, bench.rounds_or(3), 1, bench.results, title, lambda who, t=title: bench.tick(f"{t}: {who}"))
                notes = {c.name: "not cached" for c in contenders if not _rose(before[c.name], c.hits())}
                bench.results.add_all(THROUGHPUT, title, "1/s", timed, notes)


def _rose(before: int | None, after: int | None) -> bool:
    return before is None or after is None or after - before >= _HITS


def _crowd(contender: Contender, compile_: Compile, clients: int) -> Callable[[], float]:
    """Hits per second.  xargs starts the clients: it costs less than Python would."""

    def run() -> float:
        return _HITS / crowd_seconds(contender, compile_, clients, _HITS)

    return run


def crowd_seconds(contender: Contender, compile_: Compile, clients: int, hits: int, on: set[int] | None = None) -> float:
    """`on`: the processors for the clients."""
    directories = [compile_.out / f"crowd{n}" for n in range(_DIRECTORIES)]
    for directory in directories:
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
    env = contender.environment() | {"PWD": str(compile_.cwd)}
    words = [compile_.output_words(directories[n % _DIRECTORIES]) for n in range(hits)]
    argv, names = [*compile_.argv, *words[0][:-1]], [word for *_, word in words]
    command = ["xargs", "-n", "1", "-P", str(clients), *contender.command(argv)]
    once(contender.command([*argv, names[0]]), env, compile_.cwd)  # it is in the cache, or becomes so now
    began = time.perf_counter()
    process = subprocess.Popen(
        command,
        env=env,
        cwd=compile_.cwd,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=(lambda: os.sched_setaffinity(0, on)) if on is not None else None,
    )
    try:
        _, said = process.communicate("\n".join(names).encode())
    finally:
        process.kill()
    took = time.perf_counter() - began
    if process.returncode != 0:
        raise Failed(f"xargs: status {process.returncode}: {said.decode(errors='replace')[-300:]}")
    return took


def latency(bench: Bench) -> None:
    """Hits one after the other while the same contender builds big170 with an empty cache."""
    try:
        place = tools.project("big170")
    except tools.Missing as e:
        bench.results.remark(f"latency: left out: {e}")
        return
    compiles = {c.case: c for c in write_all(bench.work / "sources", bench.rustc)}
    attic = Attic(bench.work / "attic")
    took: dict[str, list[float]] = {}
    alone: dict[str, list[float]] = {}
    for contender in bench.those_for("rust"):
        if contender.name in (PLAIN, CONTROL):
            continue
        bench.tick(f"hits during a build: {contender.name}")
        attic.put(place / "target")
        try:
            with contender.at_work(bench.rooms):
                alone[contender.name], took[contender.name] = _during(contender, compiles["Rust lib"], place)
        except Failed as e:
            bench.results.remark(f"latency: {contender.name} failed and is left out: {e}")
    attic.put(place / "target")
    attic.empty()
    for name, values in took.items():
        case = "Rust lib hit"
        bench.results.add(LATENCY, f"{case}, idle machine", name, "ms", alone[name])
        bench.results.add(LATENCY, f"{case}, during a cold big170 build", name, "ms", values)
        for q in (50, 99):
            bench.results.add(LATENCY, f"{case}, during a cold big170 build: p{q}", name, "ms", [figures.quantile(values, q / 100)])


def _during(contender: Contender, compile_: Compile, place: Path) -> tuple[list[float], list[float]]:
    compiler, outputs = compile_.command()
    argv, env = contender.command(compiler), contender.environment()

    def hits(go_on: Callable[[int], bool]) -> list[float]:
        values: list[float] = []
        while go_on(len(values)):
            values.append(once(argv, env, compile_.cwd, outputs).seconds * 1e3)
            time.sleep(_PAUSE_S)
        return values

    hits(lambda n: n < 3)
    machine.wait_for_rest(contender.servers())
    alone = hits(lambda n: n < 30)
    build = subprocess.Popen(
        ["cargo", "build", "--locked", "--offline"],
        env=contender.cargo_environment(),
        cwd=place,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        values = hits(lambda _: build.poll() is None)
    finally:
        build.kill()
        build.wait()
    if build.returncode != 0:
        raise Failed("the build failed")
    return alone, values
