"""Where the microseconds of one hit and one miss go, phase by phase.

    python benchmarks/profile.py                       # a server of its own, the Rust lib of the `hit` workload
    python benchmarks/profile.py --case "Rust probe" --hits 500
    python benchmarks/profile.py --read FILE           # what a server in use has written: SCCACHE_TRACE=FILE

The server marks the end of each phase (server/process/trace.py); the client's share is what is left of the call's time, seen from
outside: its start, the socket, the last bytes, and that a process ends.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

# This file must not stand before the standard library's.
sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rich.console import Console
from rich.table import Table

from benchmarks import figures, tools
from benchmarks.contenders import Ours
from benchmarks.measure import once
from benchmarks.sources import Compile, write_all

_WORDS = {
    "socket": "accept, read",
    "decode": "frame and msgpack to a Request",
    "place": "does the client see the same files",
    "compiler": "which compiler, is it still that one",
    "plan": "arguments to a plan",
    "key": "main source's digest, recipe",
    "lookup": "conditions of remembered compiles",
    "store": "asking the database",
    "write": "outputs",
    "reply": "counting, frame, send, close",
    "clock": "inputs as young as the clock's tick",
    "token": "waiting for a job token",
    "run": "spawn, compiler, reap",
    "examine": "reading and judging what was observed, opening outputs",
    "copy and hash": "outputs into the store",
}


class Traced(Ours):
    """Ourselves, with the server's trace in a file."""

    def __init__(self, program: str, trace: Path) -> None:
        super().__init__(program)
        self._trace = trace

    def environment(self) -> dict[str, str]:
        return super().environment() | {"SCCACHE_TRACE": str(self._trace)}


def measure(bin_directory: str | None, case: str, hits: int, misses: int) -> tuple[list[dict[str, object]], dict[str, list[float]]]:
    """(the trace's lines, what the caller saw in µs by kind)."""
    program = tools.ours(bin_directory).program
    found = {c.case: c for c in write_all(tools.WORK / "sources", tools.rustc())}
    if case not in found:
        raise SystemExit(f"no such case: {case}; there are {', '.join(found)}")
    compile_: Compile = found[case]
    compiler, outputs = compile_.command()
    seen: dict[str, list[float]] = {"miss": [], "hit": []}
    with tempfile.TemporaryDirectory() as place:
        trace = Path(place) / "trace"
        traced = Traced(str(program), trace)
        with traced.at_work(tools.ROOMS / str(os.getpid())):
            argv, env = traced.command(compiler), traced.environment()
            once(argv, env, compile_.cwd, outputs)  # the compiler is identified; not one of those that count
            for _ in range(misses):
                seen["miss"].append(once(argv, env | {"SCCACHE_RECACHE": "1"}, compile_.cwd, outputs).seconds * 1e6)
            once(argv, env, compile_.cwd, outputs)
            for _ in range(hits):
                seen["hit"].append(once(argv, env, compile_.cwd, outputs).seconds * 1e6)
        lines = read(trace)
    return lines[1:], seen


def read(trace: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in trace.read_text().splitlines()]


def phases(lines: Iterable[dict[str, object]]) -> dict[str, dict[str, list[float]]]:
    """kind → phase → its microseconds."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        passed = line.get("us")
        if isinstance(passed, dict):
            for phase, value in passed.items():
                found[str(line["kind"])][phase].append(value)
            found[str(line["kind"])]["in all, in the server"].append(sum(passed.values()))
    return found


def show(lines: list[dict[str, object]], seen: dict[str, list[float]], console: Console) -> None:
    for kind, by_phase in phases(lines).items():
        table = Table(title=f"{kind}: {max(map(len, by_phase.values()))} of them")
        for name in ("phase", "", "median µs", "p90", "p99"):
            table.add_column(name, justify="right" if name and name != "phase" else "left")
        for phase, values in by_phase.items():
            cells = [f"{figures.quantile(values, q):,.0f}" for q in (0.5, 0.9, 0.99)]
            table.add_row(phase, _WORDS.get(phase, ""), *cells)
        if seen.get(kind):
            whole = seen[kind]
            rest = figures.median(whole) - figures.median(by_phase["in all, in the server"])
            table.add_row("client", "its start, the socket, its end: what is left", f"{rest:,.0f}", "", "")
            table.add_row("the caller waits", "", *[f"{figures.quantile(whole, q):,.0f}" for q in (0.5, 0.9, 0.99)])
        console.print(table)
    late = [line for line in lines if line["kind"] == "loop"]
    if late:
        longest = max(float(str(line["late_us"])) for line in late)
        own = max(float(str(line["own_us"])) for line in late)
        count, owned = (sum(int(str(line[name])) for line in late) for name in ("late", "own"))
        console.print(f"event loop: late by {longest / 1e3:.1f} ms at most, {count} times by more than 1 ms;")
        console.print(f"by its own work {own / 1e3:.1f} ms at most, {owned} times more than 1 ms")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--read", metavar="FILE", help="a trace that a server has written")
    parser.add_argument("--case", default="Rust lib", help="a case of the `hit` workload")
    parser.add_argument("--hits", type=int, default=300)
    parser.add_argument("--misses", type=int, default=20)
    parser.add_argument("--ours", metavar="DIR", help="the bin directory of an installed sccache-py")
    chosen = parser.parse_args()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 130)
    if chosen.read:
        show(read(Path(chosen.read)), {}, console)
        return 0
    tools.WORK.mkdir(parents=True, exist_ok=True)
    try:
        lines, seen = measure(chosen.ours, chosen.case, chosen.hits, chosen.misses)
    except tools.Missing as e:
        console.print(f"cannot run: {e}", markup=False)
        return 1
    show(lines, seen, console)
    return 0


if __name__ == "__main__":
    os.chdir(tools.ROOT)
    sys.exit(main())
