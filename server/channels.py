"""How tokens reach a holder and come back: a pair of pipes for one process tree, or a FIFO for a whole build.

The pair (every compiler's; a build's, if its make is older than 4.4):

    A   tokens to the child   pipe2(O_DIRECT), one page: holds one offer, and is writable again when that was read
    B   tokens back           we read it
    own                       our own reader of A: opened anew by /proc/self/fd, since O_NONBLOCK lives in the description,
                              which the child shares and expects to block

    offer   write(A)          EAGAIN: one is out already
    taken   EPOLLOUT on A, watched only while an offer is out; sure when FIONREAD(own) is 0
    revoke  read(own)         a byte: revoked.  EAGAIN: the child has it

Without O_DIRECT a second byte would merge into the first one's page, and the pipe would never be full.

Both of our ends stay open while the child lives: rustc complains ("early EOF on jobserver pipe") otherwise.  The child's linker
inherits its ends and may outlive it, so an end of file says nothing of death.

The FIFO (make 4.4, ninja 1.13) is one pipe for both ways: what was returned lies where offers lie.  Nothing tells that a FIFO was
read but inotify.  A build that gives a token back may take it again before we look: fairness is for pairs, a FIFO's build keeps what it
has as long as it has jobs.  Measured on Linux 6.18: make and close a pair 20 µs, notice of a take 5 µs, offer and revoke 0.7 µs.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import os
import struct
import termios
from collections.abc import Callable

_F_SETPIPE_SZ = 1031
_PAGE_BYTES = 4096
_TOKEN = b"+"

# make aborts at FD_SETSIZE (1024) and gcc wants descriptors that are not 0-2; low numbers belong to scripts (`exec 3<`).
LOWEST_FD, FD_LIMIT = 11, 1024

_IN_ACCESS, _IN_MODIFY = 1, 2

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


class Pair:
    """Two pipes for one process tree, which gets `child_r` and `child_w`.  Raises OSError where descriptors are short."""

    def __init__(self, news: News, low: LowNumbers | None = None) -> None:
        """low: give the child's ends numbers that every tool can use; None: whoever gets them moves them himself."""
        self._news = news
        self._low = low
        self._loop = asyncio.get_running_loop()
        self._watching = False
        with contextlib.ExitStack() as undo:

            def keep(fd: int) -> int:
                undo.callback(os.close, fd)
                return fd

            child_r, self.far_w = map(keep, os.pipe2(os.O_CLOEXEC | os.O_DIRECT))
            self.far_r, child_w = map(keep, os.pipe2(os.O_CLOEXEC))
            for fd in (self.far_w, self.far_r):
                fcntl.fcntl(fd, _F_SETPIPE_SZ, _PAGE_BYTES)
                os.set_blocking(fd, False)
            self._own = keep(os.open(f"/proc/self/fd/{child_r}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
            undo.pop_all()
        self.child_r, self.child_w = child_r, child_w
        if low is not None:
            self._lower(low)
        self._loop.add_reader(self.far_r, self._returned)

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
        try:
            os.write(self.far_w, _TOKEN)
        except OSError:
            return False
        if not self._watching:
            self._watching = True
            self._loop.add_writer(self.far_w, self._writable)
        return True

    def _writable(self) -> None:
        if self.unread():
            return
        self._rest()
        self._news(0)

    def _rest(self) -> None:
        if self._watching:
            self._watching = False
            self._loop.remove_writer(self.far_w)

    def revoke(self, keep: int) -> int:
        """How many came back of what lay unread."""
        if keep:
            return 0  # there is never more than one
        try:
            os.read(self._own, 1)
        except BlockingIOError:
            return 0
        self._rest()
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
        if came == 0:
            self._loop.remove_reader(self.far_r)  # all its writers are gone: nothing will come
            return
        self._news(came)

    def close(self) -> None:
        self._loop.remove_reader(self.far_r)
        self._rest()
        for fd in (self.far_w, self.far_r, self._own):
            os.close(fd)
        for fd in (self.child_r, self.child_w):
            if self._low is not None:
                self._low.give_back(fd)
            else:
                os.close(fd)


class Fifo:
    """A named pipe in a directory of its own, 0700; both are gone when it is closed."""

    def __init__(self, news: News, directory: str) -> None:
        """directory: is made, and must not exist.  Raises OSError."""
        self._news = news
        self._loop = asyncio.get_running_loop()
        self._directory = directory
        self.path = os.path.join(directory, "tokens")
        os.mkdir(directory, 0o700)
        try:
            os.mkfifo(self.path, 0o600)
            self._fd = os.open(self.path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            self._remove()
            raise
        self._inside = 0  # written by us and not read back
        libc = ctypes.CDLL(None, use_errno=True)
        self._watch: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._watch < 0 or libc.inotify_add_watch(self._watch, os.fsencode(self.path), _IN_ACCESS | _IN_MODIFY) < 0:
            error = ctypes.get_errno()
            self._remove()
            os.close(self._fd)
            if self._watch >= 0:
                os.close(self._watch)
            raise OSError(error, os.strerror(error))
        self._loop.add_reader(self._watch, self._touched)

    def _touched(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._watch, _PAGE_BYTES * 4)
        surplus = _unread(self._fd) - self._inside
        if surplus > 0:
            # Someone put in what he had not taken: as long as it lies there it would be a token too many.
            surplus = self._read(surplus)
            self._news(surplus)
            return
        self._news(0)

    def unread(self) -> int:
        return min(_unread(self._fd), self._inside)

    def offer(self) -> bool:
        try:
            os.write(self._fd, _TOKEN)
        except OSError:
            return False
        self._inside += 1
        return True

    def _read(self, count: int) -> int:
        try:
            return len(os.read(self._fd, count)) if count > 0 else 0
        except BlockingIOError:
            return 0

    def revoke(self, keep: int) -> int:
        came = self._read(self.unread() - keep)
        self._inside -= came
        return came

    def drain(self) -> int:
        return 0

    def _remove(self) -> None:
        with contextlib.suppress(OSError):
            os.unlink(self.path)
        with contextlib.suppress(OSError):
            os.rmdir(self._directory)

    def close(self) -> None:
        self._loop.remove_reader(self._watch)
        os.close(self._watch)
        os.close(self._fd)
        self._remove()


Channel = Pair | Fifo
