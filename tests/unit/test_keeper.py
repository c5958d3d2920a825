"""What the keeper says of the store while it writes to it."""

from __future__ import annotations

import asyncio

from sccache_py.entry import Kin
from sccache_py.model import Result, Variant
from sccache_py.server.filesystem.files import FileMemo
from sccache_py.server.store.keeper import Keeper
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


def variant(digest: bytes, result: bytes) -> Variant:
    return Variant([("$cwd/a.h", digest)], [], [], [], [], [], result)


def test_two_sets_of_conditions_may_lead_to_one_result() -> None:
    """A second chance adds its own, and what led there before goes on doing so: an edit of a comment is taken back."""

    async def enter(read_only: bool) -> tuple[list[Variant], list[Variant]]:
        store = MemoryStore()
        keeper = Keeper(store, Stats(), FileMemo())
        second = (b"second", variant(b"0" * 16, b"r" * 16))
        await keeper.add(b"recipe", variant(b"1" * 16, b"r" * 16), Result((), b"", b"", 0, 0), {}, second)
        keeper.read_only = read_only
        for digest in (b"2" * 16, b"2" * 16):
            await keeper.lead_to(b"recipe", variant(digest, b"r" * 16))
        assert await keeper.manifest(b"second") == [variant(b"0" * 16, b"r" * 16)]
        return keeper.manifest_now(b"recipe") or [], await Keeper(store, Stats(), FileMemo()).manifest(b"recipe")

    two = [variant(b"2" * 16, b"r" * 16), variant(b"1" * 16, b"r" * 16)]
    assert asyncio.run(enter(read_only=False)) == (two, two)
    assert asyncio.run(enter(read_only=True)) == (two, two[1:])


def test_the_variants_of_an_edit_loop_share_what_the_edit_left_alone() -> None:
    """Both as they are stored and as another server reads them."""

    async def headers() -> list[Variant]:
        store = MemoryStore()
        keeper = Keeper(store, Stats(), FileMemo())
        for number in range(3):
            made = Variant([("/usr/include/a.h", bytes(16)), ("$cwd/a.h", b"%016d" % number)], [], [], [], [], [], b"%016d" % number)
            await keeper.add(b"recipe", made, Result((), b"", b"", 0, 0), {})
        return [*(keeper.manifest_now(b"recipe") or []), *await keeper.manifest(b"recipe")]

    found = asyncio.run(headers())
    assert len(found) == 6
    assert len({id(v.files[0]) for v in found}) == 1


def test_another_server_of_the_cache_finds_what_differs_in_macros_only() -> None:
    """The newest first; of keys that nobody has the store is not asked."""

    async def kin() -> list[list[bytes]]:
        store = MemoryStore()
        first = Keeper(store, Stats(), FileMemo())
        for number in range(3):
            result = b"%016d" % number
            named = (b"key", Kin(b"recipe%d" % number, (("ID", f"={number}"),)))
            await first.add(b"recipe%d" % number, variant(b"0" * 16, result), Result((), b"", b"", 0, 0), {}, None, named)
        later = Keeper(store, Stats(), FileMemo())
        await later.recall()
        return [[k.recipe for k in await keeper.kin(key)] for keeper in (first, later) for key in (b"key", b"other")]

    newest_first = [b"recipe2", b"recipe1", b"recipe0"]
    assert asyncio.run(kin()) == [newest_first, [], newest_first, []]
