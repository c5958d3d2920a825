"""The server is not there, not there any more, of another version, elsewhere, or not wanted: the compile works all the same.

And what --start-server, --stop-server and --show-stats promise.
"""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package

from stage import SERVER, Gate, Outcome, Peer, World, control, finish, gate, is_alive, other_version, tree, wait_until, world

from sccache_py.codec import unpack
from sccache_py.wire import Kind

__all__ = ["gate", "world"]  # fixtures

pytestmark = pytest.mark.slow

# --- no server ---


def test_without_any_server_the_compiler_runs_and_is_counted_later(world: World) -> None:
    """An installation that is broken must still compile, and --show-stats must tell that something is wrong."""
    world.env["SCCACHE_PY_SERVER"] = str(world.directory / "no-such-program")
    world.same_as_plain(*world.crate(), times=0)
    for _ in range(3):
        assert world.run(*world.crate()) == Outcome(0, b"", b"")
    assert world.sockets() == []
    world.env["SCCACHE_PY_SERVER"] = str(world.server)
    for stamp in (world.directory / "sccache-py").glob("*.failed"):
        stamp.unlink()
    world.run("--start-server")
    assert world.counts().reasons() == {"no server": 3}
    assert world.counts().total("compile_requests") == 3


def test_a_server_that_does_not_start_is_not_tried_by_every_compile(world: World) -> None:
    """A thousand compiles must not pay for a thousand failing starts."""
    world.env["SCCACHE_PY_SERVER"] = str(world.program("broken", "#!/bin/sh\necho $$ >>{pids}\nexit 1\n"))
    for _ in range(5):
        assert world.run(*world.crate()) == Outcome(0, b"", b"")
    assert len(world.server_pids()) == 1


def test_many_first_clients_start_one_server(world: World) -> None:
    """cargo starts as many rustcs as there are processors, all at once, and none of them finds a server."""
    lines = [world.crate(f"unit{i}") for i in range(24)]
    clients = [world.start(*line) for line in lines]
    assert [finish(c) for c in clients] == [Outcome(0, b"", b"")] * 24
    assert len(world.server_pids()) == 1
    assert world.counts().total("compile_requests") == 24
    assert len(tree(world.out)) == 3 * 24


def test_a_runtime_directory_of_somebody_else_or_nobody_is_not_used(world: World) -> None:
    """su leaves XDG_RUNTIME_DIR behind, sudo -E brings another user's: neither may cost the cache, or be written to."""
    fallback = Path(f"/tmp/sccache-py-{os.getuid()}")
    foreign = world.directory / "foreign"
    foreign.mkdir()
    if os.getuid() == 0:
        os.chown(foreign, 65534, 65534)
    for directory in (world.directory / "no-such-directory", foreign if os.getuid() == 0 else Path("/usr")):
        world.env["XDG_RUNTIME_DIR"] = str(directory)
        world.env["SCCACHE_DIR"] = f"{world.cache}-{directory.name}"
        world.wipe()
        there = set(fallback.glob("*.sock"))
        assert world.run(*world.crate()) == Outcome(0, b"", b"")
        (socket_path,) = set(fallback.glob("*.sock")) - there
        assert not (directory / "sccache-py").exists()
        assert world.run("--stop-server").returncode == 0
        for left in fallback.glob(f"{socket_path.stem}.*"):
            left.unlink()


# --- coming and going ---


def test_starting_a_second_server_is_an_error_that_harms_nothing(world: World) -> None:
    """As with sccache: scripts look at the exit status."""
    assert world.run("--start-server").returncode == 0
    pid = world.server_pid()
    again = world.run("--start-server")
    assert again.returncode == 2
    assert b"already" in again.stderr
    assert world.server_pid() == pid


def test_a_server_started_by_hand_beside_another_leaves_it_alone(world: World) -> None:
    """Two service files, or one and a build: the name belongs to who had it first."""
    world.run("--start-server")
    pid = world.server_pid()
    second = world.run_plain(world.server, "--socket", str(world.socket), "--foreground")
    assert second.returncode == 0
    assert world.server_pid() == pid


