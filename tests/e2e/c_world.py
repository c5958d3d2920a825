"""What C tests see of a world: one compiler, and directories, statistics and, by the cache buster, a cache of each test's own.

A plain module, not a conftest: `from c_world import one_compiler, shared_server` in a test file makes them its fixtures.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


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

    def object(self, name: str = "x.o") -> str:
        return str(self.o / name)


@pytest.fixture(name="c_server", scope="session")
def shared_server(installed, world_of) -> Iterator[Any]:
    """One server for all C tests: to learn a C toolchain takes it longer than most of them."""
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
    }
    world = world_of(root, "observed", installed, Path("/usr"), env)
    world.run([str(installed), "gcc", "--version"], None, {})
    world.note_server()
    yield world
    try:
        world.close()
    finally:
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(name="c", params=["gcc", "clang"])
def one_compiler(request: pytest.FixtureRequest, c_server: Any, world_of: Any) -> Iterator[C]:
    """For each C compiler, directories and statistics of the test's own and, by the cache buster, a cache."""
    if shutil.which(request.param) is None:
        pytest.skip(f"no {request.param}")
    root = Path(tempfile.mkdtemp(prefix="w"))
    buster = {"SCCACHE_C_CUSTOM_CACHE_BUSTER": f"{root}"}
    c_server.control("zero")
    yield C(world_of(root, "observed", c_server.client, c_server.sysroot, c_server.env, buster, pids=set(c_server.pids)), request.param)
    print("server's log:", (c_server.root / "log").read_text()[-2000:])
    shutil.rmtree(root)
