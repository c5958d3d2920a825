"""Stored files are compressed when nobody waits for it, by a process that gets only idle processors.

A compile is stored as it is, so that neither its flight nor the next hit waits for a compression, and a build on full processors
is not slowed down.  Behind that a process at the idle priority packs one file after the other; each is then replaced by its
packed form.  It is a process and not a thread: at that priority a thread with the interpreter's lock would make the event loop
wait for every compiler of the machine.  pack_process.py is that process.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import subprocess
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from sccache_py.model import Result
from sccache_py.server.process.quiet import QUIET_S, Quiet
from sccache_py.server.store.keeper import Keeper, digests_of, stored_outputs

log = logging.getLogger(__name__)


class Packer:
    """Lives on the event loop.  command: what starts the process."""

    def __init__(self, keeper: Keeper, command: Sequence[str], quiet: Quiet) -> None:
        self._quiet = quiet
        self._keeper = keeper
        self._command = command
        self._waiting: dict[bytes, Result] = {}
        self._needed: Counter[bytes] = Counter()  # plain files: how many of those that wait need each
        self._work: asyncio.Task[None] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="packing")

    def note(self, key: bytes, result: Result) -> None:
        """It has been stored, perhaps in place of another that still waits."""
        self._quiet.stir()
        digests = digests_of(result)
        if key in self._waiting:
            self._needed.subtract(digests_of(self._waiting.pop(key)))
        if digests:
            self._waiting[key] = result
            self._needed.update(digests)
            if self._work is None:
                self._work = asyncio.ensure_future(self._pack_waiting(QUIET_S))

    async def resume(self) -> None:
        """Go on where an earlier server stopped."""
        for key, result in await self._keeper.unpacked():
            self.note(key, result)

    async def finish(self, patience_s: float) -> None:
        """Pack what waits; what is not done in this time is left to the next server."""
        await _end(self._work)
        if self._waiting and patience_s > 0:
            last = asyncio.ensure_future(self._pack_waiting(0))
            await asyncio.wait([last], timeout=patience_s)
            await _end(last)
        self._thread.shutdown()

    async def _pack_waiting(self, quiet_s: float) -> None:
        try:
            while self._waiting:
                await self._quiet.lasts(quiet_s)
                await self._pack(next(iter(self._waiting)))
        except (OSError, ValueError, RuntimeError) as e:  # RuntimeError: its thread is one too many for the limit on processes
            log.warning("stored files are not packed: %s", e)
            self._waiting.clear()
            self._needed.clear()
        finally:
            self._work = None
            self._dismiss()

    async def _pack(self, key: bytes) -> None:
        result = self._waiting[key]
        digests = digests_of(result)
        expected = [output.digest.hex() for output in stored_outputs(result)]
        plain, scratch = await self._keeper.plain_files(result) or ([], "")
        told: list[str] | None = None
        if plain:
            try:
                told = await asyncio.get_running_loop().run_in_executor(self._thread, self._ask, plain, scratch)
            finally:
                if told != expected:
                    if self._process is not None and told is None:
                        self._process.kill()  # before it makes anything there
                    with contextlib.suppress(OSError):
                        os.unlink(scratch)
        if self._waiting.get(key) is result:
            del self._waiting[key]
            self._needed.subtract(digests)
        if told == expected:
            await self._keeper.replace_by_pack(key, result, scratch, [digest for digest in digests if self._needed[digest] <= 0])
        elif told:
            log.warning("store: not packed, one of them is damaged: %s", ", ".join(plain))

    def _ask(self, plain: list[str], scratch: str) -> list[str]:
        """In the thread.  Raises OSError."""
        if self._process is None:
            pipe, null = subprocess.PIPE, subprocess.DEVNULL
            self._process = subprocess.Popen(self._command, cwd="/", stdin=pipe, stdout=pipe, stderr=null)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([plain, scratch]).encode() + b"\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer.endswith(b"\n"):
            raise OSError("the packing process has gone")
        return answer.decode().split()

    def _dismiss(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()  # between two files, or in one that is then left plain
            # It dies when it gets a processor, which may take a while.
            self._thread.submit(_see_off, process)


async def _end(work: asyncio.Task[None] | None) -> None:
    if work is not None:
        work.cancel()
        await asyncio.wait([work])


def _see_off(process: subprocess.Popen[bytes]) -> None:
    with process:
        pass
