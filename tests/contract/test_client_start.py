"""How both clients come by a server: where they look, how one is started, and what if it cannot be."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
from conftest import Scene
from fake_server import PATIENCE_S, FakeServer, Peer, exiting

from sccache_py.wire import (
    PROTOCOL,
    Decoder,
    Kind,
    encode_frame,
    runtime_directory,
    socket_identity,
    socket_name,
    state_stem,
)


def reports_in(folder: Path) -> list[dict[str, Any]]:
    """What servers that were started wrote down."""
    return [json.loads(p.read_text()) for p in folder.glob("*.json")]


def wait_gone(pid: int) -> None:
    """Until that process, which need not be our child, has ended."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    os.set_blocking(handle, True)
    import select

    select.select([handle], [], [], PATIENCE_S)
    os.close(handle)


@pytest.fixture
def reports(scene: Scene) -> Iterator[Path]:
    """The folder of reports of startable servers; they are stopped in the end."""
    folder = scene.startable_server()
    yield folder
    for report in reports_in(folder):
        try:
            os.kill(report["pid"], signal.SIGTERM)
        except ProcessLookupError:
            pass
        wait_gone(report["pid"])


# --- where ---


def view_of_this_machine() -> tuple[tuple[int, int], int, int]:
    root = os.stat("/")
    return (
        (root.st_dev, root.st_ino),
        os.stat("/proc/self/ns/mnt").st_ino,
        os.stat("/proc/self/ns/pid").st_ino,
    )


@pytest.mark.parametrize("runtime", ["given", "missing", "relative", "too long"])
def test_both_clients_and_the_server_compute_the_same_socket(scene: Scene, runtime: str) -> None:
    """One letter of difference, and every compile starts a server that nobody else finds."""
    given = {
        "given": f"{scene.directory}/run",
        "relative": "run",
        "too long": f"{scene.directory}/{'x' * 90}",
    }
    (scene.directory / "run").mkdir()
    del scene.env["SCCACHE_SERVER_UDS"]
    scene.env.update(SCCACHE_DIR=f"{scene.directory}/cache", XDG_CACHE_HOME="/somewhere")
    if runtime in given:
        scene.env["XDG_RUNTIME_DIR"] = given[runtime]
    environ = {os.fsencode(k): os.fsencode(v) for k, v in scene.env.items()}
    folder = os.fsdecode(runtime_directory(os.geteuid(), environ))
    assert folder == (f"{scene.directory}/run/sccache-py" if runtime == "given" else f"/tmp/sccache-py-{os.geteuid()}")
    os.makedirs(folder, 0o700, exist_ok=True)
    name = os.fsdecode(socket_name(socket_identity(os.geteuid(), environ, *view_of_this_machine())))
    with FakeServer(f"{folder}/{name}", exiting(42)):
        assert scene.run("true").returncode == 42


def test_caches_and_homes_have_servers_of_their_own(scene: Scene) -> None:
    """The daemon's configuration is read once, from the environment of whoever started it."""
    scene.env["XDG_RUNTIME_DIR"] = str(scene.directory)
    del scene.env["SCCACHE_SERVER_UDS"]
    for name in ("SCCACHE_DIR", "SCCACHE_CONF", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "HOME", "SCCACHE_SERVER_PORT"):
        scene.env[name] = "/elsewhere"
        scene.run("true")
    scene.run("true")
    assert len(list((scene.directory / "sccache-py").glob("*.uncounted"))) == 6


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_runtime_directory_that_others_can_write_to_is_not_used(scene: Scene, mode: int) -> None:
    """Whoever can put a socket there would be sent our environment, tokens and all."""
    scene.env["XDG_RUNTIME_DIR"] = str(scene.directory)
    del scene.env["SCCACHE_SERVER_UDS"]
    reports = scene.startable_server()
    folder = scene.directory / "sccache-py"
    folder.mkdir()
    folder.chmod(mode)
    scene.tool("cc1x", "echo ran")
    assert scene.run("cc1x").stdout == b"ran\n"
    assert not list(reports.iterdir())


# --- starting ---


