"""What both clients do as long as all goes well: find the compiler, ask, relay, end as it ended."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import struct
import termios
import threading
from pathlib import Path

import pytest
from conftest import Scene
from fake_server import Peer, exiting, passing

import sccache_py
from sccache_py.wire import PROTOCOL, Kind

# What Python ignores since it started and Popen gives back its default before the exec.
_PYTHON_IGNORES = 1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGXFSZ - 1)

# --- which compiler is meant ---


def test_the_compiler_is_searched_in_path_and_keeps_its_name(scene: Scene) -> None:
    """What argv[0] says is what the compiler's messages begin with."""
    tool = scene.tool("cc1x", 'printf "%s|" "$0" "$@"; exit 3')
    seen = []

    def talk(peer: Peer) -> None:
        seen.append(peer.request())
        peer.send(Kind.PASS, b"")

    with scene.serve(talk):
        done = scene.run("cc1x", "-c", "a b.c", "")
    assert (done.stdout, done.stderr, done.returncode) == (f"{tool}|-c|a b.c||".encode(), b"", 3)
    assert seen[0]["argv"] == [b"cc1x", b"-c", b"a b.c", b""]
    assert seen[0]["program"] == os.fsencode(tool)


def test_a_compiler_that_does_not_exist_is_reported_as_a_shell_would(scene: Scene) -> None:
    """Build systems probe for compilers by exit code 127; nobody is asked, nothing is started."""
    with scene.serve(passing) as server:
        done = scene.run("no-such-compiler", "-c", "x.c")
    assert done.returncode == 127
    assert done.stderr == b"sccache-py: no-such-compiler: No such file or directory\n"
    assert server.connections == 0


def test_a_compiler_that_may_not_be_executed_is_reported_so(scene: Scene) -> None:
    """126 and not 127: the file is there."""
    scene.tool("cc1x", "").chmod(0o644)
    done = scene.run("cc1x")
    assert done.returncode == 126
    assert done.stderr == b"sccache-py: cc1x: Permission denied\n"


def test_a_directory_with_the_compilers_name_is_no_compiler(scene: Scene) -> None:
    """PATH=/opt with a folder /opt/gcc must not hide /usr/bin/gcc."""
    (scene.directory / "first" / "cc1x").mkdir(parents=True)
    scene.env["PATH"] = f"{scene.directory}/first:{scene.env['PATH']}"
    scene.tool("cc1x", "echo found")
    assert scene.run("cc1x").stdout == b"found\n"


def test_called_through_a_link_it_wraps_the_compiler_of_that_name(scene: Scene) -> None:
    """A folder of links first in PATH is how builds are wrapped that take no launcher."""
    links = scene.directory / "links"
    links.mkdir()
    (links / "cc1x").symlink_to(scene.client)
    tool = scene.tool("cc1x", 'echo "real $1"')
    scene.env["PATH"] = f"{links}:{scene.env['PATH']}"
    seen = []

    def talk(peer: Peer) -> None:
        seen.append(peer.request())
        peer.send(Kind.PASS, b"")

    with scene.serve(talk):
        assert scene.run("-c", program=links / "cc1x").stdout == b"real -c\n"
        assert scene.run("cc1x", "-c").stdout == b"real -c\n"
        assert scene.run(str(links / "cc1x"), "-c").stdout == b"real -c\n"
    assert [s["program"] for s in seen] == [os.fsencode(tool)] * 3


def test_gcc_finds_its_own_parts_when_a_link_to_us_comes_first_in_path(scene: Scene) -> None:
    """gcc 12 looks its argv[0] up in PATH and cc1 beside what it finds: at our link it finds nothing."""
    links = scene.directory / "links"
    links.mkdir()
    (links / "gcc").symlink_to(scene.client)
    scene.env["PATH"] = f"{links}:{scene.env['PATH']}"
    (scene.cwd / "x.c").write_text("int x;\n")
    with scene.serve(passing):
        done = scene.run("-c", "x.c", program=links / "gcc")
        assert (done.stderr, done.returncode) == (b"", 0)
        done = scene.run("gcc", "-c", "x.c")
        assert (done.stderr, done.returncode) == (b"", 0)


def test_our_own_name_as_the_compiler_is_dropped(scene: Scene) -> None:
    """RUSTC_WRAPPER and RUSTC_WORKSPACE_WRAPPER are both set: cargo calls us with us."""
    scene.tool("cc1x", 'echo "real $*"')
    (scene.tools / "sccache-py").symlink_to(scene.client)
    (scene.tools / "sccache").symlink_to(scene.client)
    with scene.serve(passing):
        assert scene.run("sccache-py", "cc1x", "-c").stdout == b"real -c\n"
        assert scene.run(str(scene.client), "sccache", "sccache-py", "cc1x", "-c").stdout == b"real -c\n"
        done = scene.run("cc1x", "-c", program=scene.tools / "sccache")
    assert done.stdout == b"real -c\n"


