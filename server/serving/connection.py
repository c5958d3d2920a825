"""One client's connection: frames in and out, and the task that works for it.

It is read by a callback, not by a task: most connections carry a hit, which is answered where the request was completed.  A miss
becomes a task, which is cancelled when the client goes away.  The rules are in docs/protocol.md, section 2.  Whatever happens
here, the client gets an answer or the end of the connection: it must never wait for nothing.

This module does not know what a compile is.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import functools
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from sccache_py import __version__
from sccache_py.codec import pack, unpack
from sccache_py.errors import FormatError
from sccache_py.model import Request
from sccache_py.request import OtherVersion, decode_request
from sccache_py.server.answers import Answer, Finished, MakeWay, Pass, Replay
from sccache_py.server.filesystem.stamps import leads_to
from sccache_py.server.jobs.builds import Build, build_of
from sccache_py.server.planning import Job
from sccache_py.server.process import trace
from sccache_py.server.running.groups import send_signal
from sccache_py.wire import MAX_STDIN, PROTOCOL, Decoder, Kind, ProtocolError, encode_frame

log = logging.getLogger(__name__)

_RECV_BYTES = 64 * 1024  # below what malloc maps anew each time

# Bytes on their way to a client before its compiler's pipe has to wait.
_IN_FLIGHT_BYTES = 1024 * 1024

# A request that is not complete by then was begun by something that is not our client.
_REQUEST_TIMEOUT_S = 30.0


def _namespaces(process: int | str) -> tuple[int, int] | None:
    """Which mounts a process sees and how it counts processes; None where /proc does not say."""
    try:
        return os.stat(f"/proc/{process}/ns/mnt").st_ino, os.stat(f"/proc/{process}/ns/pid").st_ino
    except OSError:
        return None


_OURS = _namespaces("self")


def _capabilities(process: int | str) -> str | None:
    """What root may there; None where /proc does not say."""
    try:
        with open(f"/proc/{process}/status", encoding="ascii", errors="replace") as f:
            return next((line for line in f if line.startswith("CapEff:")), None)
    except OSError:
        return None


_CAPABILITIES = _capabilities("self") if os.geteuid() == 0 else None
_GROUP, _GROUPS = os.getegid(), {*os.getgroups(), os.getegid()}
_SO_PEERGROUPS = 59  # <asm/socket.h>, Linux 4.13
_MOST_GROUPS = 256  # as many as getsockopt has room for


def _lives_with_us(pid: int) -> bool:
    """Whether paths and process numbers mean the same to that process (0: it is in a sandbox around ours).

    The socket's usual name holds the namespaces; with SCCACHE_SERVER_UDS anybody may come.
    """
    theirs = _namespaces(pid) if _OURS is not None else None
    return pid != 0 and (theirs is None or theirs == _OURS)


@dataclass(frozen=True, slots=True)
class Service:
    """What a connection may ask of the server.

    answer_now, answer: the pipeline's two ways (the second goes on with what the first gave); answer gives None where another process must.
    control: name and arguments → the answer's map; None: another process answers it.  lease: serves a build under the wrapper.
    leave: a client of another version wants this socket.  hand_over: give the connection, with what was read of it, to that other process.
    """

    answer_now: Callable[[Request], Answer | Job | None]
    answer: Callable[[Request, Connection, Job | None], Coroutine[Any, Any, Answer | None]]
    control: Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]] | None
    leave: Callable[[], None]
    lease: Callable[[Connection, dict[str, Any]], Coroutine[Any, Any, None]] | None = None
    hand_over: Callable[[socket.socket, bytes], None] | None = None


class Connection:
    """One client; the pipeline's Audience."""

    def __init__(
        self, service: Service, root: tuple[int, int], sock: socket.socket, peer: tuple[int, int], gone: Callable[[Connection], None]
    ) -> None:
        """root: (device, inode) of `/` as this server sees it.  peer: pid and gid.  gone: called once, when nothing
        of this connection is under way any more."""
        self._service = service
        self._root = root
        self._gone = gone
        self._socket = sock
        self.pid, self._gid = peer
        self._decoder = Decoder()
        self._out = bytearray()
        self._closing = False
        self._closed = False
        self._heard = False
        self._room = asyncio.Event()  # both of the compiler's streams may wait for it
        self._room.set()
        self._group = 0
        self._ended: Finished | None = None
        self._stdin = bytearray()
        self._stdin_end: asyncio.Future[None] | None = None
        self.task: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._patience: asyncio.TimerHandle | None = None

    @functools.cached_property
    def build(self) -> Build:
        """Whose call this is."""
        return build_of(self.pid)

    def begin(self, received: bytes) -> None:
        if received:
            self._decoder.feed(received)
            self._frames()
        else:
            self._readable()  # the request is mostly there already, and often answered at once: then the loop never hears of it
        if self._closed:
            return
        self._loop.add_reader(self._socket.fileno(), self._readable)
        self._heard = True
        if self.task is None and not self._closing:
            self._patience = self._loop.call_later(_REQUEST_TIMEOUT_S, self.close)

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
            # After the last word nothing more is heard: a connection carries one request.
            while not (self._closed or self._closing) and (frame := self._decoder.next_frame()) is not None:
                self._frame(*frame)
        except (ProtocolError, FormatError) as e:
            log.warning("a malformed request was refused: %s", e)
            self._client_gone()
        except Exception:
            # The one guard: whatever is wrong with a request ends this connection, and its client becomes the compiler.
            log.exception("request failed")
            self._client_gone()

    def _frame(self, kind: Kind, payload: bytes) -> None:
        if kind is Kind.SIGNAL and self.task is not None and len(payload) == 1:
            if self._group:
                send_signal(self._group, payload[0])
            elif self._ended is None:
                self._client_gone()
        elif kind is Kind.STDIN and self.task is not None:
            self._take_stdin(payload)
        elif kind is Kind.ALIVE_WANTED and self.task is not None:
            self._send(encode_frame(Kind.ALIVE))
        elif kind is Kind.REQUEST and self.task is None:
            self._stop_patience()
            self._request(payload)
        elif kind is Kind.CONTROL and self.task is None:
            self._stop_patience()
            self._control(payload)
        elif kind is Kind.LEASE and self.task is None:
            self._stop_patience()
            self._lease(payload)
        else:
            raise ProtocolError(f"frame {kind.name} out of place")

    def _stop_patience(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _request(self, payload: bytes) -> None:
        trace.mark("socket")
        request = decode_request(payload)
        trace.mark("decode")
        if isinstance(request, OtherVersion):
            self._leave(Kind.REQUEST, payload)
            return
        request.pid = self.pid
        if not self._sees_the_same(request):
            self._finish(Kind.PASS, b"client sees other files")
            return
        trace.mark("place")
        # Of another group, so would the files of a hit be: only the owner can say what becomes of it.
        foreign = self._gid != _GROUP
        if foreign and self._service.hand_over is not None:
            self._hand_over(Kind.REQUEST, payload)
            return
        answer = self._service.answer_now(request) if not foreign else None
        if answer is None or isinstance(answer, Job):
            self.task = self._loop.create_task(self._long_way(self._service.answer(request, self, answer), Kind.REQUEST, payload))
        else:
            self._answer(answer)

    def _leave(self, kind: Kind, payload: bytes) -> None:
        """To a client of another version."""
        if self._service.hand_over is not None:
            self._hand_over(kind, payload)  # it is not for us alone to go
            return
        self._finish(Kind.LEAVING, f"this is {__version__}, protocol {PROTOCOL}".encode())
        self._service.leave()

    def _sees_the_same(self, request: Request) -> bool:
        return request.root == self._root and _lives_with_us(self.pid) and leads_to(request.cwd, request.here)

    async def _long_way(self, work: Coroutine[Any, Any, Answer | None], kind: Kind, payload: bytes) -> None:
        try:
            answer = await work
            if answer is not None:
                self._answer(answer)
            else:
                self._hand_over(kind, payload)
        except asyncio.CancelledError:
            self.close()
        except Exception:
            log.exception("request failed")
            if self._ended is not None:
                # The compile itself is done and told: to close now would make the client say it all again.
                self._answer(self._ended)
            else:
                self.close()

    def _answer(self, answer: Answer) -> None:
        if isinstance(answer, Pass):
            self._finish(Kind.PASS, answer.reason.value.encode())
        elif isinstance(answer, MakeWay):
            self._finish(Kind.LEAVING, b"limits")
            self._service.leave()
        elif isinstance(answer, Replay):
            frames = [encode_frame(k, d) for k, d in ((Kind.STDOUT, answer.stdout), (Kind.STDERR, answer.stderr)) if d]
            self._finish(Kind.EXIT, bytes((0, answer.status)), b"".join(frames))
        elif isinstance(answer, Finished):
            killed = answer.killed_by is not None
            self._finish(Kind.EXIT, bytes((killed, (answer.killed_by or 0) if killed else answer.status)))
        trace.mark("reply")
        trace.end("pass" if isinstance(answer, Pass) else "hit" if isinstance(answer, Replay) else "miss")

    def _control(self, payload: bytes) -> None:
        try:
            protocol, version, name, arguments = unpack(payload)
            version, name = (v.decode() if isinstance(v, bytes) else str(v) for v in (version, name))
        except (TypeError, ValueError) as e:
            raise ProtocolError("not a control message") from e
        if (protocol, version) != (PROTOCOL, __version__):
            self._leave(Kind.CONTROL, payload)
            return
        if self._service.control is None:
            self._hand_over(Kind.CONTROL, payload)
            return
        self.task = self._loop.create_task(self._answer_control(name, arguments if isinstance(arguments, dict) else {}))

    async def _answer_control(self, name: str, arguments: dict[str, Any]) -> None:
        assert self._service.control is not None
        try:
            self._finish(Kind.ANSWER, pack(await self._service.control(name, arguments)))
        except ProtocolError as e:
            log.warning("%s", e)
            self.close()
        except Exception:
            log.exception("control %s failed", name)
            self.close()

    def _lease(self, payload: bytes) -> None:
        try:
            protocol, version, arguments = unpack(payload)
            version = version.decode() if isinstance(version, bytes) else str(version)
        except (TypeError, ValueError) as e:
            raise ProtocolError("not a request for a lease") from e
        if (protocol, version) != (PROTOCOL, __version__):
            self._leave(Kind.LEASE, payload)
        elif self._service.lease is None:
            self._hand_over(Kind.LEASE, payload)
        else:
            work = self._service.lease(self, arguments if isinstance(arguments, dict) else {})
            self.task = self._loop.create_task(self._serve_lease(work))

    async def _serve_lease(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except asyncio.CancelledError:
            pass
        except OSError as e:
            log.warning("a build runs without the pool: %s", e)
        finally:
            self.close()

    def leased(self, answer: dict[str, Any], descriptors: tuple[int, ...]) -> None:
        """The wrapper may start its build.  The first frame that it gets, and small: it goes out whole."""
        frame = encode_frame(Kind.LEASED, pack(answer))
        try:
            socket.send_fds(self._socket, [frame], descriptors, socket.MSG_NOSIGNAL)
        except OSError:
            self._client_gone()

    def _hand_over(self, kind: Kind, payload: bytes) -> None:
        """Another process goes on with this connection, from its first byte."""
        if self._closed:
            return
        assert self._service.hand_over is not None
        self._service.hand_over(self._socket, encode_frame(kind, payload) + self._decoder.rest())
        self.close()

    # -- Audience ------------------------------------------------------------------------------------------------

    def may_what_we_may(self) -> bool:
        # sched(7): who has no RLIMIT_NICE cannot leave SCHED_IDLE, and a server that `chrt -i 0 make` started has all compiles wait for it.
        with contextlib.suppress(OSError):
            if os.sched_getscheduler(0) == os.SCHED_IDLE != os.sched_getscheduler(self.pid):
                return False
        if _CAPABILITIES is not None and _capabilities(self.pid) not in (_CAPABILITIES, None):
            return False
        try:
            groups = array.array("I", self._socket.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, 4 * _MOST_GROUPS))
        except OSError:
            return self._gid == _GROUP
        return self._gid == _GROUP and {*groups, self._gid} == _GROUPS

    def started(self, process_group: int) -> None:
        self._group = process_group
        self._send(encode_frame(Kind.STARTED, process_group.to_bytes(4, "little")))

    def ended(self, killed_by: int | None, status: int) -> None:
        self._group = 0  # the number may become another's
        self._ended = Finished(killed_by, status)

    def stdout(self, data: bytes) -> None:
        self._send(encode_frame(Kind.STDOUT, data))

    def stderr(self, data: bytes) -> None:
        self._send(encode_frame(Kind.STDERR, data))

    async def room(self) -> None:
        while len(self._out) > _IN_FLIGHT_BYTES and not self._closed:
            self._room.clear()
            await self._room.wait()

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
        if len(self._out) <= _IN_FLIGHT_BYTES:
            self._room.set()
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
        if self._heard:
            self._loop.remove_reader(self._socket.fileno())
        if self._out:
            self._loop.remove_writer(self._socket.fileno())
        with contextlib.suppress(OSError):
            self._socket.close()
        self._room.set()
        if self.task is None or self.task.done():
            self._gone(self)
        else:
            # Its compiler may still have to be reaped: until then it counts as in flight.
            self.task.add_done_callback(lambda _: self._gone(self))
