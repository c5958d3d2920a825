"""The socket: who may speak, one request each, and when everybody has gone.

A connection is read by a callback, not by a task: most of them carry a hit, which is answered where the request was completed. A
miss becomes a task,
which is cancelled when the client goes away.

The rules are in docs/protocol.md, section 2.  This module does not know what a compile is.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from sccache_py import __version__
from sccache_py.codec import pack, unpack
from sccache_py.errors import FormatError
from sccache_py.model import Request
from sccache_py.request import decode_request, peek_version
from sccache_py.server.pipeline import Answer, Finished, Pass, Replay
from sccache_py.server.runner import send_signal
from sccache_py.wire import MAX_STDIN, PROTOCOL, Decoder, Kind, ProtocolError, encode_frame

log = logging.getLogger(__name__)

_RECV_BYTES = 256 * 1024

# Bytes on their way to a client before its compiler's pipe has to wait.
_IN_FLIGHT_BYTES = 1024 * 1024

# A request that is not complete by then was begun by something that is not our client.
_REQUEST_TIMEOUT_S = 30.0

Controller = Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]]


class Listener:
    """Accepts, counts, and calls back.

    answer_now, answer: the pipeline's two ways.  control: name and arguments → the answer's map.  leave: another version wants this socket.
    """

    def __init__(
        self,
        sock: socket.socket,
        answer_now: Callable[[Request], Answer | None],
        answer: Callable[[Request, Connection], Coroutine[Any, Any, Answer]],
        control: Controller,
        leave: Callable[[], None],
        idle_s: float,
        idle: Callable[[], None],
    ) -> None:
        self._socket = sock
        self.answer_now = answer_now
        self.answer = answer
        self.control = control
        self.leave = leave
        self._idle_s = idle_s
        self._idle = idle
        self._timer: asyncio.TimerHandle | None = None
        self.connections: set[Connection] = set()
        self.background: set[asyncio.Task[None]] = set()
        root = os.stat("/")
        self.root = (root.st_dev, root.st_ino)
        self._accepting = False

    def start(self) -> None:
        self._socket.setblocking(False)
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._accept)
        self._accepting = True
        self._rest()

    def stop_accepting(self) -> None:
        if self._accepting:
            self._accepting = False
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

    async def drained(self) -> None:
        """Nothing is in flight any more."""
        while self.connections or self.background:
            tasks = [c.task for c in self.connections if c.task is not None] + list(self.background)
            if tasks:
                await asyncio.wait(tasks, timeout=0.5)
            else:
                await asyncio.sleep(0.005)

    def _accept(self) -> None:
        # Several at a time: under load one wake-up serves all who queue.
        for _ in range(64):
            try:
                sock, _ = self._socket.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as e:
                # Out of descriptors: they stay in the queue until some are free.
                log.warning("accept: %s", e)
                return
            self.adopt(sock, b"")

    def adopt(self, sock: socket.socket, received: bytes) -> None:
        """Serve a connection; `received` is what someone else has already read of it."""
        sock.setblocking(False)
        pid, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid != os.getuid():
            log.warning("a connection from uid %d was refused", uid)
            sock.close()
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        connection = Connection(self, sock, pid)
        self.connections.add(connection)
        try:
            connection.begin(received)
        except Exception:
            # A client must never wait for an answer that nobody is going to give.
            log.exception("connection failed")
            connection.close()

    def gone(self, connection: Connection) -> None:
        self.connections.discard(connection)
        self._rest()

    def _rest(self) -> None:
        """Start the idle timer if nothing is in flight: a compile is never cut by it."""
        if self._accepting and self._idle_s and not self.connections and not self.background:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = asyncio.get_running_loop().call_later(self._idle_s, self._idle)


async def _guarded(work: Awaitable[None]) -> None:
    try:
        await work
    except Exception:
        log.exception("background work failed")


class Connection:
    """One client; the pipeline's Audience."""

    def __init__(self, listener: Listener, sock: socket.socket, pid: int) -> None:
        self._listener = listener
        self._socket = sock
        self._pid = pid
        self._decoder = Decoder()
        self._out = bytearray()
        self._closing = False
        self._closed = False
        self._room: asyncio.Future[None] | None = None
        self._group = 0
        self._stdin = bytearray()
        self._stdin_end: asyncio.Future[None] | None = None
        self.task: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._patience: asyncio.TimerHandle | None = None

    @property
    def build(self) -> str:
        """Whose call this is: the process that started the client (cargo, ninja, make)."""
        try:
            with open(f"/proc/{self._pid}/stat", encoding="ascii", errors="replace") as f:
                return f.read().rpartition(")")[2].split()[1]
        except (OSError, IndexError):
            return ""

    def begin(self, received: bytes) -> None:
        self._loop.add_reader(self._socket.fileno(), self._readable)
        self._patience = self._loop.call_later(_REQUEST_TIMEOUT_S, self.close)
        if received:
            self._decoder.feed(received)
            self._frames()
        else:
            self._readable()  # the request is mostly there already

    def _readable(self) -> None:
        try:
            data = self._socket.recv(_RECV_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._client_gone()
            return
        self._decoder.feed(data)
        self._frames()

    def _frames(self) -> None:
        try:
            while not self._closed and (frame := self._decoder.next_frame()) is not None:
                self._frame(*frame)
        except (ProtocolError, FormatError) as e:
            log.warning("a malformed request was refused: %s", e)
            self.close()
        except Exception:
            # The one guard: whatever is wrong with a request ends this connection, and its client becomes the compiler.
            log.exception("request failed")
            self.close()

    def _frame(self, kind: Kind, payload: bytes) -> None:
        if kind is Kind.SIGNAL and self.task is not None and len(payload) == 1:
            if self._group:
                send_signal(self._group, payload[0])
            else:
                self._client_gone()
        elif kind is Kind.STDIN and self.task is not None:
            self._take_stdin(payload)
        elif kind is Kind.REQUEST and self.task is None:
            self._stop_patience()
            self._request(payload)
        elif kind is Kind.CONTROL and self.task is None:
            self._stop_patience()
            self._control(payload)
        else:
            raise ProtocolError(f"frame {kind.name} out of place")

    def _stop_patience(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _request(self, payload: bytes) -> None:
        version = peek_version(payload)
        if version is not None and version != (PROTOCOL, __version__):
            self._finish(Kind.LEAVING, f"this is {__version__}, protocol {PROTOCOL}".encode())
            self._listener.leave()
            return
        _, _, request = decode_request(payload)
        if not self._sees_the_same(request):
            self._finish(Kind.PASS, b"client sees other files")
            return
        answer = self._listener.answer_now(request)
        if answer is not None:
            self._answer(answer)
            return
        self.task = self._loop.create_task(self._long_way(self._listener.answer(request, self)))

    def _sees_the_same(self, request: Request) -> bool:
        if request.root != self._listener.root:
            return False
        try:
            here = os.stat(request.cwd)
        except OSError:
            return False
        return request.here == (here.st_dev, here.st_ino)

    async def _long_way(self, work: Coroutine[Any, Any, Answer]) -> None:
        try:
            self._answer(await work)
        except asyncio.CancelledError:
            self.close()
        except Exception:
            log.exception("request failed")
            self.close()

    def _answer(self, answer: Answer) -> None:
        if isinstance(answer, Pass):
            self._finish(Kind.PASS, answer.reason.value.encode())
        elif isinstance(answer, Replay):
            frames = [encode_frame(k, d) for k, d in ((Kind.STDOUT, answer.stdout), (Kind.STDERR, answer.stderr)) if d]
            self._finish(Kind.EXIT, bytes((0, answer.status)), b"".join(frames))
        elif isinstance(answer, Finished):
            killed = answer.killed_by is not None
            self._finish(Kind.EXIT, bytes((killed, (answer.killed_by or 0) if killed else answer.status)))

    def _control(self, payload: bytes) -> None:
        try:
            _, _, name, arguments = unpack(payload)
        except (TypeError, ValueError) as e:
            raise ProtocolError("not a control message") from e
        name = name.decode() if isinstance(name, bytes) else str(name)
        self.task = self._loop.create_task(self._answer_control(name, arguments if isinstance(arguments, dict) else {}))

    async def _answer_control(self, name: str, arguments: dict[str, Any]) -> None:
        try:
            self._finish(Kind.ANSWER, pack(await self._listener.control(name, arguments)))
        except Exception:
            log.exception("control %s failed", name)
            self.close()

    # -- Audience ------------------------------------------------------------------------------------------------

    def started(self, process_group: int) -> None:
        self._group = process_group
        self._send(encode_frame(Kind.STARTED, process_group.to_bytes(4, "little")))

    def stdout(self, data: bytes) -> None:
        self._send(encode_frame(Kind.STDOUT, data))

    def stderr(self, data: bytes) -> None:
        self._send(encode_frame(Kind.STDERR, data))

    async def room(self) -> None:
        while len(self._out) > _IN_FLIGHT_BYTES and not self._closed:
            self._room = self._loop.create_future()
            await self._room

    async def stdin(self) -> bytes | None:
        """Ask the client for its standard input."""
        self._stdin_end = self._loop.create_future()
        self._send(encode_frame(Kind.STDIN_WANTED))
        await self._stdin_end
        return bytes(self._stdin) if len(self._stdin) <= MAX_STDIN else None

    def _take_stdin(self, data: bytes) -> None:
        if self._stdin_end is None or self._stdin_end.done():
            raise ProtocolError("standard input that nobody asked for")
        self._stdin += data
        if not data or len(self._stdin) > MAX_STDIN:
            self._stdin_end.set_result(None)

    # -- sending -------------------------------------------------------------------------------------------------

    def _send(self, data: bytes) -> None:
        if self._closed:
            return
        if not self._out:
            try:
                data = data[self._socket.send(data, socket.MSG_NOSIGNAL) :]
            except (BlockingIOError, InterruptedError):
                pass
            except OSError:
                self._client_gone()
                return
            if not data:
                return
            self._loop.add_writer(self._socket.fileno(), self._writable)
        self._out += data

    def _writable(self) -> None:
        try:
            del self._out[: self._socket.send(self._out, socket.MSG_NOSIGNAL)]
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._client_gone()
            return
        if len(self._out) <= _IN_FLIGHT_BYTES and self._room is not None and not self._room.done():
            self._room.set_result(None)
        if not self._out:
            self._loop.remove_writer(self._socket.fileno())
            if self._closing:
                self.close()

    def _finish(self, kind: Kind, payload: bytes, before: bytes = b"") -> None:
        """The last frame; the connection closes when it is sent."""
        self._group = 0
        self._closing = True
        self._send(before + encode_frame(kind, payload))
        if not self._out:
            self.close()

    def _client_gone(self) -> None:
        if self.task is not None and not self._closing:
            self.task.cancel()
        self.close()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._stop_patience()
        self._loop.remove_reader(self._socket.fileno())
        self._loop.remove_writer(self._socket.fileno())
        with contextlib.suppress(OSError):
            self._socket.close()
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        if self.task is None or self.task.done():
            self._listener.gone(self)
        else:
            # Its compiler may still have to be reaped: until then it counts as in flight.
            self.task.add_done_callback(lambda _: self._listener.gone(self))