def test_two_dashes_before_the_compiler_are_none_of_its_words(scene: Scene) -> None:
    """sccache reads them so."""
    scene.tool("cc1x", 'echo "$@"')
    done = scene.run("--", "cc1x", "--", "-c")
    assert (done.stdout, done.stderr, done.returncode) == (b"-- -c\n", b"", 0)


def test_a_link_named_like_no_program_is_the_wrapper(scene: Scene) -> None:
    """RUSTC_WRAPPER=/opt/bin/sc, a link to us: that name is no compiler's, and the build would end with exit code 127."""
    tool = scene.tool("cc1x", 'echo "real $*"')
    link = scene.tools / "rust-cache"
    link.symlink_to(scene.client)
    with scene.serve(passing):
        assert scene.run(str(tool), "-c", program=link).stdout == b"real -c\n"
        assert scene.run("cc1x", "-c", program=link).stdout == b"real -c\n"
        assert scene.run(str(link), "rust-cache", "cc1x", "-c", program=link).stdout == b"real -c\n"
        assert scene.run("rust-cache", "rust-cache", str(tool), "-c").stdout == b"real -c\n"
    for words in ((), ("-c",), ("nowhere", "-c"), ("rust-cache",)):
        done = scene.run(*words, program=link)
        assert done.returncode == 127
        assert done.stderr.endswith(b"rust-cache: No such file or directory\n")
    script = scene.tools / "x.c"
    script.write_text("int x;\n")
    assert scene.run(str(script), program=link).returncode == 127


def test_a_driver_that_wraps_a_compiler_is_a_compiler(scene: Scene) -> None:
    """cargo clippy: `sccache-py /path/clippy-driver rustc …`."""
    driver = scene.tool("clippy-driver", 'echo "driver $*"')
    with scene.serve(passing):
        assert scene.run(str(driver), "rustc", "-vV").stdout == b"driver rustc -vV\n"


def test_two_installations_do_not_call_each_other_for_ever(scene: Scene, native_client: Path) -> None:
    """Each would pass over itself and find the other's link; a build machine would fill with processes."""
    other = scene.directory / "other"
    other.mkdir()
    (other / "sccache-py").write_bytes(native_client.read_bytes())
    (other / "sccache-py").chmod(0o755)
    (other / "cc1x").symlink_to(other / "sccache-py")
    (scene.tools / "cc1x").symlink_to(scene.client)
    last = scene.directory / "last"
    last.mkdir()
    scene.tool("real", "echo real").rename(last / "cc1x")
    scene.env["PATH"] = f"{scene.tools}:{other}:{last}"
    assert scene.run("cc1x").stdout == b"real\n"


def test_a_script_without_an_interpreter_line_is_given_to_sh(scene: Scene) -> None:
    """execvp does so, and every build tool calls execvp."""
    script = scene.tool("cc1x", "")
    script.write_text('echo "sh $1"\n')
    assert scene.run("cc1x", "-c").stdout == b"sh -c\n"


# --- what the server is told ---


def test_the_request_describes_the_caller(scene: Scene) -> None:
    """The compile happens in another process: whatever a compiler could notice has to travel."""
    seen = []

    def talk(peer: Peer) -> None:
        seen.append(peer.request())
        peer.exit()

    scene.env["STRANGE"] = "a=b\udcff\n"

    def prepare() -> None:
        os.umask(0o027)
        os.nice(3)
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, 300))
        os.sched_setaffinity(0, {0})
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)

    with scene.serve(talk):
        done = scene.run(b"/bin/true", b"\xff\xfe", b"x" * 100_000, preexec_fn=prepare)
    assert done.returncode == 0
    (request,) = seen
    assert request["protocol"] == PROTOCOL
    assert request["version"] == sccache_py.__version__.encode()
    assert request["argv"] == [b"/bin/true", b"\xff\xfe", b"x" * 100_000]
    assert request["program"] == b"/bin/true"
    assert request["cwd"] == os.fsencode(scene.cwd)
    assert sorted(request["environment"]) == sorted(os.fsencode(f"{name}={value}") for name, value in scene.env.items())
    assert request["umask"] == 0o027
    assert request["niceness"] == min(os.nice(0) + 3, 19)
    limits = {number: (soft, hard) for number, soft, hard in request["limits"]}
    assert limits[resource.RLIMIT_NOFILE] == (200, 300)
    assert limits[resource.RLIMIT_CORE][0] == 0
    everything = {resource.prlimit(0, n) for n in (resource.RLIMIT_CPU,)}
    if everything == {(-1, -1)}:
        assert limits[resource.RLIMIT_CPU] == (2**64 - 1, 2**64 - 1)
    assert request["descriptors"] == 0b0111  # three, no terminal
    assert request["columns"] == 0
    root, here = os.stat("/"), os.stat(scene.cwd)
    assert request["root"] == [root.st_dev, root.st_ino]
    assert request["here"] == [here.st_dev, here.st_ino]
    assert int.from_bytes(request["affinity"], "little") == 1
    assert request["blocked"] == 1 << (signal.SIGUSR1 - 1)
    assert request["ignored"] & 1 << (signal.SIGUSR2 - 1)
    assert not request["ignored"] & 1 << (signal.SIGTERM - 1)


