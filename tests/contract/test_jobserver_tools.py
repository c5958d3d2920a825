"""The pool as real tools use it: rustc, gcc's LTO, make, and programs that do not keep to the protocol.

Driven without a server: the pool, a private jobserver, the runner.  The only opinion that counts is the tools' own.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import logging
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sccache_py import makeflags
from sccache_py.model import Request
from sccache_py.server.jobserver import Grant, TokenPool
from sccache_py.server.running.runner import Ran, Runner
from sccache_py.server.running.spawn import Command
from sccache_py.tokens import Need

PATIENCE_S = 60.0


class Watched(TokenPool):
    """A pool that looks at itself after each event."""

    def __init__(self, size: int) -> None:
        self.peak = 0
        self.peak_held = 0
        self.taken = 0
        self.changed = asyncio.Event()
        super().__init__(size)

    def _settle(self) -> None:
        super()._settle()
        assert self.in_use <= self.size
        assert self.free == self.size - self.in_use
        holders = self.policy.holders.values()
        self.peak = max(self.peak, self.in_use)
        self.peak_held = max([self.peak_held, *(h.held for h in holders)])
        self.taken = max([self.taken, *(h.offered - h.unread for h in holders)])
        self.changed.set()

    async def until(self, what: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not what():
                self.changed.clear()
                await self.changed.wait()


class Quiet:
    """Hears what a compiler says, and which group it is."""

    def __init__(self) -> None:
        self.group: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.said = b""

    def started(self, process_group: int) -> None:
        self.group.set_result(process_group)

    def stdout(self, data: bytes) -> None:
        self.said += data

    def stderr(self, data: bytes) -> None:
        self.said += data

    def ended(self, killed_by: int | None, status: int) -> None:
        pass

    async def room(self) -> None:
        pass


def caller(cwd: Path, env: dict[str, str]) -> Request:
    return Request(
        argv=["x"], program="x", cwd=str(cwd), env=env, umask=0o022, nice=0, limits=[], descriptors=7, columns=0, root=(0, 0), here=(0, 0),
        affinity=b"", blocked=0, ignored=0,
    )  # fmt: skip


async def compile_under(
    pool: TokenPool, cwd: Path, *argv: str | Path, audience: Quiet | None = None, env: dict[str, str] | None = None
) -> Ran:
    """As misses.py does it."""
    async with pool.token("build") as grant:
        return await run_granted(pool, grant, cwd, *argv, audience=audience, env=env)


async def run_granted(
    pool: TokenPool, grant: Grant, cwd: Path, *argv: str | Path, audience: Quiet | None = None, env: dict[str, str] | None = None
) -> Ran:
    words = [str(word) for word in argv]
    private = grant.open_private()
    try:
        inherit = (private.child_r, private.child_w)
        theirs = makeflags.with_jobserver({**os.environ, **(env or {})}, pool.size, *inherit)
        program = shutil.which(words[0])
        assert program is not None
        command = Command(program, words, str(cwd), theirs, inherit, caller(cwd, theirs))
        return await Runner(None).run(command, audience or Quiet())
    finally:
        private.close()


def in_a_loop(size: int) -> Callable[[Callable[..., Awaitable[None]]], Callable[..., None]]:
    """The test's body runs in an event loop with a pool of `size`; at the end every token must be there."""

    def wrap(body: Callable[..., Awaitable[None]]) -> Callable[..., None]:
        @functools.wraps(body)
        def test(**fixtures: Any) -> None:
            async def run() -> None:
                pool = Watched(size)
                await body(pool, **fixtures)
                assert (pool.free, pool.in_use, pool.waiting) == (pool.size, 0, 0)
                pool.close()

            before = set(os.listdir("/proc/self/fd"))
            asyncio.run(run())
            assert set(os.listdir("/proc/self/fd")) == before, "descriptors were left open"

        del test.__wrapped__
        parameters = list(inspect.signature(body).parameters.values())[1:]
        test.__signature__ = inspect.Signature(parameters)
        return test

    return wrap


@functools.cache
def rustc() -> str:
    """Past rustup's proxy, which would be the process that we kill."""
    asked = subprocess.run(["rustc", "--print", "sysroot"], stdout=subprocess.PIPE, text=True, check=False)
    if asked.returncode:
        pytest.skip("no rustc")
    return f"{asked.stdout.strip()}/bin/rustc"


