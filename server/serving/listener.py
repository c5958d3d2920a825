"""The socket: who may speak, and when everybody has gone.

This module does not know what is said on a connection (connection.py), nor what a compile is.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import resource
import socket
import struct
from collections.abc import Awaitable, Callable, Collection

from sccache_py.server.process import trace
from sccache_py.server.serving.connection import Connection, Service

log = logging.getLogger(__name__)

# Descriptors that connections leave to compilers' pipes, outputs and the store; who comes later waits in the socket's queue.
_RESERVED_FDS = 128
_FEWEST = 8

# Who waits there hears nothing, and must not take us for dead: after so long without room they are sent away.
_FULL_S = 3.0

# So long the rest of the server waits for those who queue, but for one more request.
_TURN_S = 0.0005

# How long nobody is accepted after descriptors ran out: the socket stays readable, and trying at once would be a busy loop.
_PAUSE_S = 0.05


class Listener:
    """Accepts and counts.  idle: called when nothing was in flight for idle_s seconds (0: never).

    ended_at: the loop's time when the last connection ended.
    """

    def __init__(self, sock: socket.socket, service: Service, idle_s: float, idle: Callable[[], None]) -> None:
        self._socket = sock
        self._service = service
        self._idle_s = idle_s
        self._idle = idle
        self._timer: asyncio.TimerHandle | None = None
        self._resting_since = 0.0
        self.ended_at = 0.0
        self.connections: set[Connection] = set()
        self.background: set[asyncio.Task[None]] = set()
        root = os.stat("/")
        self.root = (root.st_dev, root.st_ino)
        self._accepting = False
        self._paused: asyncio.TimerHandle | None = None
        self._full_since: float | None = None
        self._most = max(_FEWEST, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _RESERVED_FDS)

    def start(self) -> None:
        self._socket.setblocking(False)
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._accept)
        self._accepting = True
        self._rest()

    def stop_accepting(self) -> None:
        if self._accepting:
            self._accept(math.inf)  # who connected before is served
        if self._accepting:  # not if one of those said stop, too
            self._accepting = False
            if self._paused is not None:
                self._paused.cancel()
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
        if self._timer is not None:
            self._timer.cancel()

    def in_background(self, work: Awaitable[None]) -> None:
        """Work that outlives its connection; the server does not leave before it is done."""
        task: asyncio.Task[None] = asyncio.ensure_future(_guarded(work))
        self.background.add(task)
        task.add_done_callback(self._background_done)

    def _background_done(self, task: asyncio.Task[None]) -> None:
        self.background.discard(task)
        self._rest()

    async def drained(self, but: Collection[asyncio.Task[None] | None] = ()) -> None:
        """Nothing is in flight any more, apart from connections whose task is one of `but`."""
        while (left := [c for c in self.connections if c.task is None or c.task not in but]) or self.background:
            tasks = [c.task for c in left if c.task is not None and not c.task.done()] + list(self.background)
            if tasks:
                await asyncio.wait(tasks, timeout=0.5)
            else:
                await asyncio.sleep(0.005)

    def _accept(self, turn_s: float = _TURN_S) -> None:
        # Several at a time: under load one wake-up serves many of those who queue.
        time = asyncio.get_running_loop().time
        until = time() + turn_s
        while self._accepting:  # until one of them says stop
            full = len(self.connections) >= self._most
            if not full:
                self._full_since = None
            elif not self._is_full_for_long():
                self._pause()
                return
            try:
                sock, _ = self._socket.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as e:
                # Out of descriptors: they stay in the queue until some are free.
                log.warning("accept: %s", e)
                self._pause()
                return
            if full:
                sock.close()  # to the client the end of a connection, to nobody a process
                continue
            trace.begin()
            self.adopt(sock, b"")
            if time() > until:
                return  # the socket is still readable: the loop comes back

    def _is_full_for_long(self) -> bool:
        now = asyncio.get_running_loop().time()
        if self._full_since is None:
            self._full_since = now
        return now - self._full_since > _FULL_S

    def _pause(self) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._socket.fileno())
        if self._paused is None:
            self._paused = loop.call_later(_PAUSE_S, self._resume)

    def _resume(self) -> None:
        self._paused = None
        if self._accepting:
            asyncio.get_running_loop().add_reader(self._socket.fileno(), self._accept)

    def adopt(self, sock: socket.socket, received: bytes) -> None:
        """Serve a connection; `received` is what someone else has already read of it."""
        sock.setblocking(False)
        pid, uid, gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid != os.getuid():
            log.warning("a connection from uid %d was refused", uid)
            sock.close()
            return
        connection = Connection(self._service, self.root, sock, (pid, gid), self._connection_gone)
        self.connections.add(connection)
        try:
            connection.begin(received)
        except Exception:
            # A client must never wait for an answer that nobody is going to give.
            log.exception("connection failed")
            connection.close()

    def _connection_gone(self, connection: Connection) -> None:
        self.connections.discard(connection)
        self.ended_at = asyncio.get_running_loop().time()
        self._rest()

    def rests_since_s(self) -> float:
        """How long ago the last connection ended; 0 while there is one."""
        return 0.0 if self.connections else asyncio.get_running_loop().time() - self.ended_at

    def keep_awake(self) -> None:
        """Something happened elsewhere: the idle time starts anew."""
        self._rest()

    def _rest(self) -> None:
        """Start the idle time if nothing is in flight: a compile is never cut by it."""
        if self._accepting and self._idle_s and not self.connections and not self.background:
            self._resting_since = asyncio.get_running_loop().time()
            if self._timer is None:
                self._sleep(self._idle_s)

    def _sleep(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._waken)

    def _waken(self) -> None:
        # A timer for each connection would cost more: one runs, and looks when it ends whether something was asked meanwhile.
        self._timer = None
        left = self._resting_since + self._idle_s - asyncio.get_running_loop().time()
        if self.connections or self.background:
            return  # its end begins the time anew
        if left > 0:
            self._sleep(left)
        else:
            self._idle()


async def _guarded(work: Awaitable[None]) -> None:
    try:
        await work
    except Exception:
        log.exception("background work failed")
