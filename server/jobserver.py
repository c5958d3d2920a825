"""Job tokens: one pool for everything that compiles, and a private jobserver for each compiler.

GNU make's jobserver (its manual, "POSIX Jobserver") is a pipe with one byte per free slot.  Whoever wants to run a job
reads a byte first and writes it back after.  All the processes of a build share that pipe, and there its trouble begins:

- A process that is killed keeps what it had read.  The bytes are gone for good and the build gets narrower with every kill
  (cargo issue #14102).

- Nobody knows who holds what, so nobody can take it back.

- A child is born with the right to run one job.  That token its parent took from the pipe; the child must not give
  it back, the parent does, once the child is reaped, however it died.

So the pool here is a pipe too, but no compiler ever sees it.  A compiler that can use more than its own token (rustc's codegen
threads, whatever runs make) gets a *pair* of pipes made for it alone (channels.py):

    A   tokens to the child: we write, it reads
    B   tokens back:         it writes, we read

and is told `--jobserver-auth=A.r,B.w`.  What it was given and what came back are then two counters, `held = offered - unread -
returned`, and when it is reaped, the difference goes back to the pool.  Nothing can leak.

- At most one offer lies unread in A, and can be revoked until it is read.

- 'Returned' can be seen before 'taken'.  `held` is computed from counters, never from the order of events: B is read first, then
  how much lies unread in A.

- Byte values carry nothing (make returns `+`, newer gcc `G`).  A child that returns more than it took is clamped: the pool never grows.

- A rustc that is given no jobserver makes one of 32 for itself, so where no pair can be made it gets one that is always empty.

Who goes first, who lends to whom and how many each may hold is decided in sccache_py/tokens.py; here it is done.  A holder has a name,
its *lease*, which stands in the environment of all that runs under it (LEASE_VARIABLE): by that a request is known to come from inside.
A whole build that runs under `sccache-py --jobserver` has a lease, too, and a channel of its own kind (channels.Wide).

This module knows no compiler and starts no process.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass

from sccache_py.makeflags import LEASE_VARIABLE
from sccache_py.server.running.channels import Channel, Ears, LowNumbers, Pair, Wide
from sccache_py.tokens import Action, Admit, Excess, Need, Offer, Revoke, Role, Tokens

__all__ = ["LEASE_VARIABLE", "Grant", "Need", "Private", "TokenPool"]

log = logging.getLogger(__name__)

# What a pipe holds at any time: of its pages the first may be read in part, and then the last is one more.  It has 16, but two where the
# user has many pipes (pipe(7), pipe-user-pages-soft).
_MOST_TOKENS = 4096

# Pairs of descriptor numbers below 1024 that are kept for compilers; two compiles for each token (one may lend to another).
_MOST_PAIRS = 200


@dataclass(frozen=True, slots=True)
class Private:
    """What a compiler gets: the descriptors that it inherits.  Close it when the compiler is reaped."""

    child_r: int
    child_w: int
    close: Callable[[], None]


class Grant:
    """The right to run, for as long as the block of `TokenPool.token` or `TokenPool.lease` lasts."""

    def __init__(self, pool: TokenPool, id: int) -> None:
        self._pool = pool
        self.id = id

    @property
    def lease(self) -> str:
        """What LEASE_VARIABLE is to be set to for all that runs under it."""
        return self._pool.name_of(self.id)

    @property
    def held(self) -> int:
        """Tokens that it took beside the one that it began with."""
        return self._pool.policy.holders[self.id].held

    @property
    def on_the_house(self) -> bool:
        """Whether it is a check that runs beside the N, for now."""
        return self._pool.policy.guest == self.id

    def open_private(self) -> Private:
        """A jobserver for the one compiler that runs under this grant."""
        return self._pool.open_private(self.id)


class TokenPool:
    """N tokens in a pipe; who waits for one; and who could use more.

    look: how many KiB of memory the machine has left (server/jobs/memory.py); None: admission does not look at memory.
    """

    def __init__(self, size: int, look: Callable[[], int | None] | None = None) -> None:
        self.policy = Tokens(min(size, _MOST_TOKENS))
        self._look = look
        self._r, self._w = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._in_pipe = 0
        self._serial = itertools.count(1)
        # Names of leases are not to be taken for those of an earlier server.
        self._mark = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._turns: dict[int, asyncio.Future[None]] = {}
        self._channels: dict[int, Channel] = {}
        self._low = LowNumbers(4 + 2 * min(2 * size, _MOST_PAIRS))  # for compilers, the empty one, the spare one
        self._empty = self._make_empty()
        self._spare: Pair | None = None
        self._ears: Ears | None = None  # once there is a loop
        self._closed = False
        self._alarm: asyncio.TimerHandle | None = None
        self._beside = 0
        self.waits = 0
        self.wait_total_s = 0.0
        self.wait_longest_s = 0.0
        self._settle()

    @property
    def size(self) -> int:
        return self.policy.size - self._beside

    @property
    def free(self) -> int:
        return self._in_pipe

    @property
    def in_use(self) -> int:
        return self.policy.in_use

    @property
    def waiting(self) -> int:
        return self.policy.waiting

    @property
    def reclaimed(self) -> int:
        return self.policy.reclaimed

    def name_of(self, id: int) -> str:
        return f"{self._mark}-{id}"

    def resize(self, size: int) -> None:
        """Change N while compiles run: new tokens come at once, superfluous ones go as they are given back."""
        size = max(1, min(size, _MOST_TOKENS))
        self._low.reserve(2 * min(2 * size, _MOST_PAIRS))
        self._do(self.policy.resized(time.monotonic(), size + self._beside))

    def stand_still(self, count: int) -> None:
        """So many tokens are held by what is stopped, and nobody uses them: others may have as many more."""
        if count != self._beside:
            size, self._beside = self.size, count
            self.resize(size)

    # -- to run --------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def token(
        self,
        build: str = "",
        lease: str = "",
        need: Need | None = None,
        waits_as: Callable[[int], None] | None = None,
        checks: bool = False,
    ) -> AsyncIterator[Grant]:
        """Hold one token for the length of the block, or run on the house.

        build: whose turn it is.  lease: what the caller's environment has as LEASE_VARIABLE.  need: its memory, as far as it is known.
        waits_as: told the holder's number before it waits.  checks: the compile makes no code.
        """
        lender = self._lender(lease)
        if lender is not None:
            build = self.policy.holders[lender].build
        began = time.monotonic()
        id = await self._acquire(build, Role.COMPILE, lender, need, waits_as, checks)
        try:
            waited = time.monotonic() - began
            self.waits += 1
            self.wait_total_s += waited
            self.wait_longest_s = max(self.wait_longest_s, waited)
            yield Grant(self, id)
        finally:
            self._end(id)

    @contextlib.asynccontextmanager
    async def lease(self, directory: str, style: str, waits_as: Callable[[int], None] | None = None) -> AsyncIterator[tuple[Grant, Wide]]:
        """A whole build's: one token for its first job, and a channel for more (channels.Wide).  Raises OSError."""
        id = await self._acquire(f"lease {next(self._serial)}", Role.BUILD, None, None, waits_as)
        try:
            channel = Wide(self._news_of(id), directory, style)
            self._channels[id] = channel
            try:
                self._do(self.policy.joined(time.monotonic(), id))
                yield Grant(self, id), channel
            finally:
                self._close_channel(id)
        finally:
            self._end(id)

    def lends_to(self, lease: str) -> bool:
        """Whether who has this in its environment runs within something that holds tokens."""
        return self._lender(lease) is not None

    def _lender(self, lease: str) -> int | None:
        mark, _, number = lease.rpartition("-")
        if mark != self._mark or not number.isdecimal():
            return None
        id = int(number)
        return id if id in self.policy.holders and self.policy.holders[id].running else None

    async def _acquire(
        self,
        build: str,
        role: Role,
        lender: int | None,
        need: Need | None,
        waits_as: Callable[[int], None] | None,
        checks: bool = False,
    ) -> int:
        id = next(self._serial)
        if waits_as is not None:
            waits_as(id)
        if need is not None and need.peak_kib:
            self._look_at_memory()
        self._do(self.policy.wants(time.monotonic(), id, build, role, lender, need, checks))
        if not self.policy.holders[id].running:
            turn = self._turns[id] = asyncio.get_running_loop().create_future()
            try:
                await turn
            except asyncio.CancelledError:
                self._end(id)  # also if it was admitted in the same moment
                raise
        return id

    def _end(self, id: int) -> None:
        self._turns.pop(id, None)
        if self.policy.minds_memory:
            self._look_at_memory()
        self._do(self.policy.gone(time.monotonic(), id))

    # -- channels ------------------------------------------------------------------------------------------------

    def open_private(self, id: int) -> Private:
        pair, self._spare = self._spare, None
        try:
            pair = pair or Pair(self._low)
            self._ears = self._ears or Ears()
            pair.serve(self._news_of(id), self._ears)
        except OSError as e:
            if pair is not None:
                pair.close()
            log.warning("no private jobserver (%s): a compiler runs without extra tokens", e)
            return self._empty
        asyncio.get_running_loop().call_soon(self._make_spare)
        self._channels[id] = pair
        self._do(self.policy.joined(time.monotonic(), id))
        return Private(pair.child_r, pair.child_w, lambda: self._close_channel(id))

    def _make_spare(self) -> None:
        """For the next compiler, while this one starts."""
        if self._spare is None and not self._closed:
            with contextlib.suppress(OSError):
                self._spare = Pair(self._low)

    def _make_empty(self) -> Private:
        """A jobserver that never has a token, for many at once."""
        child_r, self._silent = os.pipe2(os.O_CLOEXEC)
        self._unheard, child_w = os.pipe2(os.O_CLOEXEC)
        return Private(self._low.move(child_r), self._low.move(child_w), lambda: None)

    def _news_of(self, id: int) -> Callable[[int], None]:
        def news(returned: int) -> None:
            unread = self._channels[id].unread()
            self._do(self.policy.counted(time.monotonic(), id, unread, returned=returned))

        return news

    def _close_channel(self, id: int) -> None:
        channel = self._channels.pop(id, None)
        if channel is not None:
            revoked, returned = channel.revoke(0), channel.drain()
            channel.close()
            self._do(self.policy.parted(time.monotonic(), id, returned, revoked))

    # -- doing what the policy says ------------------------------------------------------------------------------

    def _do(self, actions: Iterable[Action]) -> None:
        queue = deque(actions)
        while queue:
            match queue.popleft():
                case Admit(id):
                    if (turn := self._turns.get(id)) is not None and not turn.done():
                        turn.set_result(None)
                case Offer(id):
                    if not self._channels[id].offer():
                        queue.extend(self.policy.refused(time.monotonic(), id))
                case Revoke(id, keep):
                    channel = self._channels[id]
                    revoked = channel.revoke(keep)
                    queue.extend(self.policy.counted(time.monotonic(), id, channel.unread(), revoked=revoked))
                case Excess(id, count):
                    log.warning("holder %d returned %d job tokens that it had not taken", id, count)
        self._settle()
        self._set_alarm()

    def _settle(self) -> None:
        """The pipe holds what is free: for the kernel to count, and for whoever looks."""
        missing = self.policy.free - self._in_pipe
        if missing > 0:
            os.write(self._w, b"+" * missing)
        elif missing < 0:
            os.read(self._r, -missing)
        self._in_pipe += missing

    def _set_alarm(self) -> None:
        at = self.policy.next_tick
        if self._alarm is not None:
            if self._alarm.when() == at:
                return
            self._alarm.cancel()
            self._alarm = None
        if at is not None:
            self._alarm = asyncio.get_running_loop().call_at(at, self._tick)

    def _tick(self) -> None:
        self._alarm = None
        if self.policy.minds_memory:
            self._look_at_memory()
        # The loop's clock is time.monotonic; its timers may go off a clock's tick early.
        self._do(self.policy.tick(max(time.monotonic(), self.policy.next_tick or 0.0)))

    def _look_at_memory(self) -> None:
        self.policy.available_kib = self._look() if self._look is not None else None

    def close(self) -> None:
        """For tests: nothing may run any more."""
        if self._alarm is not None:
            self._alarm.cancel()
        self._closed = True
        if self._spare is not None:
            self._spare.close()
        if self._ears is not None:
            self._ears.close()
        for fd in (self._r, self._w, self._silent, self._unheard):
            os.close(fd)
        for number in (self._empty.child_r, self._empty.child_w):
            self._low.give_back(number)
        self._low.close()
