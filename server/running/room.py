"""A check on the house (tokens.py) runs in the place of a compile, not beside it: the one that began last stands still meanwhile.

Two builds on two processors would leave it two thirds of one.  SIGSTOP needs no right that a server lacks, and its compilers hear
nothing of it: we reap them, and ask for no news of stopping (wait(2)).

It never lasts: until another compile ends, for then the check has a token of its own, and a second at most, for the check might
wait for something that the other holds.  Behind it that compile is left alone as long as it stood still, so that a row of checks holds
none up by more than its own time.  If the server dies meanwhile, what it started is sent SIGTERM (`--child`), and a stopped
process group that nobody can continue SIGHUP and SIGCONT (_exit(2), "orphaned process group").
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Iterator

from sccache_py.server.running.groups import send_signal

_LONGEST_S = 1.0


class Room:
    """Lives on the event loop; process groups are known from their start until they are reaped."""

    def __init__(self) -> None:
        self._groups: dict[int, float] = {}  # until when each is left alone; the one that began last is the last
        self._still: int | None = None
        self._since = 0.0
        self._alarm: asyncio.TimerHandle | None = None

    def began(self, group: int) -> None:
        self._groups[group] = 0.0

    def ended(self, group: int) -> None:
        """It is reaped: its number may become another's."""
        self._groups.pop(group, None)
        if self._still == group:
            self._still = None
        self._go_on()

    @contextlib.contextmanager
    def made(self) -> Iterator[None]:
        """For who is about to start beside the others, and one at a time (tokens.py)."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        free = (group for group, until in reversed(self._groups.items()) if until <= now)
        if self._still is None and (group := next(free, None)) is not None:
            self._still, self._since = group, now
            send_signal(group, signal.SIGSTOP)
            self._alarm = loop.call_later(_LONGEST_S, self._go_on)
        try:
            yield
        finally:
            self._go_on()

    def _go_on(self) -> None:
        group, self._still = self._still, None
        if group is not None:
            send_signal(group, signal.SIGCONT)
            now = asyncio.get_running_loop().time()
            self._groups[group] = now + (now - self._since)
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
