"""What the keeper says of the store while it writes to it."""

from __future__ import annotations

import asyncio

from sccache_py.server.files import FileMemo
from sccache_py.server.keeper import Keeper
from sccache_py.server.store.memory import MemoryStore
from sccache_py.stats import Stats


def test_no_count_is_lost_to_a_save_that_comes_while_the_totals_are_asked_for() -> None:
    async def ask_and_save() -> Stats:
        keeper = Keeper(MemoryStore(), Stats(), FileMemo())
        keeper.stats.count("compile_requests")
        asking = asyncio.ensure_future(keeper.total_stats())
        await asyncio.sleep(0)  # the store has been asked
        await keeper.save_stats()
        assert keeper.stats.is_empty()
        return await asking

    assert asyncio.run(ask_and_save()).total("compile_requests") == 1
