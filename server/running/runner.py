"""Run one compiler: start (spawn.py), stream, reap, kill.

The compiler is a process group of its own.  Its stdout and stderr are relayed as they appear, for cargo starts dependents on a line of
that stream.

This module knows neither keys nor stores.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import struct
import termios
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from sccache_py.server.filesystem.files import by_the_clock_now, coarse_ns
from sccache_py.server.running.groups import group_lives, send_signal
from sccache_py.server.running.room import Room
from sccache_py.server.running.spawn import Command, SpawnError, spawn

log = logging.getLogger(__name__)

_READ_BYTES = 64 * 1024

# What is remembered of each stream to be replayed; a compile that says more is relayed but not stored.
KEPT_STREAM_BYTES = 8 * 1024 * 1024

# After the compiler is reaped its pipes are read until they end, unless something it left behind holds them open.
_LINGER_S = 0.05
_LINGER_STEPS = 40

_TERM_TO_KILL_S = 0.1
_KILL_TO_REAPED_S = 2.0


class Audience(Protocol):
    """Who is told: the client's connection."""

    def started(self, process_group: int) -> None: ...
    def stdout(self, data: bytes) -> None: ...
    def stderr(self, data: bytes) -> None: ...
    def ended(self, killed_by: int | None, status: int) -> None:
        """The compiler is reaped, and everything that it said has been told."""
        ...

    async def room(self) -> None:
        """Wait until what is on its way to the client is below the limit."""
        ...


class Nobody:
    """The audience of what no client asked for."""

    def started(self, process_group: int) -> None:
        pass

    def stdout(self, data: bytes) -> None:
        pass

    def stderr(self, data: bytes) -> None:
        pass

    def ended(self, killed_by: int | None, status: int) -> None:
        pass

    async def room(self) -> None:
        pass


@dataclass(slots=True)
class Ran:
    """What became of it."""

    killed_by: int | None
    status: int
    stdout: bytes
    stderr: bytes
    talked_too_much: bool
    left_running: bool
    began_ns: int
    took_ns: int
    peak_rss_kib: int
    pid: int


class Runner:
    def __init__(self, native: str | None) -> None:
        """native: the program with the `--child` mode; None where only the Python client is installed."""
        self._native = native
        self.room = Room()

    async def run(self, command: Command, audience: Audience) -> Ran:
        """Raises SpawnError; ChildProcessError if somebody else has reaped it.

        Cancelling kills the process group and returns only when it is reaped.
        """
        loop = asyncio.get_running_loop()
        (out_r, out_w), (err_r, err_w) = _two_pipes()
        began_ns, began = coarse_ns(), time.monotonic_ns()
        try:
            pid = spawn(self._native, command, out_w, err_w)
        except BaseException:
            os.close(out_r)
            os.close(err_r)
            raise
        finally:
            os.close(out_w)
            os.close(err_w)
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            pidfd = -1
        self.room.began(pid)
        reaped = _Reaped(pid, pidfd, self.room.ended)
        out = _Stream(out_r, audience.stdout)
        err = _Stream(err_r, audience.stderr)
        audience.started(pid)
        relays = [loop.create_task(s.relay(audience)) for s in (out, err)]
        try:
            await reaped.wait()
            took_ns = time.monotonic_ns() - began
            if os.WIFSIGNALED(reaped.status):
                # Its linker or assembler would go on alone, for nobody.
                send_signal(pid, signal.SIGTERM)
            lingering = await _hear_out(relays, (out, err))
        except asyncio.CancelledError:
            await asyncio.shield(loop.create_task(stop_group(pid, reaped)))
            raise
        finally:
            for task in relays:
                task.cancel()
            try:
                await asyncio.gather(*relays, return_exceptions=True)
            finally:  # also if the client goes at this moment
                out.close()
                err.close()
                reaped.close()
        status = reaped.status
        if os.WIFSIGNALED(status):
            send_signal(pid, signal.SIGKILL)
        killed_by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        exit_status = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128
        audience.ended(killed_by, exit_status)
        return Ran(
            killed_by=killed_by,
            status=exit_status,
            stdout=bytes(out.kept),
            stderr=bytes(err.kept),
            talked_too_much=out.overflowed or err.overflowed,
            left_running=lingering or await _lingers(pid),
            began_ns=by_the_clock_now(began_ns, time.monotonic_ns() - began, coarse_ns()),
            took_ns=took_ns,
            peak_rss_kib=reaped.peak_rss_kib,
            pid=pid,
        )


