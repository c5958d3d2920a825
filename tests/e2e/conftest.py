"""A world of its own for each test: real client, real server, real rustc, and an uncached compile to compare with.

`World.expect` is the heart: it compiles through the cache and once more without it, into the same paths, and holds the
two against each other, outputs, modes, stdout, stderr and exit code.  What the cache did is read from its statistics, and for a hit
also from the kernel: a child that was reaped leaves its page faults with its parent, so a server whose counts did not move ran nothing.

Everything runs in two modes: observed, and with SCCACHE_NO_OBSERVE=1, where the server relies on rustc's dep-info
and on what gcc and clang answer when asked.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from sccache_py import __version__
from sccache_py.codec import pack, unpack
from sccache_py.server.filesystem.files import coarse_ns
from sccache_py.wire import PROTOCOL, Decoder, Kind, encode_frame

OBSERVED, FALLBACK = "observed", "fallback"

# Longer than anything here takes on a slow machine; reached only by what hangs.
PATIENCE_S = 60

SERVER = """\
#!{python}
import sys
from sccache_py.server.app import main
sys.exit(main())
"""

LIB = ("--crate-name", "x", "--crate-type", "lib", "--emit=dep-info,metadata,link")
JSON = ("--error-format=json", "--json=diagnostic-rendered-ansi,artifacts,future-incompat")


class Done(NamedTuple):
    """What one compile left: how it ended, what it said, and every file in the output directories (path → mode, content)."""

    status: int
    stdout: bytes
    stderr: bytes
    files: dict[str, tuple[int, bytes]]

    def names(self) -> set[str]:
        return {os.path.basename(path) for path in self.files}

    def file(self, name: str) -> bytes:
        (found,) = (content for path, (_, content) in self.files.items() if os.path.basename(path) == name)
        return found


def wait_for_a_tick() -> None:
    """Until the clock that the server compares with has passed now: what is younger than that is never stored.

    Files may have timestamps of the fine clock (Linux 6.13), which is ahead of the coarse one, by more than a tick on a busy machine.
    """
    now = time.time_ns()
    while coarse_ns() <= now:
        os.sched_yield()


def snapshot(directories: Sequence[Path]) -> dict[str, tuple[int, bytes]]:
    found = {}
    for directory in directories:
        for place, _, names in os.walk(directory):
            for name in names:
                path = Path(place, name)
                mode = path.lstat().st_mode
                found[str(path)] = (mode, os.fsencode(os.readlink(path)) if stat.S_ISLNK(mode) else path.read_bytes())
    return found


def clear(directories: Sequence[Path]) -> None:
    for directory in directories:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(directory)
        directory.mkdir(parents=True)


def differences(one: Mapping[str, tuple[int, bytes]], other: Mapping[str, tuple[int, bytes]]) -> list[str]:
    """What to print: an assert on megabytes of dict says nothing."""
    found = [f"only cached: {p}" for p in one.keys() - other.keys()] + [f"only uncached: {p}" for p in other.keys() - one.keys()]
    for path in one.keys() & other.keys():
        if one[path][0] != other[path][0]:
            found.append(f"mode of {path}: cached {one[path][0]:o}, uncached {other[path][0]:o}")
        if one[path][1] != other[path][1]:
            a, b = one[path][1], other[path][1]
            at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
            found.append(f"{path}: {len(a)} and {len(b)} bytes, differ at {at}: {a[at - 20 : at + 40]!r} and {b[at - 20 : at + 40]!r}")
    return found


@dataclass
class World:
    """Directories, environment and cache of one test.  `p` is the project and cwd, `o` the output directory."""

    root: Path
    mode: str
    client: Path
    sysroot: Path
    env: dict[str, str]
    server_env: dict[str, str] = field(default_factory=dict)
    outs: list[Path] = field(default_factory=list)
    pids: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.p = self.root / "p"
        self.o = self.root / "o"
        self.p.mkdir()
        self.o.mkdir()
        self.outs.append(self.o)
        self.out = ("--out-dir", str(self.o))

    @property
    def observed(self) -> bool:
        return self.mode == OBSERVED

    @property
    def compiler(self) -> str:
        return str(self.sysroot / "bin" / "rustc")

    def needs_observation(self, why: str) -> None:
        """For what the fallback is known, and documented, not to see."""
        if not self.observed:
            pytest.skip(f"a gap of the fallback: {why}")

    # -- files -------------------------------------------------------------------------------------------------

    def write(self, name: str, text: str | bytes) -> Path:
        path = self.p / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    # -- the two ways to compile -------------------------------------------------------------------------------

    def run(
        self, command: Sequence[str], cwd: Path | None, env: Mapping[str, str], umask: int = 0o022
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            command,
            cwd=cwd or self.p,
            env={**self.env, **env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE_S,
            umask=umask,
            check=False,
        )

    def cached(self, *args: str, cwd: Path | None = None, env: Mapping[str, str] = {}, umask: int = 0o022, rustc: str = "") -> Done:
        """Through the cache, into empty output directories."""
        clear(self.outs)
        wait_for_a_tick()
        ran = self.run([str(self.client), rustc or self.compiler, *args], cwd, {**env, **self.server_env}, umask)
        return Done(ran.returncode, ran.stdout, ran.stderr, snapshot(self.outs))

    def uncached(self, *args: str, cwd: Path | None = None, env: Mapping[str, str] = {}, umask: int = 0o022, rustc: str = "") -> Done:
        """The compiler itself, into the same directories."""
        clear(self.outs)
        ran = self.run([rustc or self.compiler, *args], cwd, env, umask)
        return Done(ran.returncode, ran.stdout, ran.stderr, snapshot(self.outs))

    def expect(
        self,
        verdict: str,
        *args: str,
        cwd: Path | None = None,
        env: Mapping[str, str] = {},
        umask: int = 0o022,
        rustc: str = "",
        asks: bool = False,
    ) -> Done:
        """Compile in both ways; they must agree in all they leave and say.

        verdict: see `verdict_since`.  asks: the server may ask a compiler that changed what it is now.
        """
        before = self.counts() if self.pids else {}
        faults = self.children_faults() if verdict == "hit" else {}
        cached = self.cached(*args, cwd=cwd, env=env, umask=umask, rustc=rustc)
        found = self.verdict_since(before)
        uncached = self.uncached(*args, cwd=cwd, env=env, umask=umask, rustc=rustc)
        assert (cached.status, cached.stdout, cached.stderr) == (uncached.status, uncached.stdout, uncached.stderr)
        assert differences(cached.files, uncached.files) == []
        assert found == verdict, self.reasons()
        if verdict == "hit" and not asks:
            assert self.children_faults() == faults, "a process ran on a hit"
        return cached

    def compile_twice(self, *args: str, **how: Any) -> Done:
        """A first compile, and a second that must hit."""
        self.expect("miss", *args, **how)
        return self.expect("hit", *args, **how)

    def changes(self, change: Callable[[], object], undo: Callable[[], object], *args: str, visible: bool = True, **how: Any) -> None:
        """Compile; change something: a miss; undo: a hit.  visible: the change must show in what the compiler left or said."""
        first = self.compile_twice(*args, **how)
        change()
        second = self.expect("miss", *args, **how)
        assert (first != second) == visible
        undo()
        third = self.expect("hit", *args, **how)
        assert third == first

    def changes_text(self, name: str, text: str, *args: str, visible: bool = True, **how: Any) -> None:
        """The same by a file's content."""
        path = self.p / name
        old = path.read_text()
        self.changes(lambda: path.write_text(text), lambda: path.write_text(old), *args, visible=visible, **how)

    def changes_env(self, name: str, one: str | None, other: str | None, *args: str, visible: bool = True) -> None:
        """The same by a variable of the caller's (None: not set)."""
        environments = [{} if value is None else {name: value} for value in (one, other)]
        first = self.compile_twice(*args, env=environments[0])
        second = self.expect("miss", *args, env=environments[1])
        assert (first != second) == visible
        assert self.expect("hit", *args, env=environments[0]) == first
        assert self.expect("hit", *args, env=environments[1]) == second

    def refused(self, reason: str, *args: str, **how: Any) -> Done:
        """Twice the client runs the compiler itself, and the statistics say why."""
        self.expect("pass", *args, **how)
        done = self.expect("pass", *args, **how)
        assert self.reasons() == {reason: 2}
        return done

    def not_stored(self, reason: str, *args: str, **how: Any) -> Done:
        """Twice a miss: it could not be kept, and the statistics say why."""
        self.expect("miss", *args, **how)
        done = self.expect("miss", *args, **how)
        assert self.reasons() == {reason: 2}
        return done

    # -- the server --------------------------------------------------------------------------------------------

    def control(self, name: str) -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
            s.settimeout(PATIENCE_S)
            s.connect(self.env["SCCACHE_SERVER_UDS"])
            s.sendall(encode_frame(Kind.CONTROL, pack([PROTOCOL, __version__.encode(), name.encode(), {}])))
            decoder = Decoder()
            while (frame := decoder.next_frame()) is None:
                data = s.recv(1 << 16)
                assert data, f"the server closed on {name}"
                decoder.feed(data)
        answer: dict[str, Any] = unpack(frame[1])
        return answer

    def note_server(self) -> None:
        self.pids.add(self.control("ping")["pid"])

    def counts(self) -> dict[str, int]:
        """Counters, when everything that was compiled has been stored or given up.  Questions count as compiles here."""
        limit = time.monotonic() + PATIENCE_S
        while True:
            stats = self.control("stats")["stats"]
            counts: dict[str, int] = dict(stats["counts"])
            for name in ("cache_hits", "cache_misses"):
                counts[name] = sum(stats["languages"].get(name, {}).values())
            for ours, name in (("probe_hits", "cache_hits"), ("probe_misses", "cache_misses"), ("probe_misses", "compilations")):
                counts[name] = counts.get(name, 0) + counts.get(ours, 0)
            settled = sum(counts.get(n, 0) for n in ("cache_writes", "non_cacheable_compilations", "compile_fails", "cache_write_errors"))
            if settled >= counts.get("compilations", 0):
                return counts
            assert time.monotonic() < limit, counts

    def reasons(self) -> dict[str, int]:
        found: dict[str, int] = self.control("stats")["stats"]["reasons"]
        return found

    def verdict_since(self, before: Mapping[str, int]) -> str:
        """What became of the one request since `before`: hit, miss, pass (the client compiled), fail (a miss that did not compile)."""
        self.note_server()
        after = self.counts()
        grown = {name: after.get(name, 0) - before.get(name, 0) for name in after}
        assert grown.get("compile_requests") == 1, grown
        if grown.get("cache_hits"):
            assert not grown.get("compilations"), grown
            return "hit"
        if grown.get("compile_fails"):
            return "fail"
        return "miss" if grown.get("compilations") else "pass"

    def server_pids(self) -> set[int]:
        """The server and its hit workers."""
        family = set(self.pids)
        for pid in self.pids:
            for task in Path(f"/proc/{pid}/task").iterdir():
                family |= {int(child) for child in (task / "children").read_text().split()}
        return family

    def children_faults(self) -> dict[int, str]:
        """By process of the server: page faults of all children that it has ever reaped (proc(5), stat, cminflt)."""
        return {pid: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[8] for pid in self.server_pids()}

    def stop(self) -> None:
        """Stop the server and see that it is really gone, with all that it started."""
        watched = []
        for pid in self.server_pids():
            with contextlib.suppress(ProcessLookupError):
                watched.append((pid, os.pidfd_open(pid)))
        self.control("stop")
        for pid, fd in watched:
            readable, _, _ = select.select([fd], [], [], PATIENCE_S)
            os.close(fd)
            assert readable, f"process {pid} of the server is still there"
        self.pids.clear()

    def close(self) -> None:
        if self.pids:
            self.stop()
        elif os.path.exists(self.env["SCCACHE_SERVER_UDS"]):
            with contextlib.suppress(OSError):
                self.note_server()
                self.stop()


