"""benchmarks/: the arithmetic that speed claims rest on."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.append(str(Path(__file__).resolve().parents[2]))

from benchmarks import charts, figures, goals, measure, report, scale

times = st.lists(st.floats(min_value=1e-6, max_value=1e6), min_size=1, max_size=50)


def test_quantiles_lie_linear_between_neighbours():
    assert figures.median([3, 1, 2]) == 2
    assert figures.median([4, 1, 2, 3]) == 2.5
    assert figures.quantile([10, 20], 0.25) == 12.5
    assert figures.quantile([7], 0.99) == 7
    with pytest.raises(ValueError, match="no values"):
        figures.median([])


@given(times)
def test_a_summary_is_in_order_and_within_its_values(values):
    s = figures.summary(values)
    assert min(values) <= s.low <= s.median <= s.high <= max(values)
    assert s.count == len(values)


def test_ratios_are_taken_within_pairs_so_a_slow_moment_of_the_machine_cancels():
    quiet, busy = [1.0, 1.0, 1.0], [2.0, 2.0, 2.0]
    ours, theirs = quiet + [10 * x for x in quiet], busy + [10 * x for x in busy]
    assert figures.ratio(ours, theirs) == figures.Summary(0.5, 0.5, 0.5, 6)


def test_who_ended_early_leaves_fewer_pairs():
    assert figures.pair_ratios([1, 2, 3], [2, 2]) == [0.5, 1.0]
    assert figures.ratio([1], []) is None


@given(times)
def test_a_control_against_itself_is_not_off(values):
    assert figures.control_offset(values, values) == pytest.approx(0)
    assert figures.control_remark("case", values, values) is None


def test_a_control_that_is_off_is_said():
    assert figures.control_remark("case", [1.0, 1.0], [1.04, 1.05]) is None
    assert "off by 10%" in (figures.control_remark("case", [1.0, 1.0], [1.1, 1.1]) or "")
    assert "off by 10%" in (figures.control_remark("case", [1.0, 1.0], [0.9, 0.9]) or "")


def test_the_slope_of_a_line_is_found():
    slope, at_zero = figures.least_squares([(1, 5), (2, 7), (4, 11)])
    assert (slope, at_zero) == pytest.approx((2, 3))


# -- alternation -----------------------------------------------------------------------------------------------------


def test_everybody_takes_turns_and_who_fails_is_out_with_a_remark():
    order: list[str] = []
    results = measure.Results()

    def work(name: str, fails_at: int | None = None):
        def run() -> float:
            order.append(name)
            if fails_at is not None and order.count(name) > fails_at:
                raise measure.Failed("no compiler")
            return float(order.count(name))

        return run

    timed = measure.alternate({"a": work("a"), "b": work("b"), "c": work("c", 1)}, 3, 1, results, "case", lambda _: None)
    assert sorted(order[:3]) == sorted(order[3:6]) == ["a", "b", "c"]
    assert timed == {"a": [2, 3, 4], "b": [2, 3, 4]}  # the first round was to warm up
    assert results.remarks == ["case: c failed and is left out: no compiler"]


def test_nobody_always_comes_behind_the_same_one():
    """Behind a compiler the processor's caches are empty; that must meet everybody alike."""
    order: list[str] = []
    work = {name: lambda name=name: float(order.append(name) or 0) for name in "abcd"}
    measure.alternate(work, 40, 0, measure.Results(), "case", lambda _: None)
    before = [order[n - 1] for n in range(1, 160) if order[n] == "a"]
    assert {name for name in "bcd" if before.count(name) >= 5} == set("bcd")


def test_a_run_is_timed_and_its_output_must_be_there(tmp_path):
    out = tmp_path / "out"
    took = measure.once(["sh", "-c", "sleep 0.02; echo x > out"], {"PATH": "/bin:/usr/bin"}, tmp_path, [out])
    assert 0.02 <= took.seconds < 5
    with pytest.raises(measure.Failed, match="status 3: oh no"):
        measure.once(["sh", "-c", "echo oh no >&2; exit 3"], {"PATH": "/bin:/usr/bin"}, tmp_path)
    with pytest.raises(measure.Failed, match="no out was made"):
        measure.once(["true"], {"PATH": "/bin:/usr/bin"}, tmp_path, [out])


