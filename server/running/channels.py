"""How tokens reach a holder and come back: a pair of pipes for one compiler, a wider channel for a whole build.

The pair:

    A   tokens to the child   pipe2(O_DIRECT), one page: holds one offer, and is writable again when that was read
    B   tokens back           we read it
    own                       our own reader of A: opened anew by /proc/self/fd, since O_NONBLOCK lives in the
                              description, which the child shares and expects to block

    offer   write(A)          EAGAIN: one is out already
    taken   EPOLLOUT on A, as an edge: each read of the one page is one; sure when FIONREAD(own) is 0
    revoke  read(own)         a byte: revoked.  EAGAIN: the child has it

Without O_DIRECT a second byte would merge into the first one's page, and the pipe would never be full.

Both of our ends stay open while the child lives: rustc complains ("early EOF on jobserver pipe") otherwise.  The child's
linker inherits its ends and may outlive it, so an end of file says nothing of death.

A build's channel is a FIFO (make 4.4, ninja 1.13), one pipe for both ways: what was returned lies where offers lie.  A build
that gives a token back may take it again before we look; then it keeps what it has as long as it has jobs.  Tools that know no
FIFOs inherit descriptors: of a pair, for make and cargo, which wait for a token where none is, so that what they return can go
to others first; of one pipe, for ninja, which looks once when a job ends and would miss what comes a moment later.

Measured on Linux 6.18: make and close a pair 20 µs, notice of a take 5 µs, offer and revoke 0.7 µs.  asyncio's add_reader and
remove_reader take 15 µs together, and every compile has a pair: so pairs are heard by an epoll of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import select
import struct
import termios
from collections.abc import Callable

from sccache_py.server.filesystem.inotify import IN_ACCESS, IN_MODIFY, Inotify

_F_SETPIPE_SZ = 1031
_PAGE_BYTES = 4096
_TOKEN = b"+"

# In the directory of a build's channel.
FIFO = "tokens"

# make aborts at FD_SETSIZE (1024) and gcc wants descriptors that are not 0-2; low numbers belong to scripts (`exec 3<`).
LOWEST_FD, FD_LIMIT = 11, 1024

# `returned` bytes came back; how many lie unread is for the hearer to ask.
News = Callable[[int], None]


def _unread(fd: int) -> int:
    return int(struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, b"\0\0\0\0"))[0])


class LowNumbers:
    """Descriptor numbers below 1024, kept free by placeholders: a server may hold thousands of connections."""

    def __init__(self, count: int) -> None:
        self._null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._kept: list[int] = []
        self.reserve(count)

    def reserve(self, count: int) -> None:
        """Have at least `count` numbers in reserve, if there are so many."""
        while len(self._kept) < count:
            try:
                fd = fcntl.fcntl(self._null, fcntl.F_DUPFD_CLOEXEC, LOWEST_FD)
            except OSError:
                return
            if fd >= FD_LIMIT:
                os.close(fd)
                return
            self._kept.append(fd)

    def move(self, fd: int) -> int:
        """The same file under a low number; `fd` is closed.  Raises OSError if there is none."""
        if not self._kept:
            os.close(fd)
            raise OSError("no descriptor number below 1024 is left")
        number = self._kept.pop()
        os.dup2(fd, number, inheritable=False)
        os.close(fd)
        return number

    def give_back(self, number: int) -> None:
        os.dup2(self._null, number, inheritable=False)
        self._kept.append(number)

    def close(self) -> None:
        for fd in (self._null, *self._kept):
            os.close(fd)
        self._kept.clear()


class Ears:
    """Who is told of what happens to a pair's descriptors: one epoll(7) for all pairs.  Raises OSError."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._hearers: dict[int, Callable[[], None]] = {}
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._epoll.fileno(), self._hear)

    def listen(self, fd: int, events: int, hearer: Callable[[], None]) -> None:
        self._epoll.register(fd, events)
        self._hearers[fd] = hearer

    def forget(self, fd: int) -> None:
        if self._hearers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def _hear(self) -> None:
        for fd, _ in self._epoll.poll(0):
            hearer = self._hearers.get(fd)  # not if an earlier one of these forgot it
            if hearer is not None:
                hearer()

    def close(self) -> None:
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()


