"""What a run leaves: JSON with every value, tables for people (terminal and markdown), charts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import charts, figures, goals, scale
from benchmarks.measure import CONTROL, PLAIN, Results, Series

_ORDER = (goals.OURS, "ccache", "sccache", "zccache", "kache", PLAIN, CONTROL)


@dataclass(frozen=True, slots=True)
class Case:
    workload: str
    title: str
    unit: str
    series: list[Series]

    def of(self, contender: str) -> Series | None:
        return next((s for s in self.series if s.contender == contender), None)


def cases(results: Results) -> list[Case]:
    found: dict[tuple[str, str], Case] = {}
    for series in results.series:
        if series.detail:
            continue
        key = (series.workload, series.case)
        found.setdefault(key, Case(series.workload, series.case, series.unit, [])).series.append(series)
    return list(found.values())


def contenders(results: Results) -> list[str]:
    names = dict.fromkeys(s.contender for s in results.series)
    return [n for n in _ORDER if n in names] + [n for n in names if n not in _ORDER]


def number(value: float, unit: str) -> str:
    if unit in ("1/s", "MB"):
        return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def cell(case: Case, name: str, spread: bool) -> str:
    """Median; the quartiles; of others also how ours compares, pair by pair: ×0.35 is 0.35 of what they take."""
    series = case.of(name)
    if series is None:
        return "–"
    middle = figures.summary(series.values)
    text = number(middle.median, case.unit) + ("*" if series.note else "")
    if middle.count > 1 and (spread or name == goals.OURS):
        text += f" [{number(middle.low, case.unit)}–{number(middle.high, case.unit)}]"
    ours = case.of(goals.OURS)
    if ours is not None and name != goals.OURS:
        against = figures.ratio(ours.values, series.values)
        if against is not None:
            text += f" ×{against.median:.2f}"
    return text


def rows(results: Results, spread: bool) -> Iterator[tuple[Case, list[str]]]:
    names = contenders(results)
    for case in cases(results):
        yield case, [f"{case.title} ({case.unit})", *(cell(case, name, spread) for name in names)]


def notes(results: Results) -> list[str]:
    return list(dict.fromkeys(f"{s.contender}, {s.case}: {s.note}" for s in results.series if s.note))


def show(results: Results, console: Console) -> None:
    table = Table(title="median [quartiles] ×ours/theirs")
    for name in ["", *contenders(results)]:
        table.add_column(name, overflow="fold", max_width=44 if not name else None)
    workload = None
    for case, cells in rows(results, spread=False):
        if workload not in (None, case.workload):
            table.add_section()
        workload = case.workload
        table.add_row(*cells)
    console.print(table)
    judged = Table(title="goals, furthest off first")
    for name in ("goal", "limit", "now", "times the limit"):
        judged.add_column(name)
    for verdict in goals.judge(results):
        if verdict.value is not None:
            judged.add_row(*_verdict_cells(verdict))
    if judged.row_count:
        console.print(judged)
    for remark in [*notes(results), *results.remarks]:
        console.print(f"* {remark}", markup=False, highlight=False)


def _verdict_cells(verdict: goals.Verdict) -> list[str]:
    value = "not measured" if verdict.value is None else f"{verdict.value:.2f}"
    if verdict.off is None:
        off = "not judged"
    else:
        off = f"{verdict.off:.2f}" + (" (holds)" if verdict.off <= 1 else "")
    return [verdict.goal.case, verdict.goal.text(), value, off]


def markdown(results: Results, head: str) -> str:
    """latest.md, for the README to take from."""
    names = contenders(results)
    text = f"# Latest figures\n\n{head}\n\n"
    text += "median [quartiles] ×ours/theirs, taken pair by pair. ×0.35: ours takes 0.35 of what that one takes.\n"
    workload = None
    for case, cells in rows(results, spread=True):
        if case.workload != workload:
            workload = case.workload
            text += f"\n## {workload}\n\n| | {' | '.join(names)} |\n|{'---|' * (len(names) + 1)}\n"
        text += f"| {' | '.join(cells)} |\n"
    text += "\n## Goals\n\n| goal | limit | now | times the limit |\n|---|---|---|---|\n"
    text += "".join(f"| {' | '.join(_verdict_cells(v))} |\n" for v in goals.judge(results))
    said = [*notes(results), *results.remarks]
    if said:
        text += "\n## Remarks\n\n" + "".join(f"- {' '.join(remark.split())}\n" for remark in said)
    return text


def _without_places(text: str) -> str:
    """Remarks with a compiler's words name this machine's directories; what is published does not."""
    for place, name in ((Path(__file__).resolve().parent.parent, "."), (Path.home(), "~")):
        text = text.replace(str(place), name)
    return text


def write(results: Results, directory: Path, head: str, about: dict[str, object]) -> list[Path]:
    """All files of a run.  about: machine, versions, date, command."""
    directory.mkdir(parents=True, exist_ok=True)
    results.remarks = [_without_places(remark) for remark in results.remarks]
    whole = about | {"facts": results.facts, "remarks": results.remarks, "series": [asdict(s) for s in results.series]}
    (directory / "latest.json").write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n")
    (directory / "latest.md").write_text(markdown(results, head))
    made = [directory / "latest.json", directory / "latest.md"]
    for workload in dict.fromkeys(s.workload for s in results.series):
        groups = list(_groups(results, workload))
        if groups:
            chart = directory / f"{workload}.svg"
            chart.write_text(charts.bars(f"{workload}: shorter is better", head, groups))
            made.append(chart)
    facts = results.facts.get("scale")
    if isinstance(facts, dict):
        scale.write_markdown(facts, head, directory)
        made.append(directory / "scale.md")
    return made


def _groups(results: Results, workload: str) -> Iterator[charts.Group]:
    """The cases of time in which at least two are compared."""
    for case in cases(results):
        if case.workload != workload or case.unit not in ("s", "ms") or len(case.series) < 2:
            continue
        bars = []
        for name in contenders(results):
            series = case.of(name)
            if series is not None and name != CONTROL:
                middle = figures.summary(series.values)
                bars.append(charts.Bar(name, middle, f"{number(middle.median, case.unit)} {case.unit}"))
        yield charts.Group(case.title, bars)