# -- goals, tables, charts -------------------------------------------------------------------------------------------


def some_results() -> measure.Results:
    results = measure.Results()
    results.add("hit", "C, 5 system headers", "sccache-py", "ms", [2.4, 2.4], "a note")
    results.add("hit", "C, 5 system headers", "ccache", "ms", [3.0, 3.0])
    results.add("hit", "C, 5 system headers", "plain", "ms", [20.0, 20.0])
    results.add("big170", "big170, cargo build, warm", "sccache-py", "s", [2.0])
    return results


def test_a_goal_may_be_held_against_another_case():
    """Warm against plain, which is only ever cold."""
    results = some_results()
    results.add("test", "big170, cargo test --no-run, warm", "sccache-py", "s", [2.0])
    results.add("test", "big170, cargo test --no-run, cold", "plain", "s", [32.0])
    verdict = next(v for v in goals.judge(results) if v.goal.beside)
    assert (verdict.value, verdict.off) == (2.0, pytest.approx(0.5))


def test_a_goal_counts_by_the_worse_of_its_two_limits():
    by_case = {v.goal.case: v for v in goals.judge(some_results())}
    c = by_case["C, 5 system headers"]
    assert (c.value, c.off) == (2.4, pytest.approx(0.8 / 0.4))
    warm = by_case["big170, cargo build, warm"]  # kache was left out: not judged
    assert (warm.value, warm.off) == (2.0, None)
    assert by_case["Rust lib"].value is None
    assert goals.judge(some_results())[0] is not None
    assert goals.judge(some_results())[0].goal.case == "C, 5 system headers"


def test_reports_are_written_and_can_be_read(tmp_path):
    results = some_results()
    results.facts["scale"] = {
        "costs_ms": {"client": 0.2, "server": 0.5, "ccache": 3.0},
        "measured_on": {"sccache-py": "Rust lib", "ccache": "C"},
        "one_process_is_the_limit_from": 1.4,
        "table": [["2", "1", "1", "1", "1"]],
        "pinned": [["two processors", "ccache", 600]],
    }
    made = report.write(results, tmp_path, "2000-01-01", {"machine": {}})
    assert {p.name for p in made} == {"latest.json", "latest.md", "hit.svg", "scale.md"}
    assert json.loads((tmp_path / "latest.json").read_text())["series"][0]["values"] == [2.4, 2.4]
    text = (tmp_path / "latest.md").read_text()
    assert "| C, 5 system headers (ms) | 2.40* [2.40–2.40] | 3.00 [3.00–3.00] ×0.80 | 20.0 [20.0–20.0] ×0.12 |" in text
    assert "a note" in text
    assert ElementTree.parse(tmp_path / "hit.svg").getroot().tag.endswith("svg")


def test_a_chart_escapes_what_it_is_given():
    bar = charts.Bar("a<b", figures.Summary(1, 1, 1, 1), "1 & 2")
    ElementTree.fromstring(charts.bars('"t" & <u>', "note", [charts.Group("C++ <regex>", [bar])]))


# -- scale -----------------------------------------------------------------------------------------------------------


def test_workers_keep_us_ahead_with_as_few_processes_as_possible():
    costs = scale.Costs(client=0.0002, server=0.0005, ccache=0.003)
    for n in scale.SIZES:
        workers = scale.workers_needed(costs, n)
        assert workers is not None
        assert scale.hits_per_second(costs, n, workers) > scale.ccache_per_second(costs, n)
        assert workers == 1 or scale.hits_per_second(costs, n, workers - 1) <= scale.ccache_per_second(costs, n)
    assert scale.limit_processors(costs) == pytest.approx(1.4)
    assert scale.workers_needed(scale.Costs(0.002, 0.002, 0.003), 8) is None


def test_the_programs_say_how_they_are_used():
    for name in ("run.py", "profile.py"):
        program = Path(__file__).resolve().parents[2] / "benchmarks" / name
        said = subprocess.run([sys.executable, program, "--help"], capture_output=True, text=True, check=True, timeout=60)
        assert f"python benchmarks/{name}" in said.stdout