def test_showing_statistics_starts_nothing_and_makes_nothing(world: World) -> None:
    """A look must not leave a daemon and a directory behind."""
    shown = world.show_stats()
    assert shown["compile_requests"] == 0
    assert world.sockets() == []
    assert not world.cache.exists()


def test_statistics_outlive_the_server(world: World) -> None:
    """CI shows them at the end, when a container's server may have idled out."""
    world.run(*world.crate())
    world.settle()
    world.run(*world.crate())
    assert world.run("--stop-server").returncode == 0
    assert world.sockets() == []
    shown = world.show_stats()
    assert (shown["compile_requests"], shown["cache_hits"]["counts"], shown["cache_misses"]["counts"]) == (2, {"Rust": 1}, {"Rust": 1})
    world.run(*world.crate())
    assert world.counts().total("cache_hits") == 2
    assert world.run("--zero-stats").returncode == 0
    assert world.counts().total("cache_hits") == 0


def test_stopping_answers_when_all_is_stored(world: World) -> None:
    """A CI job ends with --stop-server, and the container with it: what is not written by then never is."""
    lines = [world.crate(f"unit{i}", f"pub fn f() -> u32 {{ {i} }}\n") for i in range(8)]
    for client in [world.start(*line) for line in lines]:
        assert finish(client).returncode == 0
    stopped = world.run("--stop-server", "--stats-format=json")
    assert stopped.returncode == 0
    wal = world.cache / "cache.db-wal"
    assert not wal.exists() or wal.stat().st_size == 0, "the checkpoint is missing"
    assert b'"cache_writes"' not in stopped.stderr
    world.wipe()
    for line in lines:
        assert world.run(*line).returncode == 0
    assert world.counts().total("cache_hits") == 8


def test_stopping_waits_for_what_runs_and_counts_it(world: World, gate: Gate) -> None:
    """--stop-server in the middle of a build cuts nothing."""
    compiling = world.start(*world.gated(gate))
    gate.arrived()
    stopping = world.start("--stop-server", "--stats-format=json")
    wait_until(lambda: world.sockets() == [])
    assert stopping.poll() is None
    gate.let_pass()
    assert finish(compiling) == Outcome(0, b"", b"")
    said = finish(stopping)
    assert said.returncode == 0
    assert b'"compilations":1' in said.stdout


def test_two_who_stop_the_server_are_both_answered(world: World, gate: Gate) -> None:
    """Each waits until nothing is under way; the other's waiting must not count."""
    compiling = world.start(*world.gated(gate))
    gate.arrived()
    pid = world.server_pid()
    peers = [world.dial() for _ in range(2)]
    for peer in peers:
        peer.send(Kind.CONTROL, control("stop"))
    wait_until(lambda: world.sockets() == [])
    gate.let_pass()
    assert finish(compiling).returncode == 0
    for peer in peers:
        kind, payload = peer.expect()
        assert kind is Kind.ANSWER
        assert unpack(payload)["stats"]["counts"]["compilations"] == 1
    wait_until(lambda: not is_alive(pid))


def test_a_stop_that_is_interrupted_still_stops(world: World, gate: Gate) -> None:
    """Ctrl-C at --stop-server: a server without a name that never leaves would be worse than one that stays."""
    compiling = world.start(*world.gated(gate))
    gate.arrived()
    pid = world.server_pid()
    with world.dial() as peer:
        peer.send(Kind.CONTROL, control("stop"))
        wait_until(lambda: world.sockets() == [])
    gate.let_pass()
    assert finish(compiling).returncode == 0
    wait_until(lambda: not is_alive(pid))


