"""What the pool of job tokens adds to the start of a compile, against starting it without.

    python benchmarks/jobserver_cost.py [COUNT]

Prints medians in milliseconds: of a spawn and wait of /bin/true by the server's own runner, of the same inside a token, of the same
with a private jobserver; and of the parts by themselves.  Goal: at most 0.2 ms for all that a compile pays (docs/jobserver.md).
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable

from sccache_py import makeflags
from sccache_py.model import Request
from sccache_py.server.jobs.builds import build_of
from sccache_py.server.jobs.memory import Memory
from sccache_py.server.jobserver import TokenPool
from sccache_py.server.process.machine import processors
from sccache_py.server.running.runner import Nobody, Runner
from sccache_py.server.running.spawn import Command
from sccache_py.tokens import Need

GOAL_MS = 0.2


CALLER = Request(
    argv=["true"], program="/bin/true", cwd="/", env={}, umask=0o022, nice=0, limits=[], descriptors=7, columns=0, root=(0, 0), here=(0, 0),
    affinity=b"", blocked=0, ignored=0,
)  # fmt: skip


# As the server starts compilers, where the client is installed beside this Python.
_CLIENT = os.path.join(os.path.dirname(sys.executable), "sccache-py")
NATIVE = _CLIENT if os.access(_CLIENT, os.X_OK) else None


async def spawn(env: dict[str, str], inherit: tuple[int, ...] = ()) -> None:
    await Runner(NATIVE).run(Command("/bin/true", ["true"], "/", env, inherit, CALLER), Nobody())


async def main(count: int) -> None:
    memory = Memory()
    pool = TokenPool(processors(), memory.available_kib)
    env = dict(os.environ)

    async def nothing() -> None:
        await spawn(env)

    async def with_token() -> None:
        async with pool.token(build_of(os.getpid()).key, need=Need(1000, 1.0)):
            await spawn(env)

    async def with_private() -> None:
        async with pool.token(build_of(os.getpid()).key, need=Need(1000, 1.0)) as grant:
            private = grant.open_private()
            ends = (private.child_r, private.child_w)
            await spawn(makeflags.with_jobserver(env, pool.size, *ends), ends)
            private.close()

    async def token_alone() -> None:
        async with pool.token("b"):
            pass

    async def private_alone() -> None:
        async with pool.token("b") as grant:
            grant.open_private().close()

    async def build_alone() -> None:
        build_of(os.getpid())

    async def memory_alone() -> None:
        memory.available_kib()

    rows: dict[str, Callable[[], Awaitable[None]]] = {
        "spawn and wait, without a pool": nothing,
        "... inside a token": with_token,
        "... and with a private jobserver": with_private,
        "a token alone": token_alone,
        "a token and a private jobserver alone": private_alone,
        "finding the build alone": build_alone,
        "looking at memory alone": memory_alone,
    }
    times: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(count):
        # In turn, so that a busy moment of the machine hits all alike.
        for name, work in rows.items():
            began = time.perf_counter()
            await work()
            times[name].append((time.perf_counter() - began) * 1000)
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, median in medians.items():
        print(f"{name:40} {median:8.3f} ms")
    first, token, private, *_ = medians.values()
    print(f"{'added by a token':40} {token - first:8.3f} ms")
    print(f"{'added by a token and a private jobserver':40} {private - first:8.3f} ms (goal: {GOAL_MS})")
    pool.close()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 500))
