"""A server that says nothing: how long it is waited for, and what becomes of it.

The Python half of client/native/silence.c; docs/protocol.md, section 2.
"""

from __future__ import annotations

import itertools
import os
import signal
import socket
import struct

from sccache_py.client.place import Place
from sccache_py.wire import Kind, encode_frame

QUIET_S = 5.0  # without a word; then the server is asked for one
STEP_S = 1.0
ASKED_STEPS = 10  # to wait for that
ENDED_STEPS = 3  # to wait for the end of the connection, when the server was killed


class Silence:
    """Counts how often in a row a wait has ended with nothing.

    Waits and not the time: if it was we who stood still, stopped or frozen together with the server, that is one of them.
    """

    def __init__(self, place: Place, server: socket.socket) -> None:
        self._place, self._server = place, server
        self._waits = 0

    def heard(self) -> None:
        """The server said something."""
        self._waits = 0

    @property
    def wait_s(self) -> float:
        """How long to wait now."""
        return STEP_S if self._waits else QUIET_S

    def still_hopes(self, may_ask: bool = True) -> bool:
        """That time has passed with nothing.  False: the server is given up.

        may_ask: no frame is half sent.
        """
        self._waits += 1
        if self._waits == 1 and may_ask:
            ask_for_a_word(self._server)
        if self._waits == 1 + ASKED_STEPS:
            return end_server(self._place, self._server)  # that it is gone shows as its end
        return self._waits < 1 + ASKED_STEPS + ENDED_STEPS


def ask_for_a_word(server: socket.socket) -> None:
    """Anything that it says in return is a sign of life."""
    try:
        server.send(encode_frame(Kind.ALIVE_WANTED), socket.MSG_DONTWAIT)
    except OSError:
        pass  # its end will be seen by whoever reads next


def process_of(server: socket.socket) -> int:
    """Who listens there; 0: nobody that we can see."""
    pid: int = struct.unpack("3i", server.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))[0]
    return pid


def end_server(place: Place, server: socket.socket) -> bool:
    """Kill it: stopped or stuck, it could wake up at any time and write what it had begun to over what was built since.

    False: it cannot be told from any other process.  A number may be another's by now, and who listens may be no server of
    ours: its command line has to name our socket.
    """
    pid = process_of(server)
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            words = f.read().split(b"\0")
        if pid <= 1 or (b"--socket", place.name) not in itertools.pairwise(words):
            return False
        os.kill(pid, signal.SIGKILL)
    except OSError:
        return False
    return True
