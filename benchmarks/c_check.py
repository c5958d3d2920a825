"""Real C and C++ projects, built plain, cold and warm; whatever a build leaves and says is compared byte for byte.

    python benchmarks/c_check.py [--list] [--long] [--compiler gcc|clang] [--flags="-g -O2"] [--bin DIRECTORY] [PROJECT[/SYSTEM] …]

Each project is built four times in the same directory: plain twice (what differs between these is not reproducible and is excepted,
by name), through an empty cache, and from the cache.  Compared are all files in the build's directory, with their modes, the
exit codes, and what the build printed.  In the warm build every compile must be a hit; what was not cached is listed with its
reasons.  After it the server's memory is read, and once it is stopped nothing may be left of it: no process, no temporary file.

What the build calls has the same name in all four, a script or a link to us in one place, so that no configure script can
tell them apart.  Exit status 1: something differed, missed or was left.  Sources and results lie below benchmarks/work/.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks import machine, snapshots, tools
from benchmarks.c_projects import CELLS, LINKS, SOURCES, Cell
from benchmarks.contenders import Ours, Room, clean_environment
from benchmarks.snapshots import Comparison, Snapshot

WORK = tools.WORK / "check"
COMPILERS = {"gcc": ("gcc", "g++"), "clang": ("clang", "clang++")}
FLAGS = ("-O2", "-g -O2")
_STEP_S = 1800
_TROUBLE = ("cache_timeouts", "cache_read_errors", "cache_write_errors")
_STOP_S = 20.0


@dataclass(slots=True)
class Counts:
    """What the statistics say of one stretch of a build."""

    hits: int = 0
    misses: int = 0
    failed: int = 0
    not_compilations: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    trouble: dict[str, int] = field(default_factory=dict)

    @property
    def compiles(self) -> int:
        return self.hits + self.misses + sum(self.reasons.values())


@dataclass(slots=True)
class Build:
    """One build: a snapshot of its files and of what each step said, and what the cache counted (configuring, building)."""

    snapshot: Snapshot
    took_s: float
    configuring: Counts = field(default_factory=Counts)
    building: Counts = field(default_factory=Counts)


class Broken(Exception):
    """The plain build does not work here."""


class Check:
    """One cell of the table with one compiler and one set of flags."""

    def __init__(self, cell: Cell, compiler: str, flags: str, ours: Ours, jobs: int) -> None:
        self.cell, self.compiler, self.flags, self.ours, self.jobs = cell, compiler, flags, ours, jobs
        self.place = WORK / "tree"
        self.links, self.launcher = WORK / "links", WORK / "launcher" / "sccache"
        assert ours.program is not None
        self.client = ours.program

    def run(self) -> list[str]:
        """The line of the table; problems begin with "!"."""
        source = SOURCES[self.cell.project]()
        for program in (self.compiler, *self.cell.needs):
            if shutil.which(program) is None:
                raise tools.Missing(f"{program} is not installed")
        room = self.ours.room = Room.make(WORK / "rooms", "check")
        try:
            plain = [self._build(source, f"plain{n}", cached=False) for n in (1, 2)]
            self._start()
            cold = self._build(source, "cold", cached=True)
            warm = self._build(source, "warm", cached=True)
            rss = machine.rss_bytes(self.ours.servers())
            problems = [f"server log: {line}" for line in self._log() if " ERROR " in line or "Traceback" in line]
            problems += self._stop(room)
            notes = self._not_stored()
            log = self._log()
            WORK.joinpath("log").write_text("\n".join(log))
        finally:
            self.ours.stop()
            room.remove()
            self.ours.room = None
        both = [b.snapshot for b in plain]
        results = [snapshots.compare(both, b.snapshot) for b in (cold, warm)]
        for title, result in zip(("cold", "warm"), results, strict=True):
            problems += [f"{title}: {name} differs{self._lines(title, name)}" for name in result.different]
        for build in (cold, warm):
            problems += [f"{name}: {count}" for counts in (build.configuring, build.building) for name, count in counts.trouble.items()]
        if not warm.building.compiles:
            problems.append("nothing was compiled through the cache")
        if warm.building.misses > warm.building.failed + self.cell.unique:
            misses = [line.partition(" miss: ")[2] for line in log if " miss: " in line]
            problems.append(f"warm: {warm.building.misses} misses: {'; '.join(misses[-6:])}")
        return [self._line(plain, cold, warm, results[1], rss), *(f"    ! {p}" for p in problems), *(f"    {n}" for n in notes)]

    def _line(self, plain: Sequence[Build], cold: Build, warm: Build, result: Comparison, rss: int) -> str:
        cell, counts = self.cell, warm.building
        reasons = _in_words(counts.reasons).strip(" ()") or "none"
        asked = warm.configuring
        others = asked.reasons | ({"do not compile": asked.failed} if asked.failed else {})
        told = f"{asked.hits} of {asked.compiles}{_in_words(others)}" if asked.compiles else "–"
        excepted = f" ({', '.join(result.excepted[:6])}{' …' if len(result.excepted) > 6 else ''})" if result.excepted else ""
        times = (min(b.took_s for b in plain), cold.took_s, warm.took_s)
        columns = [cell.project, cell.system, cell.entry, self.compiler, self.flags, counts.compiles, counts.hits, reasons, told]
        columns += [result.compared, len(result.different), f"{len(result.excepted)}{excepted}"]
        columns += [*(f"{t:.1f}" for t in times), f"{rss / 1e6:.0f}"]
        return f"| {' | '.join(str(c) for c in columns)} |"

    def _lines(self, title: str, name: str) -> str:
        """What is different in what a build said."""
        found = re.fullmatch(r"<(\w+) of step (\d+)>", name)
        if found is None:
            return f" (tree.{title} in {WORK})"
        plain, other = (WORK.joinpath(f"{t}.{found[2]}.{found[1]}").read_text(errors="replace").splitlines() for t in ("plain1", title))
        return "".join(f"\n        {line}" for line in difflib.ndiff(sorted(plain), sorted(other)) if line[:1] in "+-")[:1500]

    # -- building ------------------------------------------------------------------------------------------------

    def _build(self, source: Path, title: str, cached: bool) -> Build:
        shutil.rmtree(self.place, ignore_errors=True)
        shutil.copytree(source, self.place, symlinks=True)
        self._point(cached)
        env = self._environment()
        counts = []
        said: Snapshot = {}
        took = 0.0
        for number, step in enumerate(self._steps()):
            if cached:
                self.ours.ask("--zero-stats")
            began = time.monotonic()
            ran = subprocess.run(
                ["sh", "-c", step], cwd=self.place, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=_STEP_S, check=False
            )
            took += time.monotonic() - began
            if not cached and ran.returncode != 0:
                raise Broken(f"step {number + 1} ends with {ran.returncode}: {(ran.stdout + ran.stderr).decode(errors='replace')[-600:]}")
            for name, data in (("stdout", ran.stdout), ("stderr", ran.stderr), ("status", b"%d" % ran.returncode)):
                said[f"<{name} of step {number + 1}>"] = snapshots.content_of(data)
                WORK.joinpath(f"{title}.{number + 1}.{name}").write_bytes(data)
            if cached:
                machine.wait_for_rest(self.ours.servers())
                counts.append(self._counts())
        build = Build(snapshots.take(self.place) | said, took, *(counts[-2:] if len(counts) > 1 else [Counts(), *counts]))
        kept = WORK / f"tree.{title}"  # for whoever wants to see a difference
        shutil.rmtree(kept, ignore_errors=True)
        self.place.rename(kept)
        return build

    def _steps(self) -> list[str]:
        gcc, gxx = COMPILERS[self.compiler]
        before = "" if self.cell.entry == LINKS else f"{self.launcher} "
        words = {"cc": before + gcc, "cxx": before + gxx, "gcc": shutil.which(gcc), "gxx": shutil.which(gxx), "launcher": self.launcher}
        return [step.format(**words, flags=self.flags, jobs=self.jobs) for step in self.cell.steps]

    def _point(self, cached: bool) -> None:
        """The launcher and the links to us.  In a plain build there is a script that starts what it is told, and no link."""
        for place in (self.links, self.launcher.parent):
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(parents=True)
        for name in ("cc", "c++", *(n for pair in COMPILERS.values() for n in pair)):
            found = shutil.which(name)
            if found is not None and cached:
                (self.links / name).symlink_to(self.client)
        if cached:
            self.launcher.symlink_to(self.client)
        else:
            self.launcher.write_text('#!/bin/sh\nexec "$@"\n')
            self.launcher.chmod(0o755)

    def _environment(self) -> dict[str, str]:
        room = self.ours.room
        assert room is not None
        temporary = room.home / "tmp"
        temporary.mkdir(exist_ok=True)
        env = clean_environment() | self.ours.settings(room)
        env.update(HOME=str(room.home), XDG_RUNTIME_DIR=str(room.runtime), TMPDIR=str(temporary))
        # What ccache would obey and we must not: nothing may change by it.
        env.update(CCACHE_DISABLE="1", CCACHE_PREFIX="false", CCACHE_RECACHE="1")
        env.update(SCCACHE_ERROR_LOG=str(room.cache.parent / "log"), SCCACHE_LOG="info")
        if self.cell.entry == LINKS:
            env["PATH"] = f"{self.links}:{env['PATH']}"
        return env

    # -- the server ----------------------------------------------------------------------------------------------

    def _start(self) -> None:
        """Not by the first compile: with a log, and so that its start is in no measured time."""
        subprocess.run([self.client, "--start-server"], env=self._environment(), stdin=subprocess.DEVNULL, capture_output=True, check=True)

    def _counts(self) -> Counts:
        stats = json.loads(self.ours.ask("--show-stats", "--stats-format", "json"))["stats"]
        return Counts(
            hits=sum(stats["cache_hits"]["counts"].values()),
            misses=sum(stats["cache_misses"]["counts"].values()),
            failed=stats["compile_fails"],
            not_compilations=stats["requests_not_compile"],
            reasons=stats["not_cached"],
            trouble={name: stats[name] for name in _TROUBLE if stats[name]},
        )

    def _log(self) -> list[str]:
        room = self.ours.room
        assert room is not None
        path = room.cache.parent / "log"
        return path.read_text(errors="replace").splitlines() if path.exists() else []

    def _not_stored(self) -> list[str]:
        told = [line[line.index("not stored (") :] for line in self._log() if "not stored (" in line]
        return [*dict.fromkeys(told[:12]), *([f"… and {len(told) - 12} more"] if len(told) > 12 else [])]

    def _stop(self, room: Room) -> list[str]:
        """What is left when the server was told to stop."""
        pids = self.ours.servers()
        self.ours.ask("--stop-server")
        marks = (room.cache.parent, room.runtime)
        end = time.monotonic() + _STOP_S
        while machine.processes_of(*marks) and time.monotonic() < end:
            time.sleep(0.05)
        left = [f"process {pid} is left" for pid in machine.processes_of(*marks)]
        left += [f"{p} is left" for p in (room.home / "tmp").iterdir()]
        left += [f"{p} is left" for p in room.runtime.rglob("*") if not p.is_dir() and not p.name.endswith((".lock", ".stamp"))]
        left += [f"{p} is left" for pid in pids for p in Path("/dev/shm").glob(f"sccache-py-*-{pid}-*")]
        for tree in ("cold", "warm"):
            left += [f"{p} is left" for p in (WORK / f"tree.{tree}").rglob("*.sccache-*")]
        return left


def _in_words(counts: dict[str, int]) -> str:
    return f" ({', '.join(f'{name}: {count}' for name, count in sorted(counts.items()))})" if counts else ""


def chosen(names: Sequence[str], long: bool) -> list[Cell]:
    if not names:
        return [c for c in CELLS if long or not c.long]
    return [c for c in CELLS if any(n in (c.project, f"{c.project}/{c.system}", f"{c.project}/{c.system}/{c.entry}") for n in names)]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("projects", nargs="*", metavar="PROJECT[/SYSTEM[/ENTRY]]")
    parser.add_argument("--list", action="store_true", help="what there is to build")
    parser.add_argument("--long", action="store_true", help="also what takes minutes for one build")
    parser.add_argument("--compiler", action="append", choices=COMPILERS)
    parser.add_argument("--flags", action="append", help="may be repeated; without it -O2 and -g -O2")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--bin", help="directory of an installed sccache-py; else the tree is installed as it is")
    args = parser.parse_args(argv)
    cells = chosen(args.projects, args.long)
    if args.list:
        print("\n".join(f"{c.project}/{c.system}/{c.entry}{' (long)' if c.long else ''}" for c in cells))
        return 0
    WORK.mkdir(parents=True, exist_ok=True)
    # As if interrupted: the server is stopped and the room removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    ours = tools.ours(args.bin)
    print("| project | system | by | compiler | flags | compiles | hits | not cached | hits in configuring | files | differences", end="")
    print(" | excepted | plain s | cold s | warm s | server MB |")
    print("|" + "---|" * 16, flush=True)
    bad = False
    for cell in cells:
        for compiler in args.compiler or COMPILERS:
            for flags in args.flags or FLAGS:
                try:
                    lines = Check(cell, compiler, flags, ours, args.jobs).run()
                except (tools.Missing, Broken) as e:
                    lines = [f"| {cell.project} | {cell.system} | {cell.entry} | {compiler} | {flags} | left out: {e} |"]
                bad = bad or any(line.startswith("    !") for line in lines)
                print("\n".join(lines), flush=True)
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
