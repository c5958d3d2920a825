"""Hundreds of compiles, and something is killed all the time: at the end every token is there, and nothing else.

200 compiles by default; SCCACHE_TEST_SOAK=1000 for a night's worth.  Run with `-m soak`.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package

from stage import World, open_world, rustc, wait_until

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3000)]

COMPILES = int(os.environ.get("SCCACHE_TEST_SOAK", "200"))
TOKENS = 3
CLIENTS = 6

SOURCE = """\
#[inline(never)] pub fn f{n}(x: u64) -> u64 {{ let mut v = vec![x; 3]; v.sort(); v.iter().map(|a| a * {n}).sum() }}
"""


@pytest.fixture
def world(native: Any) -> Iterator[World]:
    with open_world(native.client) as world:
        yield world


def children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as f:
                found += map(int, f.read().split())
    return found


def descriptors(pid: int) -> list[str]:
    found = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"/proc/{pid}/fd/{fd}").partition(":")[0].partition(".")[0])
    return sorted(found)


def of_this_world(world: World) -> set[int]:
    """Processes that run below the world's directory or name it."""
    found = set()
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if name.isdecimal() and int(name) != os.getpid() and str(world.directory) in os.readlink(f"/proc/{name}/cwd"):
                found.add(int(name))
    return found


class Soak:
    def __init__(self, world: World, rng: random.Random) -> None:
        self.world = world
        self.rng = rng
        self.serial = itertools.count()
        self.running: list[subprocess.Popen[bytes]] = []
        self.started = 0
        self.kills = dict.fromkeys(("compiler", "client", "wrapper"), 0)

    def line(self, number: int) -> list[str]:
        name = f"s{number}"
        text = "".join(SOURCE.format(n=n) for n in range(self.rng.choice((3, 30, 120))))
        (self.world.cwd / f"{name}.rs").write_text(text)
        out = self.world.out / name
        kind = self.rng.choice(("lib", "lib", "cdylib"))
        line = [rustc(), "--crate-name", name, f"--crate-type={kind}", "--emit=metadata,link,dep-info"]
        return [*line, "-Ccodegen-units=16", f"--out-dir={out}", f"{name}.rs"]

    def begin(self) -> None:
        """A compile by itself, or a make of three under the wrapper."""
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
        if self.rng.random() < 0.75:
            self.running.append(self.world.start(*self.line(next(self.serial)), **quiet))
            self.started += 1
            return
        directory = self.world.cwd / f"make{next(self.serial)}"
        directory.mkdir()
        recipes = []
        for n in range(3):
            words = self.line(next(self.serial))
            recipes.append(f"t{n}:\n\t@cd .. && {self.world.client} {' '.join(words)}\n")
        (directory / "Makefile").write_text("all: t0 t1 t2\n" + "".join(recipes))
        if self.rng.random() < 0.5:
            build = ["--jobserver", "--", "make", "-j4"]
        else:
            one_by_one = " ; ".join(f"make -j1 t{n}" for n in range(3))
            build = ["--jobserver=fifo", "--", "sh", "-c", f"unset MAKEFLAGS; {one_by_one}"]
        self.running.append(self.world.start(*build, cwd=directory, **quiet))
        self.started += 3

    def kill_something(self) -> None:
        what = self.rng.choice(list(self.kills))
        victims: list[int] = []
        if what == "compiler":
            server = self.world.server_pids()[-1]
            victims = children(server)
            victims += [pid for child in victims for pid in children(child)]
        elif what in ("client", "wrapper"):
            wanted = b"--jobserver" if what == "wrapper" else b"--crate-name"
            for process in self.running:
                with contextlib.suppress(OSError):
                    if process.poll() is None and wanted in Path(f"/proc/{process.pid}/cmdline").read_bytes():
                        victims.append(process.pid)
        if not victims:
            return
        victim = self.rng.choice(victims)
        with contextlib.suppress(ProcessLookupError):
            os.kill(victim, self.rng.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM)))
            self.kills[what] += 1

    def reap(self) -> None:
        self.running = [process for process in self.running if process.poll() is None]

    def wait_for_one(self, at_most_s: float) -> None:
        """Until a client has ended, or the time is over."""
        poll = select.poll()
        fds = []
        for process in self.running:
            with contextlib.suppress(ProcessLookupError):
                fds.append(os.pidfd_open(process.pid))
                poll.register(fds[-1], select.POLLIN)
        poll.poll(at_most_s * 1000)
        for fd in fds:
            os.close(fd)
        self.reap()


def test_whatever_is_killed_every_token_comes_back(world: World) -> None:
    """A leak of one token in a thousand compiles halves a two-processor machine within a day."""
    world.env["SCCACHE_JOBS"] = str(TOKENS)
    world.env["SCCACHE_CACHE_ZSTD_LEVEL"] = "0"  # else a process that packs begins in a quiet moment, and has pipes
    seed = int(time.time())
    soak = Soak(world, random.Random(seed))
    assert world.run(*world.crate("first")).returncode == 0
    world.settle()
    server = world.server_pid()
    # Records of observed compiles are kept for the next one, and a database opens files as it likes.
    kinds = ("pipe", "socket", "/dev/null", "anon_inode")

    def held() -> dict[str, int]:
        descriptors_now = descriptors(server)
        return {kind: descriptors_now.count(kind) for kind in kinds}

    wait_until(lambda: held()["socket"] == 3)  # its listener and its loop's own pair: whoever asked last has hung up
    before = held()

    while soak.started < COMPILES or soak.running:
        while soak.started < COMPILES and len(soak.running) < CLIENTS:
            soak.begin()
        soak.wait_for_one(soak.rng.choice((0.01, 0.05, 0.2)))
        if soak.started < COMPILES and soak.rng.random() < 0.5:
            soak.kill_something()

    wait_until(lambda: world.ask("ping")["connections"] == 1)
    wait_until(lambda: world.ask("ping")["storing"] == 0)
    state = world.ask("stats")["surroundings"]["jobserver"]
    assert (state["size"], state["in_use"], state["waiting"]) == (TOKENS, 0, 0), f"seed {seed}: {state}"
    assert world.ask("jobs")["jobs"] == []
    assert world.server_pid() == server, "the server died"
    wait_until(lambda: not (of_this_world(world) - {server}), 10.0)
    assert children(server) == []
    wait_until(lambda: held() == before)
    assert not [p for p in (world.directory / "sccache-py").iterdir() if p.name.startswith("jobserver-")]
    assert "Traceback" not in world.log(), world.log()
    shutil.rmtree(world.out)
    world.out.mkdir()
    assert world.run(*world.crate("last")).returncode == 0
    assert sum(soak.kills.values()) >= COMPILES // 20
    print(f"seed {seed}, {soak.started} compiles, killed: {soak.kills}, reclaimed {state['reclaimed']}")
