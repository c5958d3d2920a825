"""The client in Python, for where no C compiler was there at install: same protocol, same tests, only slower.

What the words of the command line mean is client/native/main.c's comment; the conversation is relay.py.
Until the server has said STARTED any trouble ends in becoming the compiler, silently.

Differences that Python forces: whether the caller ignores SIGPIPE or SIGXFSZ cannot be known (the interpreter
ignores both before we run), so they count as not ignored; environment entries without '=' are lost.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import NoReturn

import sccache_py
from sccache_py.client.become import (
    OWN_NAMES,
    KeptInput,
    Ourselves,
    become,
    cannot_become,
    executed_program,
    find_program,
    leads_to_self,
    names_program,
    original_environment,
    run_child,
)
from sccache_py.client.place import (
    NOBODY,
    Place,
    dial,
    find_place,
    note_uncounted,
    stamp_failure,
    start_and_dial,
)
from sccache_py.client.relay import Relay, Signals
from sccache_py.wire import PROTOCOL, Kind, ProtocolError, encode_frame

LEAVING_S = 1.0  # how long to wait for a server of another version to go
LEAVING_STEP_S = 0.005


def describe(program: str, argv: Sequence[str], environ: Mapping[bytes, bytes], signals: Signals) -> bytes:
    """The REQUEST frame: this very process, told to the server.

    Raises OSError (no cwd), ProtocolError (more than a frame holds), ImportError (msgpack is not installed).
    """
    from sccache_py.codec import pack  # not there if msgpack is not

    umask = os.umask(0)
    os.umask(umask)
    root, here = os.stat("/"), os.stat(".")
    cpus = sum(1 << n for n in os.sched_getaffinity(0))
    descriptors, columns = _describe_descriptors()
    payload = pack(
        [
            PROTOCOL,
            sccache_py.__version__.encode(),
            [os.fsencode(word) for word in argv],
            os.fsencode(program),
            os.getcwdb(),
            [name + b"=" + value for name, value in environ.items()],
            umask,
            os.getpriority(os.PRIO_PROCESS, 0),
            list(_limits()),
            descriptors,
            columns,
            [root.st_dev, root.st_ino],
            [here.st_dev, here.st_ino],
            cpus.to_bytes((cpus.bit_length() + 63) // 64 * 8, "little"),
            sum(1 << (n - 1) for n in signals.blocked),
            sum(1 << (n - 1) for n in signals.ignored),
        ]
    )
    return encode_frame(Kind.REQUEST, payload)


def _limits() -> Iterator[list[int]]:
    for number in range(64):
        try:
            soft, hard = resource.getrlimit(number)
        except ValueError:
            return
        yield [number, soft % (1 << 64), hard % (1 << 64)]


def _describe_descriptors() -> tuple[int, int]:
    bits, columns = 0, 0
    for fd in range(3):
        try:
            columns = os.get_terminal_size(fd).columns or columns
            bits |= 0x11 << fd
        except OSError as e:  # closed, or no terminal
            bits |= 0 if e.errno == errno.EBADF else 0x01 << fd
    return bits, columns


class Connections:
    """Connected servers for one compile; the first that has to be started is the last that is."""

    def __init__(self, place: Place, ourselves: Ourselves, environ: Mapping[bytes, bytes]) -> None:
        self.started = False
        self._place, self._ourselves, self._environ = place, ourselves, environ

    def find(self) -> socket.socket | None:
        """A connection, or None: do without."""
        if not self._place.is_safe() and os.path.lexists(self._place.runtime or b""):
            return None
        try:
            return dial(self._place)
        except OSError as e:
            if e.errno not in NOBODY or self.started:
                return None
        self.started = True
        program = self._ourselves.beside("sccache-py-server", "SCCACHE_PY_SERVER", self._environ)
        return start_and_dial(self._place, program, os.fsencode(self._ourselves.directory), self._environ)


def converse(place: Place, request: bytes, connections: Connections, kept: KeptInput, signals: Signals) -> None:
    """Returns if the compiler is for us to run."""
    patience = 0.0
    while (server := connections.find()) is not None:
        if Relay(place, server, kept, signals).run(request):
            return
        if connections.started:
            # The server that is installed beside us is of another version than we are: starting it again for
            # each compile would cost more than it gives.
            stamp_failure(place)
            break
        patience = patience or time.monotonic() + LEAVING_S
        if time.monotonic() >= patience:
            break
        time.sleep(LEAVING_STEP_S)
    note_uncounted(place)


def compile_with_cache(program: str, argv: Sequence[str], ourselves: Ourselves, environ: Mapping[bytes, bytes]) -> NoReturn:
    """Ask the server; relay its answer, or become the compiler."""
    kept = KeptInput()
    signals = Signals()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback for anybody
    place = find_place(environ)
    try:
        request = describe(program, argv, environ, signals)
    except (OSError, ProtocolError, ImportError):
        place = None
    if place is not None:
        converse(place, request, Connections(place, ourselves, environ), kept, signals)
    kept.give_back()
    become(program, argv, environ)


def wrap(argv: list[str], name: str, ourselves: Ourselves, environ: Mapping[bytes, bytes], passed: bool) -> NoReturn:
    """Search the compiler in PATH and compile with it; see main.c for why argv[0] is changed sometimes."""
    try:
        program, passed_now = find_program(name, ourselves, environ)
    except OSError as e:
        is_link = passed or leads_to_self(name, ourselves, environ)
        if is_link and e.errno == errno.ENOENT and argv[1:] and names_program(argv[1], environ):
            wrap_command(argv[1:], ourselves, environ)  # no compiler's name: a link to us
        cannot_become(argv[0], e.errno or errno.ENOENT)
    if passed or passed_now:
        argv = [program, *argv[1:]]
    compile_with_cache(program, argv, ourselves, environ)


def wrap_command(argv: list[str], ourselves: Ourselves, environ: Mapping[bytes, bytes]) -> NoReturn:
    """`COMPILER ARGS…`, with our own names in front of it dropped."""
    while argv and os.path.basename(argv[0]) in OWN_NAMES and leads_to_self(argv[0], ourselves, environ):
        argv = argv[1:]
    if not argv:
        os._exit(0)
    if "/" not in argv[0]:
        wrap(argv, argv[0], ourselves, environ, passed=False)
    if ourselves.is_at(argv[0]):
        wrap(argv, os.path.basename(argv[0]), ourselves, environ, passed=True)
    compile_with_cache(argv[0], argv, ourselves, environ)


def main() -> int:
    """The program `sccache-py` where it is not native."""
    program, words = executed_program(), sys.argv[1:]
    environ = original_environment()
    ourselves = Ourselves(program)
    name = os.path.basename(program)
    if name not in OWN_NAMES:
        wrap([name, *words], name, ourselves, environ, passed=True)
    if words[:1] == ["--child"]:
        run_child(words[1:])
    if words and not words[0].startswith("-"):
        wrap_command(words, ourselves, environ)
    from sccache_py.client import cli

    return cli.main()
