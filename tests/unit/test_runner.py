"""Running one compiler, with real processes: whenever it is cut short, nothing of it is left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal

import pytest

from sccache_py.model import Request
from sccache_py.server.running.runner import Nobody, Runner
from sccache_py.server.running.spawn import Command

CALLER = Request(
    argv=["true"], program="/bin/true", cwd="/", env={}, umask=0o022, nice=0, limits=[], descriptors=7, columns=0, root=(0, 0), here=(0, 0),
    affinity=b"", blocked=0, ignored=0,
)  # fmt: skip


def descriptors() -> list[str]:
    found = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/self/fd/{fd}").partition(":")[0])
    return sorted(found)


@pytest.mark.parametrize("line", ["echo out; echo error >&2", ":"])
def test_a_client_that_goes_when_its_compiler_has_just_ended_leaves_no_descriptor(line):
    """At each turn of the event loop from the compiler's end to that of the task."""

    async def cut_short_after(turns: int) -> bool:
        runner = Runner(None)
        ended = asyncio.Event()
        tell = runner.room.ended
        runner.room.ended = lambda pid: (tell(pid), ended.set())  # type: ignore[assignment,func-returns-value]
        command = Command("/bin/sh", ["sh", "-c", line], "/", dict(os.environ), (), CALLER)
        task = asyncio.ensure_future(runner.run(command, Nobody()))
        await ended.wait()
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        return task.cancelled()

    async def main() -> list[int]:
        await cut_short_after(0)
        before = descriptors()
        left, turns = [], 0
        while await cut_short_after(turns):
            if descriptors() != before:
                left.append(turns)
            turns += 1
        assert turns > 3, "it was never cut short"
        return left

    assert asyncio.run(main()) == []


def test_a_compiler_that_somebody_else_has_reaped_did_not_succeed():
    """Nobody knows how it ended: 0 would be a failed compile without a word."""
    runner = Runner(None)
    command = Command("/bin/false", ["false"], "/", dict(os.environ), (), CALLER)
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with pytest.raises(ChildProcessError):
            asyncio.run(runner.run(command, Nobody()))
    finally:
        signal.signal(signal.SIGCHLD, before)
