"""The result of a compile that was given other macros, none of which any text says (compilers/c_defines.py).

Who misses looks under a recipe without such macros for those that were stored, each with the macros that it was given.  If one's
conditions hold, and no text that it read says a name in which the two calls differ, its result is this call's, and entered under this
call's own recipe: the next one is a plain hit.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from sccache_py import keys
from sccache_py.compilers import c_defines
from sccache_py.compilers.gcc import C
from sccache_py.entry import Kin
from sccache_py.model import Result, Stored, Variant
from sccache_py.server.filesystem.files import open_regular
from sccache_py.server.hit import lookup
from sccache_py.server.planning import Job
from sccache_py.server.process.threads import Threads
from sccache_py.server.store.keeper import Keeper

log = logging.getLogger(__name__)

# The newest of those that differ in macros only.
_TRIED = 8

_CALLS_KEPT = 1000

# Sets of names for which it is remembered what texts say; each for as many texts as a build reads.
_NAMES_KEPT = 8


class _Call(NamedTuple):
    key: bytes  # of the recipe without them
    split: c_defines.Split


@dataclass(slots=True)
class OtherDefines:
    keeper: Keeper
    threads: Threads
    in_background: Callable[[Awaitable[None]], None]
    _calls: dict[bytes, _Call] = field(default_factory=dict)  # by recipe, from the lookup until it is stored
    _said: dict[frozenset[bytes], dict[bytes, frozenset[bytes]]] = field(default_factory=dict)  # names → digest → pieces of them

    def kin(self, job: Job, result: Result) -> tuple[bytes, Kin] | None:
        """By what calls with other macros find what this one left; None: they do not."""
        call = self._calls.pop(job.recipe, None)
        return None if call is None or not result.is_silent() else (call.key, Kin(job.recipe, call.split.loose))

    async def find(self, job: Job) -> Stored | None:
        call = _call(job)
        if call is None:
            return None
        if len(self._calls) >= _CALLS_KEPT:
            self._calls.clear()  # of compiles that were not stored
        self._calls[job.recipe] = call
        others = [other for other in await self.keeper.kin(call.key) if other.recipe != job.recipe]  # its own was looked at
        for other in others[:_TRIED]:
            names = c_defines.differing(call.split.loose, other.defines)
            for variant in self.keeper.manifest_now(other.recipe) or await self.keeper.manifest(other.recipe):
                if not await self.threads.run(functools.partial(self._decides, job, call.split, variant, names)):
                    continue
                result = self.keeper.result_now(variant.result) or await self.keeper.result(variant.result)
                if result is not None and result.is_silent():
                    log.info("other macros: %s", job.plan.source)
                    self.keeper.mark_used(other.recipe, variant.result, result)
                    self.in_background(self.keeper.lead_to(job.recipe, variant))
                    return variant, result
        return None

    def _decides(self, job: Job, split: c_defines.Split, variant: Variant, names: frozenset[bytes]) -> bool:
        """Whether it holds now, and would with these names defined otherwise; for a thread."""
        plan = job.plan
        if plan.source is None or not lookup.surely_holds(variant, plan, job.request.env, job.sight):
            return False
        wanted = c_defines.pieces(names)
        found = c_defines.said(c_defines.told_beside(split, names), wanted)
        texts = [(plan.roles.unfold(folded), digest) for folded, digest in variant.files]
        for path, digest in (*texts, (plan.source, job.sight.hash_now(plan.source))):
            words = self._words(path, digest, names, wanted) if path is not None and digest is not None else None
            if words is None or found is None:
                return False
            found |= words
        return found is not None and not any(c_defines.may_be_said(name, found) for name in names)

    def _words(self, path: str, digest: bytes, names: frozenset[bytes], wanted: frozenset[bytes]) -> frozenset[bytes] | None:
        """wanted: the pieces of `names`."""
        if names not in self._said and len(self._said) >= _NAMES_KEPT:
            self._said.clear()
        of_names = self._said.setdefault(names, {})
        if digest not in of_names:
            try:
                with open_regular(path) as f:
                    text = f.read()
            except OSError:
                return None
            words = c_defines.said(text, wanted) if keys.digest(text) == digest else None
            if words is None:
                return None
            of_names[digest] = words
        return of_names[digest]


def _call(job: Job) -> _Call | None:
    """None for another kind of compile.  One that defines nothing is kin to those that define what nobody says."""
    plan, driver = job.plan, job.compiler.driver
    split = c_defines.split(plan, driver.options) if job.observed and isinstance(driver, C) else None
    source = job.sight.digest(plan.source) if split is not None and plan.source is not None else None
    if split is None or not source:
        return None
    recipe = keys.KeyHash()
    kept = dataclasses.replace(plan, arguments=split.kept)
    keys.describe_recipe(kept, job.compiler.identity, source, job.request.env, (*job.told, ("other defines", b"1")), recipe)
    return _Call(recipe.key(), split)
