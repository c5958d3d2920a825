"""Builds that run inside the pool: the server's half of `sccache-py --jobserver` (docs/protocol.md, section 2, LEASE).

The wrapper gets the ends of a channel by SCM_RIGHTS, or the name of a FIFO, and holds the connection open while its build runs.
However it dies, the connection closes, and all that it held is back.  The far ends of the pair go to it as well: should *we* die,
it plays the jobserver for what is left of its build.
"""

from __future__ import annotations

import asyncio
import contextlib
import glob
import os
import secrets
from typing import Any, Protocol

from sccache_py.server.filesystem.private import remove_unless_held
from sccache_py.server.jobs.under_way import BUILDING, WAITING_FOR_TOKEN, Jobs, Seen
from sccache_py.server.jobserver import TokenPool
from sccache_py.server.running.channels import FIFO

_PREFIX = "jobserver-"


class Wrapper(Protocol):
    """The wrapper's connection."""

    @property
    def pid(self) -> int: ...
    def leased(self, answer: dict[str, Any], descriptors: tuple[int, ...]) -> None: ...


class Leases:
    def __init__(self, pool: TokenPool, jobs: Jobs, runtime: str, tasks: set[asyncio.Task[None] | None]) -> None:
        """runtime: where FIFOs are made, each in a directory of its own.  tasks: those of the leases that are out are put there."""
        self._pool = pool
        self._jobs = jobs
        self._runtime = runtime
        self._tasks = tasks

    async def serve(self, wrapper: Wrapper, arguments: dict[str, Any]) -> None:
        """Runs until it is cancelled, when the connection is gone.  Raises OSError if there can be no channel."""
        command = [w.decode("utf-8", "surrogateescape") for w in arguments.get("command", []) if isinstance(w, bytes)]
        cwd = arguments.get("cwd", b"")
        words = command or ["?"]
        directory = os.path.join(self._runtime, f"{_PREFIX}{os.getpid()}-{secrets.token_hex(8)}")
        style = str(arguments.get("style"))
        name = f"{os.path.basename(words[0])} {wrapper.pid}"
        seen = Seen(wrapper.pid, lambda: name, words[0], " ".join(words[1:]), os.fsdecode(cwd), WAITING_FOR_TOKEN)
        task = asyncio.current_task()
        self._tasks.add(task)
        try:
            with self._jobs.watch(seen):
                async with self._pool.lease(directory, style, seen.waits_as) as (grant, channel):
                    seen.turns_to(BUILDING, grant.id)
                    answer: dict[str, Any] = {"lease": grant.lease, "size": self._pool.size}
                    if channel.path is not None:
                        answer["fifo"] = os.fsencode(channel.path)
                        wrapper.leased(answer, ())
                    else:
                        ends = (channel.child_r, channel.child_w, channel.far_w, channel.far_r)
                        wrapper.leased(answer, tuple(fd for fd in ends if fd >= 0))
                    await asyncio.get_running_loop().create_future()
        finally:
            self._tasks.discard(task)


def sweep(runtime: str) -> None:
    """Remove the FIFOs of servers that were killed, once their builds have ended, too: both hold a lock."""
    for directory in glob.glob(f"{glob.escape(runtime)}/{_PREFIX}*"):
        with contextlib.suppress(OSError):
            remove_unless_held(f"{directory}/{FIFO}")
        with contextlib.suppress(OSError):
            os.rmdir(directory)