def busy_crate(directory: Path, functions: int = 150) -> Path:
    """Enough for 16 codegen units that take a while."""
    one = "#[inline(never)] pub fn f{i}(x: u64) -> u64 {{ let mut v = vec![x; {i} + 3]; v.sort(); v.iter().map(|a| a * {i}).sum() }}\n"
    source = directory / "busy.rs"
    source.write_text("".join(one.format(i=i) for i in range(functions)))
    return source


RUSTC = ("--crate-type=lib", "-Copt-level=1", "-Ccodegen-units=16")


def script(path: Path, text: str) -> Path:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o755)
    with os.fdopen(fd, "w") as f:
        f.write(f"#!/bin/bash\n{text}\n")
    return path


class Log:
    """Programs write a `+` when they begin and a `-` when they end; O_APPEND keeps them in order."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def peak(self) -> int:
        now = highest = 0
        for sign in self.path.read_text():
            now += {"+": 1, "-": -1}.get(sign, 0)
            highest = max(highest, now)
        return highest

    def count(self) -> int:
        return self.path.read_text().count("+")


@pytest.mark.slow
@in_a_loop(4)
async def test_rustc_with_16_units_stays_within_the_pool_and_returns_all(pool: Watched, tmp_path: Path) -> None:
    """rustc asks for a token for each codegen unit, in bursts."""
    audience = Quiet()
    ran = await compile_under(pool, tmp_path, rustc(), *RUSTC, busy_crate(tmp_path), audience=audience)
    assert ran.status == 0
    assert audience.said == b""
    assert pool.taken > 0, "it used no extra token"
    assert pool.peak <= 4
    assert pool.reclaimed == 0


@pytest.mark.slow
@in_a_loop(4)
async def test_a_killed_rustc_gives_back_what_it_held(pool: Watched, tmp_path: Path) -> None:
    """In make's own design these tokens are gone for good (cargo issue #14102)."""
    audience = Quiet()
    source = busy_crate(tmp_path, 600)
    task = asyncio.ensure_future(compile_under(pool, tmp_path, rustc(), *RUSTC, source, audience=audience))
    await pool.until(lambda: any(h.held >= 2 for h in pool.policy.holders.values()))
    killed = time.monotonic()
    os.kill(await audience.group, signal.SIGKILL)
    ran = await task
    assert time.monotonic() - killed < 5  # 100 ms, on a machine that is not busy; else a minute, or never
    assert ran.killed_by == signal.SIGKILL
    assert pool.free == 4
    assert pool.reclaimed >= 1
    small = tmp_path / "small.rs"
    small.write_text("pub fn f() {}\n")
    assert (await compile_under(pool, tmp_path, rustc(), "--crate-type=lib", small)).status == 0


@pytest.mark.slow
@in_a_loop(4)
async def test_rustcs_parallel_front_end_does_not_make_the_pool_smaller(pool: Watched, tmp_path: Path) -> None:
    """-Zthreads leaked a token in 3 of 21 clean exits."""
    source = busy_crate(tmp_path, 20)
    for _ in range(20):
        ran = await compile_under(pool, tmp_path, rustc(), *RUSTC, "-Zthreads=4", source, env={"RUSTC_BOOTSTRAP": "1"})
        assert ran.status == 0
        assert pool.free == 4


@pytest.mark.slow
@in_a_loop(2)
async def test_of_three_rustcs_two_run_and_all_succeed(pool: Watched, tmp_path: Path) -> None:
    """The third one waits for the first end, not for ever."""
    source = busy_crate(tmp_path, 30)

    async def one(number: int) -> Ran:
        return await compile_under(pool, tmp_path, rustc(), *RUSTC, source, f"--out-dir={tmp_path}/{number}")

    results = await asyncio.gather(*map(one, range(3)))
    assert [ran.status for ran in results] == [0, 0, 0]
    assert pool.peak == 2


@in_a_loop(2)
async def test_a_compile_does_not_wait_for_an_idle_offer(pool: Watched, tmp_path: Path) -> None:
    """The only free token may lie before a compiler that will not read it for a minute."""
    async with pool.token("a") as grant:
        private = grant.open_private()
        assert pool.free == 0
        for _ in range(50):
            async with asyncio.timeout(PATIENCE_S), pool.token("b"):
                pass
            assert pool.free == 0
        private.close()


