"""Who called first does not show in the server, and who stands elsewhere (groups, mounts, a chroot) is not served by its view of things."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package

from stage import SERVER, Outcome, Peer, World, as_root, control, gate, tree, world

from sccache_py.codec import unpack
from sccache_py.wire import Kind

__all__ = ["gate", "world"]  # fixtures

pytestmark = pytest.mark.slow


def test_the_first_callers_environment_stays_out_of_the_server(world: World) -> None:
    """CVE-2023-1521: LD_PRELOAD of whoever came first ran in everybody's server."""
    library = world.directory / "libleak.so"
    (world.directory / "leak.c").write_text("int leaked;")
    subprocess.run(["cc", "-shared", "-o", library, world.directory / "leak.c"], check=True)
    leaking = {
        "LD_PRELOAD": str(library),
        "LD_LIBRARY_PATH": str(world.directory),
        "PYTHONPATH": str(world.directory / "python"),
        "PYTHONSTARTUP": str(world.directory / "startup.py"),
        "PYTHONHASHSEED": "1",
        "MAKEFLAGS": "-j --jobserver-auth=3,4",
        "RUSTFLAGS": "--cfg leaked",
        "SECRET_TOKEN": "leaked",
    }
    (world.directory / "python").mkdir()
    (world.directory / "python" / "msgpack.py").write_text("raise SystemExit('the wrong module')")
    plain_env = dict(world.env)
    world.env.update(leaking)
    assert world.run(*world.crate()).returncode == 0
    world.env.clear()
    world.env.update(plain_env)
    pid = world.server_pid()
    assert str(library) not in Path(f"/proc/{pid}/maps").read_text()
    assert world.counts().total("cache_misses") == 1, "the wrong Python module kept the server from starting"

    dump = world.program("rustc-dump", '#!/bin/sh\ncase "$*" in *sysroot*) exec {rustc} "$@";; esac\nenv >&2\nexec {rustc} "$@"\n')
    line = [str(dump), *world.crate("second")[1:]]
    plain, cached = (sorted(run(*line).stderr.splitlines()) for run in (world.run_plain, world.run))
    ours = (b"LD_PRELOAD=", b"SCCACHE_PY_", b"MAKEFLAGS=", b"CARGO_MAKEFLAGS=", b"MFLAGS=", b"_=")
    assert [w for w in cached if not w.startswith(ours)] == [w for w in plain if not w.startswith(ours)]
    assert all(v not in b"".join(cached) for v in (b"leaked", b"libleak"))


def test_the_callers_python_is_not_ours(world: World) -> None:
    """Whoever builds an interpreter has variables for that one."""
    world.env["PYTHONHOME"] = "/nonexistent"
    assert world.run(*world.crate()).returncode == 0
    for words in (["--show-stats"], ["--show-jobs"], ["--stop-server"], ["--version"]):
        assert world.run(*words).returncode == 0


def test_the_first_callers_limits_stay_out_of_the_server(world: World) -> None:
    """`ulimit -t 60; make`: after a minute of its own processor time the server would be killed, and with it others' compiles."""

    def limit() -> None:
        for number, soft in ((resource.RLIMIT_CPU, 60), (resource.RLIMIT_FSIZE, 4096), (resource.RLIMIT_NOFILE, 64)):
            resource.setrlimit(number, (soft, resource.getrlimit(number)[1]))

    assert world.run("--start-server", preexec_fn=limit).returncode == 0
    limits = Path(f"/proc/{world.server_pid()}/limits").read_text()
    softs = {line[:26].strip(): line[26:].split()[0] for line in limits.splitlines()}
    hards = {line[:26].strip(): line[26:].split()[1] for line in limits.splitlines()}
    for name in ("Max cpu time", "Max file size", "Max open files"):
        assert softs[name] == hards[name]
    assert world.same_as_plain(*world.crate()).returncode == 0


def test_the_first_callers_standing_with_the_kernel_is_not_the_servers(world: World) -> None:
    """`chrt -i 0 setarch -R make` once, and for hours every compile would run when nothing else does, at addresses that can be guessed."""
    odd = ["chrt", "-i", "0", "setarch", "-R", "choom", "-n", "500", "--", str(world.client), "--start-server"]
    started = world.run_plain(*odd)
    if started.returncode != 0:
        pytest.skip(f"cannot be done here: {started.stderr!r}")
    pid = world.server_pid()
    if os.getuid() == 0:
        assert os.sched_getscheduler(pid) == os.SCHED_OTHER
    assert int(Path(f"/proc/{pid}/oom_score_adj").read_text()) == 0
    assert int(Path(f"/proc/{pid}/personality").read_text(), 16) == 0


