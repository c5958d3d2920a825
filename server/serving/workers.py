"""Hit workers: further processes that accept on the same socket and answer hits from the shared store.

One Python process answers some thousand hits a second.  A worker does all that a hit needs (plan, lookup, outputs) by itself; what it
finds to be a miss, a question to the server or a crate on standard input it hands to the owner, the one process that has tokens and
flights.  Nothing that a hit needs lives only there.

Between the two is a SOCK_SEQPACKET pair.  Messages, one kind byte each:

    worker → owner   `C` with two descriptors by SCM_RIGHTS: the client's connection, and a file in memory with what was read of it
                     `S` + msgpack: what was counted since the last one
    owner → worker   `F`: send what was counted now; `S` follows even if there is nothing
                     `D` and the key of a result that was dropped or stored anew

Either side reads the other's death from the end of the stream: a worker without an owner finishes what it has and goes.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import logging
import os
import socket
import subprocess
from collections.abc import Callable, Sequence

from sccache_py.codec import pack, unpack
from sccache_py.errors import FormatError
from sccache_py.server.running.held import held
from sccache_py.stats import Stats

log = logging.getLogger(__name__)

_MESSAGE_BYTES = 128 * 1024

# How long the owner waits for a worker to say what it counted, or to go.
_PATIENCE_S = 2.0

# A worker that died is replaced, but not in a loop.
_RESTARTS = 5


# More would only wait for each other.
_MOST_PER_PROCESSOR = 4


def how_many(processors: int, asked: int | None) -> int:
    """Workers beside the owner.  A process keeps a core and the clients of about three others busy."""
    return processors // 4 if asked is None else min(asked, _MOST_PER_PROCESSOR * processors)


class Owner:
    """The owner's side: starts the workers, takes what they hand over and what they counted."""

    def __init__(
        self,
        count: int,
        command: Sequence[str],
        listening: socket.socket,
        adopt: Callable[[socket.socket, bytes], None],
        counted: Callable[[Stats], None],
    ) -> None:
        """command: starts a worker; `--worker CONTROL LISTENING` with two descriptor numbers is put behind it."""
        self._command = list(command)
        self._listening = listening
        self._adopt = adopt
        self._counted = counted
        self._workers: dict[socket.socket, subprocess.Popen[bytes]] = {}
        self._answers: dict[socket.socket, asyncio.Future[None]] = {}
        self._restarts = 0
        self._leaving = False
        for _ in range(count):
            self._start()

    def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with theirs:
            fds = (theirs.fileno(), self._listening.fileno())
            try:
                worker = subprocess.Popen([*self._command, "--worker", *map(str, fds)], pass_fds=fds, stdin=subprocess.DEVNULL)
            except OSError as e:
                log.warning("no hit worker: %s", e)
                ours.close()
                return
        self._workers[ours] = worker
        asyncio.get_running_loop().add_reader(ours.fileno(), self._readable, ours)

    def _readable(self, worker: socket.socket) -> None:
        try:
            message, ancillary, _, _ = worker.recvmsg(_MESSAGE_BYTES, socket.CMSG_SPACE(8))
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            message, ancillary = b"", []
        fds = array.array("i")
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
        if not message:
            self._lost(worker)
        elif message[:1] == b"C" and len(fds) == 2:
            client, memory = fds
            with open(memory, "rb") as read:
                received = os.pread(read.fileno(), os.fstat(memory).st_size, 0)
            self._adopt(socket.socket(fileno=client), received)
            return
        elif message[:1] == b"S":
            with contextlib.suppress(FormatError):
                self._counted(Stats.from_dict(unpack(message[1:])))
            waiting = self._answers.pop(worker, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(None)
        for fd in fds:
            os.close(fd)

    def _lost(self, worker: socket.socket) -> None:
        asyncio.get_running_loop().remove_reader(worker.fileno())
        worker.close()
        process = self._workers.pop(worker)
        asyncio.get_running_loop().run_in_executor(None, process.wait)  # it ends now, or has: leave no zombie
        waiting = self._answers.pop(worker, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(None)
        if not self._leaving:
            log.warning("hit worker %d died", process.pid)
            if self._restarts < _RESTARTS:
                self._restarts += 1
                self._start()

    def withdraw(self, key: bytes) -> None:
        """A result is not what a worker may remember."""
        for worker, process in self._workers.items():
            try:
                worker.send(b"D" + key, socket.MSG_NOSIGNAL)
            except OSError:
                process.kill()  # it reads nothing any more: better none than one that goes on with this result

    def pids(self) -> list[int]:
        return [process.pid for process in self._workers.values()]

    async def collect(self) -> None:
        """Have every worker say what it counted."""
        loop = asyncio.get_running_loop()
        for worker in list(self._workers):
            self._answers.setdefault(worker, loop.create_future())
            with contextlib.suppress(OSError):
                worker.send(b"F", socket.MSG_NOSIGNAL)
        if self._answers:
            await asyncio.wait(list(self._answers.values()), timeout=_PATIENCE_S)

    async def leave(self) -> None:
        """Let the workers finish and go; returns when they are gone."""
        self._leaving = True
        processes = list(self._workers.values())
        for worker in self._workers:
            with contextlib.suppress(OSError):
                worker.shutdown(socket.SHUT_WR)
        loop = asyncio.get_running_loop()
        for process in processes:
            try:
                await loop.run_in_executor(None, process.wait, _PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for worker in list(self._workers):
            self._readable(worker)


class Link:
    """The worker's side."""

    def __init__(
        self,
        control: socket.socket,
        take_counted: Callable[[], Stats],
        unlearn: Callable[[bytes], None],
        leave: Callable[[], None],
    ) -> None:
        self._socket = control
        self._take_counted = take_counted
        self._unlearn = unlearn
        self._leave = leave
        control.setblocking(False)
        asyncio.get_running_loop().add_reader(control.fileno(), self._readable)

    def _readable(self) -> None:
        try:
            message = self._socket.recv(_MESSAGE_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            message = b""
        if message == b"F":
            self.report()
        elif message[:1] == b"D":
            self._unlearn(message[1:])
        elif not message:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._leave()

    def report(self) -> None:
        """Say what was counted; if the owner is gone it is lost with it."""
        with contextlib.suppress(OSError):
            self._socket.send(b"S" + pack(self._take_counted().to_dict()), socket.MSG_NOSIGNAL)

    def hand_over(self, client: socket.socket, received: bytes) -> None:
        """The owner goes on with this connection.  If it cannot be given away the client reads its end and becomes the compiler."""
        try:
            memory = held(received)
            try:
                fds = array.array("i", (client.fileno(), memory))
                self._socket.sendmsg([b"C"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)], socket.MSG_NOSIGNAL)
            finally:
                os.close(memory)
        except OSError as e:
            log.warning("a connection could not be handed over: %s", e)