def test_strings_of_any_length_and_number_arrive(scene: Scene) -> None:
    """msgpack has four ways to write a length; a linker is called with tens of thousands of objects."""
    words = [b"x" * n for n in (0, 1, 31, 32, 255, 256, 65_535, 65_536)] + [b"y"] * 66_000
    seen = []

    def talk(peer: Peer) -> None:
        seen.append(peer.request())
        peer.exit()

    with scene.serve(talk):
        assert scene.run("true", *words).returncode == 0
    assert seen[0]["argv"] == [b"true", *words]


def test_a_terminal_is_reported_with_its_width(scene: Scene) -> None:
    """gcc and rustc colour and wrap their messages for a terminal, and the server's pipe is none."""
    seen = []

    def talk(peer: Peer) -> None:
        seen.append(peer.request())
        peer.exit()

    master, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 50, 132, 0, 0))
    with scene.serve(talk), open(master, "rb"), open(terminal, "wb") as stderr:
        scene.run("true", stderr=stderr)
    assert (seen[0]["descriptors"], seen[0]["columns"]) == (0b100_0111, 132)


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_what_the_caller_closed_is_reported_and_stays_closed(scene: Scene, closed: tuple[int, ...]) -> None:
    """A socket of ours that became descriptor 1 would get the compiler's output written into it."""
    answer = scene.directory / "answer"
    scene.tool("cc1x", f"ls -l /proc/$$/fd > {answer}")
    seen = []

    def talk(peer: Peer) -> None:
        seen.append(peer.request())
        peer.send(Kind.PASS)

    closing = " ".join(f"{fd}>&-" for fd in closed)
    with scene.serve(talk):
        done = scene.run("-c", f'exec "$0" cc1x {closing}', str(scene.client), program="/bin/sh")
    assert done.returncode == 0
    expected = 0b0111
    for fd in closed:
        expected &= ~(1 << fd)
    assert seen[0]["descriptors"] == expected
    assert "socket" not in answer.read_text()
    # (sh opens the script itself, at 10 or above)
    kept = {line.split()[8] for line in answer.read_text().splitlines() if "->" in line}
    assert not kept & {str(fd) for fd in closed if fd != 1}  # 1: sh's own redirection


def test_a_huge_environment_gets_through_while_the_server_reads_slowly(scene: Scene) -> None:
    """It is longer than the socket's buffer: the client must neither cut it nor wait for an answer first."""
    scene.env.update({f"BIG_{n}": "x" * 100_000 for n in range(10)})

    def talk(peer: Peer) -> None:
        assert len(peer.request()["environment"]) == len(scene.env)
        peer.exit(7)

    with scene.serve(talk):
        assert scene.run("true").returncode == 7


def test_an_answer_before_the_whole_request_was_read_is_heard(scene: Scene) -> None:
    """A server that refuses by the header must not leave both sides writing."""
    scene.env.update({f"BIG_{n}": "x" * 100_000 for n in range(10)})
    scene.tool("cc1x", "echo ran")

    def talk(peer: Peer) -> None:
        peer.send(Kind.PASS, b"too big for me")
        while peer.socket.recv(1 << 20, 0):
            pass

    with scene.serve(talk):
        assert scene.run("cc1x").stdout == b"ran\n"


# --- PASS: becoming the compiler ---


