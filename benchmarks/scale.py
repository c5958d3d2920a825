"""Scale by simulation: this machine has few processors; what happens at 8, 32 and 128 is worked out from what a hit costs.

A hit takes `client` seconds of processor time in the client and `server` in the server, wherever they run.  n processors
carry at most n / (client + server) hits per second, and a server process, which computes on one processor at a time, at most
1 / server.  ccache has no server: n / ccache.  (It is taken to scale perfectly, which favours it.)
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

from benchmarks import machine
from benchmarks.contenders import Contender
from benchmarks.hits import server_cost
from benchmarks.load import crowd_seconds
from benchmarks.measure import Bench, Failed, all_at_work
from benchmarks.sources import Compile, write_all

SCALE = "scale"
SIZES = (2, 4, 8, 16, 32, 64, 128)

_CALLS = 300
_CROWD = 1000


@dataclass(frozen=True, slots=True)
class Costs:
    """Processor seconds of one hit."""

    client: float
    server: float
    ccache: float


def hits_per_second(costs: Costs, processors: int, workers: int) -> float:
    return min(processors / (costs.client + costs.server), workers / costs.server)


def ccache_per_second(costs: Costs, processors: int) -> float:
    return processors / costs.ccache


def limit_processors(costs: Costs, workers: int = 1) -> float:
    """From how many processors on the server's processes are the limit."""
    return workers * (costs.client + costs.server) / costs.server


def workers_needed(costs: Costs, processors: int) -> int | None:
    """How many server processes keep us ahead of ccache; None: no number does."""
    target = ccache_per_second(costs, processors)
    if processors / (costs.client + costs.server) <= target:
        return None
    return max(1, math.floor(target * costs.server) + 1)


def table(costs: Costs) -> list[list[str]]:
    rows = []
    for n in SIZES:
        workers = workers_needed(costs, n)
        rows.append(
            [
                str(n),
                f"{hits_per_second(costs, n, 1):,.0f}",
                f"{hits_per_second(costs, n, workers or n):,.0f}",
                f"{ccache_per_second(costs, n):,.0f}",
                str(workers) if workers is not None else "never ahead",
            ]
        )
    return rows


def scale(bench: Bench) -> None:
    """Measures the costs, checks the model on this machine's processors, and writes scale.md through the results."""
    compiles = {c.case: c for c in write_all(bench.work / "sources", bench.rustc)}
    ours = next((c for c in bench.contenders if c.name == "sccache-py"), None)
    theirs = next((c for c in bench.contenders if c.name == "ccache"), None)
    if ours is None or theirs is None:
        bench.results.remark("scale: left out: it needs sccache-py and ccache")
        return
    in_c = compiles["C, 5 system headers"]
    with all_at_work([ours, theirs], bench.rooms, bench.results) as ready:
        if len(ready) < 2:
            return
        try:
            ours_on = in_c if _caches(bench, ours, in_c) else compiles["Rust lib"]
            client, server = server_cost(bench, ours, ours_on, _CALLS)
            alone, _ = server_cost(bench, theirs, in_c, _CALLS)
            costs = Costs(client, max(server, 1e-6), alone)
            measured = _pinned(bench, ours, ours_on, theirs, in_c)
        except Failed as e:
            bench.results.remark(f"scale: {e}")
            return
    for name, value in (("client", client), ("server", server)):
        bench.results.add(SCALE, f"processor time of a hit: {name}", ours.name, "ms", [value * 1e3], f"measured on: {ours_on.case}")
    bench.results.add(SCALE, "processor time of a hit", theirs.name, "ms", [alone * 1e3], f"measured on: {in_c.case}")
    for case, who, value in measured:
        bench.results.add(SCALE, case, who, "1/s", [value])
    bench.results.facts["scale"] = {
        "costs_ms": {"client": client * 1e3, "server": server * 1e3, "ccache": alone * 1e3},
        "measured_on": {"sccache-py": ours_on.case, "ccache": in_c.case},
        "one_process_is_the_limit_from": limit_processors(costs),
        "table": table(costs),
        "pinned": [[case, who, round(value)] for case, who, value in measured],
    }


def _caches(bench: Bench, contender: Contender, compile_: Compile) -> bool:
    before = contender.hits()
    server_cost(bench, contender, compile_, 5)
    after = contender.hits()
    return before is not None and after is not None and after - before >= 5


def _pinned(bench: Bench, ours: Contender, ours_on: Compile, theirs: Contender, in_c: Compile) -> list[tuple[str, str, float]]:
    """Hits per second with processors taken away: what the model must agree with."""
    processors = sorted(os.sched_getaffinity(0))
    if len(processors) < 2:
        return []
    one, other = {processors[0]}, {processors[1]}
    measured = []
    servers = ours.servers()
    bench.tick("scale: pinned to one processor")
    machine.pin(servers, one)
    took = crowd_seconds(ours, ours_on, 8, _CROWD, on=other)
    measured.append(("server on one processor, clients on another", ours.name, _CROWD / took))
    took = crowd_seconds(ours, ours_on, 8, _CROWD, on=one)
    measured.append(("all on one processor", ours.name, _CROWD / took))
    machine.pin(servers, set(processors))
    took = crowd_seconds(ours, ours_on, 8, _CROWD, on=one | other)
    measured.append(("two processors", ours.name, _CROWD / took))
    for title, on in (("all on one processor", one), ("two processors", one | other)):
        took = crowd_seconds(theirs, in_c, 8, _CROWD, on=on)
        measured.append((title, theirs.name, _CROWD / took))
    return measured


def markdown(facts: dict[str, object], head: str) -> str:
    """scale.md, of what scale() has put into the facts."""
    costs, on = facts["costs_ms"], facts["measured_on"]
    assert isinstance(costs, dict)
    assert isinstance(on, dict)
    rows = facts["table"]
    pinned = facts["pinned"]
    assert isinstance(rows, list)
    assert isinstance(pinned, list)
    text = f"# Scale by simulation\n\n{head}\n\n{__doc__.partition(chr(10))[2].strip()}\n\n"
    text += f"Processor time of one hit: client {costs['client']:.2f} ms, server {costs['server']:.2f} ms (on: {on['sccache-py']}); "
    text += f"ccache {costs['ccache']:.2f} ms (on: {on['ccache']}).\n"
    if on["sccache-py"] != on["ccache"]:
        text += "The two were measured on different work, because we do not cache C yet.\n"
    text += f"One server process is the limit from {facts['one_process_is_the_limit_from']:.1f} processors on.\n\n"
    text += "| processors | hits/s, one server process | hits/s, as many as needed | ccache, hits/s | processes that keep us ahead |\n"
    text += "|---|---|---|---|---|\n"
    text += "".join("| " + " | ".join(row) + " |\n" for row in rows)
    text += "\nMeasured on this machine, to check the model:\n\n| pinned | who | hits/s |\n|---|---|---|\n"
    return text + "".join(f"| {case} | {who} | {value:,} |\n" for case, who, value in pinned)


def write_markdown(facts: dict[str, object], head: str, directory: Path) -> None:
    (directory / "scale.md").write_text(markdown(facts, head))
