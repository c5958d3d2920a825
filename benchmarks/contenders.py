"""Who is compared: the compiler alone, ourselves, and the peers, each with the settings that its own documentation recommends.

A contender lives in a `Room`: an empty cache, a home directory and a runtime directory for its sockets, so that nobody
meets a server or an entry of someone else.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import machine

# Whatever these say about compilers and caches must not decide what is measured.
_DROPPED = re.compile(
    r"(S?CCACHE|ZCCACHE|KACHE|CARGO|RUSTC|RUSTFLAGS|RUSTDOC|CMAKE|NINJA|MAKE)"
    r"|(CC|CXX|CFLAGS|CXXFLAGS|CPPFLAGS|LD_PRELOAD)$"
)
_KEPT = {"CARGO_HOME"}

C = frozenset({"c", "c++"})
RUST = frozenset({"rust"})

_STOP_S = 10.0


def clean_environment() -> dict[str, str]:
    """The caller's environment without what configures compilers; cargo and rustup still find their homes."""
    env = {name: value for name, value in os.environ.items() if name in _KEPT or not _DROPPED.match(name)}
    home = env.get("HOME", "/")
    env.setdefault("CARGO_HOME", f"{home}/.cargo")
    env.setdefault("RUSTUP_HOME", f"{home}/.rustup")
    env.update(CARGO_INCREMENTAL="0", CARGO_NET_OFFLINE="true", CARGO_TERM_COLOR="never", LC_ALL="C.UTF-8")
    return env


def _runtime_parent() -> str:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else tempfile.gettempdir()


def sweep(rooms: Path) -> None:
    """What a killed run has left: its servers and its directories.  Rooms and runtime directories carry their run's pid."""
    for place in [*rooms.glob("*"), *Path(_runtime_parent()).glob("bench-*-*")]:
        pid = place.name.removeprefix("bench-").partition("-")[0]
        if pid.isdigit() and not Path("/proc", pid).exists() and place.stat().st_uid == os.getuid():
            _end(place)
            shutil.rmtree(place, ignore_errors=True)


def _end(*marks: Path) -> None:
    """End every process that was started for these directories."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in machine.processes_of(*marks):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        for _ in range(40):
            if not machine.processes_of(*marks):
                return
            time.sleep(0.05)


@dataclass(frozen=True, slots=True)
class Room:
    cache: Path
    home: Path
    runtime: Path  # short, on tmpfs if there is one: sockets have short names

    @staticmethod
    def make(parent: Path, name: str) -> Room:
        parent.mkdir(parents=True, exist_ok=True)
        place = Path(tempfile.mkdtemp(prefix=f"{name.replace(', ', '-').replace(' ', '-')}-", dir=parent))
        room = Room(place / "cache", place / "home", Path(tempfile.mkdtemp(prefix=f"bench-{os.getpid()}-", dir=_runtime_parent())))
        room.home.mkdir()
        return room

    def remove(self) -> None:
        shutil.rmtree(self.cache.parent, ignore_errors=True)
        shutil.rmtree(self.runtime, ignore_errors=True)


class Contender:
    """The compiler alone; the base of all others."""

    name = "plain"
    languages = C | RUST
    has_server = False

    def __init__(self, program: str | None = None) -> None:
        self.program = program
        self.room: Room | None = None

    def version(self) -> str:
        return ""

    def environment(self) -> dict[str, str]:
        env = clean_environment()
        if self.room is not None:
            env.update(HOME=str(self.room.home), XDG_RUNTIME_DIR=str(self.room.runtime))
            for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
                env.pop(name, None)
            env.update(self.settings(self.room))
        return env

    def cargo_environment(self) -> dict[str, str]:
        """The same with the wrapper in place."""
        env = self.environment()
        if self.program is not None:
            env["RUSTC_WRAPPER"] = self.program
        return env

    def settings(self, room: Room) -> dict[str, str]:
        return {}

    def command(self, compiler: Sequence[str]) -> list[str]:
        """How a single compile is called."""
        return [self.program, *compiler] if self.program is not None else list(compiler)

    def start(self) -> None:
        """A server that starts by itself needs nothing here."""

    def stop_words(self) -> list[str] | None:
        return None

    def servers(self) -> list[int]:
        return machine.processes_of(self.room.cache.parent, self.room.runtime) if self.has_server and self.room is not None else []

    def hits(self) -> int | None:
        """How many answers came from its cache; None: it does not say."""
        return None

    def ask(self, *words: str) -> str:
        assert self.program is not None
        argv, env = [self.program, *words], self.environment()
        return subprocess.run(argv, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60, check=False).stdout

    @contextlib.contextmanager
    def at_work(self, rooms: Path) -> Iterator[Contender]:
        """In an empty room of its own, with its server; whatever happens, no process of it is left."""
        self.room = Room.make(rooms, self.name)
        try:
            self.start()
            yield self
        finally:
            self.stop()
            self.room.remove()
            self.room = None

    def stop(self) -> None:
        words = self.stop_words()
        if words is not None:
            with contextlib.suppress(OSError, subprocess.SubprocessError):
                subprocess.run(
                    words,
                    env=self.environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    timeout=60,
                    check=False,
                )
        assert self.room is not None
        marks = (self.room.cache.parent, self.room.runtime)
        end = time.monotonic() + (_STOP_S if words is not None else 0)
        while machine.processes_of(*marks) and time.monotonic() < end:
            time.sleep(0.05)
        _end(*marks)


class Control(Contender):
    """The compiler alone, once more: how far it is from itself is what the run's figures are worth."""

    name = "plain again"


