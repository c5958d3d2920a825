"""The goals of this project, judged on a run's own figures.  A goal against a peer that was left out is not judged."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks import figures
from benchmarks.measure import PLAIN, Results

OURS = "sccache-py"


@dataclass(frozen=True, slots=True)
class Goal:
    """at_most: an absolute limit in the case's unit; factor × against: a limit by another contender.

    beside: the case in which that contender is looked up, if it is another.  more: the case counts something of which more is better.
    """

    case: str
    at_most: float | None = None
    factor: float | None = None
    against: str = ""
    more: bool = False
    beside: str = ""

    def text(self) -> str:
        sign = "≥" if self.more else "≤"
        parts = [f"{sign} {self.at_most:g}"] if self.at_most is not None else []
        if self.factor is not None:
            parts.append(f"{sign} {self.factor:g} × {self.against}")
        return " and ".join(parts)


GOALS = (
    Goal("client's round trip, a server that answers at once", at_most=0.8),
    Goal("C, 5 system headers", at_most=1.2, factor=0.4, against="ccache"),
    Goal("C++, 300 headers", at_most=1.8, factor=0.4, against="ccache"),
    Goal("Rust lib", at_most=1.5, factor=0.35, against="zccache"),
    Goal("big170, cargo build, cold", factor=1.03, against=PLAIN),
    Goal("big170, cargo build, warm", factor=0.8, against="kache"),
    Goal("big170, cargo build: cache on disk", factor=1.5, against="sccache"),
    Goal("big170, cargo build: memory of all servers", at_most=120),
    Goal("big170, cargo test --no-run, warm", factor=1 / 8, against=PLAIN, beside="big170, cargo test --no-run, cold"),
    Goal("cargo check after an edit, meanwhile", factor=0.5, against=PLAIN),
    *(
        goal
        for project in ("Debian's re2, cmake and ninja", "Debian's redis, make")
        for goal in (
            Goal(f"{project}, cold", factor=1.03, against=PLAIN),
            Goal(f"{project}, cold", factor=1.0, against="ccache"),
            Goal(f"{project}, warm", factor=0.6, against="ccache"),
        )
    ),
    Goal("C, 5 system headers: hits per second, 2 clients", factor=1.0, against="ccache", more=True),
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """off: how many times over the limit; at most 1: the goal holds.  None: not judged."""

    goal: Goal
    value: float | None
    off: float | None


def judge(results: Results) -> list[Verdict]:
    """Furthest off first."""
    verdicts = [_verdict(results, goal) for goal in GOALS]
    return sorted(verdicts, key=lambda v: -(v.off or 0.0))


def _verdict(results: Results, goal: Goal) -> Verdict:
    ours = results.values(goal.case, OURS)
    if not ours:
        return Verdict(goal, None, None)
    value, off = figures.median(ours), []
    if goal.at_most is not None:
        off.append(value / goal.at_most)
    if goal.factor is not None:
        against = figures.ratio(ours, results.values(goal.beside or goal.case, goal.against))
        if against is None:
            return Verdict(goal, value, max(off) if off else None)
        off.append(goal.factor / against.median if goal.more else against.median / goal.factor)
    return Verdict(goal, value, max(off))
