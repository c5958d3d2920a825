"""What both clients do when something dies, stalls, lies or interrupts: the build goes on, once."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import threading

import pytest
from conftest import Scene
from fake_server import PATIENCE_S, Conversation, Peer, passing

from sccache_py.wire import HEADER, MAX_FRAME, Kind, encode_frame


def waiting_for_signal(ready: threading.Event, seen: list[tuple[Kind, bytes] | None], then: Conversation) -> Conversation:
    """A conversation that started something, sets `ready`, notes the next frame and goes on with `then`."""

    def talk(peer: Peer) -> None:
        peer.request()
        peer.started(os.getpid() + 1_000_000)  # nobody has that number: pid_max is 4,194,304
        ready.set()
        seen.append(peer.next_frame())
        then(peer)

    return talk


def nothing(peer: Peer) -> None:
    """The connection ends."""


# --- the server fails ---


def closes_at_once(peer: Peer) -> None:
    pass


def closes_after_the_request(peer: Peer) -> None:
    peer.request()


def sends_half_a_frame(peer: Peer) -> None:
    peer.request()
    peer.socket.sendall(encode_frame(Kind.EXIT, b"\0\0")[:-1])


def sends_half_a_header(peer: Peer) -> None:
    peer.request()
    peer.socket.sendall(b"\2\0")


def announces_too_much(peer: Peer) -> None:
    peer.request()
    peer.socket.sendall(HEADER.pack(MAX_FRAME + 1, Kind.STDOUT) + b"x" * 100)


def sends_an_unknown_kind(peer: Peer) -> None:
    peer.request()
    peer.socket.sendall(HEADER.pack(2, 99) + b"\0\0")


def sends_an_exit_of_the_wrong_length(peer: Peer) -> None:
    peer.request()
    peer.send(Kind.EXIT, b"\0")


@pytest.mark.parametrize(
    "talk",
    [
        closes_at_once,
        closes_after_the_request,
        sends_half_a_frame,
        sends_half_a_header,
        announces_too_much,
        sends_an_unknown_kind,
        sends_an_exit_of_the_wrong_length,
    ],
)
def test_a_server_that_makes_no_sense_costs_nothing_but_the_cache(scene: Scene, talk: Conversation) -> None:
    """Before 'started' every kind of trouble has one answer: become the compiler, silently."""
    scene.tool("cc1x", "echo ran; exit 6")
    with scene.serve(talk):
        done = scene.run("cc1x")
    assert (done.stdout, done.stderr, done.returncode) == (b"ran\n", b"", 6)


@pytest.mark.parametrize("fd", [1, 2])
def test_who_cannot_write_what_was_said_becomes_the_compiler(scene: Scene, fd: int) -> None:
    """A disk is full: whether that is a failure only the compiler knows.  Not before the end, when the server writes nothing any more."""
    scene.tool("cc1x", f"echo ran >&{3 - fd}; exit 6")

    def talk(peer: Peer) -> None:
        peer.request()
        peer.send(Kind.STDOUT if fd == 1 else Kind.STDERR, b"words")
        peer.send(Kind.EXIT, b"\0\0")

    with scene.serve(talk), open("/dev/full", "wb") as full:
        done = scene.run("cc1x", **{"stdout" if fd == 1 else "stderr": full})
    assert (done.stderr if fd == 1 else done.stdout, done.returncode) == (b"ran\n", 6)


@pytest.mark.parametrize("trap", ["", "trap '' TERM; "], ids=["obeys-TERM", "ignores-TERM"])
@pytest.mark.parametrize("end", [nothing, lambda peer: peer.send(Kind.PASS)], ids=["dies", "passes"])
def test_what_had_started_is_gone_before_the_compiler_runs_again(scene: Scene, trap: str, end: Conversation) -> None:
    """Two compilers that write one object file leave a mixture of both."""
    scene.tool("cc1x", f"kill -0 $(cat {scene.directory}/pid) 2>/dev/null && echo still there; echo ran")

    def talk(peer: Peer) -> None:
        peer.request()
        command = f"{trap}echo ready; while :; do read x; done <>{scene.directory}/never"
        with subprocess.Popen(["sh", "-c", command], stdout=subprocess.PIPE, process_group=0) as group:
            assert group.stdout is not None
            assert group.stdout.readline() == b"ready\n"
            (scene.directory / "pid").write_text(str(group.pid))
            peer.started(group.pid)
            end(peer)
            peer.socket.close()
            group.wait(PATIENCE_S)  # reaped, as init would if we had died

    os.mkfifo(scene.directory / "never")
    with scene.serve(talk):
        done = scene.run("cc1x")
    assert (done.stdout, done.stderr, done.returncode) == (b"ran\n", b"", 0)


def test_a_group_that_is_long_gone_delays_nothing(scene: Scene) -> None:
    """The compiler had ended, and the server died before it said so."""
    scene.tool("cc1x", "echo ran")

    def talk(peer: Peer) -> None:
        peer.request()
        peer.started(os.getpid() + 1_000_000)

    with scene.serve(talk):
        assert scene.run("cc1x").stdout == b"ran\n"


def test_input_that_a_dead_compile_had_is_given_to_the_next(scene: Scene) -> None:
    """The server dies after the compiler had started on our standard input."""

    def talk(peer: Peer) -> None:
        peer.request()
        assert peer.stdin() == b"int x;"
        peer.send(Kind.STARTED, struct.pack("<I", os.getpid() + 1_000_000))

    with scene.serve(talk):
        assert scene.run("cat", input=b"int x;").stdout == b"int x;"


# --- signals ---


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_reaches_the_compile_and_then_ends_the_client(scene: Scene, number: int) -> None:
    """^C at make: the compiler removes its temporaries, the client dies of the signal, make sees that."""
    ready = threading.Event()
    seen: list[tuple[Kind, bytes] | None] = []
    with scene.serve(waiting_for_signal(ready, seen, lambda peer: peer.exit(1))):
        process = scene.start("true")
        assert ready.wait(PATIENCE_S)
        process.send_signal(number)
        out = process.communicate(timeout=PATIENCE_S)
    assert seen == [(Kind.SIGNAL, bytes([number]))]
    assert (process.returncode, out) == (-number, (b"", b""))


def test_a_signal_before_the_request_is_out_ends_the_client_at_once(scene: Scene) -> None:
    """A server that hangs while it reads must not make ^C hang, too; nothing has been started by then."""
    scene.env.update({f"BIG_{n}": "x" * 100_000 for n in range(10)})
    ready, ended = threading.Event(), threading.Event()

    def talk(peer: Peer) -> None:
        peer.socket.recv(5)
        ready.set()
        assert ended.wait(PATIENCE_S)

    with scene.serve(talk):
        process = scene.start("true")
        assert ready.wait(PATIENCE_S)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE_S)
        ended.set()
    assert process.returncode == -signal.SIGTERM


def test_a_second_signal_is_passed_on_too(scene: Scene) -> None:
    """Some compilers need a second ^C; the client dies of the first."""
    ready = threading.Event()
    seen: list[tuple[Kind, bytes] | None] = []
    again = threading.Event()

    def then(peer: Peer) -> None:
        again.set()
        seen.append(peer.next_frame())
        peer.exit(1)

    with scene.serve(waiting_for_signal(ready, seen, then)):
        process = scene.start("true")
        assert ready.wait(PATIENCE_S)
        process.send_signal(signal.SIGTERM)
        assert again.wait(PATIENCE_S)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE_S)
    assert seen == [(Kind.SIGNAL, bytes([signal.SIGTERM])), (Kind.SIGNAL, bytes([signal.SIGINT]))]
    assert process.returncode == -signal.SIGTERM


@pytest.mark.parametrize("then", [nothing, lambda peer: peer.send(Kind.PASS)], ids=["closed", "passed"])
def test_an_interrupted_client_does_not_start_over(scene: Scene, then: Conversation) -> None:
    """After ^C the user wants nothing to run, whatever the server says to it."""
    scene.tool("cc1x", "echo ran")
    ready = threading.Event()
    seen: list[tuple[Kind, bytes] | None] = []
    with scene.serve(waiting_for_signal(ready, seen, then)):
        process = scene.start("cc1x")
        assert ready.wait(PATIENCE_S)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out) == (-signal.SIGINT, b"")


@pytest.mark.slow
def test_a_server_that_does_not_react_delays_the_end_by_two_seconds_at_most(scene: Scene) -> None:
    """A user who presses ^C gets the prompt back even if the server is stuck."""
    ready = threading.Event()
    seen: list[tuple[Kind, bytes] | None] = []
    with scene.serve(waiting_for_signal(ready, seen, lambda peer: seen.append(peer.next_frame()))):
        process = scene.start("true")
        assert ready.wait(PATIENCE_S)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=10)
    assert process.returncode == -signal.SIGTERM
    assert seen == [(Kind.SIGNAL, bytes([signal.SIGTERM])), None]


def test_ignored_and_blocked_signals_stay_so(scene: Scene) -> None:
    """nohup make: HUP must not end what the caller wanted to outlive the terminal."""
    ready = threading.Event()
    seen: list[tuple[Kind, bytes] | None] = []

    def prepare() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})

    with scene.serve(waiting_for_signal(ready, seen, lambda peer: peer.exit(1))):
        process = scene.start("true", preexec_fn=prepare)
        assert ready.wait(PATIENCE_S)
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE_S)
    assert seen == [(Kind.SIGNAL, bytes([signal.SIGTERM]))]


def test_a_signal_is_passed_on_though_nobody_reads_our_output(scene: Scene) -> None:
    """`make | less`, the pager has not asked for more, and ^C: the compile must end now."""
    ready = threading.Event()
    seen: list[tuple[Kind, bytes] | None] = []

    def talk(peer: Peer) -> None:
        peer.request()
        peer.send(Kind.STDOUT, b"x" * 200_000)
        ready.set()
        seen.append(peer.next_frame())
        peer.exit(1)

    r, w = os.pipe()
    with scene.serve(talk):
        process = scene.start("true", stdout=w)
        os.close(w)
        assert ready.wait(PATIENCE_S)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE_S)
    os.close(r)
    assert seen == [(Kind.SIGNAL, bytes([signal.SIGINT]))]
    assert process.returncode == -signal.SIGINT


def test_a_reader_that_left_ends_the_compile_as_it_would_have_ended_the_compiler(scene: Scene) -> None:
    """`gcc … | head`: SIGPIPE reaches the compile, then kills the client; stderr's last words are said."""
    seen = []

    def talk(peer: Peer) -> None:
        peer.request()
        peer.send(Kind.STDOUT, b"x" * 10_000)
        seen.append(peer.next_frame())
        peer.send(Kind.STDERR, b"last words")
        peer.exit(1)

    r, w = os.pipe()
    os.close(r)
    with scene.serve(talk):
        process = scene.start("true", stdout=w)
        os.close(w)
        _, err = process.communicate(timeout=PATIENCE_S)
    assert seen == [(Kind.SIGNAL, bytes([signal.SIGPIPE]))]
    assert (process.returncode, err) == (-signal.SIGPIPE, b"last words")


