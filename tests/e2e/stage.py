"""Where the failure tests play: a world of its own for each test, compilers that wait for us, and servers to kill.

Client (native), server and rustc are the real ones.  A plain module, not a conftest: the tests of one file say which of this they use.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import json
import os
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import sccache_py
from sccache_py.codec import pack, unpack
from sccache_py.stats import Stats, from_answer
from sccache_py.wire import PROTOCOL, Decoder, Kind, encode_frame

ROOT = Path(__file__).resolve().parents[2]

as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can do that")

# For what must happen: a failing test, not a hanging one.
PATIENCE_S = 60.0

# As pip would install them; the server writes down that it was started.
SERVER = """\
#!{python} -P
import os, sys
with open({pids!r}, "a") as f:
    f.write(f"{{os.getpid()}}\\n")
sys.path.insert(0, {root!r})
from sccache_py.server.app import main
sys.exit(main())
"""

CTL = """\
#!{python} -P
import sys
sys.path.insert(0, {root!r})
from sccache_py.client.cli import main
sys.exit(main())
"""

# Says its process id through one FIFO and waits for a byte from another: rustc stands still for as long as the test wants.
WAITER = """\
extern crate proc_macro;
use proc_macro::{TokenStream, TokenTree};
use std::io::{Read, Write};

#[proc_macro]
pub fn wait_here(input: TokenStream) -> TokenStream {
    let words: Vec<String> = input
        .into_iter()
        .filter_map(|t| match t {
            TokenTree::Literal(l) => Some(l.to_string().trim_matches('"').to_owned()),
            _ => None,
        })
        .collect();
    let mut begun = std::fs::OpenOptions::new().write(true).open(&words[0]).unwrap();
    begun.write_all(format!("{}\\n", std::process::id()).as_bytes()).unwrap();
    std::fs::File::open(&words[1]).unwrap().read_exact(&mut [0]).unwrap();
    TokenStream::new()
}
"""


@functools.cache
def rustc() -> str:
    """The real one, not rustup's proxy."""
    asked = subprocess.run(["rustc", "--print", "sysroot"], stdout=subprocess.PIPE, text=True, check=False)
    if asked.returncode != 0:
        pytest.skip("no rustc")
    return f"{asked.stdout.strip()}/bin/rustc"