def test_the_first_client_starts_a_server_that_owes_its_caller_nothing(scene: Scene, reports: Path) -> None:
    """A daemon that holds a pipe of make's, or ignores what its starter ignored, breaks other builds."""
    inherited, kept_open = os.pipe()

    def prepare() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    scene.env["MARK"] = "kept"
    process = scene.start("true", pass_fds=[inherited], preexec_fn=prepare)
    process.communicate(timeout=PATIENCE_S)
    os.close(inherited)
    os.close(kept_open)
    assert process.returncode == 42
    (report,) = reports_in(reports)
    assert report["args"] == [
        "--socket",
        str(scene.socket),
        "--native",
        str(scene.client.parent),
        "--ready-fd",
        "3",
    ]
    assert {fd: link for fd, link in report["descriptors"].items() if fd in "012"} == dict.fromkeys("012", "/dev/null")
    assert report["descriptors"]["3"].startswith("pipe:")
    assert set(report["descriptors"]) == {"0", "1", "2", "3"}
    assert report["session"] not in (os.getsid(0), report["pid"])  # nor can it ever get a terminal
    assert report["parent"] != process.pid
    assert report["blocked"] == 0
    python_ignores = 1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGXFSZ - 1)
    assert report["ignored"] & 0x7FFFFFFF & ~python_ignores == 0
    assert report["environment"]["MARK"] == "kept"
    assert scene.run("true").returncode == 42
    assert len(reports_in(reports)) == 1


def test_a_closed_stdout_does_not_end_up_in_the_server(scene: Scene, reports: Path) -> None:
    """The pipe and the socket must not become descriptor 0, 1 or 2 of anything."""
    done = scene.run("-c", 'exec "$0" true <&- >&- 2>&-', str(scene.client), program="/bin/sh")
    assert done.returncode == 42
    (report,) = reports_in(reports)
    assert set(report["descriptors"]) == {"0", "1", "2", "3"}
    assert report["descriptors"]["3"].startswith("pipe:")


def test_an_abstract_socket_can_be_started_on_too(scene: Scene, reports: Path) -> None:
    """Its lock has no socket file to stand beside; the runtime directory holds it."""
    name = f"\\x00{scene.directory}/a"
    scene.env.update(SCCACHE_SERVER_UDS=name, XDG_RUNTIME_DIR=str(scene.directory))
    assert scene.run("true").returncode == 42
    (report,) = reports_in(reports)
    assert report["args"][:2] == ["--socket", name]
    runtime = os.fsencode(scene.directory / "sccache-py")
    assert os.path.exists(state_stem(os.fsencode(name), runtime) + b".lock")


@pytest.mark.parametrize("suffix", ["lock", "failed", "uncounted"])
def test_a_fifo_in_the_place_of_a_file_stops_nobody(scene: Scene, suffix: str) -> None:
    """In a directory that the user named anybody may have put it; opening it would wait for a reader."""
    os.mkfifo(scene.directory / f"s.{suffix}")
    os.utime(scene.directory / f"s.{suffix}", (0, 0))
    scene.tool("cc1x", "echo ran")
    assert scene.run("cc1x").stdout == b"ran\n"


def test_the_server_is_found_beside_the_client(scene: Scene, reports: Path) -> None:
    """A venv's bin folder need not be in PATH; the client may be called through a link from elsewhere."""
    there = scene.directory / "bin"
    there.mkdir()
    (there / "sccache-py").write_bytes(scene.client.read_bytes())
    (there / "sccache-py").chmod(0o755)
    Path(scene.env.pop("SCCACHE_PY_SERVER")).rename(there / "sccache-py-server")
    (scene.tools / "sccache").symlink_to(there / "sccache-py")
    assert scene.run("true", program=scene.tools / "sccache").returncode == 42
    (report,) = reports_in(reports)
    assert report["args"][2:4] == ["--native", str(there)]


def test_a_socket_that_nobody_listens_on_is_no_server(scene: Scene, reports: Path) -> None:
    """A server that was killed leaves its socket behind."""
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(scene.socket))
    assert scene.run("true").returncode == 42
    assert len(reports_in(reports)) == 1


@pytest.mark.slow
def test_many_first_clients_start_one_server(scene: Scene, reports: Path) -> None:
    """cargo starts as many compilers as there are processors in the same millisecond."""
    clients = [scene.start("true") for _ in range(12)]
    for client in clients:
        client.communicate(timeout=PATIENCE_S)
    assert [c.returncode for c in clients] == [42] * 12
    assert len(reports_in(reports)) == 1


