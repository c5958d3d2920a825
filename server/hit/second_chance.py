"""A second chance: the result of a compile whose texts differ from now only in comments and empty lines (SCCACHE_SECOND_CHANCE).

Who misses asks again under a second recipe, in which the source counts without its comments (compilers/c_bare.py).  Its variants hold
the project's texts so, too; every other condition is the first compile's, and must hold as ever.  What holds is entered under
the first recipe with the digests of now: the next call is a plain hit.  No compiler and no preprocessor is run.

The digests of now and the texts without comments are of the same bytes, so nothing needs to be older than anything here.
"""

from __future__ import annotations

import dataclasses
import logging
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from sccache_py import keys
from sccache_py.compilers import c_bare
from sccache_py.compilers.c_includes import reads_other_files
from sccache_py.model import Result, Stored, Variant
from sccache_py.server.filesystem.files import FileMemo, open_regular
from sccache_py.server.filesystem.sight import Sight
from sccache_py.server.hit import lookup
from sccache_py.server.planning import Job
from sccache_py.server.process.threads import Threads
from sccache_py.server.store.keeper import Keeper

log = logging.getLogger(__name__)

# In front of a folded path, which never has this byte: what follows was compared without comments; with the lines where it stands.
_BARE = "\0b"
_PLACED = "\0p"

# A file's size is in its state (files.Sight.state), and comments are part of it.
_SIZE = re.compile(rb"^([fx])\d+")

# Plugins and libraries name macros, but define none.
_PROGRAM = b"\x7fELF"

_MEMO_LIMIT = 50_000


@dataclass(frozen=True, slots=True)
class _Text:
    """What counts of one content."""

    told: frozenset[str]  # how it may tell lines (c_bare.lines_told)
    bare: bytes | None = None  # digests; None also for what is not the project's
    placed: bytes | None = None
    once: bool = False
    reads: bool = False


class Second(NamedTuple):
    """A variant under its second recipe."""

    recipe: bytes
    variant: Variant


