"""How things are timed, and what is kept of it: series of values by case and contender, in pairs."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import figures
from benchmarks.contenders import Contender

PLAIN = "plain"
CONTROL = "plain again"

# The attic is emptied early when the disk has less room than this.
_ROOM_BYTES = 25 << 30


class Failed(Exception):
    """A contender did not do its work: its comparison ends here."""


@dataclass(slots=True)
class Series:
    workload: str
    case: str
    contender: str
    unit: str
    values: list[float]
    note: str = ""
    detail: bool = False  # for the JSON, not for the tables


@dataclass(slots=True)
class Results:
    """changed: called after each series, so that the terminal can show it."""

    series: list[Series] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    facts: dict[str, object] = field(default_factory=dict)
    changed: Callable[[], None] = lambda: None

    def add(
        self, workload: str, case: str, contender: str, unit: str, values: Sequence[float], note: str = "", detail: bool = False
    ) -> None:
        if values:
            self.series.append(Series(workload, case, contender, unit, list(values), note, detail))
            self.changed()

    def add_all(self, workload: str, case: str, unit: str, timed: Mapping[str, Sequence[float]], notes: Mapping[str, str]) -> None:
        """The outcome of alternate(); says so if the control is off."""
        for contender, values in timed.items():
            self.add(workload, case, contender, unit, values, notes.get(contender, ""))
        if timed.get(PLAIN) and timed.get(CONTROL):
            remark = figures.control_remark(f"{workload}, {case}", timed[PLAIN], timed[CONTROL])
            if remark:
                self.remark(remark)

    def remark(self, text: str) -> None:
        self.remarks.append(text)
        self.changed()

    def values(self, case: str, contender: str) -> list[float]:
        return next((s.values for s in self.series if (s.case, s.contender) == (case, contender)), [])


def alternate(
    work: Mapping[str, Callable[[], float]], rounds: int, warmups: int, results: Results, what: str, tick: Callable[[str], None]
) -> dict[str, list[float]]:
    """Each round everybody once, in an order drawn anew.  Who fails is out, with a remark.

    Not A B C, B C A, C A B: there B always finds the processor's caches as A leaves them, and a compiler leaves them empty.
    """
    timed: dict[str, list[float]] = {name: [] for name in work}
    draw = random.Random(what)  # the same orders in each run
    for n in range(warmups + rounds):
        for name in draw.sample(list(timed), len(timed)):
            tick(name)
            try:
                value = work[name]()
            except Failed as e:
                results.remark(f"{what}: {name} failed and is left out: {e}")
                del timed[name]
                continue
            if n >= warmups:
                timed[name].append(value)
    return timed


@dataclass(frozen=True, slots=True)
class Once:
    """One run of a program from its caller's side."""

    seconds: float
    cpu_seconds: float


def once(argv: Sequence[str], env: Mapping[str, str], cwd: Path, outputs: Sequence[Path] = ()) -> Once:
    """posix_spawn and wait, nothing else between the two clocks.  `outputs` are removed before and must be there after."""
    for output in outputs:
        with contextlib.suppress(FileNotFoundError):
            output.unlink()
    null = os.open(os.devnull, os.O_RDWR)
    errors = os.memfd_create("stderr")
    env = {**env, "PWD": str(cwd)}
    actions = [(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, null, 1), (os.POSIX_SPAWN_DUP2, errors, 2)]
    back = os.getcwd()
    os.chdir(cwd)
    try:
        program = shutil.which(argv[0]) or argv[0]
        began = time.perf_counter_ns()
        pid = os.posix_spawn(program, argv, env, file_actions=actions)
        _, status, usage = os.wait4(pid, 0)
        took = time.perf_counter_ns() - began
        said = os.pread(errors, 2000, 0).decode(errors="replace")
    except OSError as e:
        raise Failed(f"{Path(argv[0]).name}: {e}") from e
    finally:
        os.chdir(back)
        os.close(null)
        os.close(errors)
    if status != 0:
        raise Failed(f"{' '.join(argv[:3])}…: status {os.waitstatus_to_exitcode(status)}: {said.strip()[-400:]}")
    for output in outputs:
        if not output.exists():
            raise Failed(f"{' '.join(argv[:3])}…: no {output.name} was made")
    return Once(took / 1e9, usage.ru_utime + usage.ru_stime)


def timed(argv: Sequence[str], env: Mapping[str, str], cwd: Path, timeout_s: float = 3600) -> float:
    """Seconds of a long run; Failed with its last words."""
    began = time.perf_counter()
    try:
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        done = subprocess.run(argv, env=env, cwd=cwd, timeout=timeout_s, check=False, **pipes)  # type: ignore[call-overload]
    except (OSError, subprocess.TimeoutExpired) as e:
        raise Failed(str(e)) from e
    took = time.perf_counter() - began
    if done.returncode != 0:
        raise Failed(f"{' '.join(argv[:3])}: status {done.returncode}: {done.stdout.decode(errors='replace').strip()[-800:]}")
    return took


class Attic:
    """Where directories go that are in the way: moved before the clock starts, deleted when nothing is timed.

    (Deleting them right before costs the next writes up to a second on ext4.)
    """

    def __init__(self, place: Path) -> None:
        self._place = place
        self._place.mkdir(parents=True, exist_ok=True)

    def put(self, directory: Path) -> None:
        if directory.exists():
            if shutil.disk_usage(self._place).free < _ROOM_BYTES:
                self.empty()
            directory.rename(self._place / f"{directory.name}-{time.monotonic_ns()}")
        os.sync()  # what others have left to be written is not for this one to pay

    def empty(self) -> None:
        for directory in self._place.iterdir():
            shutil.rmtree(directory, ignore_errors=True)
        os.sync()


@dataclass(slots=True)
class Bench:
    """One run of the suite, as the workloads see it.  tick: what is being done now, for whoever watches."""

    contenders: list[Contender]
    results: Results
    work: Path
    rooms: Path
    rustc: str
    rounds: int | None
    tick: Callable[[str], None]

    def rounds_or(self, usual: int) -> int:
        return self.rounds or usual

    def those_for(self, language: str) -> list[Contender]:
        return [c for c in self.contenders if language in c.languages]


@contextlib.contextmanager
def all_at_work(contenders: Sequence[Contender], rooms: Path, results: Results) -> Iterator[list[Contender]]:
    """Everybody in a room of their own; who cannot start is left out."""
    with contextlib.ExitStack() as stack:
        ready = []
        for contender in contenders:
            try:
                ready.append(stack.enter_context(contender.at_work(rooms)))
            except (OSError, subprocess.SubprocessError) as e:
                results.remark(f"{contender.name} does not start and is left out: {e}")
        yield ready