class Ours(Contender):
    name = "sccache-py"
    has_server = True

    def version(self) -> str:
        return machine.first_line([str(self.program), "--version"])

    def settings(self, room: Room) -> dict[str, str]:
        return {
            "SCCACHE_DIR": str(room.cache),
            "SCCACHE_SERVER_UDS": str(room.runtime / "s"),
            "SCCACHE_IDLE_TIMEOUT": "0",
            "SCCACHE_CACHE_SIZE": "40G",
        }

    def cargo_environment(self) -> dict[str, str]:
        """Through a link named sccache, as the README says: the cc crate then hands over its compiles, too."""
        assert self.room is not None
        assert self.program is not None
        link = self.room.home / "sccache"
        if not link.is_symlink():
            link.symlink_to(self.program)
        return self.environment() | {"RUSTC_WRAPPER": str(link)}

    def start(self) -> None:
        self.ask("--start-server")

    def stop_words(self) -> list[str]:
        return [str(self.program), "--stop-server"]

    def hits(self) -> int | None:
        """Ours tells of questions (`-vV`, `--print`) apart."""
        told = json.loads(self.ask("--show-stats", "--stats-format", "json"))
        hits: dict[str, int] = told["stats"]["cache_hits"]["counts"]
        probes: dict[str, int] = told.get("probes", {})
        return sum(hits.values()) + probes.get("hits", 0)


class Leveled(Ours):
    """Ourselves once more, with stored files compressed at some other level than the default."""

    def __init__(self, program: str | None, level: int) -> None:
        super().__init__(program)
        self.name = f"sccache-py, zstd {level}"
        self._level = level

    def settings(self, room: Room) -> dict[str, str]:
        return super().settings(room) | {"SCCACHE_CACHE_ZSTD_LEVEL": str(self._level)}


class Sccache(Contender):
    name = "sccache"
    has_server = True

    def version(self) -> str:
        return machine.first_line([str(self.program), "--version"])

    def settings(self, room: Room) -> dict[str, str]:
        return {
            "SCCACHE_DIR": str(room.cache),
            "SCCACHE_SERVER_UDS": str(room.runtime / "s"),
            "SCCACHE_IDLE_TIMEOUT": "0",
            "SCCACHE_CACHE_SIZE": "40G",
        }

    start = Ours.start
    stop_words = Ours.stop_words
    hits = Ours.hits


class Ccache(Contender):
    name = "ccache"
    languages = C

    def version(self) -> str:
        return machine.first_line([str(self.program), "--version"])

    def settings(self, room: Room) -> dict[str, str]:
        return {"CCACHE_DIR": str(room.cache), "CCACHE_INODECACHE": "1", "CCACHE_MAXSIZE": "40G"}

    def hits(self) -> int | None:
        counts = dict(line.split("\t") for line in self.ask("--print-stats").splitlines() if line.count("\t") == 1)
        return int(counts.get("direct_cache_hit", 0)) + int(counts.get("preprocessed_cache_hit", 0))


class Zccache(Contender):
    name = "zccache"
    has_server = True

    def version(self) -> str:
        return machine.first_line([str(self.program), "--version"])

    def settings(self, room: Room) -> dict[str, str]:
        return {"ZCCACHE_CACHE_DIR": str(room.cache), "ZCCACHE_DAEMON_NAMESPACE": room.runtime.name, "ZCCACHE_IDLE_TIMEOUT_SECS": "86400"}

    def cargo_environment(self) -> dict[str, str]:
        """CC as its help says; the cc crate splits that at the space only for wrappers it is told of."""
        return super().cargo_environment() | {"CC": f"{self.program} cc", "CC_KNOWN_WRAPPER_CUSTOM": "zccache"}

    def start(self) -> None:
        self.ask("start")

    def stop_words(self) -> list[str]:
        return [str(self.program), "stop"]

    def hits(self) -> int | None:
        found = re.search(r"\((\d+) cached", self.ask("status"))
        return int(found[1]) if found else None


class Kache(Contender):
    name = "kache"
    has_server = True

    def version(self) -> str:
        return machine.first_line([str(self.program), "--version"])

    def settings(self, room: Room) -> dict[str, str]:
        return {
            "KACHE_CACHE_DIR": str(room.cache),
            "KACHE_RUNTIME_DIR": str(room.runtime),
            "KACHE_CONFIG": str(room.home / "kache.toml"),
            "KACHE_HOST_CONFIG": str(room.home / "host.toml"),
        }

    def start(self) -> None:
        self.ask("daemon", "start")

    def stop_words(self) -> list[str]:
        return [str(self.program), "daemon", "stop"]


PEERS: dict[str, type[Contender]] = {c.name: c for c in (Sccache, Ccache, Zccache, Kache)}
