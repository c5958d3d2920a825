"""The conversation about one compile: what the server sends goes to our descriptors, signals go to it.

The Python half of client/native/relay.c; docs/protocol.md, section 2.  Knows how a compile ends, but not
which compiler it was or how one is found.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import time

from sccache_py.client.become import KeptInput, die_by
from sccache_py.client.place import Place, clear_of_stdio
from sccache_py.client.silence import Silence
from sccache_py.wire import Decoder, Kind, ProtocolError, encode_frame

DYING_S = 2.0  # how long a caught signal waits for the server to reap
TERM_S = 0.1  # between TERM and KILL: gcc removes its temporaries in it
GONE_S = 2.0
# POLLOUT on a pipe promises room for this much without blocking.
CHUNK = 4096

_WANTED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)


class _ServerLeaves(Exception):
    """It is of another version: start our own."""


class _Over(Exception):
    """The connection ended or makes no sense, or the server passed: nothing more will come."""


class Signals:
    """What the caller blocks and ignores: as found in this process, less what Python itself ignores."""

    def __init__(self) -> None:
        self.blocked: set[int] = set(signal.pthread_sigmask(signal.SIG_BLOCK, []))
        ignored = {n for n in range(1, 32) if signal.getsignal(n) is signal.SIG_IGN}
        self.ignored: set[int] = ignored.difference(_IGNORED_BY_PYTHON)


class Relay:
    """One conversation; ends this process as the compiler ended, or returns if we are to become it."""

    def __init__(self, place: Place, server: socket.socket, kept: KeptInput, signals: Signals) -> None:
        self._server = server
        self._silence = Silence(place, server)
        self._kept = kept
        self._catchable = [n for n in _WANTED if n not in signals.blocked | signals.ignored]
        self._decoder = Decoder()
        self._sent = False
        self._caught: int | None = None
        self._deadline = 0.0
        self._group = 0
        self._gone: set[int] = set()  # of 1 and 2: nobody reads them
        self._unsaid = False  # what was to be written there could not be: the disk is full

    def run(self, request: bytes) -> bool:
        """True: the compiler is for us to run, and its process group, if it had started, is gone.

        False: the server leaves.
        """
        self._catch()
        leaves = False
        try:
            self._send(request)
            self._sent = True
            while True:
                self._obey(*self._next_frame())
        except _ServerLeaves:
            leaves = True
        except (_Over, ProtocolError, OSError):
            pass
        self._server.close()
        end_group(self._group)
        self._release()
        return not leaves

    def _catch(self) -> None:
        self._woken, wake = (clear_of_stdio(fd) for fd in os.pipe())
        os.set_blocking(self._woken, False)
        os.set_blocking(wake, False)
        self._wake = wake
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        for number in self._catchable:
            signal.signal(number, lambda *_: None)  # the number arrives through the pipe

    def _release(self) -> None:
        """Back to the caller's dispositions; no signal falls between ours and his."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, self._catchable)
        self._take_signals()
        if self._caught is not None:
            die_by(self._caught)
        for number in self._catchable:
            signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        os.close(self._wake)
        os.close(self._woken)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _take_signals(self) -> None:
        try:
            numbers = os.read(self._woken, 64)
        except BlockingIOError:
            return
        for number in numbers:
            self._take(number)

    def _take(self, number: int) -> None:
        # Until all of the request is out nothing has started: we may die at once.
        if not self._sent:
            die_by(number)
        if self._caught is None:
            self._caught = number
            self._deadline = time.monotonic() + DYING_S
        try:
            self._server.send(encode_frame(Kind.SIGNAL, bytes([number])), socket.MSG_DONTWAIT)
        except OSError:
            pass  # its end will be seen by whoever reads next

    def _wait(self, fd: int, events: int) -> int:
        """All waiting is done here: what is ready of `events`.

        0: a signal was caught, and the server has had its time, or our own descriptor is stuck; or the server does not answer.
        """
        poll = select.poll()
        poll.register(fd, events)
        poll.register(self._woken, select.POLLIN)
        of_server = fd == self._server.fileno()
        while True:
            left_ms = self._silence.wait_s * 1000 if of_server else None
            if self._caught is not None:
                left_ms = (self._deadline - time.monotonic()) * 1000
                if left_ms <= 0:
                    return 0
                if not of_server:
                    left_ms = 0  # the compiler would have died in the middle of its write
            ready = dict(poll.poll(left_ms))
            if self._woken in ready:
                self._take_signals()
            if fd in ready:
                self._silence.heard()
                return ready[fd]
            if not ready and (self._caught is not None or not self._silence.still_hopes(self._sent)):
                return 0

    def _send(self, data: bytes | bytearray) -> None:
        """Ends early when the server speaks before it has read everything: then its answer is what counts."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self._server.send(rest) :]
            except BlockingIOError:
                ready = self._wait(self._server.fileno(), select.POLLIN | select.POLLOUT)
                if ready & select.POLLIN:
                    return
                if not ready:
                    raise _Over from None
            except (BrokenPipeError, ConnectionResetError):
                return  # it is gone, but its last words may be there

    def _next_frame(self) -> tuple[Kind, bytes]:
        while (frame := self._decoder.next_frame()) is None:
            if not self._wait(self._server.fileno(), select.POLLIN):
                raise _Over
            data = self._server.recv(1 << 20)
            if not data:
                raise _Over
            self._decoder.feed(data)
        return frame

    def _obey(self, kind: Kind, payload: bytes) -> None:
        match kind:
            case Kind.STDOUT | Kind.STDERR:
                self._pass_on(1 if kind is Kind.STDOUT else 2, payload)
            case Kind.STARTED if len(payload) == 4:
                self._group = int.from_bytes(payload, "little", signed=True)
            case Kind.STDIN_WANTED if not self._kept.taken:
                self._send_input()
            case Kind.EXIT if len(payload) == 2:
                how, number = payload
                if self._caught is not None:
                    die_by(self._caught)
                if self._unsaid:
                    self._group = 0
                    raise _Over  # what that means only the compiler knows; all else of this one is done
                if how == 1 and number > 0:
                    die_by(number)
                os._exit(number)
            case Kind.ALIVE:
                pass
            case Kind.LEAVING:
                raise _ServerLeaves
            case _:
                raise _Over

    def _pass_on(self, fd: int, data: bytes) -> None:
        rest = memoryview(data)
        while rest and fd not in self._gone:
            if not self._wait(fd, select.POLLOUT):
                self._gone.add(fd)
                return
            try:
                rest = rest[os.write(fd, rest[:CHUNK]) :]
            except BlockingIOError:
                pass
            except OSError as e:
                self._gone.add(fd)
                if e.errno == errno.EPIPE:
                    # Where SIGPIPE is not ignored it ends the compile as it would have ended the compiler.
                    self._take(signal.SIGPIPE)
                else:
                    self._unsaid = True

    def _send_input(self) -> None:
        while True:
            try:
                if not self._kept.read_some():
                    break
            except BlockingIOError:
                pass
            if not self._wait(0, select.POLLIN):
                raise _Over
        if not self._kept.ended:
            raise _Over  # more than the server takes
        self._sent = False  # no SIGNAL frame may cut into these
        if self._kept.data:
            self._send(encode_frame(Kind.STDIN, bytes(self._kept.data)))
        self._send(encode_frame(Kind.STDIN))
        self._sent = True


def end_group(group: int) -> None:
    """End the compile that a server has left behind: two compilers must never write one file."""
    if group <= 1 or group == os.getpgrp():
        return
    start, number = time.monotonic(), signal.SIGTERM
    try:
        os.killpg(group, number)
        while (age := time.monotonic() - start) < TERM_S + GONE_S:
            if age >= TERM_S and number is signal.SIGTERM:
                number = signal.SIGKILL
                os.killpg(group, number)
            os.killpg(group, 0)
            time.sleep(0.002)
    except OSError:
        pass  # gone
