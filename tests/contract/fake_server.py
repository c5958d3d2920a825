"""A server of docs/protocol.md that compiles nothing: each test says what it answers.

In a test: `with FakeServer(path, conversation) as server:` runs `conversation(peer)` in a thread for each
connection; what it raises is raised again at the end of the block.  As a program (what $SCCACHE_PY_SERVER
leads to) it is a server that a client starts: it writes down what it was born with, says that it is ready,
and answers as `main` tells.
"""

import argparse
import contextlib
import json
import os
import signal
import socket
import struct
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import msgpack

from sccache_py.wire import Decoder, Kind, encode_frame

PATIENCE_S = 20.0  # for a client that never does what it should: a failing test, not a hanging one

FIELDS = [
    "protocol",
    "version",
    "argv",
    "program",
    "cwd",
    "environment",
    "umask",
    "niceness",
    "limits",
    "descriptors",
    "columns",
    "root",
    "here",
    "affinity",
    "blocked",
    "ignored",
]


class Peer:
    """One client's connection, from the server's side."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._decoder = Decoder()
        connection.settimeout(PATIENCE_S)

    def next_frame(self) -> tuple[Kind, bytes] | None:
        """The next frame, or None if the client is gone."""
        while (frame := self._decoder.next_frame()) is None:
            try:
                data = self.socket.recv(1 << 16)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self._decoder.feed(data)
        return frame

    def request(self) -> dict[str, Any]:
        """The REQUEST, each element under its name."""
        frame = self.next_frame()
        assert frame is not None
        kind, payload = frame
        assert kind is Kind.REQUEST
        values = msgpack.unpackb(payload, raw=True)
        assert len(values) == len(FIELDS)
        return dict(zip(FIELDS, values, strict=True))

    def control(self) -> list[Any]:
        """The CONTROL array."""
        frame = self.next_frame()
        assert frame is not None
        return self.unpack(frame)

    def unpack(self, frame: tuple[Kind, bytes]) -> list[Any]:
        """The CONTROL array of a frame."""
        kind, payload = frame
        assert kind is Kind.CONTROL
        values: list[Any] = msgpack.unpackb(payload)
        return values

    def send(self, kind: Kind, payload: bytes = b"") -> None:
        """One frame to the client."""
        self.socket.sendall(encode_frame(kind, payload))

    def started(self, group: int) -> None:
        """STARTED."""
        self.send(Kind.STARTED, struct.pack("<I", group))

    def exit(self, status: int = 0) -> None:
        """EXIT with a status."""
        self.send(Kind.EXIT, bytes([0, status]))

    def killed(self, number: int) -> None:
        """EXIT by a signal."""
        self.send(Kind.EXIT, bytes([1, number]))

    def answer(self, value: Any) -> None:
        """ANSWER to a CONTROL."""
        self.send(Kind.ANSWER, msgpack.packb(value, unicode_errors="surrogateescape"))

    def stdin(self) -> bytes | None:
        """All that the client sends after STDIN_WANTED up to its end, or None if it goes away instead."""
        self.send(Kind.STDIN_WANTED)
        return self.rest_of_stdin()

    def rest_of_stdin(self) -> bytes | None:
        """The same, after STDIN_WANTED was sent."""
        parts: list[bytes] = []
        while (frame := self.next_frame()) is not None:
            assert frame[0] is Kind.STDIN, frame
            if not frame[1]:
                return b"".join(parts)
            parts.append(frame[1])
        return None


Conversation = Callable[[Peer], None]


class FakeServer:
    """Listens at `path` (abstract if it begins with NUL) as long as the block runs."""

    def __init__(self, path: str, conversation: Conversation, backlog: int = 64) -> None:
        self.path = path
        self.connections = 0
        self._conversation = conversation
        self._failures: list[BaseException] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(path)
        self._listener.listen(backlog)

    def __enter__(self) -> "FakeServer":
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop_listening()
        self._accepting.join(PATIENCE_S)
        for thread in self._threads:
            thread.join(PATIENCE_S)
        if error is None and self._failures:
            raise self._failures[0]

    def stop_listening(self) -> None:
        """From here on nobody connects: the socket's file is gone, too."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        if not self.path.startswith("\0"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            thread = threading.Thread(target=self._talk, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _talk(self, connection: socket.socket) -> None:
        with connection:
            try:
                self._conversation(Peer(connection))
            except BaseException as e:  # a failed assertion, too: for the test's own thread
                self._failures.append(e)


def passing(peer: Peer) -> None:
    """The conversation that leaves everything to the client."""
    if (frame := peer.next_frame()) is not None and frame[0] is Kind.REQUEST:
        peer.send(Kind.PASS, b"this server caches nothing")


def exiting(status: int) -> Conversation:
    """A conversation that only ends, with this status."""

    def talk(peer: Peer) -> None:
        peer.request()
        peer.exit(status)

    return talk


def birth_certificate(args: list[str]) -> dict[str, Any]:
    """What a process was started with, as far as a daemon should care; to be called first."""
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    links = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            links[name] = os.readlink(f"/proc/self/fd/{name}")
    links = {name: link for name, link in links.items() if not link.endswith("/fd")}
    return {
        "args": args,
        "pid": os.getpid(),
        "parent": os.getppid(),
        "session": os.getsid(0),
        "descriptors": links,
        "blocked": int(status["SigBlk"], 16),
        "ignored": int(status["SigIgn"], 16),
        "environment": dict(os.environ),
    }


def main(args: list[str]) -> None:
    """Serve one connection after another, each with EXIT 42, until one says CONTROL, then end.

    FAKE_SERVER_REPORT names the folder for one file per start, PID.json.  FAKE_SERVER_MODE: "exit" ends
    before it listens (a failed start); "other" is of another version and leaves at the first request.
    """
    report = birth_certificate(args)
    folder = Path(os.environ["FAKE_SERVER_REPORT"])
    (folder / f"{os.getpid()}.json").write_text(json.dumps(report))
    if os.environ.get("FAKE_SERVER_MODE") == "exit":
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket", required=True)
    parser.add_argument("--native")
    parser.add_argument("--ready-fd", type=int)
    parser.add_argument("--foreground", action="store_true")
    options = parser.parse_args(args)
    path = options.socket.replace("\\x00", "\0", 1) if options.socket.startswith("\\x00") else options.socket
    signal.alarm(int(PATIENCE_S) * 3)  # nobody ends us after a failed test
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    if not path.startswith("\0"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    listener.bind(path)
    listener.listen(64)
    if options.ready_fd is not None:
        os.write(options.ready_fd, b"+")
        os.close(options.ready_fd)
    while True:
        connection, _ = listener.accept()
        with connection:
            peer = Peer(connection)
            frame = peer.next_frame()
            if frame is None:
                continue
            leaves = os.environ.get("FAKE_SERVER_MODE") == "other"
            if leaves or frame[0] is Kind.CONTROL:
                if not path.startswith("\0"):
                    os.unlink(path)
                listener.close()
                if leaves:
                    peer.send(Kind.LEAVING, b"0.0.1")
                else:
                    peer.answer({"stopped": True})
                return
            peer.exit(42)


if __name__ == "__main__":
    main(sys.argv[1:])