def test_an_idle_server_leaves_and_takes_its_files_along(world: World) -> None:
    """A machine that builds once a week must not carry a server all week."""
    world.env["SCCACHE_IDLE_TIMEOUT"] = "1"
    assert world.run(*world.crate()).returncode == 0
    (pid,) = world.server_pids()
    wait_until(lambda: not is_alive(pid))
    assert world.sockets() == []
    assert [p for p in Path("/dev/shm").glob("sccache-py-*") if f"-{pid}-" in p.name] == []
    world.wipe()
    assert world.run(*world.crate()).returncode == 0
    assert world.counts().total("cache_hits") == 1


def test_an_idle_limit_never_cuts_a_compile(world: World, gate: Gate) -> None:
    """LTO takes half an hour."""
    world.env["SCCACHE_IDLE_TIMEOUT"] = "1"
    compiling = world.start(*world.gated(gate))
    gate.arrived()
    (pid,) = world.server_pids()
    # The timer is armed when a connection goes: this one goes, the compile stays.
    world.ask("ping")
    with pytest.raises(subprocess.TimeoutExpired):
        compiling.wait(2.5)
    assert is_alive(pid)
    gate.let_pass()
    assert finish(compiling) == Outcome(0, b"", b"")
    wait_until(lambda: not is_alive(pid))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_is_told_to_end_finishes_what_runs(world: World, gate: Gate, number: signal.Signals) -> None:
    """A service manager stops it during a build; the next client starts another."""
    compiling = world.start(*world.gated(gate))
    gate.arrived()
    pid = world.server_pid()
    os.kill(pid, number)
    wait_until(lambda: world.sockets() == [])
    assert world.run(*world.crate()) == Outcome(0, b"", b"")
    assert world.counts().total("cache_misses") == 1
    gate.let_pass()
    assert finish(compiling) == Outcome(0, b"", b"")
    wait_until(lambda: not is_alive(pid))


@pytest.mark.parametrize("workers", ["0", "1"])
def test_after_an_upgrade_the_old_server_finishes_and_the_new_one_serves(world: World, gate: Gate, workers: str) -> None:
    """pip install -U in the middle of a build: neither the running compiles nor the next ones may notice."""
    world.env["SCCACHE_WORKERS"] = workers
    compiling = world.start(*world.gated(gate))
    gate.arrived()
    (old,) = world.server_pids()
    new_root, new_client = other_version()
    world.env["SCCACHE_PY_SERVER"] = str(world.program("new-server", SERVER, root=new_root))
    for i in range(4):
        assert world.run(*world.crate(f"unit{i}"), client=new_client) == Outcome(0, b"", b"")
    new = world.server_pids()[-1]
    assert new != old
    assert is_alive(old), "its compile is still running"
    gate.let_pass()
    assert finish(compiling) == Outcome(0, b"", b"")
    wait_until(lambda: not is_alive(old))
    assert is_alive(new)


def test_a_new_client_with_an_old_server_beside_it_compiles_by_itself(world: World) -> None:
    """Half an upgrade: they would send each other away for ever."""
    _, new_client = other_version()
    for _ in range(3):
        assert world.run(*world.crate(), client=new_client) == Outcome(0, b"", b"")
    assert len(world.server_pids()) == 1


# --- where it listens ---


@pytest.mark.parametrize("address", ["{directory}/some.sock", "{directory}/" + "s" * 107, "\\x00{directory}/abstract"])
def test_the_socket_may_be_chosen(world: World, address: str) -> None:
    """SCCACHE_SERVER_UDS as sccache has it, a leading \\x00 for an abstract name; 107 bytes are allowed."""
    address = address.format(directory=world.directory)[:107]
    world.env["SCCACHE_SERVER_UDS"] = address
    for _ in range(2):
        world.wipe()
        assert world.run(*world.crate()) == Outcome(0, b"", b"")
        with Peer(address) as peer:
            peer.send(Kind.CONTROL, control("ping"))
            peer.expect()
    shown = world.show_stats()
    assert shown["compile_requests"] == 2
    assert shown["cache_misses"]["counts"] == {"Rust": 1}
    assert world.run("--stop-server").returncode == 0