class Pair:
    """Two pipes for one process tree, which gets `child_r` and `child_w`.  Raises OSError where descriptors are short.

    It can be made before it is known for whom: `serve` begins.
    """

    def __init__(self, low: LowNumbers) -> None:
        """low: whence the child's ends get numbers that every tool can use."""
        self._news: News | None = None
        self._low = low
        self._ears: Ears | None = None
        self._is_out = False  # an offer, as far as we have heard
        self._watching = False
        opened: list[int] = []  # no ExitStack: every compile comes this way
        try:
            opened += os.pipe2(os.O_CLOEXEC | os.O_DIRECT)
            opened += os.pipe2(os.O_CLOEXEC)
            self.child_r, self.far_w, self.far_r, self.child_w = opened
            for fd in (self.far_w, self.far_r):
                fcntl.fcntl(fd, _F_SETPIPE_SZ, _PAGE_BYTES)
                os.set_blocking(fd, False)
            self._own = os.open(f"/proc/self/fd/{self.child_r}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            for fd in opened:
                os.close(fd)
            raise
        self._lower(low)

    def serve(self, news: News, ears: Ears) -> None:
        """Raises OSError."""
        ears.listen(self.far_r, select.EPOLLIN, self._returned)
        self._news = news
        self._ears = ears

    def _lower(self, low: LowNumbers) -> None:
        try:
            self.child_r = low.move(self.child_r)
        except OSError:
            for fd in (self.far_w, self.far_r, self._own, self.child_w):
                os.close(fd)
            raise
        try:
            self.child_w = low.move(self.child_w)
        except OSError:
            for fd in (self.far_w, self.far_r, self._own):
                os.close(fd)
            low.give_back(self.child_r)
            raise

    def unread(self) -> int:
        return _unread(self._own)

    def offer(self) -> bool:
        """False: one is out already."""
        assert self._ears is not None
        try:
            if not self._watching:  # first: an edge is only what happens from now on
                self._ears.listen(self.far_w, select.EPOLLOUT | select.EPOLLET, self._writable)
                self._watching = True
            os.write(self.far_w, _TOKEN)
        except OSError:
            return False
        self._is_out = True
        return True

    def _writable(self) -> None:
        # What we took back ourselves is an edge, too.
        if self._is_out and not self.unread():
            self._is_out = False
            assert self._news is not None
            self._news(0)

    def revoke(self, keep: int) -> int:
        """How many came back of what lay unread."""
        if keep:
            return 0  # there is never more than one
        try:
            os.read(self._own, 1)
        except BlockingIOError:
            return 0
        self._is_out = False
        return 1

    def drain(self) -> int:
        """How many were returned since the last news."""
        count = 0
        with contextlib.suppress(BlockingIOError):
            while came := len(os.read(self.far_r, _PAGE_BYTES)):
                count += came
        return count

    def _returned(self) -> None:
        try:
            came = len(os.read(self.far_r, _PAGE_BYTES))
        except BlockingIOError:
            return
        assert self._news is not None
        assert self._ears is not None
        if came == 0:
            self._ears.forget(self.far_r)  # all its writers are gone: nothing will come
            return
        self._news(came)

    def close(self) -> None:
        if self._ears is not None:
            self._ears.forget(self.far_r)
            self._ears.forget(self.far_w)
        for fd in (self.far_w, self.far_r, self._own):
            os.close(fd)
        for fd in (self.child_r, self.child_w):
            self._low.give_back(fd)


class Wide:
    """A whole build's channel: any number of offers may lie there, since ninja only looks when one of its jobs ends.

    The way there is a FIFO in a directory of its own, 0700, for only of a named pipe can inotify tell that it was read.
    """

    def __init__(self, news: News, directory: str, style: str) -> None:
        """directory: is made, and must not exist.  Raises OSError.

        style: `fifo`: the build opens `path`, and gives back to it.  Otherwise the name goes at once, and the build inherits
        `child_r` and `child_w`; `pipe`: of the same pipe; `pair`: what it gives back comes by another one.
        """
        self._news = news
        self._loop = asyncio.get_running_loop()
        self.path: str | None = None
        self._inside = 0  # written by us and not read back
        path = os.path.join(directory, FIFO)
        os.mkdir(directory, 0o700)
        with contextlib.ExitStack() as undo:
            undo.callback(_forget, path, directory)

            def keep(fd: int) -> int:
                undo.callback(os.close, fd)
                return fd

            os.mkfifo(path, 0o600)
            self.far_w = keep(os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))
            watch = Inotify()
            self._watch = keep(watch.fd)
            watch.add(path, IN_ACCESS | IN_MODIFY)
            self.child_r = self.child_w = self.far_r = -1
            if style == "fifo":
                with contextlib.suppress(OSError):
                    fcntl.flock(self.far_w, fcntl.LOCK_SH | fcntl.LOCK_NB)
                os.stat(path)  # raises if it was swept just before
                self.path = path
            else:
                self.child_r = keep(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
                os.set_blocking(self.child_r, True)
                if style == "pair":
                    self.far_r, self.child_w = map(keep, os.pipe2(os.O_CLOEXEC))
                    os.set_blocking(self.far_r, False)
                    self._loop.add_reader(self.far_r, self._returned)
                else:
                    self.child_w = keep(os.open(path, os.O_WRONLY | os.O_CLOEXEC))
                _forget(path, directory)
            self._loop.add_reader(self._watch, self._touched)
            self._undo = undo.pop_all()

    def _touched(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._watch, 4 * _PAGE_BYTES)
        surplus = _unread(self.far_w) - self._inside
        # Someone put in what he had not taken: as long as it lies there it is a token too many.
        self._news(self._read(surplus))

    def _returned(self) -> None:
        came = self.drain()
        if came:
            self._news(came)
        else:
            self._loop.remove_reader(self.far_r)  # all its writers are gone: nothing will come

    def drain(self) -> int:
        count = 0
        with contextlib.suppress(BlockingIOError):
            while self.far_r >= 0 and (came := len(os.read(self.far_r, _PAGE_BYTES))):
                count += came
        # What comes back so is not inside any more.
        self._inside = max(_unread(self.far_w), self._inside - count)
        return count

    def unread(self) -> int:
        return min(_unread(self.far_w), self._inside)

    def offer(self) -> bool:
        try:
            os.write(self.far_w, _TOKEN)
        except OSError:
            return False
        self._inside += 1
        return True

    def _read(self, count: int) -> int:
        try:
            return len(os.read(self.far_w, count)) if count > 0 else 0
        except BlockingIOError:
            return 0

    def revoke(self, keep: int) -> int:
        came = self._read(self.unread() - keep)
        self._inside -= came
        return came

    def close(self) -> None:
        self._loop.remove_reader(self._watch)
        if self.far_r >= 0:
            self._loop.remove_reader(self.far_r)
        self._undo.close()


def _forget(path: str, directory: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)
    with contextlib.suppress(OSError):
        os.rmdir(directory)


Channel = Pair | Wide