def test_the_compiler_that_we_become_notices_nothing(scene: Scene) -> None:
    """Descriptors, signal mask and dispositions, environment and the process itself are the caller's."""
    inherited, kept_open = os.pipe()

    def prepare() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)

    def become(*args: str) -> tuple[int, bytes]:
        process = scene.start(*args, preexec_fn=prepare, pass_fds=[inherited])
        out, err = process.communicate(timeout=20)
        assert (process.returncode, err) == (0, b"")
        return process.pid, out

    with scene.serve(passing):
        pid, out = become("cat", "/proc/self/status")
        status = dict(line.split(":\t", 1) for line in out.decode().splitlines() if ":\t" in line)
        _, environment = become("cat", "/proc/self/environ")
        _, descriptors = become("ls", "/proc/self/fd")
    os.close(inherited)
    os.close(kept_open)
    assert int(status["Pid"]) == pid
    assert int(status["SigBlk"], 16) == 1 << (signal.SIGUSR1 - 1)
    assert int(status["SigIgn"], 16) & 0x7FFFFFFF & ~_PYTHON_IGNORES == 1 << (signal.SIGUSR2 - 1)
    assert dict(line.split("=", 1) for line in environment.decode().split("\0")[:-1]) == scene.env
    assert {0, 1, 2, inherited} < set(map(int, descriptors.split()))
    assert len(descriptors.split()) == 5  # one is the directory that ls reads


# --- relaying ---


def test_output_goes_to_the_descriptor_it_came_from_byte_for_byte(scene: Scene) -> None:
    """Compilers print names of files that are not UTF-8, and tools read their stdout."""

    def talk(peer: Peer) -> None:
        peer.request()
        peer.started(os.getpid() + 1_000_000)
        peer.send(Kind.STDOUT, b"out \0\xff")
        peer.send(Kind.STDERR, b"err\r\n")
        peer.send(Kind.STDOUT)
        peer.send(Kind.STDOUT, b" more")
        peer.exit(255)

    with scene.serve(talk):
        done = scene.run("true")
    assert (done.stdout, done.stderr, done.returncode) == (b"out \0\xff more", b"err\r\n", 255)


def test_output_appears_while_the_compile_goes_on(scene: Scene) -> None:
    """cargo starts dependents on the rmeta notice in rustc's stderr: held back, it costs a sixth."""
    read = threading.Event()

    def talk(peer: Peer) -> None:
        peer.request()
        peer.send(Kind.STDERR, b'{"artifact":"x.rmeta"}\n')
        assert read.wait(20)
        peer.exit()

    with scene.serve(talk), scene.start("true") as process:
        assert process.stderr is not None
        assert process.stderr.readline() == b'{"artifact":"x.rmeta"}\n'
        read.set()
        assert process.wait(20) == 0


def test_much_output_arrives_whole(scene: Scene) -> None:
    """-fdump to stdout, an -E of our own: one frame may be 8 MiB, and pipes take 64 KiB at a time."""
    much = bytes(range(256)) * (4 << 12)

    def talk(peer: Peer) -> None:
        peer.request()
        peer.send(Kind.STDOUT, much)
        peer.send(Kind.STDERR, much)
        peer.exit(1)

    with scene.serve(talk):
        done = scene.run("true")
    assert (done.stdout == much, done.stderr == much, done.returncode) == (True, True, 1)


def test_a_full_nonblocking_stdout_is_waited_for(scene: Scene) -> None:
    """Node and others leave O_NONBLOCK on the pipes they hand down; EAGAIN is not the end of a message."""
    much = b"0123456789abcdef" * 50_000

    def talk(peer: Peer) -> None:
        peer.request()
        peer.send(Kind.STDOUT, much)
        peer.exit()

    r, w = os.pipe()
    os.set_blocking(w, False)
    with scene.serve(talk):
        process = scene.start("true", stdout=w)
        os.close(w)
        with open(r, "rb") as pipe:
            assert pipe.read() == much
        assert process.wait(20) == 0
        process.communicate()


@pytest.mark.parametrize("status", [0, 1, 127, 255])
def test_the_exit_status_is_the_compilers(scene: Scene, status: int) -> None:
    """Only the compiler's own verdict reaches the user."""
    with scene.serve(exiting(status)):
        assert scene.run("true").returncode == status


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGPIPE, signal.SIGTERM])
def test_a_compiler_killed_by_a_signal_ends_the_client_by_that_signal(scene: Scene, number: int) -> None:
    """make deletes a target whose compiler was killed, not one whose compiler said 139; no core of ours."""

    def talk(peer: Peer) -> None:
        peer.request()
        peer.killed(number)

    def prepare() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGSEGV})
        resource.setrlimit(resource.RLIMIT_CORE, (resource.getrlimit(resource.RLIMIT_CORE)[1],) * 2)

    with scene.serve(talk):
        process = scene.start("true", preexec_fn=prepare)
        _, status = os.waitpid(process.pid, 0)
        process.returncode = 0  # it is reaped
        process.communicate()
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == number
    assert not os.WCOREDUMP(status)
