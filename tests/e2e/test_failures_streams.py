"""What a compile says, to whom, and when nobody listens: the same with the cache as without.

`World.same_as_plain` runs each line without the cache, then as a miss, then as a hit, and compares exit status, stdout, stderr and
every output with its mode.
"""

from __future__ import annotations

import os
import pty
import select
import signal
import struct
import sys
import termios
from fcntl import ioctl
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package

from stage import PATIENCE_S, World, finish, rustc, tree, wait_until, world

__all__ = ["world"]  # fixtures

pytestmark = pytest.mark.slow


# Some 100 bytes of stderr for each.
UNUSED = "fn unused_%d() {}\n"


def warnings(count: int) -> str:
    return "".join(UNUSED % i for i in range(count))


def test_a_loud_compiler_is_relayed_whole_in_bounded_memory(world: World) -> None:
    """Generated code has warnings by the ten thousand; a server that keeps them all for all clients is killed."""
    line = [world.scripted_rustc("yes 'warning: unused' | head -c 20000000 >&2"), *world.crate()[1:]]
    world.run(*world.crate("before"))
    pid = world.server_pid()
    before = peak_kib(pid)
    plain = world.run_plain(*line)
    assert len(plain.stderr) == 20_000_000
    world.wipe()
    client = world.start(*line)
    assert client.stderr is not None
    # A slow reader: everything that can fill up does.
    wait_until(lambda: unread(client.stderr.fileno()) > 30_000)  # type: ignore[union-attr]
    assert finish(client) == plain
    assert peak_kib(pid) - before < 64 * 1024
    assert world.counts().reasons() == {"too much on stdout or stderr": 1}


def peak_kib(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.partition("VmHWM:")[2].split()[0])


def unread(fd: int) -> int:
    return int(struct.unpack("i", ioctl(fd, termios.FIONREAD, bytes(4)))[0])


def test_both_streams_may_be_loud_at_once(world: World) -> None:
    """Each waits until there is room; neither may wait for ever."""
    line = [world.scripted_rustc("yes out | head -c 6000000 &\nyes error | head -c 6000000 >&2\nwait"), *world.crate()[1:]]
    plain = world.run_plain(*line)
    world.wipe()
    client = world.start(*line)
    assert client.stdout is not None
    assert client.stderr is not None
    # A slow reader: one of the two fills up and holds up everything.
    wait_until(lambda: max(unread(client.stdout.fileno()), unread(client.stderr.fileno())) > 30_000)  # type: ignore[union-attr]
    said = finish(client)
    assert (len(said.stdout), len(said.stderr)) == (len(plain.stdout), len(plain.stderr)) == (6_000_000, 6_000_000)
    assert said == plain


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_reader_that_left_ends_the_compile_as_without_the_cache(world: World, stream: str) -> None:
    """`cargo build 2>&1 | head`: killed by SIGPIPE or not, the same as before; as a miss and as a hit."""
    line = [rustc(), "--print=cfg"] if stream == "stdout" else world.crate("loud", warnings(300))
    reader, writer = os.pipe()
    os.close(reader)
    try:
        outcomes = [finish(start(*line, **{stream: writer})) for start in (world.start_plain, world.start, world.start)]
        assert outcomes[0] == outcomes[1] == outcomes[2]
        assert world.run(*line).returncode == 0
        world.settle()
        hit = finish(world.start(*line, **{stream: writer}))
        assert hit.returncode == outcomes[0].returncode
    finally:
        os.close(writer)


def test_a_reader_that_left_while_sigpipe_is_ignored_is_borne(world: World) -> None:
    """Python's subprocess and some shells leave SIGPIPE ignored."""

    def ignore() -> None:
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)

    line = world.crate("loud", warnings(300))
    outcomes = []
    for start in (world.start_plain, world.start, world.start):
        process = start(*line, preexec_fn=ignore, restore_signals=False)
        assert process.stderr is not None
        process.stderr.close()
        process.stderr = None
        outcomes.append(finish(process).returncode)
    # rustc sets SIGPIPE back by itself, and we do not know of it.
    assert set(outcomes) <= {0, -signal.SIGPIPE}


def test_what_finds_no_room_on_a_disk_is_not_said_to_be_written(world: World) -> None:
    """`rustc --print cfg >cfg.txt` on a full disk: the file is cut off, and only the compiler can say so."""
    line = [rustc(), "--print=cfg"]
    loud = world.crate("loud", warnings(3))
    with open("/dev/full", "w") as full:
        plain = world.run_plain(*line, stdout=full)
        assert plain.returncode != 0
        for _ in range(2):
            assert world.run(*line, stdout=full).returncode == plain.returncode
            assert world.run(*line).returncode == 0
        plain = world.run_plain(*loud, stderr=full)
        for _ in range(2):
            world.wipe()
            assert world.run(*loud, stderr=full) == plain
            assert world.run(*loud).returncode == 0


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2), (1, 2)], ids=lambda fds: "-".join(map(str, fds)))
def test_closed_descriptors_are_borne(world: World, closed: tuple[int, ...]) -> None:
    """Daemons start builds with 0, 1 or 2 closed; an open() then gets that number, and a compiler's warnings land in a file."""

    def close() -> None:
        for fd in closed:
            os.close(fd)

    line = world.crate("loud", warnings(3))
    plain = world.run_plain(*line, preexec_fn=close)
    plain_tree = tree(world.out)
    for _ in range(3):
        world.wipe()
        assert world.run(*line, preexec_fn=close) == plain
        assert tree(world.out) == plain_tree
        if world.sockets():
            world.settle()


