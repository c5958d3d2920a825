"""What is sent by something that is not our client: it costs its sender the connection, and nobody else anything.

Every test ends with a compile through the same server.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package

from stage import Gate, Peer, World, finish, is_alive, open_world, request_fields, rustc, wait_until

import sccache_py
from sccache_py.codec import pack
from sccache_py.wire import MAX_FRAME, MAX_STDIN, PROTOCOL, Kind, encode_frame

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def served(native: Any) -> Iterator[World]:
    """A world whose server runs, for all tests: what one of them breaks shows in the next."""
    with open_world(native.client) as world:
        assert world.run("--start-server").returncode == 0
        yield world


@pytest.fixture
def world(served: World) -> Iterator[World]:
    """The same, and a look at it afterwards."""
    served.run("--zero-stats")
    yield served
    served.wipe()
    assert served.run(*served.crate("last", f"pub const X: u64 = {time.time_ns()};")).returncode == 0
    assert served.counts().total("cache_misses") > 0
    assert len(served.server_pids()) == 1, "the server did not live on"
    assert "Traceback" not in served.log()
    wait_until(lambda: served.ask("ping")["connections"] == 1)


Spoil = Callable[[list[Any]], Any]


def _set(index: int, value: Any) -> Spoil:
    def spoil(fields: list[Any]) -> None:
        fields[index] = value

    return spoil


SPOILT: dict[str, Spoil] = {
    "no fields": lambda f: f.clear(),
    "a field missing": lambda f: f.pop(),
    "a field too many": lambda f: f.append(0),
    "argv of numbers": _set(2, [1, 2]),
    "argv of text": _set(2, ["rustc"]),
    "argv that is none": _set(2, None),
    "no argv": _set(2, []),
    "no program": _set(3, b""),
    "a program with NUL": _set(3, b"/bin/\0rustc"),
    "a relative cwd": _set(4, b"here"),
    "a cwd with NUL": _set(4, b"/tmp\0"),
    "an environment of numbers": _set(5, [1]),
    "a umask of text": _set(6, "rw"),
    "an infinite umask": _set(6, float("inf")),
    "limits that are no triples": _set(8, [[1, 2]]),
    "limits that are a number": _set(8, 5),
    "a root that is no pair": _set(11, [1]),
    "an affinity that is a huge number": _set(13, 1 << 40),
    "an affinity that is none": _set(13, None),
    "signals of text": _set(14, "all"),
}


@pytest.mark.parametrize("spoilt", SPOILT, ids=lambda name: name.replace(" ", "-"))
def test_a_request_that_makes_no_sense_is_answered_by_the_end_of_the_connection(world: World, spoilt: str) -> None:
    """A client that reads nothing waits for ever: an exception in the server must never leave a connection open."""
    fields = request_fields(world.crate(), world.cwd, world.env)
    SPOILT[spoilt](fields)
    with world.dial() as peer:
        peer.send(Kind.REQUEST, pack(fields))
        answer = peer.next()
    assert answer is None or answer[0] is Kind.PASS


@pytest.mark.parametrize(
    "stream",
    [
        encode_frame(Kind.REQUEST, b"\xc1"),
        encode_frame(Kind.REQUEST, b""),
        encode_frame(Kind.REQUEST, pack([PROTOCOL])[:-1]),
        encode_frame(Kind.REQUEST, b"\x91" * 100_000),
        encode_frame(Kind.REQUEST, b"\xdd\xff\xff\xff\xff"),
        encode_frame(Kind.REQUEST, b"\xc6\xff\xff\xff\xff"),
        encode_frame(Kind.REQUEST, pack(7)),
        encode_frame(Kind.REQUEST, pack({"a": 1})),
        (MAX_FRAME + 1).to_bytes(4, "little") + b"\x01",
        b"\xff\xff\xff\xff\x01",
        b"\x00\x00\x00\x00\x63",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        encode_frame(Kind.SIGNAL, b"\x0f"),
        encode_frame(Kind.STDIN, b"x"),
        encode_frame(Kind.EXIT, b"\0\0"),
        encode_frame(Kind.PASS, b"no"),
        encode_frame(Kind.CONTROL, b"\xc1"),
        encode_frame(Kind.CONTROL, pack(7)),
        encode_frame(Kind.CONTROL, pack([PROTOCOL])),
        encode_frame(Kind.CONTROL, pack([PROTOCOL, sccache_py.__version__, b"\xff\xfe", {}])),
        encode_frame(Kind.CONTROL, pack([PROTOCOL, sccache_py.__version__, 5, {}])),
        encode_frame(Kind.CONTROL, pack([PROTOCOL, sccache_py.__version__, "no such thing", {}])),
    ],
    ids=range(22),
)
def test_a_stream_that_makes_no_sense_is_answered_by_its_end(world: World, stream: bytes) -> None:
    """The same for what is no request at all."""
    with world.dial() as peer:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            peer.socket.sendall(stream)
        assert peer.next() is None


def test_requests_cut_anywhere_cost_nothing(world: World) -> None:
    """Clients are killed in the middle of sending; what they began must not stay."""
    frame = encode_frame(Kind.REQUEST, pack(request_fields(world.crate(), world.cwd, world.env)))
    for length in {0, 1, 4, 5, 6, len(frame) // 2, len(frame) - 1}:
        with world.dial() as peer:
            peer.socket.sendall(frame[:length])
    assert world.counts().total("compile_requests") == 0


def test_a_request_that_comes_byte_by_byte_is_served(world: World) -> None:
    """Streams may cut anywhere."""
    frame = encode_frame(Kind.REQUEST, pack(request_fields([rustc(), "-vV"], world.cwd, {"PATH": "/bin"})))
    with world.dial() as peer:
        for i in range(len(frame)):
            peer.socket.sendall(frame[i : i + 1])
        assert peer.expect()[0] in (Kind.PASS, Kind.STARTED, Kind.EXIT)


def test_a_frame_out_of_place_ends_the_compile_that_it_came_after(world: World) -> None:
    """Who sends nonsense in the middle of a compile is told nothing more, so it runs the compiler itself: ours must be gone."""
    gate = Gate(world.directory)
    with world.dial() as peer:
        peer.send(Kind.REQUEST, pack(request_fields(world.gated(gate), world.cwd, world.env)))
        pid = gate.arrived()
        assert peer.expect()[0] is Kind.STARTED
        peer.send(Kind.REQUEST, b"")
        while peer.next() is not None:
            pass
    wait_until(lambda: not is_alive(pid))
    wait_until(lambda: world.ask("stats")["surroundings"]["jobserver"]["in_use"] == 0)
    gate.close()


def test_a_signal_that_there_is_not_ends_nothing_else(world: World) -> None:
    """The number comes from the client: 0 and 255 must not become an exception that nobody expects."""
    gate = Gate(world.directory)
    with world.dial() as peer:
        peer.send(Kind.REQUEST, pack(request_fields(world.gated(gate), world.cwd, world.env)))
        gate.arrived()
        for number in (0, 255, 65):
            peer.send(Kind.SIGNAL, bytes((number,)))
        gate.let_pass()
        frames = []
        while (frame := peer.next()) is not None:
            frames.append(frame)
    assert frames[-1] == (Kind.EXIT, b"\0\0")
    gate.close()


def test_standard_input_beyond_the_limit_is_refused(world: World) -> None:
    """A gigabyte on standard input must not become a gigabyte in the server."""
    line = [rustc(), "--crate-type=lib", "--crate-name=x", "--emit=metadata", "-"]
    with world.dial() as peer:
        peer.send(Kind.REQUEST, pack(request_fields(line, world.cwd, world.env)))
        kind, _ = peer.expect()
        if kind is Kind.STDIN_WANTED:
            peer.send(Kind.STDIN, b" " * (MAX_STDIN + 1))
            kind, _ = peer.expect()
        assert kind is Kind.PASS


def test_standard_input_that_ends_early_leaves_nothing_waiting(world: World) -> None:
    """The client is killed while it sends; the server must not wait for the rest, or it never leaves."""
    line = [rustc(), "--crate-type=lib", "--crate-name=x", "--emit=metadata", "-"]
    for nonsense in (b"", encode_frame(Kind.REQUEST, b"")):
        with world.dial() as peer:
            peer.send(Kind.REQUEST, pack(request_fields(line, world.cwd, world.env)))
            if peer.expect()[0] is not Kind.STDIN_WANTED:
                pytest.skip("the server does not ask")
            peer.send(Kind.STDIN, b"fn")
            peer.socket.sendall(nonsense)
            if nonsense:
                assert peer.next() is None


def test_a_second_request_after_the_answer_is_not_heard(world: World) -> None:
    """A connection carries one."""
    payload = pack(request_fields(["/bin/true"], world.cwd, world.env))
    with world.dial() as peer:
        peer.socket.sendall(encode_frame(Kind.REQUEST, payload) * 3)
        assert peer.expect()[0] is Kind.PASS
        assert peer.next() is None
    assert world.counts().total("compile_requests") == 1


@pytest.mark.parametrize(
    ("index", "value"),
    [(11, [1, 1]), (12, [1, 1]), (4, b"/no/such/directory"), (4, b"/")],
    ids=["another root", "another cwd", "a cwd that is not here", "a cwd of other identity"],
)
def test_a_client_that_sees_other_files_compiles_by_itself(world: World, index: int, value: Any) -> None:
    """A container's /src is not the host's /src: whoever compiled there for it would compile something else."""
    fields = request_fields(world.crate(), world.cwd, world.env)
    fields[index] = value
    with world.dial() as peer:
        peer.send(Kind.REQUEST, pack(fields))
        assert peer.expect() == (Kind.PASS, b"client sees other files")
        assert peer.next() is None


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_another_user_is_not_listened_to(world: World) -> None:
    """Who may send a request runs programs as us."""
    world.directory.chmod(0o755)
    world.socket.parent.chmod(0o755)
    world.socket.chmod(0o777)
    script = f"import socket; s = socket.socket(socket.AF_UNIX); s.connect({str(world.socket)!r}); print(s.recv(1))"
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/usr/bin/env", "python3", "-c", script]
    said = finish(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
    world.socket.parent.chmod(0o700)
    assert (said.stdout, said.returncode) == (b"b''\n", 0), said.stderr
    assert "uid 65534 was refused" in world.log()


def test_two_thousand_connections_that_say_nothing_only_cost_descriptors(world: World) -> None:
    """A build with -j2000, or a program that leaks: whoever comes after them is served."""
    peers = [world.dial() for _ in range(2000)]
    assert world.run(*world.crate("meanwhile")).returncode == 0
    assert world.counts().total("cache_misses") == 1
    for peer in peers:
        peer.socket.close()


def test_a_client_that_does_not_read_does_not_hold_up_the_others(world: World) -> None:
    """Its output waits in its own compiler's pipe."""
    warnings = "".join(f"fn unused_{i}() {{}}\n" for i in range(15000))
    with world.dial() as deaf:
        deaf.send(Kind.REQUEST, pack(request_fields(world.crate("loud", warnings), world.cwd, world.env)))
        assert deaf.expect()[0] is Kind.STARTED
        for i in range(3):
            assert world.run(*world.crate(f"quiet{i}")).returncode == 0


def test_the_end_of_the_connection_is_the_last_word_to_a_socket_that_is_shut_down(world: World) -> None:
    """shutdown(SHUT_WR) after the request is what a client does that is gone: nothing may be started for it, or left running."""
    with world.dial() as peer:
        peer.send(Kind.REQUEST, pack(request_fields(world.crate(), world.cwd, world.env)))
        peer.socket.shutdown(socket.SHUT_WR)
        while peer.next() is not None:
            pass


def test_control_of_another_version_makes_the_server_leave(native: Any) -> None:
    """After an upgrade --stop-server must end the old server whatever words it knows."""
    with open_world(native.client) as world:
        world.run("--start-server")
        pid = world.server_pid()
        with Peer(str(world.socket)) as peer:
            peer.send(Kind.CONTROL, pack([PROTOCOL, "0.0.0-other", "stats", {}]))
            assert peer.expect()[0] is Kind.LEAVING
        wait_until(lambda: not is_alive(pid))
