"""server/process/trace.py: off it keeps nothing; on it adds up what passed between marks, request by request."""

from __future__ import annotations

import asyncio
import importlib
import json
import time

import pytest

from sccache_py.server.process import trace


@pytest.fixture
def traced(tmp_path):
    trace.start(str(tmp_path / "trace"))
    yield tmp_path / "trace"
    importlib.reload(trace)


def lines(path):
    trace.flush()
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_off_nothing_is_kept():
    trace.begin()
    trace.mark("decode")
    trace.end("hit")
    assert not trace.is_on()
    assert not trace._lines


def test_phases_are_added_up_in_order(traced):
    trace.begin()
    trace.mark("decode")
    time.sleep(0.002)
    trace.mark("write")
    time.sleep(0.002)
    trace.mark("decode")
    trace.end("hit")
    trace.end("hit")  # answered already
    (line,) = lines(traced)
    assert line["kind"] == "hit"
    assert list(line["us"]) == ["decode", "write"]
    assert all(value >= 2000 for value in line["us"].values())


def test_two_requests_at_once_do_not_mix(traced):
    async def request(name):
        trace.begin()
        for _ in range(3):
            await asyncio.sleep(0)
            trace.mark(name)
        trace.end(name)

    async def main():
        await asyncio.gather(request("a"), request("b"))

    asyncio.run(main())
    assert {line["kind"]: list(line["us"]) for line in lines(traced)} == {"a": ["a"], "b": ["b"]}


def work(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


@pytest.mark.parametrize(("keep", "is_own"), [(time.sleep, False), (work, True)])
def test_a_callback_that_keeps_the_loop_is_seen(traced, monkeypatch, keep, is_own):
    """And whether it worked; else the loop had no processor, or not the interpreter's lock."""
    monkeypatch.setattr(trace, "_REPORT_S", 0.02)

    async def main():
        watch = asyncio.ensure_future(trace.watch())
        await asyncio.sleep(0.01)
        keep(0.05)
        await asyncio.sleep(0.02)
        watch.cancel()

    asyncio.run(main())
    late = max(lines(traced), key=lambda line: line["late_us"])
    assert late["late_us"] > 30_000
    assert late["late"] >= 1
    assert (late["own_us"] > 30_000, late["own"] >= 1) == (is_own, is_own)