@pytest.mark.parametrize("fd", [1, 2])
def test_a_warning_that_cannot_be_said_ends_as_without_the_cache(world: World, fd: int) -> None:
    """gcc exits with 1 where its stderr is closed; a hit that another caller's compile left would say 0."""
    world.env["PATH"] = "/usr/bin:/bin"
    (world.cwd / "loud.c").write_text("#warning hear, hear\n")
    line = ["gcc", "-c", "loud.c", "-o", "out/loud.o"]
    assert world.same_as_plain(*line).returncode == 0
    said = world.same_as_plain(*line, preexec_fn=lambda: os.close(fd))
    assert said.returncode == (1 if fd == 2 else 0)


@pytest.mark.parametrize("columns", [80, 200])
def test_on_a_terminal_it_looks_as_without_the_cache(world: World, columns: int) -> None:
    """Colours and line widths: the compiler's stderr is our pipe, and it must not show."""
    line = world.crate("loud", "fn unused_with_a_name_that_is_not_short(_: Vec<Vec<Vec<String>>>) {} fn other() { let x: u32 = 0; }\n")
    world.env["TERM"] = "xterm-256color"
    plain = on_terminal(world, columns, *line)
    assert b"\x1b[" in plain
    for _ in range(2):
        assert on_terminal(world, columns, str(world.client), *line) == plain
        world.settle()
    assert world.counts().total("cache_hits") == 1
    for words in ("CLICOLOR=0", "CLICOLOR=0 CLICOLOR_FORCE=0", "TERM=dumb", "TERM=dumb CI=", "TERM=dumb CLICOLOR=", "NO_COLOR=1 CI=1"):
        env = {**world.env, **dict(word.split("=") for word in words.split())}
        assert on_terminal(world, columns, str(world.client), *line, env=env) == on_terminal(world, columns, *line, env=env), words
    piped = world.run_plain(*line)
    assert world.run(*line) == piped


def on_terminal(world: World, columns: int, *argv: str, **options: Any) -> bytes:
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))
    process = world.start_plain(*argv, stdin=theirs, stdout=theirs, stderr=theirs, **options)
    os.close(theirs)
    said = b""
    while True:
        readable, _, _ = select.select([ours], [], [], PATIENCE_S)
        assert readable
        try:
            part = os.read(ours, 1 << 16)
        except OSError:  # EIO: the other side is closed
            break
        if not part:
            break
        said += part
    os.close(ours)
    assert process.wait(PATIENCE_S) == 0
    return said


def test_what_a_compiler_leaves_running_does_not_hold_up_its_caller(world: World) -> None:
    """A wrapper that starts a daemon of its own, which inherits our pipes: the compile is over when the compiler is."""
    pids = world.directory / "left"
    line = [world.scripted_rustc(f"sleep 1000 & echo $! >>{pids}"), *world.crate("loud", warnings(300))[1:]]
    said = []
    try:
        for start in (world.start_plain, world.start):
            world.wipe()
            with (world.directory / "stderr").open("wb") as f:
                assert start(*line, stdout=f, stderr=f).wait(PATIENCE_S) == 0
            said.append(((world.directory / "stderr").read_bytes(), tree(world.out)))
    finally:
        for pid in pids.read_text().split():
            os.kill(int(pid), signal.SIGKILL)
    assert said[0] == said[1]
    assert world.counts().reasons() == {"left a process running": 1}


def test_what_a_compiler_leaves_running_when_it_is_asked_delays_nothing(world: World) -> None:
    """A wrapper that starts a daemon whatever it is called for: each ten seconds a compile waited for twenty, and none was cached."""
    pids = world.directory / "left"
    program = world.program("rustc-daemon", f'#!/bin/sh\n[ -e {pids} ] || {{{{ sleep 1000 & echo $! >{pids}; }}}}\nexec {{rustc}} "$@"\n')
    try:
        assert world.run(str(program), *world.crate()[1:]).returncode == 0
    finally:
        os.kill(int(pids.read_text()), signal.SIGKILL)
    world.settle()
    assert world.same_as_plain(str(program), *world.crate()[1:]).returncode == 0
    assert world.counts().total("cache_hits") == 2
    assert world.counts().total("requests_unsupported_compiler") == 0


def test_what_left_the_compilers_process_group_is_left_running_too(world: World) -> None:
    """It may write to the output later, and to what the next compile is watched by."""
    hold = world.directory / "hold"
    os.mkfifo(hold)
    writer = os.open(hold, os.O_RDWR | os.O_CLOEXEC)  # what reads from it ends with us
    line = [world.scripted_rustc(f"setsid sh -c 'read line' <{hold} >/dev/null 2>&1 &"), *world.crate()[1:]]
    assert world.same_as_plain(*line).returncode == 0
    assert world.counts().reasons() == {"left a process running": 2}
    assert world.counts().total("cache_writes") == 0
    os.write(writer, b"\n\n\n\n")
    os.close(writer)


def test_last_words_to_a_slow_reader_are_whole_whatever_was_left_running(world: World) -> None:
    """Its pipe is kept open by somebody else; that must not cut what the compiler itself has said."""
    pids = world.directory / "left"
    text = f"sleep 1000 & echo $! >>{pids}\nyes | head -c 3000000 >&2"
    line = [world.scripted_rustc(text), *world.crate()[1:]]
    r, w = os.pipe()
    client = world.start(*line, stderr=w)
    os.close(w)
    try:
        wait_until(lambda: unread(r) > 30_000)
        # Everything is full now; the compiler ends only when somebody reads.
        heard = 0
        while part := os.read(r, 1 << 16):
            heard += len(part)
        assert finish(client).returncode == 0
        assert heard == 3_000_000
    finally:
        os.close(r)
        for pid in pids.read_text().split():
            os.kill(int(pid), signal.SIGKILL)
