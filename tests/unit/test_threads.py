"""The threads of the store, when the disk under them stands still."""

from __future__ import annotations

import asyncio
import threading

import pytest

from sccache_py.errors import StoreBusy, StoreLate
from sccache_py.server.process.threads import StoreThreads


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
