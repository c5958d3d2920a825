"""Where a request's time goes, for whoever sets SCCACHE_TRACE=file; off, a mark costs a function call.

One line of JSON per request, appended to the file:

    {"pid": 1, "at": 1700000000.0, "kind": "hit", "us": {"decode": 40.1, "plan": 12.0, …}}

`us` is the time that passed up to each mark since the one before, in microseconds and in the order of the marks; a phase that
comes twice is added up.  Once a second stands how late callbacks came: `{"pid": 1, "at": …, "kind": "loop", "late_us": 900.0,
"late": 3, "own": 1, "own_us": 400.0}`: the latest, how many came more than a millisecond late, for how many the loop's own thread worked
that long meanwhile, and how long at most.  For the others it waited for a processor, or for another thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import time
from contextvars import ContextVar

_WATCH_S = 0.005
_REPORT_S = 1.0
_LATE_S = 0.001

# Lines are written in batches: between two hits there is no time for a system call.
_BATCH = 200

_Marks = list[tuple[str, int]]

_on = False
_fd = -1
_lines: list[str] = []
_marks: ContextVar[_Marks | None] = ContextVar("marks", default=None)


def start(path: str | None) -> None:
    """None: stay off.  Raises OSError."""
    global _on, _fd
    if path:
        _fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        _on = True


def is_on() -> bool:
    return _on


def begin() -> None:
    """A request, or work of its own, begins in this context."""
    if _on:
        _marks.set([("", time.perf_counter_ns())])


def mark(phase: str) -> None:
    """`phase` ends now."""
    if _on:
        marks = _marks.get()
        if marks is not None:
            marks.append((phase, time.perf_counter_ns()))


def end(kind: str) -> None:
    """The request is answered."""
    if not _on:
        return
    marks = _marks.get()
    if marks is None:
        return
    _marks.set(None)
    passed: dict[str, float] = {}
    for (_, before), (phase, at) in itertools.pairwise(marks):
        passed[phase] = round(passed.get(phase, 0.0) + (at - before) / 1e3, 1)
    _write({"kind": kind, "us": passed})


async def watch() -> None:
    """How late a callback comes that should come every 5 ms: so long somebody else kept the loop, or the processor."""
    said, waited, worked = time.monotonic(), list[float](), list[float]()
    while True:
        due, began = time.perf_counter() + _WATCH_S, time.thread_time()
        await asyncio.sleep(_WATCH_S)
        waited.append(time.perf_counter() - due)
        worked.append(min(waited[-1], time.thread_time() - began))
        if time.monotonic() - said >= _REPORT_S:
            (late, late_us), (own, own_us) = _over(waited), _over(worked)
            _write({"kind": "loop", "late_us": late_us, "late": late, "own": own, "own_us": own_us})
            flush()
            said, waited, worked = time.monotonic(), [], []


def _over(times_s: list[float]) -> tuple[int, float]:
    """How many are over a millisecond, and the longest in microseconds."""
    return sum(s > _LATE_S for s in times_s), round(max(times_s) * 1e6, 1)


def flush() -> None:
    if _lines:
        with contextlib.suppress(OSError):
            os.write(_fd, "".join(_lines).encode())
        _lines.clear()


def _write(line: dict[str, object]) -> None:
    _lines.append(json.dumps({"pid": os.getpid(), "at": round(time.time(), 4), **line}) + "\n")
    if len(_lines) >= _BATCH:
        flush()