@pytest.mark.slow
@in_a_loop(4)
async def test_the_callers_own_jobserver_is_replaced(pool: Watched, tmp_path: Path) -> None:
    """jobserver-rs reads the first of three variables that exists, and complains of bad descriptors on stderr."""
    env = {"CARGO_MAKEFLAGS": "-j --jobserver-fds=88,89 --jobserver-auth=88,89", "MFLAGS": "-j9 --jobserver-auth=98,99"}
    audience = Quiet()
    ran = await compile_under(pool, tmp_path, rustc(), *RUSTC, busy_crate(tmp_path), audience=audience, env=env)
    assert ran.status == 0
    assert audience.said == b""
    assert pool.taken > 0


@pytest.mark.slow
@in_a_loop(2)
async def test_gcc_runs_no_more_lto1_than_there_are_tokens(pool: Watched, tmp_path: Path) -> None:
    """LTO's partitions run under make, which speaks the protocol."""
    gcc = shutil.which("gcc")
    if gcc is None:
        pytest.skip("no gcc")
    real = subprocess.run([gcc, "-print-prog-name=lto1"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    if not os.path.isabs(real):
        pytest.skip("a gcc without LTO")
    log = Log(tmp_path / "log")
    tools = tmp_path / "tools"
    tools.mkdir()
    script(tools / "lto1", f'printf + >>{log.path}\n{real} "$@"\nstatus=$?\nprintf -- - >>{log.path}\nexit $status')
    sources = []
    for n in range(8):
        sources.append(tmp_path / f"m{n}.c")
        used = "__attribute__((used, noinline)) int"
        body = "".join(
            f"{used} f{n}_{i}(int x) {{ int s = 0; for (int k = 0; k < x; k++) s += k * {i} + {n}; return s; }}\n" for i in range(60)
        )
        sources[-1].write_text(body + ("int main(void) { return 0; }\n" if n == 0 else ""))
    flags = (f"-B{tools}/", "-O2", "-flto=auto", "-flto-partition=1to1", "-o", tmp_path / "program")
    audience = Quiet()
    ran = await compile_under(pool, tmp_path, gcc, *flags, *sources, audience=audience)
    assert ran.status == 0, audience.said
    assert audience.said == b""
    assert log.count() >= 8, "LTO made no partitions"
    assert log.peak() <= 2


class Gate:
    """Recipes log a `+`, wait for a byte, log a `-`."""

    def __init__(self, directory: Path) -> None:
        self.log = Log(directory / "log")
        self.path = directory / "gate"
        begun = directory / "begun"
        os.mkfifo(self.path)
        os.mkfifo(begun)
        self._fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        self._begun = os.open(begun, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._count = 0
        self._news = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._begun, self._came)
        log = self.log.path
        self.recipe = f"printf + >>{log}; printf + >{begun}; head -c1 {self.path} >/dev/null; printf -- - >>{log}"

    def _came(self) -> None:
        self._count += len(os.read(self._begun, 4096))
        self._news.set()

    async def arrived(self, count: int) -> None:
        """Until so many have begun."""
        async with asyncio.timeout(PATIENCE_S):
            while self._count < count:
                self._news.clear()
                await self._news.wait()

    def let_pass(self, count: int = 1) -> None:
        os.write(self._fd, b"x" * count)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._begun)
        os.close(self._begun)
        os.close(self._fd)


async def run_a_make_of_eight(pool: Watched, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    targets = " ".join(f"t{n}" for n in range(8))
    (tmp_path / "Makefile").write_text(f"all: {targets}\n{targets}:\n\t@{gate.recipe}\n")
    compiler = script(tmp_path / "compiler", "make\n")
    audience = Quiet()
    task = asyncio.ensure_future(compile_under(pool, tmp_path, compiler, audience=audience))
    for done in range(8):
        await gate.arrived(min(done + 4, 8))
        gate.let_pass()
    ran = await task
    gate.close()
    assert ran.status == 0
    assert b"jobserver" not in audience.said
    assert gate.log.peak() == 4


@pytest.mark.slow
@in_a_loop(4)
async def test_a_compiler_that_runs_make_uses_the_whole_pool_and_no_more(pool: Watched, tmp_path: Path) -> None:
    """A linker driver, or a gcc that was built so."""
    await run_a_make_of_eight(pool, tmp_path)


@contextlib.contextmanager
def descriptors_to_spare(count: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count + 100:
        pytest.skip("not allowed so many descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count + 100), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.slow
@in_a_loop(4)
async def test_two_thousand_open_descriptors_are_no_hindrance(pool: Watched, tmp_path: Path) -> None:
    """make aborts on a jobserver above FD_SETSIZE (1024), and a busy server has that many connections."""
    with descriptors_to_spare(2000):
        many = [os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC) for _ in range(2000)]
        try:
            await run_a_make_of_eight(pool, tmp_path)
        finally:
            for fd in many:
                os.close(fd)


@in_a_loop(4)
async def test_what_a_program_returns_without_having_taken_it_is_dropped(
    pool: Watched, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A pool that grows with each such program ends in swap."""
    forger = script(tmp_path / "forger", "fds=${MAKEFLAGS##*=}; head -c1 <&${fds%,*} >/dev/null; printf +++++ >&${fds#*,}")
    with caplog.at_level(logging.WARNING):
        ran = await compile_under(pool, tmp_path, forger)
    assert ran.status == 0
    assert pool.free == 4
    assert len([r for r in caplog.records if "had not taken" in r.message]) == 1


@pytest.mark.slow
@in_a_loop(4)
async def test_a_linker_that_outlives_its_rustc_is_ended_with_it(pool: Watched, tmp_path: Path) -> None:
    """It inherits the jobserver, so the end of the pipe says nothing; and it would sleep on for nobody."""
    begun = tmp_path / "begun"
    os.mkfifo(begun)
    linker = script(tmp_path / "linker", f"echo $$ >{begun}\nexec sleep 60")
    program = tmp_path / "p.rs"
    program.write_text("fn main() {}\n")
    audience = Quiet()
    task = asyncio.ensure_future(compile_under(pool, tmp_path, rustc(), f"-Clinker={linker}", program, audience=audience))
    with await asyncio.to_thread(open, begun) as f:
        linker_pid = int(f.read())
    linker_ends = os.pidfd_open(linker_pid)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(linker_ends, ended.set)
    killed = time.monotonic()
    os.kill(await audience.group, signal.SIGKILL)
    ran = await task
    assert pool.free == 4
    assert time.monotonic() - killed < 5  # 100 ms, on a machine that is not busy; else a minute, or never
    async with asyncio.timeout(PATIENCE_S):
        await ended.wait()
    asyncio.get_running_loop().remove_reader(linker_ends)
    os.close(linker_ends)
    assert ran.killed_by == signal.SIGKILL


def all_that_can_be_opened() -> Iterator[int]:
    while True:
        try:
            yield os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return


@in_a_loop(2)
async def test_a_compiler_for_which_no_pipes_are_left_gets_an_empty_jobserver(pool: Watched, tmp_path: Path) -> None:
    """Without any, rustc would make a pool of 32 for itself."""
    ask = script(tmp_path / "ask", "fds=${MAKEFLAGS##*=}; [ -p /proc/self/fd/${fds%,*} ] && [ -p /proc/self/fd/${fds#*,} ]")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with pool.token("a") as grant:
        highest = max(int(fd) for fd in os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 2, limits[1]))
        try:
            fillers = list(all_that_can_be_opened())
            private = grant.open_private()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            for fd in fillers:
                os.close(fd)
        assert pool.policy.holders[grant.id].joined is False
        env = makeflags.with_jobserver(dict(os.environ), 2, private.child_r, private.child_w)
        done = subprocess.run([ask], env=env, pass_fds=(private.child_r, private.child_w), check=False)
        assert done.returncode == 0
        private.close()


def test_a_compile_that_is_known_to_be_large_waits_for_memory_and_starts_when_there_is_some() -> None:
    """The pool looks at the machine's memory whenever something may have changed."""
    left = 1_000_000

    async def run() -> None:
        nonlocal left
        pool = TokenPool(4, lambda: left)
        large = Need(800_000, 10.0)
        async with contextlib.AsyncExitStack() as second:
            async with pool.token("a", need=large):
                waiter = asyncio.ensure_future(second.enter_async_context(pool.token("b", need=large)))
                await asyncio.sleep(0)
                assert pool.waiting == 1
                async with pool.token("c"):  # whose memory nobody knows
                    assert pool.in_use == 2
                left = 4_000_000
                async with asyncio.timeout(PATIENCE_S):
                    await waiter
            assert pool.in_use == 1
        assert pool.free == 4
        pool.close()

    asyncio.run(run())


def test_a_large_compile_starts_when_nothing_else_runs() -> None:
    """Whatever the prediction says: it may be wrong, and waiting would not end."""

    async def run() -> None:
        pool = TokenPool(2, lambda: 0)
        async with asyncio.timeout(PATIENCE_S):
            for _ in range(2):
                async with pool.token("a", need=Need(1 << 30, 10.0)):
                    pass
        pool.close()

    asyncio.run(run())
