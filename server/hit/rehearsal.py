"""What was stored is looked up once when nobody builds, as the next build will look it up.

The first look at a variant learns what all later ones know: where paths lead, what is in a directory, which conditions lie in watched
places alone.  That is most of the cost of a C++ hit with 300 headers, and a build after a clean would pay it for every file.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from sccache_py.model import Plan, Variant
from sccache_py.server.filesystem.files import FileMemo
from sccache_py.server.filesystem.sight import Sight
from sccache_py.server.hit.lookup import holds
from sccache_py.server.process.quiet import QUIET_S, Quiet

_MOST = 2000


class Rehearsal:
    """Lives on the event loop, and leaves it between any two variants."""

    def __init__(self, memo: FileMemo, quiet: Quiet) -> None:
        self._memo = memo
        self._quiet = quiet
        self._waiting: OrderedDict[bytes, tuple[Plan, Variant]] = OrderedDict()
        self._work: asyncio.Task[None] | None = None

    def note(self, plan: Plan, variant: Variant) -> None:
        """It has been stored."""
        self._quiet.stir()
        self._waiting[variant.result] = (plan, variant)
        if len(self._waiting) > _MOST:
            self._waiting.popitem(last=False)
        if self._work is None:
            self._work = asyncio.ensure_future(self._look())

    async def _look(self) -> None:
        try:
            while self._waiting:
                await self._quiet.lasts(QUIET_S)
                _, (plan, variant) = self._waiting.popitem()
                env = {name: value for name, value in variant.env if value is not None}
                holds(variant, plan, env, Sight(self._memo))
                await asyncio.sleep(0)
        finally:
            self._work = None