def test_a_server_that_runs_when_nothing_else_does_compiles_for_nobody_who_need_not_wait(world: World) -> None:
    """Root may leave that class, others may not: sched(7)."""
    weak = ["setpriv", "--bounding-set=-sys_nice", "--"] if os.getuid() == 0 else ["env"]
    started = world.run_plain(*weak, "chrt", "-i", "0", world.client, "--start-server")
    if started.returncode != 0:
        pytest.skip(f"cannot be done here: {started.stderr!r}")
    if os.sched_getscheduler(world.server_pid()) != os.SCHED_IDLE:
        pytest.skip("everybody may leave that class here")
    assert world.run_plain(*weak, world.client, *world.crate()) == Outcome(0, b"", b"")
    assert world.counts().reasons() == {"caller may do more than the server": 1}
    assert world.run_plain(*weak, "chrt", "-i", "0", world.client, *world.crate()) == Outcome(0, b"", b"")
    assert world.counts().total("cache_misses") == 1


@as_root
def test_a_server_of_other_groups_is_not_asked_to_read_or_write(world: World) -> None:
    """`sg video -c make`, or one was put into a group since: sources that only that may read, outputs that it shall own."""
    weak = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    started = world.run_plain(*weak, "--clear-groups", world.client, "--start-server")
    if started.returncode != 0:
        pytest.skip(f"cannot be done here: {started.stderr!r}")
    (world.cwd / "x.c").write_text('#include "secret.h"\n')
    secret = world.cwd / "secret.h"
    secret.write_text("int x;\n")
    secret.chmod(0o640)
    os.chown(secret, 65534, 4321)
    for groups, owner in ((["--groups=4321"], 0), (["--regid=4321", "--clear-groups"], 4321)) * 2:
        world.wipe()
        compiled = world.run_plain(*weak, *groups, world.client, "gcc", "-c", "x.c", "-o", "out/x.o")
        assert compiled == Outcome(0, b"", b"")
        assert (world.out / "x.o").stat().st_gid == owner
    assert world.counts().reasons() == {"caller may do more than the server": 4}


@as_root
def test_a_root_that_may_less_than_the_server_reads_no_more_than_it_may(world: World) -> None:
    """`setpriv --bounding-set=-all`, a service with CapabilityBoundingSet=: by an #include it would read what is not its own."""
    weak = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    assert world.run("--start-server").returncode == 0
    (world.cwd / "x.c").write_text('#include "secret.h"\n')
    secret = world.cwd / "secret.h"
    secret.write_text("int x;\n")
    secret.chmod(0o600)
    os.chown(secret, 65534, 65534)
    line = ["gcc", "-c", "x.c", "-o", "out/x.o"]
    plain = world.run_plain(*weak, *line)
    if plain.returncode == 0:
        pytest.skip("capabilities cannot be dropped here")
    assert b"Permission denied" in plain.stderr
    assert world.run_plain(*weak, world.client, *line) == plain
    assert world.run(*line) == Outcome(0, b"", b"")


def test_the_server_holds_nothing_of_who_started_it(world: World) -> None:
    """An inherited pipe keeps `$(make)` waiting until the server leaves; an inherited cwd keeps a disk from being unmounted."""
    r, w = os.pipe()
    os.set_inheritable(w, True)
    assert world.run("--start-server", pass_fds=(w,)).returncode == 0
    os.close(w)
    pid = world.server_pid()
    assert os.read(r, 1) == b""
    os.close(r)
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    assert os.getsid(pid) != os.getsid(0)
    assert [os.readlink(f"/proc/{pid}/fd/{n}") for n in range(3)] == ["/dev/null"] * 3


# --- other views of the file system ---


@as_root
def test_a_client_in_another_mount_namespace_gets_a_server_of_its_own(world: World) -> None:
    """bubblewrap, bazel's sandbox: there /src may be something else."""
    assert world.run(*world.crate()) == Outcome(0, b"", b"")
    world.settle()
    world.wipe()
    assert run_apart(world, ["--mount"], world.crate()) == Outcome(0, b"", b"")
    assert len(world.server_pids()) == 2
    assert len(world.sockets()) == 2
    assert {"libunit.rlib", "libunit.rmeta", "unit.d"} == set(tree(world.out))


