"""Counters add up, and look as sccache's users know them."""

from __future__ import annotations

import json
import string
from typing import Any

import msgpack
from hypothesis import given
from hypothesis import strategies as st

from sccache_py.stats import Stats, Surroundings, as_answer, as_json, as_text, from_answer

HERE = Surroundings(
    version="0.1.0",
    cache_location='Local disk: "/home/u/.cache/sccache-py"',
    cache_size=3 * 1024**2 + 7,
    max_cache_size=10 * 1024**3,
    basedirs=["/src/one", "/src/two"],
    jobserver={"size": 8, "in_use": 2, "waits": 3, "wait_total_s": 1.25},
)


def a_build() -> Stats:
    stats = Stats()
    stats.count("compile_requests", 12)
    stats.count("requests_executed", 9)
    for _ in range(5):
        stats.count_language("cache_hits", "Rust", "rust")
    stats.count_language("cache_hits", "C/C++", "c [gcc]")
    stats.count_language("cache_misses", "C/C++", "c++ [clang]")
    stats.count_language("cache_misses", "Assembler", "asm [gcc]")
    stats.count("compilations", 2)
    stats.count("cache_writes", 2)
    stats.add_duration("compiler_write_duration", 3.0211)
    stats.add_duration("cache_write_duration", 0.003)
    stats.add_duration("cache_read_hit_duration", 0.012)
    stats.count("requests_not_cacheable", 3)
    for reason in ("crate-type", "-", "crate-type"):
        stats.not_cached(reason)
    return stats


def test_the_text_is_sccaches_line_by_line() -> None:
    """Scripts grep it, and eyes know where to look; the widths follow sccache's own arithmetic.  The pool's state comes last."""
    assert (
        as_text(a_build(), HERE)
        == """\
Compile requests                      12
Compile requests executed              9
Cache hits                             6
Cache hits (C/C++)                     1
Cache hits (Rust)                      5
Cache misses                           2
Cache misses (Assembler)               1
Cache misses (C/C++)                   1
Cache hits rate                    75.00 %
Cache hits rate (Assembler)         0.00 %
Cache hits rate (C/C++)            50.00 %
Cache hits rate (Rust)            100.00 %
Cache timeouts                         0
Cache read errors                      0
Forced recaches                        0
Cache write errors                     0
Cache errors                           0
Compilations                           2
Compilation failures                   0
Non-cacheable compilations             0
Non-cacheable calls                    3
Non-compilation calls                  0
Unsupported compiler calls             0
Average cache write                0.001 s
Average compiler                   1.510 s
Average cache read hit             0.002 s
Failed distributed compilations        0

Non-cacheable reasons:
crate-type                             2
-                                      1

Cache location                  Local disk: "/home/u/.cache/sccache-py"
Base directories                /src/one, /src/two
Use direct/preprocessor mode?   no
Version (client)                0.1.0
Cache size                             3 MiB
Max cache size                        10 GiB

Job tokens                             8
Job tokens in use                      2
"""
    )


def test_advanced_text_tells_compilers_and_our_own_counters() -> None:
    """--show-adv-stats: which compiler, not just which language; and what only we count."""
    text = as_text(a_build(), HERE, advanced=True)
    for line in ("Cache hits (c [gcc])", "Cache misses (c++ [clang])", "Joined flights", "Job tokens in use"):
        assert f"\n{line} " in text
    assert text.endswith("\nWaited for job tokens              1.250 s\n")
    assert "Cache hits (C/C++)" not in text


def test_nothing_counted_is_shown_as_nothing() -> None:
    """No division by zero before the first compile; no empty headings."""
    text = as_text(Stats(), Surroundings(version="0.1.0"))
    assert "Cache hits rate                       -\n" in text
    assert "Average compiler                  0.000 s\n" in text
    assert "Base directories                (none)\n" in text
    assert "reasons" not in text
    assert "Cache size" not in text
    assert Stats().is_empty()
    assert not a_build().is_empty()


