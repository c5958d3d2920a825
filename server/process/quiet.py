"""Work that can wait, and would slow a build down, waits until nobody builds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

# Nobody has asked for anything for so long: the build is over.  While it goes on even an idle process takes its toll, by what it
# puts into caches: 55 s for 170 crates on two processors instead of 51.5, where the compiler alone takes 50.
QUIET_S = 1.0

_LOOK_EVERY_S = 0.25


class Quiet:
    """Lives on the event loop.  busy: whether somebody builds at this moment."""

    def __init__(self, busy: Callable[[], bool]) -> None:
        self._busy = busy
        self._busy_at = 0.0

    def stir(self) -> None:
        """Somebody has just built something."""
        self._busy_at = asyncio.get_running_loop().time()

    async def lasts(self, seconds: float) -> None:
        """Nobody has built anything for so long; at once if that is so already."""
        now = asyncio.get_running_loop().time
        while (self._busy() or now() - self._busy_at < seconds) and seconds:
            if self._busy():
                self._busy_at = now()
            await asyncio.sleep(_LOOK_EVERY_S)