def test_a_socket_that_somebody_removed_is_replaced(world: World) -> None:
    """tmpwatch, rm -rf /tmp/*: the next client finds nobody and starts a server of its own."""
    world.run("--start-server")
    world.socket.unlink()
    assert world.run(*world.crate()) == Outcome(0, b"", b"")
    assert len(world.server_pids()) == 2
    assert world.counts().total("cache_misses") == 1


def test_a_server_in_the_foreground_is_the_process_that_was_started(world: World) -> None:
    """SCCACHE_START_SERVER=1 SCCACHE_NO_DAEMON=1 sccache-py: what a service manager runs."""
    process = world.start_plain(world.client, env={**world.env, "SCCACHE_START_SERVER": "1", "SCCACHE_NO_DAEMON": "1"})
    wait_until(lambda: len(world.sockets()) == 1)
    assert world.server_pid() == process.pid
    assert world.run(*world.crate()).returncode == 0
    assert world.counts().total("cache_misses") == 1
    process.send_signal(signal.SIGTERM)
    assert finish(process).returncode == 0
    assert world.sockets() == []


def test_a_server_whose_starter_ignores_its_children_knows_how_compilers_end(world: World) -> None:
    """`trap '' CHLD` in a container's first script: the kernel then reaps our compilers, and a failed compile was a success."""

    def prepare() -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    server = {**world.env, "SCCACHE_START_SERVER": "1", "SCCACHE_NO_DAEMON": "1"}
    process = world.start_plain(world.client, env=server, preexec_fn=prepare)
    wait_until(lambda: len(world.sockets()) == 1)
    assert world.same_as_plain(*world.crate("wrong", "pub fn answer() -> u32 { 4.2 }\n")).returncode == 1
    assert world.same_as_plain(*world.crate()).returncode == 0
    assert world.counts().total("cache_hits") == 1
    process.send_signal(signal.SIGTERM)
    assert finish(process).returncode == 0


def test_what_a_servers_starter_left_open_is_not_open_in_a_compiler(world: World) -> None:
    """A recipe of make's that starts it has its jobserver open; and a closed standard stream is nobody's number."""
    left = os.open("/dev/null", os.O_RDONLY)
    number = fcntl.fcntl(left, fcntl.F_DUPFD, 77)
    server = {**world.env, "SCCACHE_START_SERVER": "1", "SCCACHE_NO_DAEMON": "1"}
    process = world.start_plain(world.client, env=server, pass_fds=(number,), preexec_fn=lambda: os.closerange(0, 3))
    for fd in (left, number):
        os.close(fd)
    wait_until(lambda: len(world.sockets()) == 1)
    listed = world.directory / "listed"
    compiler = world.program("gcc", f'#!/bin/sh\nls /proc/self/fd >{listed}\nexec gcc "$@"')
    assert world.run(str(compiler), "-c", "-xc", "/dev/null", "-o", "/dev/null").returncode == 0
    assert str(number) not in listed.read_text().split()
    process.send_signal(signal.SIGTERM)
    assert finish(process).returncode == 0


def test_a_build_with_no_daemon_set_works(world: World) -> None:
    """SCCACHE_NO_DAEMON is for the server's program; a compile with it must not turn into a server."""
    world.env["SCCACHE_NO_DAEMON"] = "1"
    assert world.run(*world.crate()) == Outcome(0, b"", b"")
    assert world.counts().total("cache_misses") == 1


# --- settings ---


