"""Job tokens: one pool for everything that compiles, and a private jobserver for each compiler.

GNU make's jobserver (its manual, "POSIX Jobserver") is a pipe with one byte per free slot.  Whoever wants to run a job
reads a byte first and writes it back after.  All the processes of a build share that pipe, and there its trouble begins:

- A process that is killed keeps what it had read.  The bytes are gone for good and the build gets narrower with every kill
  (cargo issue #14102).

- Nobody knows who holds what, so nobody can take it back.

- A child is born with the right to run one job.  That token its parent took from the pipe; the child must not give
  it back, the parent does, once the child is reaped, however it died.

So the pool here is a pipe too, but no compiler ever sees it.  A compiler that can use more than its own token (rustc's codegen
threads, whatever runs make) gets a *pair* of pipes made for it alone:

    A   tokens to the child: we write, it reads
    B   tokens back:         it writes, we read

and is told `--jobserver-auth=A.r,B.w`.  What it was given and what came back are then two counters, `held = offered - unread -
returned`, and when it is reaped, the difference goes back to the pool.  Nothing can leak.

- At most one offer lies unread in A: a page-sized packet pipe (O_DIRECT) tells by EPOLLOUT when it was taken, and an offer that
  nobody took can be revoked: we read it back by a descriptor of our own (opened anew by /proc/self/fd, so that O_NONBLOCK,
  which lives in the description, is not set for the child).

- 'Returned' can be seen before 'taken'.  `held` is computed from counters, never from the order of events.

- Both of our ends stay open while the child lives: rustc complains ("early EOF on jobserver pipe") otherwise.  The child's
  linker inherits its ends and may outlive it,
  so EOF says nothing of death; the child is dead when it is reaped.

- Byte values carry nothing (make returns `+`, newer gcc `G`).  A child that returns more than it took is clamped: the pool never grows.

The rules of who goes first: a new compile comes before a running compile's extra thread (cargo's rule: spawn first, then fill).
While any waits,
nothing is offered and every unread offer is revoked.  Waiting compiles are admitted in turn over the builds that they belong to.

This module knows no compiler and starts no process.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import struct
import termios
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator

log = logging.getLogger(__name__)

_F_SETPIPE_SZ = 1031
_PAGE_BYTES = 4096

# make aborts at FD_SETSIZE (1024) and gcc wants descriptors that are not 0-2; low numbers belong to scripts (`exec 3<`).
_LOWEST_FD, _FD_LIMIT = 11, 1024

# An unread offer moves on to another child when it was not taken for so long.
_OFFER_TURN_S = 0.010

# A child that takes and returns in bursts of less than a millisecond costs more than its threads bring: it pauses.
_BURST_S, _BURSTS, _PAUSE_S = 0.001, 3, 0.050


def processors() -> int:
    """How many processors this process may use, by affinity and by the cgroup's quota (cgroup v2: cpu.max)."""
    count = len(os.sched_getaffinity(0))
    try:
        with open("/proc/self/cgroup", encoding="ascii", errors="replace") as f:
            path = next((line.split("::", 1)[1].strip() for line in f if line.startswith("0::")), "/")
        while True:
            with contextlib.suppress(FileNotFoundError), open(f"/sys/fs/cgroup{path}/cpu.max", encoding="ascii") as f:
                quota, period = f.read().split()
                if quota != "max":
                    count = min(count, max(1, -(-int(quota) // int(period))))
            if path in ("/", ""):
                break
            path = os.path.dirname(path)
    except (OSError, ValueError, IndexError):
        pass
    return max(1, count)


class TokenPool:
    """N tokens in a pipe; who waits for one; and the compilers that could use more."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._r, self._w = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.write(self._w, b"+" * size)
        self._free = size
        self._excess = 0  # tokens to withdraw as they come back, after the pool was made smaller
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self._pairs: list[PrivateJobserver] = []
        self._pump: asyncio.TimerHandle | None = None
        self.waits = 0
        self.wait_total_s = 0.0
        self.wait_longest_s = 0.0
        self.reclaimed = 0

    @property
    def free(self) -> int:
        return self._free

    @property
    def in_use(self) -> int:
        return self.size + self._excess - self._free

    @property
    def waiting(self) -> int:
        return sum(len(queue) for queue in self._waiting.values())

    def resize(self, size: int) -> None:
        """Change N while compiles run: new tokens come at once, superfluous ones go as they are given back."""
        self._excess += self.size - size
        self.size = size
        while self._excess < 0:
            self._excess += 1
            os.write(self._w, b"+")
            self._free += 1
        while self._excess and self._take_byte():
            self._excess -= 1
        self._admit()

    @contextlib.asynccontextmanager
    async def token(self, build: str = "") -> AsyncIterator[None]:
        """Hold one token for the length of the block.  `build` is whose turn it is: builds are served round robin."""
        began = time.monotonic()
        await self._acquire(build)
        waited = time.monotonic() - began
        self.waits += 1
        self.wait_total_s += waited
        self.wait_longest_s = max(self.wait_longest_s, waited)
        try:
            yield
        finally:
            self.give_back(1)

    async def _acquire(self, build: str) -> None:
        if not self._waiting and self._take_byte():
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(build, deque()).append(turn)
        for pair in self._pairs:
            pair.revoke()
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give_back(1)  # admitted and cancelled in the same moment
            else:
                self._forget(build, turn)
            raise

    def _forget(self, build: str, turn: asyncio.Future[None]) -> None:
        queue = self._waiting.get(build)
        if queue is not None:
            with contextlib.suppress(ValueError):
                queue.remove(turn)
            if not queue:
                del self._waiting[build]
        self._fill()

    def _take_byte(self) -> bool:
        try:
            os.read(self._r, 1)
        except BlockingIOError:
            return False
        self._free -= 1
        return True

    def give_back(self, count: int) -> None:
        for _ in range(count):
            if self._excess > 0:
                self._excess -= 1
                continue
            os.write(self._w, b"+")
            self._free += 1
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self._take_byte():
            build, queue = next(iter(self._waiting.items()))
            turn = queue.popleft()
            self._waiting.move_to_end(build)
            if not queue:
                del self._waiting[build]
            if turn.done():
                self.give_back(1)
            else:
                turn.set_result(None)
        self._fill()

    def open_private(self) -> PrivateJobserver | None:
        """A jobserver for one compiler; None where no descriptors are left for it (it runs with what it has)."""
        try:
            pair = PrivateJobserver(self)
        except OSError as e:
            log.warning("no private jobserver (%s): the compiler runs without extra tokens", e)
            return None
        self._pairs.append(pair)
        self._fill()
        return pair

    def forget_private(self, pair: PrivateJobserver) -> None:
        """`pair` is offered nothing any more."""
        if pair in self._pairs:
            self._pairs.remove(pair)

    def _fill(self) -> None:
        """Offer what is free to compilers that run, one each, in turn; nothing while a compile waits."""
        if self._waiting or not self._pairs:
            return
        now = time.monotonic()
        limit = -(-2 * self.size // len(self._pairs))
        for pair in list(self._pairs):
            if self._free == 0:
                break
            if pair.may_be_offered(now, limit) and self._take_byte():
                if pair.offer(now):
                    self._pairs.remove(pair)
                    self._pairs.append(pair)
                else:
                    self._put_byte()
        contested = self._free == 0 and len(self._pairs) > 1 and not all(p.has_offer for p in self._pairs)
        if self._pump is None and (contested or (self._free and any(p.is_paused(now) for p in self._pairs))):
            self._pump = asyncio.get_running_loop().call_later(_OFFER_TURN_S, self._move_offers)

    def _put_byte(self) -> None:
        os.write(self._w, b"+")
        self._free += 1

    def _move_offers(self) -> None:
        """Where children outnumber tokens, an offer that lies unread moves on."""
        self._pump = None
        if self._free == 0 and any(not p.has_offer for p in self._pairs):
            now = time.monotonic()
            for pair in list(self._pairs):
                if pair.has_offer and now - pair.offered_at >= _OFFER_TURN_S:
                    pair.revoke()
                    break
        if any(p.has_offer for p in self._pairs) or self._free:
            self._fill()

    def close(self) -> None:
        if self._pump is not None:
            self._pump.cancel()
        os.close(self._r)
        os.close(self._w)


class PrivateJobserver:
    """The pair of pipes of one compiler.  Close it when the compiler is reaped."""

    def __init__(self, pool: TokenPool) -> None:
        self._pool = pool
        with contextlib.ExitStack() as undo:

            def keep(fd: int) -> int:
                undo.callback(os.close, fd)
                return fd

            child_r, self._a_w = map(keep, os.pipe2(os.O_CLOEXEC | os.O_DIRECT))
            self._b_r, child_w = map(keep, os.pipe2(os.O_CLOEXEC))
            for fd in (self._a_w, self._b_r):
                fcntl.fcntl(fd, _F_SETPIPE_SZ, _PAGE_BYTES)
                os.set_blocking(fd, False)
            # A description of our own: O_NONBLOCK belongs to the description, which the child shares and expects to block.
            self._own = keep(os.open(f"/proc/self/fd/{child_r}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
            self.child_r = keep(_low(child_r))
            self.child_w = keep(_low(child_w))
            os.close(child_r)
            os.close(child_w)
            undo.pop_all()
        self._offered = 0
        self._returned = 0
        self._closed = False
        self.offered_at = 0.0
        self._taken_at = 0.0
        self._bursts = 0
        self._paused_until = 0.0
        self._watching_offer = False
        asyncio.get_running_loop().add_reader(self._b_r, self._collect)

    @property
    def has_offer(self) -> bool:
        return self._unread() > 0

    @property
    def held(self) -> int:
        """Tokens that the child has beside the one that it was born with."""
        return max(0, self._offered - self._unread() - self._returned)

    def _unread(self) -> int:
        return int(struct.unpack("i", fcntl.ioctl(self._own, termios.FIONREAD, b"\0\0\0\0"))[0])

    def is_paused(self, now: float) -> bool:
        return now < self._paused_until

    def may_be_offered(self, now: float, limit: int) -> bool:
        return not self._closed and not self.is_paused(now) and not self.has_offer and self.held < limit

    def offer(self, now: float) -> bool:
        try:
            os.write(self._a_w, b"+")
        except OSError:
            return False
        self._offered += 1
        self.offered_at = now
        if not self._watching_offer:
            self._watching_offer = True
            asyncio.get_running_loop().add_writer(self._a_w, self._taken)
        return True

    def _taken(self) -> None:
        """EPOLLOUT: the packet was read (or the pipe never was full)."""
        if self._unread():
            return
        self._stop_watching()
        self._taken_at = time.monotonic()
        self._pool._fill()

    def _stop_watching(self) -> None:
        if self._watching_offer:
            self._watching_offer = False
            asyncio.get_running_loop().remove_writer(self._a_w)

    def revoke(self) -> None:
        """Take an unread offer back into the pool; no effect if the child was faster."""
        try:
            os.read(self._own, 1)
        except BlockingIOError:
            return
        self._offered -= 1
        self._stop_watching()
        self._pool.give_back(1)

    def _collect(self) -> None:
        try:
            came = len(os.read(self._b_r, _PAGE_BYTES))
        except BlockingIOError:
            return
        if came == 0:
            asyncio.get_running_loop().remove_reader(self._b_r)
            return
        if time.monotonic() - self._taken_at < _BURST_S:
            self._bursts += 1
            if self._bursts >= _BURSTS:
                self._bursts = 0
                self._paused_until = time.monotonic() + _PAUSE_S
        else:
            self._bursts = 0
        self._credit(came)

    def _credit(self, came: int) -> None:
        fair = min(came, self._offered - self._unread() - self._returned)
        if fair < came:
            log.warning("a compiler returned %d job tokens that it had not taken", came - fair)
        self._returned += fair
        self._pool.give_back(fair)

    def close(self) -> None:
        """The compiler is reaped: whatever it held goes back."""
        if self._closed:
            return
        # First of all out of the pool's sight: every token given back below may be offered at once, and not to us.
        self._closed = True
        self._pool.forget_private(self)
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._b_r)
        self._stop_watching()
        with contextlib.suppress(OSError):
            while came := os.read(self._b_r, _PAGE_BYTES):
                self._credit(len(came))
        self.revoke()
        held = self.held
        if held:
            self._pool.reclaimed += held
            self._pool.give_back(held)
        for fd in (self._a_w, self._b_r, self._own, self.child_r, self.child_w):
            os.close(fd)


def _low(fd: int) -> int:
    """A duplicate between 11 and 1023.  Raises OSError where there is none."""
    low = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _LOWEST_FD)
    if low >= _FD_LIMIT:
        os.close(low)
        raise OSError("no descriptor below 1024 is left")
    return low