@dataclass(slots=True)
class SecondChance:
    memo: FileMemo
    keeper: Keeper
    threads: Threads
    in_background: Callable[[Awaitable[None]], None]
    _texts: dict[tuple[bytes, bool], _Text] = field(default_factory=dict)

    async def find(self, job: Job) -> Stored | None:
        """A result that may be replayed now, and under which conditions."""
        if not _applies(job):
            return None
        recipe = await self.threads.run(lambda: self._recipe(job))
        if recipe is None:
            return None
        remembered = self.keeper.manifest_now(recipe)
        variant = await self._first_as_of_now(job, remembered) if remembered else None
        if variant is None:
            variant = await self._first_as_of_now(job, await self.keeper.manifest(recipe))
        if variant is None:
            return None
        result = self.keeper.result_now(variant.result) or await self.keeper.result(variant.result)
        if result is None:
            return None
        log.info("second chance: %s", job.plan.source)
        # A manifest with 30 variants takes 10 ms to change.
        self.in_background(self.keeper.lead_to(job.recipe, variant))
        self.keeper.mark_used(recipe, variant.result, result)
        return variant, result

    async def _first_as_of_now(self, job: Job, variants: list[Variant]) -> Variant | None:
        """The conditions with today's digests of the first of them that holds but for comments."""
        return await self.threads.run(lambda: next(filter(None, (self._as_of_now(job, known) for known in variants)), None))

    async def second(self, job: Job, variant: Variant, result: Result) -> Second | None:
        """Under what a compile that is about to be stored may be found again."""
        if not _applies(job) or not result.is_silent():
            return None
        return await self.threads.run(lambda: self._without_comments(job, variant))

    def _without_comments(self, job: Job, variant: Variant) -> Second | None:
        recipe = self._recipe(job)
        if recipe is None:
            return None
        roles = job.plan.roles
        texts: dict[str, _Text] = {}
        sight = Sight(self.memo)
        for folded, digest in variant.files:
            path = roles.unfold(folded)
            text = self._text(path, folded, sight) if path is not None else None
            if text is None or path is None or sight.hash_now(path) != digest:
                return None
            texts[folded] = text
        if not _may_be_left_bare(variant.files, texts):
            return None
        lines = c_bare.counts_lines(job.plan, {folded: text.told for folded, text in texts.items()})
        mark = _PLACED if lines else _BARE
        files, bared = [], set()
        for folded, digest in variant.files:
            without = _digest(texts[folded], mark)
            files.append((folded, digest) if without is None else (mark + folded, without))
            if without is not None:
                bared.add(folded)
        present = []
        for folded, state in variant.present:
            if folded not in bared:
                present.append((folded, state))
            elif _SIZE.match(state):
                present.append((_BARE + folded, _sizeless(state)))
            else:  # its mtime: a precompiled header was made of it
                return None
        return Second(recipe, dataclasses.replace(variant, files=files, present=present))

    def _recipe(self, job: Job) -> bytes | None:
        """The second one; for a thread."""
        source = job.plan.source
        assert source is not None
        text = self._text(source, job.plan.roles.fold(source), job.sight)
        if text is None or text.bare is None:
            return None
        recipe = keys.KeyHash()
        more = (*job.told, ("second chance", b"1"))
        keys.describe_recipe(job.plan, job.compiler.identity, text.bare, job.request.env, more, recipe)
        return recipe.key()

    def _as_of_now(self, job: Job, known: Variant) -> Variant | None:
        """For a thread."""
        roles, sight = job.plan.roles, job.sight
        files, present = [], []
        texts: dict[str, _Text] = {}
        for named, digest in known.files:
            if not named.startswith("\0"):
                files.append((named, digest))
                continue
            mark, folded = named[: len(_BARE)], named[len(_BARE) :]
            path = roles.unfold(folded)
            text = self._text(path, folded, sight) if path is not None else None
            if path is None or text is None or _digest(text, mark) != digest:
                return None
            texts[folded] = text
            files.append((folded, sight.hash_now(path) or b""))
        if not _may_be_left_bare(files, texts) or not self._rest_holds(job, known):
            return None
        for named, state in known.present:
            folded = named.removeprefix(_BARE)
            path = roles.unfold(folded)
            now = state if folded is named else sight.state(path, job.plan.place) if path is not None else None
            if now is None or (folded is not named and _sizeless(now) != state):
                return None
            present.append((folded, now))
        return dataclasses.replace(known, files=files, present=present)

    def _rest_holds(self, job: Job, known: Variant) -> bool:
        """Whatever counts whole; for a thread."""
        rest = dataclasses.replace(
            known,
            files=[(f, d) for f, d in known.files if not f.startswith("\0")],
            present=[(p, s) for p, s in known.present if not p.startswith("\0")],
        )
        return lookup.surely_holds(rest, job.plan, job.request.env, job.sight)

    def _text(self, path: str, folded: str, sight: Sight) -> _Text | None:
        """None: there is no such file, or it is written at this moment."""
        digest = sight.hash_now(path)
        if digest is None:
            return None
        ours = c_bare.may_be_bare(folded)
        known = self._texts.get((digest, ours))
        if known is not None:
            return known
        try:
            with open_regular(path) as f:
                data = f.read()
        except OSError:
            return None
        if keys.digest(data) != digest:
            return None
        if data.startswith(_PROGRAM):
            return _Text(frozenset())
        bare, told = c_bare.bare(data) if ours else None, c_bare.lines_told(data)
        text = _Text(told, reads=reads_other_files(data))
        if bare is not None:
            text = _Text(told, keys.digest(bare.text), keys.digest(bare.placed), bare.once, text.reads)
        if len(self._texts) >= _MEMO_LIMIT:
            self._texts.clear()
        self._texts[digest, ours] = text
        return text


def _applies(job: Job) -> bool:
    return job.wishes.second_chance and job.observed and c_bare.ignores_comments(job.plan)


def _digest(text: _Text, mark: str) -> bytes | None:
    return text.placed if mark == _PLACED else text.bare


def _sizeless(state: bytes) -> bytes:
    return _SIZE.sub(rb"\1", state)


def _may_be_left_bare(files: Iterable[tuple[str, bytes]], texts: dict[str, _Text]) -> bool:
    """Not where a text may name files that are no texts; nor where `#pragma once` may compare two by content, comments and all."""
    count = Counter(digest for _, digest in files)
    for folded, digest in files:
        text = texts.get(folded)
        if text is not None and (text.reads or (text.once and count[digest] > 1)):
            return False
    return True