def test_a_reader_that_left_is_no_matter_where_sigpipe_is_ignored(native_scene: Scene) -> None:
    """The compiler would have gone on to the end, too; its object file counts.

    Not for the Python client: its interpreter ignores SIGPIPE before anybody can look whether the caller did.
    """
    scene = native_scene

    def talk(peer: Peer) -> None:
        peer.request()
        peer.send(Kind.STDOUT, b"x" * 10_000)
        peer.send(Kind.STDERR, b"last words")
        peer.exit(3)

    def prepare() -> None:
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)

    r, w = os.pipe()
    os.close(r)
    with scene.serve(talk):
        process = scene.start("true", stdout=w, preexec_fn=prepare, restore_signals=False)
        os.close(w)
        _, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, err) == (3, b"last words")


# --- who is at the other end ---


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a second user")
def test_a_server_of_another_user_is_not_told_our_environment(scene: Scene) -> None:
    """/tmp is everybody's, an abstract name too: a stranger may sit where our server would."""
    scene.env["SCCACHE_SERVER_UDS"] = f"\\x00{scene.directory}"
    scene.tool("cc1x", "echo ran")
    stranger = f"""
import os, socket
os.setuid(65534)
s = socket.socket(socket.AF_UNIX)
s.bind("\\0{scene.directory}")
s.listen()
print(flush=True)
c, _ = s.accept()
print(c.recv(100))
"""
    with subprocess.Popen(["python3", "-c", stranger], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "\n"
        assert scene.run("cc1x").stdout == b"ran\n"
        assert process.stdout.readline() == "b''\n"


def test_an_abstract_socket_is_named_with_a_leading_escape(scene: Scene) -> None:
    """sccache's notation: four characters, because an environment cannot hold a NUL."""
    scene.env["SCCACHE_SERVER_UDS"] = f"\\x00{scene.directory}/a"
    scene.tool("cc1x", "echo ran")
    from fake_server import FakeServer

    with FakeServer(f"\0{scene.directory}/a", passing) as server:
        assert scene.run("cc1x").stdout == b"ran\n"
    assert server.connections == 1