def test_settings_come_from_the_file_and_the_environment_wins(world: World) -> None:
    """SCCACHE_CONF, in sccache's own words."""
    del world.env["SCCACHE_DIR"]
    conf = world.directory / "conf.toml"
    conf.write_text(f'[cache.disk]\ndir = "{world.directory}/from-file"\nsize = "123M"\n')
    world.env.update(SCCACHE_CONF=str(conf), SCCACHE_CACHE_SIZE="77M")
    assert world.run(*world.crate()).returncode == 0
    surroundings = world.ask("stats")["surroundings"]
    assert surroundings["max_cache_size"] == 77 << 20
    assert (world.directory / "from-file" / "cache.db").exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SCCACHE_CACHE_SIZE", "ten gigabytes"),
        ("SCCACHE_IDLE_TIMEOUT", "-5"),
        ("SCCACHE_JOBS", "many"),
        ("SCCACHE_LOCAL_RW_MODE", "WRITE_ONLY"),
        ("SCCACHE_CONF", "[cache\n"),
    ],
)
def test_a_setting_that_makes_no_sense_is_said_on_start_and_stops_no_build(world: World, name: str, value: str) -> None:
    """The typing error is the user's, the build is everybody's."""
    if name == "SCCACHE_CONF":
        (world.directory / "conf.toml").write_text(value)
        value = str(world.directory / "conf.toml")
    world.env[name] = value
    assert world.run(*world.crate()) == Outcome(0, b"", b"")
    said = world.run("--start-server")
    assert said.returncode == 2
    wanted = b"configuration file" if name == "SCCACHE_CONF" else name.encode()
    assert wanted in said.stderr, said.stderr
    assert b"Traceback" not in said.stderr
    shown = world.run("--show-stats")
    assert shown.returncode in (0, 2)
    assert b"Traceback" not in shown.stderr
    assert shown.returncode == 0 or wanted in shown.stderr


def test_a_relative_cache_directory_is_below_where_the_server_was_started(world: World) -> None:
    """SCCACHE_DIR=.cache: not in the root of the file system, where the daemon stands."""
    world.env["SCCACHE_DIR"] = "some/cache"
    assert world.run(*world.crate()).returncode == 0
    assert (world.cwd / "some/cache/cache.db").exists()
    assert not Path("/some/cache").exists()


# --- nothing of the first caller stays ---


# --- descriptors ---


def test_a_server_with_few_descriptors_serves_all_in_the_end(world: World) -> None:
    """Connections beyond the limit wait in the socket's queue; nothing crashes, nothing hangs."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

    assert world.run("--start-server", preexec_fn=limit).returncode == 0
    lines = [world.crate(f"unit{i}") for i in range(60)]
    clients = [world.start(*line) for line in lines]
    assert [finish(c) for c in clients] == [Outcome(0, b"", b"")] * 60
    assert len(tree(world.out)) == 3 * 60
    assert len(world.server_pids()) == 1
    assert "Traceback" not in world.log()


def test_descriptors_are_not_lost(world: World, gate: Gate) -> None:
    """A server runs for weeks: one descriptor lost in each hundredth cancelled compile is too many."""
    gated = world.gated(gate)

    def every_way() -> None:
        for text in ("pub fn f() {}", "pub fn f() { syntax error", "pub fn f() {}"):
            world.run(*world.crate("unit", text))
        client = world.start(*gated)
        gate.arrived()
        client.kill()
        finish(client)
        world.run(*gated[:-1], "--extern", "waiter=/no/such/file")
        world.run(str(world.out / "no-such-rustc"))
        world.dial().socket.close()
        world.settle()
        wait_until(lambda: world.ask("ping")["connections"] == 1)

    def count() -> int:
        return len(os.listdir(f"/proc/{pid}/fd"))

    every_way()
    pid = world.server_pid()
    every_way()
    before = count()
    for _ in range(3):
        every_way()
    wait_until(lambda: count() <= before)


def test_a_listener_that_is_no_server_does_not_stop_the_build(world: World) -> None:
    """Something else sits on the socket and hangs up, or is full of clients that it never accepts."""
    world.env["SCCACHE_SERVER_UDS"] = str(world.directory / "s.sock")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(world.env["SCCACHE_SERVER_UDS"])
        assert world.run(*world.crate()) == Outcome(0, b"", b"")
        other.listen(0)
        with socket.socket(socket.AF_UNIX) as first, socket.socket(socket.AF_UNIX) as second:
            first.connect(world.env["SCCACHE_SERVER_UDS"])
            second.setblocking(False)
            second.connect_ex(world.env["SCCACHE_SERVER_UDS"])
            assert world.run(*world.crate()) == Outcome(0, b"", b"")