def test_json_has_sccaches_keys_and_shapes() -> None:
    """sccache-action and friends read stats.cache_hits.counts and expect Rust's form of a duration."""
    value = json.loads(json.dumps(as_json(a_build(), HERE)))
    stats = value["stats"]
    assert set(stats) == set(
        [
            "compile_requests",
            "requests_unsupported_compiler",
            "requests_not_compile",
            "requests_not_cacheable",
            "requests_executed",
            "cache_errors",
            "cache_hits",
            "cache_misses",
            "cache_timeouts",
            "cache_read_errors",
            "non_cacheable_compilations",
            "forced_recaches",
            "cache_write_errors",
            "cache_writes",
            "cache_write_duration",
            "cache_read_hit_duration",
            "compilations",
            "compiler_write_duration",
            "compile_fails",
            "not_cached",
            "dist_compiles",
            "dist_errors",
            "multi_level",
        ]
    )
    assert stats["cache_hits"] == {"counts": {"C/C++": 1, "Rust": 5}, "adv_counts": {"c [gcc]": 1, "rust": 5}}
    assert stats["cache_errors"] == {"counts": {}, "adv_counts": {}}
    assert stats["compiler_write_duration"] == {"secs": 3, "nanos": 21_100_000}
    assert stats["not_cached"] == {"crate-type": 2, "-": 1}
    assert (value["cache_size"], value["max_cache_size"]) == (3 * 1024**2 + 7, 10 * 1024**3)
    assert (value["version"], value["basedirs"]) == ("0.1.0", ["/src/one", "/src/two"])
    assert value["jobserver"] == {"size": 8, "in_use": 2, "waits": 3, "wait_total_s": 1.25}
    assert value["probes"] == {"hits": 0, "misses": 0}
    assert (value["joined_flights"], value["second_chance_hits"]) == (0, 0)
    assert value["verify"] == {"verified": 0, "differences": 0}


def test_a_counter_that_nobody_listed_is_still_shown() -> None:
    """A new counter must not vanish because this file was forgotten."""
    stats = Stats()
    stats.count("brand_new", 3)
    assert as_json(stats, HERE)["other"]["brand_new"] == 3
    assert "\nbrand_new " in as_text(stats, HERE)


NAMES = st.text(string.ascii_lowercase + "_/+", min_size=1, max_size=8)
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("count"), NAMES, st.integers(0, 2**40)),
        st.tuples(st.just("count_language"), NAMES, NAMES, NAMES),
        st.tuples(st.just("not_cached"), st.text(max_size=8)),
        st.tuples(st.just("add_duration"), NAMES, st.floats(0, 1e6)),
    ),
    max_size=20,
)


def counted(events: list[tuple[Any, ...]]) -> Stats:
    stats = Stats()
    for method, *args in events:
        getattr(stats, method)(*args)
    return stats


@given(EVENTS, EVENTS)
def test_merging_is_counting_all_of_it(first: list[tuple[Any, ...]], second: list[tuple[Any, ...]]) -> None:
    """Several servers share a cache, and each adds what it has counted to what is stored."""
    merged = counted(first)
    merged.merge(counted(second))
    assert merged.to_dict() == counted(first + second).to_dict()


@given(EVENTS)
def test_statistics_survive_storage_and_the_socket(events: list[tuple[Any, ...]]) -> None:
    """They are stored (msgpack) and travel to the client (msgpack, or JSON from --print-stats)."""
    stats = counted(events)
    answer = as_answer(stats, HERE)
    for copy in (msgpack.unpackb(msgpack.packb(answer)), json.loads(json.dumps(answer))):
        again, surroundings = from_answer(copy)
        assert again.to_dict() == stats.to_dict()
        assert surroundings == HERE


def test_what_another_version_wrote_is_read_as_far_as_it_goes() -> None:
    """After an upgrade or a downgrade the totals of last week are still there."""
    stats = Stats.from_dict({"counts": {"compilations": 3, "odd": "x", "flag": True}, "reasons": 7, "new": {"a": 1}})
    assert stats.total("compilations") == 3
    assert stats.to_dict()["counts"] == {"compilations": 3}
    assert Stats.from_dict({}).is_empty()
    assert from_answer({"stats": None, "surroundings": {"version": "9", "unheard": 1}})[1].version == "9"


def test_a_copy_shares_nothing_and_clearing_empties() -> None:
    """The server hands a copy to the store's thread while it goes on counting."""
    stats = a_build()
    copy = Stats.from_dict(stats.to_dict())
    stats.clear()
    assert stats.is_empty()
    assert copy.to_dict() == a_build().to_dict()