def _two_pipes() -> tuple[tuple[int, int], tuple[int, int]]:
    try:
        first = os.pipe2(os.O_CLOEXEC)
        try:
            return first, os.pipe2(os.O_CLOEXEC)
        except OSError:
            os.close(first[0])
            os.close(first[1])
            raise
    except OSError as e:
        raise SpawnError(str(e)) from e


async def _hear_out(relays: Sequence[asyncio.Task[None]], streams: Sequence[_Stream]) -> bool:
    """Relay the last words of a compiler that is reaped.  Whether something that it left behind keeps its pipes open.

    What it wrote itself is in the pipes by now, and is relayed however slow the client reads.
    """
    due = [stream.heard + stream.unread() for stream in streams]
    while True:
        _, still_open = await asyncio.wait(relays, timeout=_LINGER_S)
        for task in relays:
            if task.done():
                task.result()
        if all(r.done() or s.heard >= d for r, s, d in zip(relays, streams, due, strict=True)):
            return bool(still_open)


async def _lingers(group: int) -> bool:
    """Whether something of the group goes on running.  A moment is granted: mold exits while a child of its own still frees memory."""
    for _ in range(_LINGER_STEPS):
        if not group_lives(group):
            return False
        await asyncio.sleep(_LINGER_S / 10)
    return True


async def stop_group(group: int, reaped: _Reaped) -> None:
    """TERM (a killed gcc leaves its temporaries behind, a terminated one does not), then KILL."""
    send_signal(group, signal.SIGTERM)
    send_signal(group, signal.SIGCONT)  # what stands still (room.py) would not hear it
    with contextlib.suppress(TimeoutError, ChildProcessError):
        await asyncio.wait_for(asyncio.shield(reaped.wait()), _TERM_TO_KILL_S)
    send_signal(group, signal.SIGKILL)
    with contextlib.suppress(TimeoutError, ChildProcessError):
        await asyncio.wait_for(asyncio.shield(reaped.wait()), _KILL_TO_REAPED_S)


class _Reaped:
    """Resolves when the child is reaped, which we do ourselves, for wait4 tells what it used."""

    def __init__(self, pid: int, pidfd: int, tell: Callable[[int], None]) -> None:
        self._pid = pid
        self._tell = tell
        self._pidfd = pidfd
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.status = 0
        self.peak_rss_kib = 0
        if pidfd >= 0:
            asyncio.get_running_loop().add_reader(pidfd, self._reap)
        else:
            self._poll()

    def _reap(self) -> None:
        try:
            pid, status, usage = os.wait4(self._pid, os.WNOHANG)
        except ChildProcessError as e:
            # Somebody else has reaped it, and nobody knows how it ended: the client has to find out by itself.
            self._tell(self._pid)
            self.close()
            if not self._done.done():
                self._done.set_exception(e)
            return
        if pid == 0:
            return
        self._tell(self._pid)
        self.status = status
        self.peak_rss_kib = usage.ru_maxrss
        self.close()
        if not self._done.done():
            self._done.set_result(None)

    def _poll(self) -> None:
        self._reap()
        if not self._done.done():
            asyncio.get_running_loop().call_later(0.002, self._poll)

    async def wait(self) -> None:
        await asyncio.shield(self._done)

    def close(self) -> None:
        if self._pidfd >= 0:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class _Stream:
    """One of the compiler's two pipes: relayed as it comes, and remembered up to a limit."""

    def __init__(self, fd: int, tell: Callable[[bytes], None]) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._tell = tell
        self.kept = bytearray()
        self.heard = 0  # bytes
        self.overflowed = False

    async def relay(self, audience: Audience) -> None:
        while True:
            try:
                data = os.read(self._fd, _READ_BYTES)
            except BlockingIOError:
                await self._readable()
                continue
            if not data:
                return
            self.heard += len(data)
            self._tell(data)
            if len(self.kept) + len(data) > KEPT_STREAM_BYTES:
                self.overflowed = True
            else:
                self.kept += data
            await audience.room()

    def unread(self) -> int:
        """Bytes in the pipe."""
        return int(struct.unpack("i", fcntl.ioctl(self._fd, termios.FIONREAD, bytes(4)))[0])

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        loop.add_reader(self._fd, _resolve, ready)
        try:
            await ready
        finally:
            if self._fd >= 0:  # else the number may be another's by now
                loop.remove_reader(self._fd)

    def close(self) -> None:
        if self._fd >= 0:
            # epoll forgets a descriptor that is closed, asyncio does not.
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
