"""What C tests see of a world: one compiler, and directories, statistics and, by the cache buster, a cache of each test's own.

A plain module, not a conftest: `from c_world import one_compiler, shared_server` in a test file makes them its fixtures.
"""

from __future__ import annotations

import select
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

OBSERVED, FALLBACK = "observed", "fallback"
PATIENCE_S = 60


@dataclass
class C:
    """A world seen with one C compiler; `name` is gcc or clang."""

    world: Any
    name: str

    def __post_init__(self) -> None:
        self.plus = {"gcc": "g++", "clang": "clang++"}[self.name]
        self.p, self.o, self.write = self.world.p, self.world.o, self.world.write

    @property
    def is_gcc(self) -> bool:
        return self.name == "gcc"

    def expect(self, verdict: str, *args: str, **how: Any) -> Any:
        return self.world.expect(verdict, *args, **{"rustc": self.name, **how})

    def compile_twice(self, *args: str, **how: Any) -> Any:
        return self.world.compile_twice(*args, **{"rustc": self.name, **how})

    def changes(self, change: Callable[[], object], undo: Callable[[], object], *args: str, **how: Any) -> None:
        self.world.changes(change, undo, *args, **{"rustc": self.name, **how})

    def changes_text(self, name: str, text: str, *args: str, **how: Any) -> None:
        self.world.changes_text(name, text, *args, **{"rustc": self.name, **how})

    def refused(self, reason: str, *args: str, **how: Any) -> Any:
        return self.world.refused(reason, *args, **{"rustc": self.name, **how})

    def not_stored(self, reason: str, *args: str, **how: Any) -> Any:
        return self.world.not_stored(reason, *args, **{"rustc": self.name, **how})

    @property
    def observed(self) -> bool:
        return bool(self.world.observed)

    def left_out(self, reason: str, *args: str, **how: Any) -> bool:
        """Without observation: this compile is not cached, for this reason, and right twice.  False where it is observed."""
        if self.observed:
            return False
        self.world.control("zero")
        check = self.refused if reason.startswith("C without") or reason.startswith("script") else self.not_stored
        check(reason, *args, **how)
        return True

    def beside(self, name: str) -> C:
        """The same compiler and server; directories and a cache of its own, which go when this one's go."""
        world = self.world
        root = world.root / name
        root.mkdir()
        buster = {"SCCACHE_C_CUSTOM_CACHE_BUSTER": str(root)}
        return C(type(world)(root, world.mode, world.client, world.sysroot, world.env, buster, pids=set(world.pids)), self.name)

    def object(self, name: str = "x.o") -> str:
        return str(self.o / name)


@pytest.fixture(name="c_servers", scope="session")
def shared_server(installed, world_of) -> Iterator[Callable[[str], Any]]:
    """One server for all C tests of a mode: to learn a C toolchain takes it longer than most of them."""
    worlds: dict[str, Any] = {}

    def server(mode: str) -> Any:
        if mode not in worlds:
            worlds[mode] = start(mode)
        return worlds[mode]

    def start(mode: str) -> Any:
        root = Path(tempfile.mkdtemp(prefix="w"))
        for name in ("home", "run", "cache"):
            (root / name).mkdir(mode=0o700)
        env = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(root / "home"),
            "LANG": "C.UTF-8",
            "TMPDIR": "/tmp",
            "XDG_RUNTIME_DIR": str(root / "run"),
            "SCCACHE_DIR": str(root / "cache"),
            "SCCACHE_SERVER_UDS": str(root / "run" / "s"),
            "SCCACHE_ERROR_LOG": str(root / "log"),
            "SCCACHE_LOG": "info",
            # The session may go on for long after the last C test.
            "SCCACHE_IDLE_TIMEOUT": "0",
            # On a hit no process runs, which the tests count; one that packs what was stored would be in the way.
            "SCCACHE_CACHE_ZSTD_LEVEL": "0",
        }
        if mode == FALLBACK:
            env["SCCACHE_NO_OBSERVE"] = "1"
        world = world_of(root, mode, installed, Path("/usr"), env)
        world.run([str(installed), "gcc", "--version"], None, {})
        # A client does not wait long for a server that starts: on a busy machine it is not there yet.
        give_up = time.monotonic() + PATIENCE_S
        while not world.pids:
            try:
                world.note_server()
            except OSError:
                assert time.monotonic() < give_up, "the server did not start"
                select.select([], [], [], 0.02)
        return world

    yield server
    try:
        for world in worlds.values():
            world.close()
    finally:
        for world in worlds.values():
            shutil.rmtree(world.root, ignore_errors=True)


@pytest.fixture(name="c", params=[f"{name}-{mode}" for mode in (OBSERVED, FALLBACK) for name in ("gcc", "clang")])
def one_compiler(request: pytest.FixtureRequest, c_servers: Callable[[str], Any], world_of: Any) -> Iterator[C]:
    """For each C compiler in each mode, directories and statistics of the test's own and, by the cache buster, a cache."""
    name, _, mode = request.param.partition("-")
    if shutil.which(name) is None:
        pytest.skip(f"no {name}")
    server = c_servers(mode)
    root = Path(tempfile.mkdtemp(prefix="w"))
    buster = {"SCCACHE_C_CUSTOM_CACHE_BUSTER": f"{root}"}
    server.control("zero")
    log = server.root / "log"
    before = log.stat().st_size
    yield C(world_of(root, mode, server.client, server.sysroot, server.env, buster, pids=set(server.pids)), name)
    said = log.read_bytes()[before:].decode(errors="replace")
    print(f"server's log, {mode}:", said[-2000:])
    shutil.rmtree(root)
    assert "Traceback" not in said