@functools.cache
def waiter() -> Path:
    """The directory of libwaiter.so, the macro that makes rustc wait."""
    directory = Path(tempfile.mkdtemp(prefix="scc-waiter"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    (directory / "waiter.rs").write_text(WAITER)
    subprocess.run([rustc(), "--crate-type=proc-macro", "--crate-name=waiter", "waiter.rs"], cwd=directory, check=True)
    return directory


@functools.cache
def other_version() -> tuple[Path, Path]:
    """(root of the sources, client) of what is the same program under another version number."""
    directory = Path(tempfile.mkdtemp(prefix="scc-other"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    root = directory / "root"
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
    for name in ("sccache_py", "server", "client", "packaging"):
        shutil.copytree(ROOT / name, root / name, symlinks=True, ignore=ignored)
    version = root / "sccache_py" / "__init__.py"
    version.write_text(version.read_text().replace(f'"{sccache_py.__version__}"', '"99.0"'))
    build = [sys.executable, root / "packaging" / "native_build.py", directory]
    subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
    return root, directory / "sccache-py"


def wait_until(what: Callable[[], object], patience_s: float = PATIENCE_S) -> None:
    """For what announces itself to nobody: a counter of the server's, a process that ends."""
    give_up = time.monotonic() + patience_s
    while not what():
        assert time.monotonic() < give_up, f"it never happened: {what}"
        select.select([], [], [], 0.005)


def is_alive(pid: int) -> bool:
    """Whether a thread of it runs; a zombie that nobody waits for does not.

    Any thread: the first of a killed process can be a zombie while another still reads what it waited for, and takes the byte of a Gate.
    """
    try:
        return any(_runs(f"/proc/{pid}/task/{thread}/stat") for thread in os.listdir(f"/proc/{pid}/task"))
    except FileNotFoundError:
        return False


def _runs(stat: str) -> bool:
    try:
        with open(stat) as f:
            return f.read().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


class Gate:
    """Holds rustcs: their sources contain `gate.source`."""

    _serial = itertools.count()

    def __init__(self, directory: Path) -> None:
        name = f"gate{next(self._serial)}"
        self._begun_path, self._go_path = directory / f"{name}.begun", directory / f"{name}.go"
        os.mkfifo(self._begun_path)
        os.mkfifo(self._go_path)
        # Both ends each, so that nobody sees an end of file.
        self._begun = os.open(self._begun_path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._go = os.open(self._go_path, os.O_RDWR | os.O_CLOEXEC)
        self._said = b""

    @property
    def source(self) -> str:
        return f'waiter::wait_here!("{self._begun_path}" "{self._go_path}");\n'

    def arrived(self) -> int:
        """The process id of a rustc that has come to the gate; waits for one."""
        while b"\n" not in self._said:
            readable, _, _ = select.select([self._begun], [], [], PATIENCE_S)
            assert readable, "no compiler came to the gate"
            self._said += os.read(self._begun, 4096)
        line, _, self._said = self._said.partition(b"\n")
        return int(line)

    def let_pass(self, count: int = 1) -> None:
        os.write(self._go, b"+" * count)

    def close(self) -> None:
        os.close(self._begun)
        os.close(self._go)


@dataclass
class Outcome:
    """What a build tool sees of a compile."""

    returncode: int  # negative: the signal
    stdout: bytes
    stderr: bytes


Tree = dict[str, tuple[int, bytes]]


def tree(directory: Path) -> Tree:
    """Every file below it with mode and content."""
    return {
        str(path.relative_to(directory)): (path.stat().st_mode & 0o7777, path.read_bytes())
        for path in sorted(directory.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


@dataclass
class World:
    """`env` and `cwd` may be changed; `out` is where the compiles of `rustc_line` leave their outputs."""

    client: Path
    directory: Path
    env: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.cwd = self.directory / "work"
        self.out = self.cwd / "out"
        self.cache = self.directory / "cache"
        self.out.mkdir(parents=True)
        self._pids = self.directory / "pids"
        self.server = self.program("server", SERVER)
        self.env.update(
            PATH=f"{os.path.dirname(rustc())}:/usr/bin:/bin",
            HOME=str(self.directory),
            XDG_RUNTIME_DIR=str(self.directory),
            SCCACHE_DIR=str(self.cache),
            SCCACHE_JOBS="2",
            SCCACHE_IDLE_TIMEOUT="300",
            SCCACHE_ERROR_LOG=str(self.directory / "log"),
            SCCACHE_LOG="info",
            SCCACHE_PY_SERVER=str(self.server),
            SCCACHE_PY_CTL=str(self.program("ctl", CTL)),
            LC_ALL="C.UTF-8",
        )

    def program(self, name: str, text: str, root: Path = ROOT) -> Path:
        """An executable script; {python}, {root}, {pids} and {rustc} are filled in."""
        path = self.directory / name
        text = text.format(root=str(root), python=sys.executable, pids=str(self._pids), rustc=rustc())
        # Not write_text and chmod: a fork of another thread's might keep it open for writing (ETXTBSY).
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o755)
        with os.fdopen(fd, "w") as f:
            f.write(text)
        return path

    def scripted_rustc(self, text: str) -> str:
        """Answers what the server asks of a rustc, does something of its own, and compiles."""
        asked = 'case "$*" in *--print*|*-vV*) exec {rustc} "$@";; esac'
        return str(self.program("rustc-script", f'#!/bin/sh\n{asked}\n{text}\nexec {{rustc}} "$@"\n'))

    # -- compiles ------------------------------------------------------------------------------------------------

    def crate(self, name: str = "unit", text: str = "pub fn answer() -> u32 { 42 }\n") -> list[str]:
        """Writes a source; returns the command line that compiles it (without the cache)."""
        (self.cwd / f"{name}.rs").write_text(text)
        line = [rustc(), "--crate-name", name, "--crate-type=lib", "--emit=metadata,link,dep-info"]
        return [*line, f"--out-dir={self.out}", f"{name}.rs"]

    def gated(self, gate: Gate, name: str = "gated") -> list[str]:
        """The same for a source at which rustc waits."""
        return [*self.crate(name, gate.source + "pub fn answer() -> u32 { 42 }\n"), "--extern", f"waiter={waiter() / 'libwaiter.so'}"]

    def start(self, *argv: str | bytes, client: Path | None = None, **options: Any) -> subprocess.Popen[bytes]:
        """A compile through the client, running."""
        return self.start_plain(client or self.client, *argv, **options)

    def start_plain(self, *argv: str | bytes | Path, **options: Any) -> subprocess.Popen[bytes]:
        """A program without the cache, running."""
        given: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
        given.update(env=self.env, cwd=self.cwd)
        return subprocess.Popen(argv, **{**given, **options})

    def run(self, *argv: str | bytes, **options: Any) -> Outcome:
        return finish(self.start(*argv, **options))

    def run_plain(self, *argv: str | bytes | Path, **options: Any) -> Outcome:
        return finish(self.start_plain(*argv, **options))

    def wipe(self) -> None:
        """Remove the outputs, as `cargo clean` does."""
        shutil.rmtree(self.out, ignore_errors=True)
        self.out.mkdir()

    def same_as_plain(self, *argv: str | bytes, times: int = 2, **options: Any) -> Outcome:
        """Runs it without the cache, then `times` times with it; whatever can be seen must be the same.  Returns that."""
        self.wipe()
        plain = self.run_plain(*argv, **options)
        plain_tree = tree(self.out)
        for _ in range(times):
            self.wipe()
            cached = self.run(*argv, **options)
            assert cached == plain, f"cached: {cached}, plain: {plain}"
            assert tree(self.out) == plain_tree
            self.settle()
        return plain

    def hits_where(self, mount: str) -> Outcome:
        """Compiles a crate twice where `mount` (a shell's command) was done for these alone: the second hits.  Skips where it may not."""
        line = " ".join(self.crate())
        script = f"""
            {mount} || exit 77
            "$0" {line} && rm -r out && mkdir out && "$0" {line} || exit 1
            "$0" --show-stats
            "$0" --stop-server >/dev/null
        """
        ran = self.run_plain("unshare", "-m", "sh", "-c", script, str(self.client))
        if ran.returncode == 77:
            pytest.skip("no mounts here")
        assert ran.returncode == 0, ran.stderr
        hits = next(line for line in ran.stdout.splitlines() if line.startswith(b"Cache hits  "))
        assert hits.split()[-1] == b"1", ran.stdout.decode()
        return ran

    # -- the server ----------------------------------------------------------------------------------------------

    def sockets(self) -> list[Path]:
        return sorted((self.directory / "sccache-py").glob("*.sock"))

    @property
    def socket(self) -> Path:
        (path,) = self.sockets()
        return path

    def dial(self) -> Peer:
        return Peer(self.env.get("SCCACHE_SERVER_UDS") or str(self.socket))

    def ask(self, name: str) -> dict[str, Any]:
        """The answer to a CONTROL."""
        with self.dial() as peer:
            peer.send(Kind.CONTROL, control(name))
            kind, payload = peer.expect()
        assert kind is Kind.ANSWER
        answer = unpack(payload)
        assert isinstance(answer, dict)
        return answer

    def server_pid(self) -> int:
        pid = self.ask("ping")["pid"]
        assert isinstance(pid, int)
        return pid

    def server_pids(self) -> list[int]:
        """Of every server that was ever started here."""
        try:
            return [int(line) for line in self._pids.read_text().split()]
        except FileNotFoundError:
            return []

    def kill_server(self) -> int:
        """Its pid, once it and its workers are dead: until then its socket takes connections, and who made one compiles by itself."""
        pid = self.server_pid()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not is_alive(pid) and not self._listens())
        return pid

    def _listens(self) -> bool:
        with contextlib.suppress(ConnectionRefusedError):
            self.dial().socket.close()
            return True
        return False

    def counts(self) -> Stats:
        """What the running server says, earlier servers' counts included."""
        return from_answer(self.ask("stats"))[0]

    def settle(self) -> None:
        """Until what was compiled is stored."""
        if not self.sockets() and "SCCACHE_SERVER_UDS" not in self.env:
            return  # nobody was asked
        wait_until(lambda: self.ask("ping")["storing"] == 0)

    def show_stats(self) -> dict[str, Any]:
        """By --show-stats, with or without a server."""
        said = self.run("--show-stats", "--stats-format=json")
        assert said.returncode == 0, said.stderr
        shown = json.loads(said.stdout)["stats"]
        assert isinstance(shown, dict)
        return shown

    def log(self) -> str:
        try:
            return (self.directory / "log").read_text()
        except FileNotFoundError:
            return ""

    def close(self) -> None:
        """Ends the servers that were started here, and no other process."""
        for pid in self.server_pids():
            if is_alive(pid) and str(self.directory) in _environment(pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.directory, ignore_errors=True)


def _environment(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/environ", errors="replace") as f:
            return f.read()
    except OSError:
        return ""


def finish(process: subprocess.Popen[bytes]) -> Outcome:
    with process:
        try:
            out, err = process.communicate(timeout=PATIENCE_S)
        except BaseException:
            process.kill()
            raise
    return Outcome(process.returncode, out or b"", re.sub(rb"/rmeta\w{6}\b", b"/rmetaXXXXXX", err or b""))  # rustc's, each time another


class Peer:
    """A connection to the server, made by hand."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        # Blocking, for with a time limit a full queue is an error.
        self.socket.connect("\0" + path[4:] if path.startswith("\\x00") else path)
        self.socket.settimeout(PATIENCE_S)
        self._decoder = Decoder()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, kind: Kind, payload: bytes = b"") -> None:
        self.socket.sendall(encode_frame(kind, payload))

    def next(self) -> tuple[Kind, bytes] | None:
        """None: the server closed the connection."""
        while (frame := self._decoder.next_frame()) is None:
            try:
                data = self.socket.recv(1 << 16)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self._decoder.feed(data)
        return frame

    def expect(self) -> tuple[Kind, bytes]:
        frame = self.next()
        assert frame is not None, "the server closed the connection"
        return frame


def request_fields(argv: Sequence[str | bytes], cwd: Path, env: Mapping[str, str]) -> list[Any]:
    """A REQUEST as the client would send it, to be spoilt."""
    root, here = os.stat("/"), os.stat(cwd)
    words = [os.fsencode(a) for a in argv]
    return [
        PROTOCOL,
        sccache_py.__version__.encode(),
        words,
        words[0],
        os.fsencode(cwd),
        [os.fsencode(f"{n}={v}") for n, v in env.items()],
        0o022,
        os.nice(0),
        [],
        7,
        0,
        [root.st_dev, root.st_ino],
        [here.st_dev, here.st_ino],
        struct.pack("Q", 0xFFFFFFFFFFFFFFFF),
        0,
        0,
    ]


@contextlib.contextmanager
def open_world(client: Path) -> Iterator[World]:
    """A directory with a short name: a socket's address has 108 bytes."""
    world = World(client, Path(tempfile.mkdtemp(prefix="scc")))
    try:
        yield world
    finally:
        world.close()


# Fixtures, for the tests that import them by name.


def control(name: str) -> bytes:
    """The payload of a Kind.CONTROL of this version."""
    return pack([PROTOCOL, sccache_py.__version__, name, {}])


@pytest.fixture
def world(native: Any) -> Iterator[World]:
    with open_world(native.client) as world:
        yield world
        assert "Traceback" not in world.log(), world.log()


@pytest.fixture
def gate(world: World) -> Iterator[Gate]:
    gate = Gate(world.directory)
    yield gate
    gate.close()
