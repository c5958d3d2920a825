"""What is kept: the store, used from one thread of its own, and in front of it what this process has read of it.

A manifest or result is decoded once; a hit that was here before touches no database.  Another process may know more: who finds
nothing here asks the store before it calls it a miss.  The store's failures end here: they are counted, and cost a hit, never a
build.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from sccache_py import entry
from sccache_py.codec import pack, unpack
from sccache_py.entry import Kin
from sccache_py.errors import FormatError, StoreBusy, StoreError, StoreLate
from sccache_py.model import Output, Result, Variant
from sccache_py.server.filesystem.files import FileMemo
from sccache_py.server.process.threads import StoreThreads
from sccache_py.server.store.base import Store
from sccache_py.stats import Stats

log = logging.getLogger(__name__)

T = TypeVar("T")

# Decoded manifests and results in memory; some 10 KB each, and 6 more for each further variant, since they share what is equal.
_SHELF = 3000

_MARK_EVERY_S = 5.0
_CULL_EVERY_STORES = 50

STATS_KEY = b"stats"
MEMO_KEY = b"stats-digests"


def kin_key(key: bytes) -> bytes:
    return b"k" + key


def manifest_key(recipe: bytes) -> bytes:
    return b"m" + recipe


def result_key(result: bytes) -> bytes:
    return b"r" + result


def file_key(digest: bytes) -> bytes:
    """A stored file as it is, named by its content."""
    return b"o" + digest


def pack_key(result: bytes) -> bytes:
    """All files of one result in one compressed file."""
    return b"p" + result


@dataclass(frozen=True, slots=True)
class StoredFiles:
    """Where the files of a result are: each for itself, by digest, or all in one pack, in the order of the outputs."""

    plain: Mapping[bytes, str]
    pack: str | None = None


class _Shelf(OrderedDict[bytes, T]):
    """A dictionary that forgets what was not asked for longest."""

    def find(self, key: bytes) -> T | None:
        value = self.get(key)
        if value is not None:
            self.move_to_end(key)
        return value

    def keep(self, key: bytes, value: T) -> None:
        self[key] = value
        self.move_to_end(key)
        if len(self) > _SHELF:
            self.popitem(last=False)


class Keeper:
    """`stats` counts what goes wrong, and is itself kept here.  read_only: nothing but use marks and statistics is written."""

    def __init__(self, store: Store, stats: Stats, memo: FileMemo, read_only: bool = False) -> None:
        self.store = store
        self._memo = memo
        self.stats = stats
        self.read_only = read_only
        self._thread = StoreThreads(1)
        self._manifests: _Shelf[list[Variant]] = _Shelf()
        self._shared = entry.Shared()
        self._results: _Shelf[Result] = _Shelf()
        self._files: _Shelf[StoredFiles] = _Shelf()  # by result
        self._kin: set[bytes] = set()
        self.report: Callable[[], None] | None = None  # where statistics go instead of the store: a hit worker's to its owner
        self.stored: Callable[[bytes, Result], None] | None = None  # is told which results were
        self.withdrawn: Callable[[bytes], None] | None = None  # is told of which others may remember what they were
        self._used: dict[bytes, None] = {}
        self._marking: asyncio.TimerHandle | None = None
        self._stores = 0
        self.size_bytes = 0

    async def _ask(self, work: Callable[[], T], otherwise: T, counted: str, late: Callable[[], None] = lambda: None) -> T:
        try:
            return await self._thread.run(work, late)
        except StoreError as e:
            self.stats.count("cache_timeouts" if isinstance(e, StoreBusy) else counted)
            log.warning("store: %s", e)
            return otherwise

    def manifest_now(self, recipe: bytes) -> list[Variant] | None:
        return self._manifests.find(recipe)

    def result_now(self, key: bytes) -> Result | None:
        return self._results.find(key)

    async def manifest(self, recipe: bytes) -> list[Variant]:
        """From the store, whatever is known here."""
        data = await self._ask(lambda: self.store.get(manifest_key(recipe)), None, "cache_read_errors")
        variants = self._decode(entry.unpack_manifest, data)
        if variants is None:
            return self._manifests.find(recipe) or []
        self._manifests.keep(recipe, self._shared.share(variants))
        return variants

    async def result(self, key: bytes) -> Result | None:
        data = await self._ask(lambda: self.store.get(result_key(key)), None, "cache_read_errors")
        result = self._decode(entry.unpack_result, data)
        if result is not None:
            self._results.keep(key, result)
        return result

    def _decode(self, decode: Callable[[bytes], T], data: bytes | None) -> T | None:
        if data is None:
            return None
        try:
            return decode(data)
        except FormatError as e:
            self.stats.count("cache_read_errors")
            log.warning("store: %s", e)
            return None

    def files_now(self, key: bytes) -> StoredFiles | None:
        """Where the store kept the files of a result when it was last asked; None: it must be asked."""
        return self._files.find(key)

    async def files(self, key: bytes, result: Result) -> StoredFiles | None:
        """Where the store keeps them; None: one is gone."""
        digests = digests_of(result)

        def look() -> StoredFiles | None:
            pack = self.store.file_path(pack_key(key)) if digests else None
            if pack is not None:
                return StoredFiles({}, pack)
            found = {digest: self.store.file_path(file_key(digest)) for digest in digests}
            plain = {digest: path for digest, path in found.items() if path is not None}
            return StoredFiles(plain) if len(plain) == len(found) else None

        files = await self._ask(look, None, "cache_read_errors") if digests else StoredFiles({})
        self._files.pop(key, None)
        if files is not None:
            self._files.keep(key, files)
        return files

    async def add(
        self,
        recipe: bytes,
        variant: Variant,
        result: Result,
        files: dict[bytes, str],
        also: tuple[bytes, Variant] | None = None,
        kin: tuple[bytes, Kin] | None = None,
    ) -> bool:
        """Keep one compile: its files (digest → path made under scratch_path), result and manifest, in this order, so that
        nothing names what is not there.

        also: another recipe under which it is found, and its conditions there.  kin: by which others find this recipe.
        """

        scratch = list(files.values())
        digests = digests_of(result)
        plain: dict[bytes, str] = {}
        was_there = False

        def store_all() -> list[Variant]:
            nonlocal was_there
            was_there = self.store.has(result_key(variant.result))
            for digest in digests:
                path, there = files.pop(digest, None), self._stored(digest)
                if path is not None and there is None:
                    there = self.store.adopt_file(file_key(digest), path)
                elif path is not None:
                    os.unlink(path)
                if there is not None:
                    plain[digest] = there
            with self.store.together():
                self.store.delete(pack_key(variant.result))  # of an earlier compile that came to the same, if not to the same bytes
                self.store.put(result_key(variant.result), entry.pack_result(result))
                if also is not None:
                    self._enter(*also)
                if kin is not None:
                    self._join(*kin)
                return self._enter(recipe, variant)

        def late() -> None:
            self._manifests.pop(recipe, None)
            self.unlearn(variant.result)
            if was_there and self.withdrawn is not None:
                self.withdrawn(variant.result)

        variants = await self._ask(store_all, None, "cache_write_errors", late)
        if variants is None:
            self._thread.later(lambda: _remove(scratch))  # what was adopted has another name
            return False
        self._manifests.keep(recipe, variants)
        if also is not None:
            self._manifests.pop(also[0], None)
        if kin is not None:
            self._kin.add(kin[0])
        self._results.keep(variant.result, result)
        self._files.pop(variant.result, None)
        if len(plain) == len(digests):
            self._files.keep(variant.result, StoredFiles(plain))
        if was_there and self.withdrawn is not None:
            self.withdrawn(variant.result)
        if self.stored is not None:
            self.stored(variant.result, result)
        self.stats.count("cache_writes")
        self._stores += 1
        if self._stores % _CULL_EVERY_STORES == 1:
            await self.cull()
        return True

    def _enter(self, recipe: bytes, variant: Variant, beside: bool = False) -> list[Variant]:
        """Put a variant first in a manifest, in place of others of its result unless it stands beside them.  Raises StoreError."""
        variants: list[Variant] = []

        def change(old: bytes | None) -> bytes:
            try:
                variants[:] = entry.unpack_manifest(old) if old is not None else []
            except FormatError:
                variants.clear()
            others = (v for v in variants if (v != variant if beside else v.result != variant.result))
            variants[:] = [variant, *others][: entry.MAX_VARIANTS]
            return entry.pack_manifest(variants)

        self.store.update(manifest_key(recipe), change)
        return self._shared.share(variants)

    def _join(self, key: bytes, kin: Kin) -> None:
        if key not in self._kin:
            self.store.put(kin_key(key), entry.pack_kin([kin]))
            return

        def change(old: bytes | None) -> bytes:
            try:
                others = entry.unpack_kin(old) if old is not None else []
            except FormatError:
                others = []
            return entry.pack_kin([kin, *(other for other in others if other.recipe != kin.recipe)][: entry.MAX_VARIANTS])

        self.store.update(kin_key(key), change)

    async def kin(self, key: bytes) -> list[Kin]:
        """The newest first.  Most are asked for in vain, so which there are is known here: but for what another server stores meanwhile."""
        if key not in self._kin:
            return []
        data = await self._ask(lambda: self.store.get(kin_key(key)), None, "cache_read_errors")
        found = self._decode(entry.unpack_kin, data) or []
        if found:
            self._used[kin_key(key)] = None
        return found

    async def lead_to(self, recipe: bytes, variant: Variant) -> None:
        """Enter further conditions under which a result that is stored may be used."""
        known = self._manifests.find(recipe) or []
        self._manifests.keep(recipe, [variant, *(v for v in known if v != variant)][: entry.MAX_VARIANTS])
        if not self.read_only:
            variants = await self._ask(lambda: self._enter(recipe, variant, beside=True), None, "cache_write_errors")
            if variants is not None:
                self._manifests.keep(recipe, variants)

    def _stored(self, digest: bytes) -> str | None:
        """Where this file is."""
        try:
            return self.store.file_path(file_key(digest))
        except StoreError:
            return None  # a damaged row: it is replaced

    async def forget(self, recipe: bytes, key: bytes) -> None:
        """A result that cannot be replayed: drop it, its files and what leads to it, so that the next store repairs it."""
        self._manifests.pop(recipe, None)
        result = self._results.pop(key, None)

        def drop() -> None:
            self.store.delete(result_key(key))
            self.store.delete(pack_key(key))
            for digest in digests_of(result) if result is not None else ():
                self.store.delete(file_key(digest))

        if not self.read_only:
            await self._ask(drop, None, "cache_write_errors")
        if self.withdrawn is not None:
            self.withdrawn(key)

    def unlearn(self, key: bytes) -> None:
        """Another process has replaced or dropped this result: the store knows more."""
        self._results.pop(key, None)
        self._files.pop(key, None)

    def put_first(self, recipe: bytes, variant: Variant) -> None:
        """It was used: it is tried first the next time."""
        variants = self._manifests.get(recipe)
        if variants and variants[0] is not variant and variant in variants:
            variants.remove(variant)
            variants.insert(0, variant)

    def mark_used(self, recipe: bytes, key: bytes, result: Result) -> None:
        """Noted now, written in a batch: a write for each hit would make hits wait for each other."""
        self._used[manifest_key(recipe)] = None
        self._used[result_key(key)] = None
        files = self._files.get(key)
        for used in [pack_key(key)] if files is not None and files.pack else map(file_key, digests_of(result)):
            self._used[used] = None
        if self._marking is None:
            self._marking = asyncio.get_running_loop().call_later(_MARK_EVERY_S, self._mark_later)

    def _mark_later(self) -> None:
        self._marking = None
        self._background = asyncio.ensure_future(self.flush())

    # -- packing (packing.py) ------------------------------------------------------------------------------------

    async def unpacked(self) -> list[tuple[bytes, Result]]:
        """Results with files that are stored as they are."""

        def look() -> list[tuple[bytes, Result]]:
            if not self.store.keys(file_key(b"")):
                return []
            packed = {key[1:] for key in self.store.keys(pack_key(b""))}
            results = ((key[1:], self.store.get(key)) for key in self.store.keys(result_key(b"")) if key[1:] not in packed)
            decoded = ((key, self._decode(entry.unpack_result, data)) for key, data in results)
            return [(key, result) for key, result in decoded if result is not None and digests_of(result)]

        none: list[tuple[bytes, Result]] = []
        return await self._ask(look, none, "cache_read_errors")

    async def plain_files(self, result: Result) -> tuple[list[str], str] | None:
        """Where they are, in the order of the outputs, and a scratch path for a pack; None: one is not there."""

        def look() -> tuple[list[str], str] | None:
            found = [self.store.file_path(file_key(output.digest)) for output in stored_outputs(result)]
            paths = [path for path in found if path is not None]
            return (paths, self.store.scratch_path()) if len(paths) == len(found) else None

        return await self._ask(look, None, "cache_read_errors")

    async def replace_by_pack(self, key: bytes, result: Result, path: str, no_longer_needed: Iterable[bytes]) -> None:
        """path: a pack of the result's files, made under the scratch path; nothing is replaced if the result was stored anew meanwhile.

        Who still knows the plain files finds them gone, and asks again.

        no_longer_needed: digests of plain files that no result needs now.
        """

        def replace() -> str | None:
            now = self._decode(entry.unpack_result, self.store.get(result_key(key)))
            if now is None or digests_of(now) != digests_of(result):
                return None
            packed = self.store.adopt_file(pack_key(key), path)
            for digest in no_longer_needed:
                self.store.delete(file_key(digest))
            return packed

        packed = await self._ask(replace, None, "cache_write_errors")
        if packed is None:
            self._thread.later(lambda: _remove([path]))
        self._files.pop(key, None)
        if packed is not None:
            self._files.keep(key, StoredFiles({}, packed))

    # -- what is written in batches ------------------------------------------------------------------------------

    async def recall(self) -> None:
        """Learn the digests of large files that an earlier server of this cache knew, and which recipes have kin."""
        data = await self._ask(lambda: self.store.get(MEMO_KEY), None, "cache_read_errors")
        self._memo.learn(self._decode(unpack, data))
        none: list[bytes] = []
        self._kin.update(key[1:] for key in await self._ask(lambda: self.store.keys(kin_key(b"")), none, "cache_read_errors"))

    async def flush(self) -> None:
        """Write use marks, digests of large files, and statistics."""
        if self._memo.news and not self.read_only:
            exported = pack(self._memo.export())
            await self._ask(lambda: self.store.put(MEMO_KEY, exported), None, "cache_write_errors")
        used, self._used = list(self._used), {}
        if used:
            await self._ask(lambda: self.store.mark_used(used), None, "cache_write_errors")
        await self.save_stats()

    async def save_stats(self) -> None:
        """Add what was counted since the last time to what the store holds."""
        if self.report is not None:
            self.report()
            return
        if self.stats.is_empty():
            return
        counted = Stats.from_dict(self.stats.to_dict())
        self.stats.clear()

        def add(old: bytes | None) -> bytes:
            total = stored_stats(old)
            total.merge(counted)
            return pack(total.to_dict())

        try:
            await self._thread.run(lambda: self.store.update(STATS_KEY, add))
        except StoreLate:
            pass  # they will be
        except StoreError as e:
            log.warning("statistics not stored yet: %s", e)
            self.stats.merge(counted)

    async def total_stats(self) -> Stats:
        """All since the last zeroing, by every server of this cache."""
        # What is unsaved at the moment the store is asked: a save that comes between adds to the store what it takes from here.
        unsaved = Stats.from_dict(self.stats.to_dict())
        data = await self._ask(lambda: self.store.get(STATS_KEY), None, "cache_read_errors")
        total = stored_stats(data)
        total.merge(unsaved)
        return total

    async def zero_stats(self) -> None:
        self.stats.clear()
        await self._ask(lambda: self.store.delete(STATS_KEY), None, "cache_write_errors")

    async def cull(self) -> None:
        gone = await self._ask(self.store.cull, 0, "cache_write_errors")
        if gone:
            log.info("store: %d entries culled", gone)
            self._manifests.clear()
            self._results.clear()
            self._files.clear()

    async def sweep(self) -> None:
        gone = await self._ask(self.store.sweep_orphans, 0, "cache_write_errors")
        if gone:
            log.info("store: %d orphaned files removed", gone)

    async def size(self) -> int:
        return await self._ask(self.store.size_bytes, 0, "cache_read_errors")

    async def close(self) -> None:
        if self._marking is not None:
            self._marking.cancel()
        await self.flush()
        await self._ask(self.store.close, None, "cache_write_errors")
        self._thread.shut_down()


def _remove(paths: list[str]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            os.unlink(path)


def stored_outputs(result: Result) -> list[Output]:
    """Those that are files in the store."""
    return [o for o in result.outputs if o.inline is None]


def digests_of(result: Result) -> list[bytes]:
    """Of the outputs that are files in the store, each once."""
    return list({o.digest: None for o in stored_outputs(result)})


def stored_stats(data: bytes | None) -> Stats:
    if data is None:
        return Stats()
    try:
        return Stats.from_dict(unpack(data))
    except FormatError:
        return Stats()
