"""Threads for what may block: hashing, copying, reading records.  They wait for the disk, and release the GIL where they do not.

The cache's own disk may stand still while the build's does not: frozen for a snapshot (fsfreeze), full of somebody's writes, dying.  Its
threads are therefore others, and nobody waits for them longer than a compile takes.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from sccache_py.errors import StoreBusy, StoreLate

T = TypeVar("T")

_COUNT = 4

# After so long without an end of anything that was asked for, the disk stands still.
_PATIENCE_S = 5.0


def _all_started(count: int, name: str) -> ThreadPoolExecutor:
    """Started one by one when they are needed the last may be one too many (`ulimit -u`, `ulimit -v`): submit() says so, and yet the
    work is done by the next that is free: outputs would be written behind the back of whom the compiler answered meanwhile.

    Raises RuntimeError, after which nothing is left behind.
    """
    executor = ThreadPoolExecutor(count, thread_name_prefix=name)
    together = threading.Barrier(count + 1)
    try:
        for _ in range(count):
            executor.submit(together.wait)
        together.wait()
    except RuntimeError:
        together.abort()
        raise
    return executor


class Threads:
    def __init__(self) -> None:
        self.executor = _all_started(_COUNT, "work")

    async def run(self, work: Callable[[], T]) -> T:
        """`work()` in one of them; the event loop goes on."""
        return await asyncio.get_running_loop().run_in_executor(self.executor, work)


class StoreThreads:
    """Who asks while nothing ends is told so: the first ones after `patience_s`, from then on at once, until something ends.

    What was asked for by then is done all the same when the disk goes on.
    """

    def __init__(self, count: int = _COUNT, patience_s: float = _PATIENCE_S) -> None:
        self._executor = _all_started(count, "store")
        self._patience_s = patience_s
        self._asking: dict[asyncio.Future[Any], tuple[asyncio.Future[Any], Callable[[], None]]] = {}  # by what is under way: who waits
        self._ended = 0
        self._alarm: asyncio.TimerHandle | None = None
        self.stands_still = False

    async def run(self, work: Callable[[], T], late: Callable[[], None] = lambda: None) -> T:
        """Raises StoreBusy where the disk stands still, StoreLate where that shows meanwhile; `late` is called when it was done then."""
        if self.stands_still:
            raise StoreBusy("the disk of the cache stands still")
        loop = asyncio.get_running_loop()
        told: asyncio.Future[T] = loop.create_future()
        under_way = loop.run_in_executor(self._executor, work)
        self._asking[under_way] = told, late
        under_way.add_done_callback(self._end)
        if self._alarm is None:
            self._set_alarm()
        return await told

    def later(self, work: Callable[[], None]) -> None:
        """Behind what is under way; nobody waits for it."""
        self._executor.submit(work)

    def shut_down(self) -> None:
        self._executor.shutdown(wait=not self.stands_still)

    def _end(self, under_way: asyncio.Future[Any]) -> None:
        self._ended += 1
        self.stands_still = False
        told, late = self._asking.pop(under_way)
        error = under_way.exception()
        if told.done():  # given up, or the client went away
            if error is None:
                late()
        elif error is not None:
            told.set_exception(error)
        else:
            told.set_result(under_way.result())

    def _set_alarm(self) -> None:
        self._alarm = asyncio.get_running_loop().call_later(self._patience_s, self._look, self._ended)

    def _look(self, ended: int) -> None:
        self._alarm = None
        if self._asking and self._ended == ended:
            self.stands_still = True
            for told, _ in self._asking.values():
                if not told.done():
                    told.set_exception(StoreLate("the disk of the cache stands still"))
        elif self._asking:
            self._set_alarm()