def test_where_there_are_no_locks_a_server_is_started_all_the_same(scene: Scene, reports: Path) -> None:
    """A sandbox that forbids flock: every compile waited three seconds for somebody else's start, and then had no cache."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("no strace")
    command = ("-o", str(scene.directory / "calls"), "-e", "inject=flock:error=ENOLCK", str(scene.client), "true")
    done = scene.run(*command, program=strace)
    if b"ptrace" in done.stderr:
        pytest.skip("strace may not trace here")
    assert (done.returncode, done.stderr) == (42, b"")
    assert "ENOLCK" in (scene.directory / "calls").read_text()
    assert len(reports_in(reports)) == 1


# --- not starting ---


def uncounted(scene: Scene) -> int:
    """How many compiles went by without a server, as the next one will hear."""
    file = scene.directory / "s.uncounted"
    return file.stat().st_size if file.exists() else 0


def test_a_server_that_cannot_start_is_tried_once_in_ten_seconds(scene: Scene, reports: Path) -> None:
    """A full disk must not cost every compile of a build an attempt; those that went by are counted."""
    scene.tool("cc1x", "echo ran")
    scene.env["FAKE_SERVER_MODE"] = "exit"
    for _ in range(3):
        done = scene.run("cc1x")
        assert (done.stdout, done.stderr) == (b"ran\n", b"")
    assert len(reports_in(reports)) == 1
    assert uncounted(scene) == 3
    failed = scene.directory / "s.failed"
    assert failed.stat().st_mode & 0o777 == 0o600
    os.utime(failed, (time.time() - 11, time.time() - 11))
    assert scene.run("cc1x").stdout == b"ran\n"
    assert len(reports_in(reports)) == 2
    assert time.time() - failed.stat().st_mtime < 10


def test_a_missing_server_program_is_a_failed_start(scene: Scene) -> None:
    """Half an installation still compiles."""
    scene.tool("cc1x", "echo ran")
    done = scene.run("cc1x")
    assert (done.stdout, done.stderr) == (b"ran\n", b"")
    assert (scene.directory / "s.failed").exists()
    assert uncounted(scene) == 1


def test_nothing_to_write_to_is_no_reason_to_fail(scene: Scene) -> None:
    """A read-only /tmp or HOME: no lock, no stamp, no count, but a compile."""
    scene.env["SCCACHE_SERVER_UDS"] = f"{scene.directory}/no/such/folder/s.sock"
    scene.tool("cc1x", "echo ran")
    done = scene.run("cc1x")
    assert (done.stdout, done.stderr, done.returncode) == (b"ran\n", b"", 0)


@pytest.mark.parametrize("name", ["x" * 200, f"\\x00{'x' * 200}"], ids=["path", "abstract"])
def test_a_socket_name_that_is_too_long_means_no_cache(scene: Scene, name: str) -> None:
    """108 bytes is all that a socket's address takes; a name that was cut would be someone else's."""
    scene.env["SCCACHE_SERVER_UDS"] = name
    scene.tool("cc1x", "echo ran")
    assert scene.run("cc1x").stdout == b"ran\n"


def test_who_finds_a_start_under_way_waits_for_it(scene: Scene, reports: Path) -> None:
    """Only one starts; the others get its server."""
    with open(scene.directory / "s.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = scene.start("true")
        wait_for_open(process.pid, "s.lock")
        with scene.serve(exiting(7)):
            process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 7
    assert reports_in(reports) == []


def wait_for_open(pid: int, name: str) -> None:
    """Until the process has opened a file of that name, or already ended."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
        except OSError:
            continue
        if any(link.endswith(name) for link in links):
            return
        if "State:\tZ" in Path(f"/proc/{pid}/status").read_text():
            return


