"""Threads for what may block: hashing, copying, reading records.  They wait for the disk, and release the GIL where they do not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

_COUNT = 4


class Threads:
    def __init__(self) -> None:
        self.executor = ThreadPoolExecutor(_COUNT, thread_name_prefix="work")

    async def run(self, work: Callable[[], T]) -> T:
        """`work()` in one of them; the event loop goes on."""
        return await asyncio.get_running_loop().run_in_executor(self.executor, work)
