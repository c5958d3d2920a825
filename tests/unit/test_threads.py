"""The threads of the store, when the disk under them stands still."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest

from sccache_py.errors import StoreBusy, StoreLate
from sccache_py.server.process.threads import StoreThreads, Threads


def test_who_asks_a_disk_that_stands_still_is_told_so_until_it_goes_on() -> None:
    """A compile that waited for a frozen file system would wait as long as that is frozen."""
    thaw, told_late = threading.Event(), []

    async def ask() -> None:
        threads = StoreThreads(1, patience_s=0.01)
        assert await threads.run(lambda: 1) == 1
        done = asyncio.Event()

        def late() -> None:
            told_late.append("late")
            done.set()

        first, second = (asyncio.ensure_future(threads.run(thaw.wait, late)) for _ in range(2))
        with pytest.raises(StoreLate):
            await first
        with pytest.raises(StoreLate):
            await second
        with pytest.raises(StoreBusy) as refused:
            await threads.run(lambda: 2)
        assert refused.type is StoreBusy  # it was not begun
        thaw.set()
        await done.wait()
        assert await threads.run(lambda: 3) == 3
        threads.shut_down()

    asyncio.run(ask())
    assert told_late == ["late", "late"]


def test_what_goes_wrong_in_the_store_is_told_to_who_asked() -> None:
    async def ask() -> None:
        threads = StoreThreads(1)
        with pytest.raises(ZeroDivisionError):
            await threads.run(lambda: 1 // 0)
        threads.shut_down()

    asyncio.run(ask())


def test_no_thread_is_one_too_many_later() -> None:
    """Under `ulimit -u` a thread that was to be started for a hit was refused, and the hit's outputs were written all the same, behind
    the compiler that ran instead.
    """

    async def work() -> None:
        before = set(threading.enumerate())
        threads, store = Threads(), StoreThreads(4)
        started = set(threading.enumerate()) - before
        assert len(started) == 8
        together = threading.Barrier(4)
        await asyncio.gather(*(threads.run(together.wait) for _ in range(4)), *(store.run(lambda: None) for _ in range(9)))
        assert set(threading.enumerate()) <= before | started
        store.shut_down()
        threads.executor.shutdown()

    asyncio.run(work())


def test_where_not_all_threads_can_be_started_none_stays() -> None:
    """A server that cannot have them does not start, and does not hang at its end: the compiler runs."""
    text = """
from sccache_py.server.process.threads import Threads
import threading
begin, count = threading.Thread.start, 0
def start(self):
    global count
    count += 1
    if count == 3:
        raise RuntimeError("can't start new thread")
    begin(self)
threading.Thread.start = start
try:
    Threads()
except RuntimeError as e:
    print(e)
"""
    ran = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stdout) == (0, "can't start new thread\n")