@as_root
@pytest.mark.parametrize("apart", [["--mount"], ["--pid", "--fork"]])
def test_a_client_in_another_namespace_is_not_served_through_a_socket_that_it_was_given(world: World, apart: list[str]) -> None:
    """The server would compile what it sees itself, and the client would kill process groups by numbers of another world."""
    world.env["SCCACHE_SERVER_UDS"] = str(world.directory / "s.sock")
    assert world.run("--start-server").returncode == 0
    assert run_apart(world, apart, world.crate()) == Outcome(0, b"", b"")
    assert {"libunit.rlib", "libunit.rmeta", "unit.d"} == set(tree(world.out))
    with Peer(world.env["SCCACHE_SERVER_UDS"]) as peer:
        peer.send(Kind.CONTROL, control("stats"))
        counts = unpack(peer.expect()[1])["stats"]["counts"]
    assert counts.get("compilations", 0) == 0


def run_apart(world: World, apart: list[str], line: list[str]) -> Outcome:
    command = ["unshare", *apart, str(world.client), *line]
    options = [word for word in apart if word.startswith("--")]
    if subprocess.run(["unshare", *options, "true"], stderr=subprocess.DEVNULL, check=False).returncode != 0:
        pytest.skip("no namespaces here")
    return world.run_plain(*command)


@as_root
def test_a_client_in_a_chroot_does_not_use_the_servers_view(world: World) -> None:
    """The same paths lead to other files there."""
    world.env["SCCACHE_SERVER_UDS"] = str(world.directory / "s.sock")
    assert world.run("--start-server").returncode == 0
    jail = world.directory / "jail"
    (jail / "bin").mkdir(parents=True)
    (jail / "tmp").mkdir()
    os.link(world.env["SCCACHE_SERVER_UDS"], jail / "s.sock")
    (jail / "client").write_bytes(world.client.read_bytes())
    (jail / "client").chmod(0o755)
    (jail / "bin" / "true-rustc").write_bytes(Path("/usr/bin/true").read_bytes())
    (jail / "bin" / "true-rustc").chmod(0o755)
    env = {**world.env, "SCCACHE_SERVER_UDS": "/s.sock"}
    world.run_plain("/usr/sbin/chroot", str(jail), "/client", "/bin/true-rustc", env=env, cwd="/")
    with Peer(world.env["SCCACHE_SERVER_UDS"]) as peer:
        peer.send(Kind.CONTROL, control("stats"))
        counts = unpack(peer.expect()[1])["stats"]["counts"]
    assert counts.get("compilations", 0) == 0


@as_root
def test_without_a_home_the_cache_is_where_the_user_lives(world: World) -> None:
    """A service, or `env -i`: sccache and ccache ask the list of users, too."""
    home = world.directory / "home"
    home.mkdir()
    (world.directory / "passwd").write_text(f"root:x:0:0:root:{home}:/bin/sh\n")
    del world.env["HOME"], world.env["SCCACHE_DIR"]
    assert world.hits_where(f"mount --bind {world.directory}/passwd /etc/passwd").stderr == b""
    assert (home / ".cache/sccache-py/cache.db").exists()


# bubblewrap's: it ends when the last of its children has.
INIT = """
import os, subprocess, sys
assert subprocess.run(sys.argv[1:]).returncode == 0
while True:
    try:
        os.wait()
    except ChildProcessError:
        sys.exit(0)
"""


@as_root
@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_server_in_a_sandbox_does_not_outlive_what_ran_there(world: World, workers: str) -> None:
    """`bwrap --unshare-all make | tee log` stood for the ten minutes after which an idle server leaves."""
    world.env["SCCACHE_WORKERS"] = workers
    apart = ["--mount", "--pid", "--fork", "--mount-proc", sys.executable, "-c", INIT]
    assert run_apart(world, apart, world.crate()) == Outcome(0, b"", b"")
    assert {"libunit.rlib", "libunit.rmeta", "unit.d"} == set(tree(world.out))


@pytest.mark.skipif(shutil.which("strace") is None, reason="no strace")
def test_who_traces_a_build_does_not_wait_for_the_server(world: World) -> None:
    """`strace -f make`, `proot … make`: these end when all that they trace has, and the server stayed for ten idle minutes."""
    hurried = SERVER.replace("import main\n", "import main\nimport sccache_py.server.app as app\napp._WATCH_S = app._REST_S = 0.1\n")
    world.env["SCCACHE_PY_SERVER"] = str(world.program("hurried", hurried))
    traced = world.run_plain("strace", "-f", "-o", "/dev/null", world.client, *world.crate())
    if b"PTRACE_TRACEME" in traced.stderr:
        pytest.skip("no tracing here")
    assert traced == Outcome(0, b"", b"")
    assert world.sockets() == []
    assert world.run(*world.crate()).returncode == 0
    assert world.counts().total("cache_hits") == 1