@pytest.fixture(scope="session")
def sysroot() -> Path:
    """The toolchain's own directory, past rustup's proxies."""
    if shutil.which("rustc") is None:
        pytest.skip("no rustc")
    found = subprocess.run(["rustc", "--print", "sysroot"], check=True, capture_output=True, text=True).stdout.strip()
    return Path(found)


@pytest.fixture(scope="session")
def installed(native, tmp_path_factory) -> Path:
    """The client with a server beside it."""
    server = native.client.parent / "sccache-py-server"
    if not server.exists():
        server.write_text(SERVER.format(python=sys.executable))
        server.chmod(0o755)
    return native.client


@pytest.fixture(scope="session")
def world_of() -> type[World]:
    """For worlds that share a server (c_world.py)."""
    return World


_serial = itertools.count()


@pytest.fixture
def make_world(installed, sysroot) -> Iterator[Callable[..., World]]:
    """Makes worlds; at the end their servers are stopped, and are seen to be gone."""
    worlds: list[World] = []

    def make(mode: str = OBSERVED, **server_env: str) -> World:
        # Not tmp_path: a socket's path may have 107 bytes.
        root = Path(tempfile.mkdtemp(prefix="w"))
        for name in ("home", "run", "cache"):
            (root / name).mkdir(mode=0o700)
        env = {
            "PATH": f"{sysroot}/bin:/usr/bin:/bin",
            "HOME": str(root / "home"),
            "CARGO_HOME": str(root / "home" / "cargo"),
            "CARGO_NET_OFFLINE": "true",
            "LANG": "C.UTF-8",
            "TMPDIR": "/tmp",
            "XDG_RUNTIME_DIR": str(root / "run"),
            "SCCACHE_DIR": str(root / "cache"),
            "SCCACHE_SERVER_UDS": str(root / "run" / "s"),
            "SCCACHE_ERROR_LOG": str(root / "log"),
            "SCCACHE_LOG": "info",
            # On a hit no process runs, which the tests count; one that packs what was stored would be in the way.
            "SCCACHE_CACHE_ZSTD_LEVEL": "0",
        }
        if mode == FALLBACK:
            server_env["SCCACHE_NO_OBSERVE"] = "1"
        world = World(root, mode, installed, sysroot, env, server_env)
        worlds.append(world)
        return world

    yield make
    logs = []
    try:
        for world in worlds:
            world.close()
    finally:
        for world in worlds:
            logs.append((world.root / "log").read_text() if (world.root / "log").exists() else "")
            print(f"server's log, {world.mode}:", logs[-1])
            shutil.rmtree(world.root, ignore_errors=True)
    assert not any("Traceback" in log for log in logs)


@pytest.fixture(params=[OBSERVED, FALLBACK])
def world(request: pytest.FixtureRequest, make_world: Callable[..., World]) -> World:
    """One world in each mode."""
    return make_world(request.param)


@pytest.fixture(scope="session")
def macros(sysroot, tmp_path_factory) -> Path:
    """A directory of macro libraries, with their sources: those of macros/, libm.so and so on."""
    made = tmp_path_factory.mktemp("macros")
    for source in (Path(__file__).parent / "macros").glob("*.rs"):
        shutil.copy(source, made)
        words = ["--crate-type", "proc-macro", "--crate-name", source.stem, "-Cprefer-dynamic=no", source.name]
        subprocess.run([sysroot / "bin" / "rustc", *words], cwd=made, check=True, timeout=PATIENCE_S)
    return made