def test_who_waits_takes_over_when_the_starter_is_killed(scene: Scene, reports: Path) -> None:
    """^C at the right moment kills the starter before its server runs: no server and no stamp come of it."""
    with open(scene.directory / "s.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = scene.start("true")
        wait_for_open(process.pid, "s.lock")
        fcntl.flock(lock, fcntl.LOCK_UN)
        process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 42
    assert len(reports_in(reports)) == 1


@pytest.mark.slow
def test_who_finds_a_start_under_way_waits_for_a_second_at_most(scene: Scene, reports: Path) -> None:
    """A start that hangs holds its lock for ever; no other compile may."""
    scene.tool("cc1x", "echo ran")
    with open(scene.directory / "s.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        start = time.monotonic()
        assert scene.run("cc1x").stdout == b"ran\n"
        assert 0.8 < time.monotonic() - start < 4
    assert uncounted(scene) == 1


def test_a_stamp_of_failure_ends_the_wait(scene: Scene) -> None:
    """The start that everybody waits for has failed: no need to sit out the second."""
    scene.startable_server()
    scene.tool("cc1x", "echo ran")
    with open(scene.directory / "s.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = scene.start("cc1x")
        wait_for_open(process.pid, "s.lock")
        (scene.directory / "s.failed").touch()
        start = time.monotonic()
        assert process.communicate(timeout=PATIENCE_S)[0] == b"ran\n"
        assert time.monotonic() - start < 0.5


@pytest.mark.slow
def test_a_full_backlog_is_no_reason_to_wait_for_ever(scene: Scene) -> None:
    """A stopped server's queue fills; connect would block, and with it every build on the machine."""
    scene.tool("cc1x", "echo ran")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(scene.socket))
        listener.listen(0)
        waiting = []
        while True:
            waiting.append(socket.socket(socket.AF_UNIX))
            waiting[-1].setblocking(False)
            if waiting[-1].connect_ex(str(scene.socket)):
                break
        assert scene.run("cc1x").stdout == b"ran\n"
        for s in waiting:
            s.close()


# --- another version ---


def test_a_server_of_another_version_is_replaced(scene: Scene, reports: Path) -> None:
    """After an upgrade the old daemon leaves, and the same build goes on with the new one."""
    old: list[FakeServer] = []
    going = threading.Event()

    def talk(peer: Peer) -> None:
        peer.request()
        old[0].stop_listening()
        going.set()
        peer.send(Kind.LEAVING, b"0.0.1")

    with scene.serve(talk) as server:
        old.append(server)
        assert scene.run("true").returncode == 42
    assert going.is_set()
    assert len(reports_in(reports)) == 1


def test_a_server_that_takes_its_time_to_leave_is_waited_for(scene: Scene, reports: Path) -> None:
    """It may still be storing what it compiled."""
    old: list[FakeServer] = []
    times = []

    def talk(peer: Peer) -> None:
        peer.request()
        times.append(1)
        if len(times) == 3:
            old[0].stop_listening()
        peer.send(Kind.LEAVING, b"0.0.1")

    with scene.serve(talk) as server:
        old.append(server)
        assert scene.run("true").returncode == 42
    assert len(reports_in(reports)) == 1


def test_a_server_that_is_always_of_another_version_is_not_started_for_each_compile(scene: Scene, reports: Path) -> None:
    """Half an upgrade: starting it costs 100 ms each time and gives nothing."""
    scene.tool("cc1x", "echo ran")
    scene.env["FAKE_SERVER_MODE"] = "other"
    for _ in range(3):
        assert scene.run("cc1x").stdout == b"ran\n"
    assert len(reports_in(reports)) == 1
    assert uncounted(scene) == 3


@pytest.mark.slow
def test_a_server_that_says_so_and_never_leaves_costs_a_second(scene: Scene) -> None:
    """Two installations of different versions, used in turn: both must go on compiling."""
    scene.tool("cc1x", "echo ran")

    def talk(peer: Peer) -> None:
        peer.request()
        peer.send(Kind.LEAVING, b"0.0.1")

    with scene.serve(talk):
        assert scene.run("cc1x").stdout == b"ran\n"
    assert uncounted(scene) == 1


# --- in the foreground ---


def test_the_server_can_be_run_in_the_foreground(native_scene: Scene) -> None:
    """SCCACHE_START_SERVER=1 under systemd or in a container: this very process becomes the server."""
    scene = native_scene
    reports = scene.startable_server()
    scene.env["SCCACHE_START_SERVER"] = "1"
    server = scene.start()
    scene_socket = str(scene.socket)
    deadline = time.monotonic() + PATIENCE_S
    connection = socket.socket(socket.AF_UNIX)
    while connection.connect_ex(scene_socket) and time.monotonic() < deadline:
        pass
    connection.sendall(encode_frame(Kind.CONTROL, msgpack.packb([PROTOCOL, "0", "stop", {}])))
    decoder = Decoder()
    while (frame := decoder.next_frame()) is None:
        decoder.feed(connection.recv(4096))
    connection.close()
    assert frame[0] is Kind.ANSWER
    server.communicate(timeout=PATIENCE_S)
    (report,) = reports_in(reports)
    assert report["pid"] == server.pid
    assert re.fullmatch(f"--socket {scene_socket} --native {scene.client.parent} --foreground", " ".join(report["args"]))
