"""What was counted: adding up, merging, and the two layouts that sccache's users and scripts know.

Counters are open: a name that is not listed here is kept, merged and shown among our own.  JSON keys and text
lines follow sccache 0.16 (src/server.rs: ServerStats, ServerInfo and their `print`); scripts read both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeAlias

Json: TypeAlias = dict[str, Any]

# sccache's plain counters, in its JSON.
_COUNTERS = (
    "compile_requests",
    "requests_unsupported_compiler",
    "requests_not_compile",
    "requests_not_cacheable",
    "requests_executed",
    "cache_timeouts",
    "cache_read_errors",
    "non_cacheable_compilations",
    "forced_recaches",
    "cache_write_errors",
    "cache_writes",
    "compilations",
    "compile_fails",
)
_BY_LANGUAGE = ("cache_errors", "cache_hits", "cache_misses")
_DURATIONS = ("cache_write_duration", "cache_read_hit_duration", "compiler_write_duration")

# Our own, each with the line it has in the text.
_OWN = {
    "probe_hits": "Questions answered (-vV, --print)",
    "probe_misses": "Questions asked of a compiler",
    "joined_flights": "Joined flights",
    "verified": "Verified hits",
    "verify_differences": "Verified hits that differed",
    "second_chance_hits": "Second-chance hits",
}
_JOBSERVER_DETAILS = ("waits", "wait_total_s")
# The jobserver's state and what it counted since its server started.
_JOBSERVER = {
    "size": "Job tokens",
    "in_use": "Job tokens in use",
    "waiting": "Waiting for a job token",
    "waits": "Waits for a job token",
    "wait_total_s": "Waited for job tokens",
    "wait_mean_s": "Mean wait for a job token",
    "wait_longest_s": "Longest wait for a job token",
    "reclaimed": "Job tokens reclaimed",
}

_NS = 1_000_000_000


class Stats:
    """Counters since the last zeroing.  Not for use by several threads at once."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._languages: dict[str, dict[str, int]] = {}
        self._details: dict[str, dict[str, int]] = {}
        self._reasons: dict[str, int] = {}
        self._durations_ns: dict[str, int] = {}

    def count(self, name: str, n: int = 1) -> None:
        """Add `n` to a counter, one of sccache's JSON keys or of our own."""
        self._counts[name] = self._counts.get(name, 0) + n

    def count_language(self, name: str, language: str, adv: str) -> None:
        """Add 1 to `cache_hits`, `cache_misses` or `cache_errors`.

        `language` is "Rust", "C/C++" or "Assembler", `adv` what --show-adv-stats tells: "rust", "c [gcc]".
        """
        _add(self._languages.setdefault(name, {}), language, 1)
        _add(self._details.setdefault(name, {}), adv, 1)

    def not_cached(self, reason: str) -> None:
        """Add 1 to a line under "Non-cacheable reasons"; the counter beside it is the caller's to choose."""
        _add(self._reasons, reason, 1)

    def add_duration(self, name: str, seconds: float) -> None:
        """Add to a sum of durations; what it is divided by for an average is a counter."""
        _add(self._durations_ns, name, round(seconds * _NS))

    def merge(self, other: Stats) -> None:
        """Add what another has counted."""
        for mine, theirs in zip(self._tables(), other._tables(), strict=True):
            for name, n in theirs.items():
                _add(mine, name, n)
        for nested, others in ((self._languages, other._languages), (self._details, other._details)):
            for name, table in others.items():
                for key, n in table.items():
                    _add(nested.setdefault(name, {}), key, n)

    def clear(self) -> None:
        """Back to nothing counted."""
        self.__init__()  # type: ignore[misc]

    def is_empty(self) -> bool:
        """Whether nothing was counted."""
        return not any(self.to_dict().values())

    def _tables(self) -> tuple[dict[str, int], ...]:
        return self._counts, self._reasons, self._durations_ns

    def to_dict(self) -> Json:
        """Plain values for msgpack or JSON; shares nothing with this object."""
        return {
            "counts": dict(self._counts),
            "languages": {name: dict(table) for name, table in self._languages.items()},
            "details": {name: dict(table) for name, table in self._details.items()},
            "reasons": dict(self._reasons),
            "durations_ns": dict(self._durations_ns),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Stats:
        """The inverse.  What is missing, unknown or of another type (another version's) is left out."""
        stats = cls()
        stats._counts = _table(values, "counts")
        stats._reasons = _table(values, "reasons")
        stats._durations_ns = _table(values, "durations_ns")
        for name, nested in (("languages", stats._languages), ("details", stats._details)):
            tables = values.get(name)
            if isinstance(tables, Mapping):
                nested.update({key: _table(tables, key) for key in tables if isinstance(key, str)})
        return stats

    def total(self, name: str) -> int:
        """A counter's value; of one that is counted by language, the sum over them."""
        return self._counts.get(name, 0) + sum(self._languages.get(name, {}).values())

    def duration_ns(self, name: str) -> int:
        """A sum of durations in nanoseconds."""
        return self._durations_ns.get(name, 0)

    def by_language(self, name: str, advanced: bool = False) -> dict[str, int]:
        """A counter's values by language, or, advanced, by compiler; sorted by name."""
        return dict(sorted((self._details if advanced else self._languages).get(name, {}).items()))

    def reasons(self) -> dict[str, int]:
        """Reasons for not caching, the most frequent first."""
        return dict(sorted(self._reasons.items(), key=lambda item: (-item[1], item[0])))

    def own(self) -> dict[str, int]:
        """Counters that sccache does not have, those that are always shown first."""
        known = {*_COUNTERS, *_BY_LANGUAGE}
        return dict.fromkeys(_OWN, 0) | {k: n for k, n in sorted(self._counts.items()) if k not in known}


def _add(table: dict[str, int], name: str, n: int) -> None:
    table[name] = table.get(name, 0) + n


def _table(values: Mapping[str, Any], name: str) -> dict[str, int]:
    table = values.get(name)
    if not isinstance(table, Mapping):
        return {}
    return {k: n for k, n in table.items() if isinstance(k, str) and type(n) is int}


@dataclass(frozen=True)
class Surroundings:
    """What is shown beside the counters: where the cache is, how full, and how the jobserver stands now."""

    version: str
    cache_location: str = ""  # 'Local disk: "/path"', as sccache says it
    cache_size: int | None = None  # bytes
    max_cache_size: int | None = None  # bytes
    basedirs: list[str] = field(default_factory=list)
    jobserver: dict[str, float] = field(default_factory=dict)  # keys of _JOBSERVER; empty: no server runs

    def to_dict(self) -> Json:
        """Plain values for msgpack or JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Surroundings:
        """The inverse; tolerates what other versions add or lack."""
        known = {f.name: values[f.name] for f in fields(cls) if f.name in values}
        return cls(**{"version": "", **known})


def as_answer(stats: Stats, surroundings: Surroundings) -> Json:
    """The ANSWER to the CONTROL `stats`, and what `--print-stats` prints as JSON."""
    return {"stats": stats.to_dict(), "surroundings": surroundings.to_dict()}


def from_answer(answer: Mapping[str, Any]) -> tuple[Stats, Surroundings]:
    """The inverse; an answer that makes no sense is one of nothing counted."""
    stats, surroundings = answer.get("stats"), answer.get("surroundings")
    return (
        Stats.from_dict(stats if isinstance(stats, Mapping) else {}),
        Surroundings.from_dict(surroundings if isinstance(surroundings, Mapping) else {}),
    )


def as_json(stats: Stats, surroundings: Surroundings) -> Json:
    """sccache's `--stats-format json`; `jobserver`, `joined_flights`, `second_chance_hits`, `probes`, `verify` and `other` are ours."""
    own = stats.own()
    probes = {"hits": own.pop("probe_hits"), "misses": own.pop("probe_misses")}
    verify = {"verified": own.pop("verified"), "differences": own.pop("verify_differences")}
    return {
        "stats": {
            **{name: stats.total(name) for name in _COUNTERS},
            **{
                name: {
                    "counts": stats.by_language(name),
                    "adv_counts": stats.by_language(name, advanced=True),
                }
                for name in _BY_LANGUAGE
            },
            **{name: _duration(stats.duration_ns(name)) for name in _DURATIONS},
            "not_cached": stats.reasons(),
            "dist_compiles": {},
            "dist_errors": 0,
            "multi_level": None,
        },
        "cache_location": surroundings.cache_location,
        "cache_size": surroundings.cache_size,
        "max_cache_size": surroundings.max_cache_size,
        "use_preprocessor_cache_mode": False,
        "version": surroundings.version,
        "basedirs": list(surroundings.basedirs),
        "jobserver": dict(surroundings.jobserver),
        "joined_flights": own.pop("joined_flights"),
        "second_chance_hits": own.pop("second_chance_hits"),
        "probes": probes,
        "verify": verify,
        "other": own,
    }


def _duration(ns: int) -> Json:
    # serde's form of Rust's Duration.
    return {"secs": ns // _NS, "nanos": ns % _NS}


@dataclass(frozen=True)
class _Row:
    name: str
    value: str
    suffix: int = 0  # how much of the value is a unit, which stands right of the column


def as_text(stats: Stats, surroundings: Surroundings, advanced: bool = False) -> str:
    """sccache's `--show-stats` (advanced: `--show-adv-stats`), lines ended by newlines.

    What only we count follows in a table of its own: what is not 0, or, advanced, all of it.
    """
    rows = list(_rows(stats, advanced))
    name_width = max(len(row.name) for row in rows)
    value_width = max(len(row.value) for row in rows)

    def line(row: _Row) -> str:
        return f"{row.name:<{name_width}} {row.value:>{value_width + row.suffix}}"

    lines = [line(row) for row in rows]
    reasons = stats.reasons()
    if reasons:
        lines += [
            "",
            "Non-cacheable reasons:",
            *(line(_Row(name, str(n))) for name, n in reasons.items()),
            "",
        ]
    lines.append(f"{'Cache location':<{name_width}} {surroundings.cache_location}")
    lines.append(f"{'Base directories':<{name_width}} {', '.join(surroundings.basedirs) or '(none)'}")
    lines.append(f"{'Use direct/preprocessor mode?':<{name_width}} no")
    lines.append(f"{'Version (client)':<{name_width}} {surroundings.version}")
    sizes = (("Cache size", surroundings.cache_size), ("Max cache size", surroundings.max_cache_size))
    for name, size in sizes:
        if size is not None:
            number, unit = _size(size)
            lines.append(f"{name:<{name_width}} {number:>{value_width}} {unit}")
    own = list(_own_rows(stats, surroundings, advanced))
    if own:
        lines += ["", *(line(row) for row in own)]
    return "\n".join(lines) + "\n"


def _rows(stats: Stats, advanced: bool) -> Iterator[_Row]:
    def counter(name: str, counted: str) -> _Row:
        return _Row(name, str(stats.total(counted)))

    def by_language(name: str, counted: str) -> Iterator[_Row]:
        yield counter(name, counted)
        for language, n in stats.by_language(counted, advanced).items():
            yield _Row(f"{name} ({language})", str(n))

    yield counter("Compile requests", "compile_requests")
    yield counter("Compile requests executed", "requests_executed")
    yield from by_language("Cache hits", "cache_hits")
    yield from by_language("Cache misses", "cache_misses")
    yield from _rates(stats, advanced)
    yield counter("Cache timeouts", "cache_timeouts")
    yield counter("Cache read errors", "cache_read_errors")
    yield counter("Forced recaches", "forced_recaches")
    yield counter("Cache write errors", "cache_write_errors")
    yield from by_language("Cache errors", "cache_errors")
    yield counter("Compilations", "compilations")
    yield counter("Compilation failures", "compile_fails")
    yield counter("Non-cacheable compilations", "non_cacheable_compilations")
    yield counter("Non-cacheable calls", "requests_not_cacheable")
    yield counter("Non-compilation calls", "requests_not_compile")
    yield counter("Unsupported compiler calls", "requests_unsupported_compiler")
    yield _average(stats, "Average cache write", "cache_write_duration", "cache_writes")
    yield _average(stats, "Average compiler", "compiler_write_duration", "compilations")
    yield _average(stats, "Average cache read hit", "cache_read_hit_duration", "cache_hits")
    yield _Row("Failed distributed compilations", "0")


def _rates(stats: Stats, advanced: bool) -> Iterator[_Row]:
    yield _rate("Cache hits rate", stats.total("cache_hits"), stats.total("cache_misses"))
    hits, misses = (stats.by_language(name, advanced) for name in ("cache_hits", "cache_misses"))
    for language in sorted({*hits, *misses}):
        yield _rate(f"Cache hits rate ({language})", hits.get(language, 0), misses.get(language, 0))


def _rate(name: str, hits: int, misses: int) -> _Row:
    if hits + misses == 0:
        return _Row(name, "-")
    return _Row(name, f"{100 * hits / (hits + misses):.2f} %", suffix=2)


def _average(stats: Stats, name: str, duration: str, counter: str) -> _Row:
    n = stats.total(counter)
    ms = stats.duration_ns(duration) // n // 1_000_000 if n else 0
    return _Row(name, f"{ms // 1000}.{ms % 1000:03d} s", suffix=2)


def _own_rows(stats: Stats, surroundings: Surroundings, advanced: bool) -> Iterator[_Row]:
    for name, n in stats.own().items():
        if n or (advanced and name in _OWN):
            yield _Row(_OWN.get(name, name), str(n))
    for key, label in _JOBSERVER.items():
        if key in surroundings.jobserver and (advanced or key not in _JOBSERVER_DETAILS):
            value = surroundings.jobserver[key]
            yield (_Row(label, f"{value:.3f} s", suffix=2) if key.endswith("_s") else _Row(label, f"{value:.0f}"))


def _size(size_bytes: int) -> tuple[str, str]:
    """As sccache writes it: "10", "GiB"."""
    if size_bytes < 1024:
        return str(size_bytes), "bytes"
    size = float(size_bytes)
    units = ["KiB", "MiB", "GiB", "TiB", "PiB"]
    while (size := size / 1024) >= 1024 and len(units) > 1:
        units.pop(0)
    return f"{size:.0f}", units[0]
