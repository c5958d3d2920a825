"""Side by side: us and the peers on the same work in the same run.

    python benchmarks/run.py                        # the usual workloads, all peers that are easy to get
    python benchmarks/run.py hit demo --runs 3      # some of them, with few repetitions
    python benchmarks/run.py big170 --peers kache,zccache
    python benchmarks/run.py --publish              # results go to docs/benchmarks/, not to benchmarks/work/results/

What it needs it makes below benchmarks/work/.  Keep the machine quiet: a run whose control is off says so.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

# This folder holds a profile.py, which must not stand before the standard library's.
sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rich.console import Console

from benchmarks import builds, figures, growth, hits, load, machine, report, scale, tools
from benchmarks.contenders import PEERS, Contender, Control, Leveled, sweep
from benchmarks.measure import Bench, Results

Workload = Callable[[Bench], None]

WORKLOADS: dict[str, Workload] = {
    "hit": hits.hit,
    "roundtrip": hits.roundtrip,
    "demo": lambda b: builds.cargo(b, "demo", "demo"),
    "big170": lambda b: builds.cargo(b, "big170", "big170"),
    "check": lambda b: builds.cargo(b, "check", "big170", "check"),
    "release": lambda b: builds.cargo(b, "release", "big170", "release"),
    "test": lambda b: builds.cargo(b, "test", "big170", "test"),
    "big750": lambda b: builds.cargo(b, "big750", "big750"),
    "c": builds.c_of_crates,
    "debian": builds.debian,
    "throughput": load.throughput,
    "latency": load.latency,
    "together": builds.together,
    "growth": growth.growth,
    "scale": scale.scale,
}
# Half an hour of compiling for each contender.
ON_REQUEST = {"big750"}
USUAL_PEERS = ("sccache", "ccache", "zccache")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = f"of {', '.join(WORKLOADS)}; default: all but {', '.join(ON_REQUEST)}"
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=known)
    known = f"of {', '.join(PEERS)}; default: {', '.join(USUAL_PEERS)}; none: only the compiler"
    parser.add_argument("--peers", action="append", help=known)
    parser.add_argument("--zstd", action="append", type=int, default=[], metavar="LEVEL", help="ourselves once more, with that compression")
    parser.add_argument("--runs", type=int, metavar="N", help="repetitions instead of each workload's own number")
    parser.add_argument("--ours", metavar="DIR", help="the bin directory of an installed sccache-py; default: the tree is installed anew")
    parser.add_argument("--publish", action="store_true", help="write to docs/benchmarks/")
    parser.add_argument("--out", metavar="DIR", help="write there")
    chosen = parser.parse_args()
    unknown = [w for w in chosen.workloads if w not in WORKLOADS]
    if unknown:
        parser.error(f"no such workload: {', '.join(unknown)}")
    return chosen


def assemble(chosen: argparse.Namespace, results: Results) -> list[Contender]:
    """The compiler, ourselves, the peers that can be had, the compiler once more."""
    names = [n for given in chosen.peers or [",".join(USUAL_PEERS)] for n in given.split(",") if n and n != "none"]
    ours = tools.ours(chosen.ours)
    contenders: list[Contender] = [Contender(), Control(), ours, *(Leveled(ours.program, level) for level in chosen.zstd)]
    for name in names:
        try:
            contenders.append(tools.peer(name))
        except tools.Missing as e:
            results.remark(f"{name} is left out: {e}")
    return contenders


def versions(contenders: list[Contender]) -> dict[str, str]:
    found = {c.name: c.version() for c in contenders if c.program is not None}
    for program in ("rustc", "cargo", "gcc", "clang", "ninja", "cmake"):
        found[program] = machine.first_line([program, "--version"])
    return {name: version for name, version in found.items() if version}


def revision() -> str:
    """The commit that was measured, and whether files were changed since."""
    try:
        return tools.run(["git", "describe", "--always", "--dirty"], cwd=tools.ROOT).strip()
    except tools.Missing:
        return "unknown"


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    chosen = arguments()
    # A terminated run stops its servers as an interrupted one does.
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, _interrupt)  # a shell's background jobs are born ignoring it
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 150)
    results = Results()
    tools.WORK.mkdir(parents=True, exist_ok=True)
    sweep(tools.ROOMS)
    shown = 0

    def changed() -> None:
        nonlocal shown
        for series in results.series[shown:]:
            if series.detail:
                continue
            value = report.number(figures.median(series.values), series.unit)
            console.print(f"{series.workload:10} {series.case}: {series.contender} {value} {series.unit}", markup=False, soft_wrap=True)
        shown = len(results.series)

    results.changed = changed
    began = datetime.datetime.now()
    before = machine.load()
    interrupted = False
    contenders: list[Contender] = []
    with console.status("getting ready") as status:
        try:
            contenders = assemble(chosen, results)
            bench = Bench(
                contenders=contenders,
                results=results,
                work=tools.WORK,
                rooms=tools.ROOMS / str(os.getpid()),
                rustc=tools.rustc(),
                rounds=chosen.runs,
                tick=lambda text: status.update(text),
            )
            for name in chosen.workloads or [w for w in WORKLOADS if w not in ON_REQUEST]:
                WORKLOADS[name](bench)
        except tools.Missing as e:
            console.print(f"cannot run: {e}", markup=False)
            return 1
        except (KeyboardInterrupt, subprocess.SubprocessError) as e:
            interrupted = True
            results.remark(f"interrupted: {e}" if str(e) else "interrupted: what follows is what was measured until then")
    if interrupted and not results.series:
        console.print("interrupted: nothing was measured yet, and nothing is written", markup=False)
        return 130
    if before > 0.3:
        results.remark(f"{before:.1f} processes were running when the run began: other work may have disturbed it")
    about = {
        "date": began.date().isoformat(),
        "took_minutes": round((datetime.datetime.now() - began).total_seconds() / 60, 1),
        "command": " ".join(["python benchmarks/run.py", *sys.argv[1:]]),
        "revision": revision(),
        "machine": machine.describe(),
        "versions": versions(contenders),
        "load_before": before,
        "load_after": machine.load(),
    }
    with contextlib.suppress(OSError):
        (tools.ROOMS / str(os.getpid())).rmdir()
    report.show(results, console)
    directory = Path(chosen.out) if chosen.out else tools.ROOT / "docs" / "benchmarks" if chosen.publish else tools.WORK / "results"
    place = about["machine"]
    assert isinstance(place, dict)
    head = f"{about['date']}, {place['processors']} × {place['processor']}, `{about['command']}`"
    for path in report.write(results, directory, head, about):
        console.print(f"written: {os.path.relpath(path)}", markup=False)
    return 130 if interrupted else 0


if __name__ == "__main__":
    assert platform.system() == "Linux", "the benchmarks read /proc"
    sys.exit(main())
