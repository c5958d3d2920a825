"""Wiring: the one file that names every class.  `main` is the program sccache-py-server."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import gc
import json
import logging
import os
import signal
import socket
import sys
import time
from typing import Any

from sccache_py import __version__, config
from sccache_py.config import settings_from_json, settings_to_json
from sccache_py.errors import StoreError
from sccache_py.server.filesystem.files import FileMemo
from sccache_py.server.filesystem.private import open_log
from sccache_py.server.filesystem.watch import Watcher
from sccache_py.server.hit.other_defines import OtherDefines
from sccache_py.server.hit.rehearsal import Rehearsal
from sccache_py.server.hit.restore import Restorer
from sccache_py.server.hit.second_chance import SecondChance
from sccache_py.server.jobs.leases import Leases, sweep
from sccache_py.server.jobs.memory import Memory
from sccache_py.server.jobs.under_way import Jobs
from sccache_py.server.jobserver import TokenPool
from sccache_py.server.miss.deposit import Depositor
from sccache_py.server.miss.flights import Flights
from sccache_py.server.miss.misses import Misses
from sccache_py.server.pipeline import Pipeline
from sccache_py.server.planning import Planner
from sccache_py.server.process import heap, trace
from sccache_py.server.process.machine import is_traced, nobody_else_lives, processors
from sccache_py.server.process.quiet import Quiet
from sccache_py.server.process.threads import Threads
from sccache_py.server.running.observer import Observer
from sccache_py.server.running.runner import Runner
from sccache_py.server.serving.connection import Service
from sccache_py.server.serving.daemon import (
    AlreadyRunning,
    Claim,
    announce,
    detach,
    die_with_parent,
    drop_surroundings,
    take_uncounted,
    users_home,
)
from sccache_py.server.serving.listener import Listener
from sccache_py.server.serving.workers import Link, Owner, how_many
from sccache_py.server.store.keeper import Keeper
from sccache_py.server.store.opening import open_directory, open_store
from sccache_py.server.store.packing import Packer
from sccache_py.server.toolchains.identify import Toolchains
from sccache_py.stats import Stats
from sccache_py.wire import ProtocolError

log = logging.getLogger(__name__)

# How often the server looks whether its name is still its own, whether a build stands still, and whether one is over: then nobody has
# asked for anything for so long.
_WATCH_S = 10.0
_REST_S = 5.0

# Who asked for something so recently is building.
_BUSY_S = 0.5

# Who stops the server waits this long for stored files to be compressed.
_PACKING_PATIENCE_S = 60.0

# Two callers each of whom may do what the other may not get a new server this often at most.
_STAYS_S = 10.0

# A thread that computes gives way to the event loop within this time.
_SWITCH_S = 0.0005


class Parts:
    """What a process needs to answer hits; the owner and each hit worker have their own."""

    def __init__(self, settings: config.Settings, native: str | None, runtime: str) -> None:
        self.settings = settings
        with contextlib.suppress(OSError):
            trace.start(settings.trace)
        self.stats = Stats()
        self.store, self.for_now = open_store(settings)
        self.memo = FileMemo(Watcher() if settings.watch else None)
        self.keeper = Keeper(self.store, self.stats, self.memo, settings.read_only)
        self.threads = Threads()
        self.observer = Observer(native, runtime)
        client = os.path.join(native, "sccache-py") if native is not None else None
        self.runner = Runner(client if client is not None and self.observer.library is not None else None)
        self.pool = TokenPool(settings.jobs or processors(), Memory().available_kib if settings.memory_admission else None)
        self.jobs = Jobs()
        second = SecondChance(self.memo, self.keeper, self.threads, lambda work: self.listener.in_background(work))
        self.pipeline = Pipeline(
            memo=self.memo,
            planner=Planner(settings, self.memo, Toolchains(self.memo, self.threads.executor), self.observer, self.threads),
            keeper=self.keeper,
            restorer=Restorer(self.memo),
            flights=Flights(),
            misses=Misses(
                settings=settings,
                keeper=self.keeper,
                pool=self.pool,
                runner=self.runner,
                observer=self.observer,
                depositor=Depositor(self.store, self.memo),
                threads=self.threads,
                stats=self.stats,
                second=second,
                in_background=lambda work: self.listener.in_background(work),
            ),
            jobs=self.jobs,
            second=second,
            threads=self.threads,
            stats=self.stats,
        )
        self.listener: Listener

    def settle(self) -> None:
        """What is here now stays: the collector need not look at it again, and a full collection would stop the loop for milliseconds."""
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 20, 100)
        if trace.is_on():
            self._tracer = asyncio.ensure_future(trace.watch())


class Worker:
    """A hit worker: accepts on the owner's socket, answers hits, hands over the rest."""

    def __init__(self, settings: config.Settings, native: str | None, control_fd: int, listening_fd: int) -> None:
        self.parts = parts = Parts(settings, native, "/tmp")
        self._gone = asyncio.Event()
        self._link = Link(socket.socket(fileno=control_fd), self._take_counted, parts.keeper.unlearn, self.leave)
        service = Service(
            answer_now=parts.pipeline.answer_now,
            answer=lambda request, _, begun: parts.pipeline.hit_only(request, begun),
            control=None,
            leave=lambda: None,
            hand_over=self._link.hand_over,
        )
        parts.listener = Listener(socket.socket(fileno=listening_fd), service, 0, lambda: None)
        parts.keeper.report = self._link.report

    async def run(self) -> None:
        await self.parts.keeper.recall()
        self.parts.listener.start()
        self.parts.settle()
        await self._gone.wait()

    def _take_counted(self) -> Stats:
        counted = Stats.from_dict(self.parts.stats.to_dict())
        self.parts.stats.clear()
        return counted

    def leave(self) -> None:
        self.parts.listener.stop_accepting()
        self._leaver = asyncio.ensure_future(self._drain())

    async def _drain(self) -> None:
        await self.parts.listener.drained()
        self._link.report()
        await self.parts.keeper.close()
        trace.flush()
        self._gone.set()


class Server:
    """The owner: everything of one running server.  `run` returns when it has left."""

    def __init__(self, settings: config.Settings, claim: Claim, native: str | None, ready_fd: int | None) -> None:
        self.settings = settings
        self.claim = claim
        self._ready_fd = ready_fd
        self._by_client = ready_fd is not None
        self._native = native
        self.parts = parts = Parts(settings, native, os.path.dirname(claim.path) or "/tmp")
        self.keeper = parts.keeper
        self._born = time.monotonic()
        self._traced = is_traced()  # from the start: who attaches a tracer later wants to look at us
        parts.pipeline.makes_way = self._makes_way
        others = OtherDefines(parts.keeper, parts.threads, lambda work: self.listener.in_background(work))
        parts.pipeline.others = parts.pipeline.misses.others = others
        self.pool = parts.pool
        # Tasks that may go on when all is stored: who asked us to stop, and builds that have job tokens of us.
        self._stoppers: set[asyncio.Task[None] | None] = set()
        runtime = os.path.dirname(claim.path) or "/tmp"
        sweep(runtime)
        leases = Leases(parts.pool, parts.jobs, runtime, self._stoppers)
        service = Service(parts.pipeline.answer_now, parts.pipeline.answer, self.control, self.leave, leases.serve)
        self.listener = parts.listener = Listener(claim.socket, service, settings.idle_s, self.leave)
        quiet = Quiet(self._is_busy)
        parts.pipeline.misses.stored = Rehearsal(parts.memo, quiet).note
        self._packer = Packer(parts.keeper, [*_program("store.pack_process"), "--pack", str(settings.zstd_level)], quiet)
        self._packs = settings.zstd_level > 0 and not settings.read_only
        if self._packs:
            parts.keeper.stored = self._packer.note
        self._gone = asyncio.Event()
        self._leaving = False
        self._asked_to_stop = False
        self._stored = asyncio.Event()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.leave)
        stats = self.parts.stats
        uncounted = take_uncounted(self.claim.path)
        if uncounted:
            stats.count("compile_requests", uncounted)
            stats.count("requests_not_cacheable", uncounted)
            for _ in range(uncounted):
                stats.not_cached("no server")
        await self.keeper.recall()
        count = how_many(processors(), self.settings.workers)
        self.workers = Owner(count, self._worker_command(), self.claim.socket, self.listener.adopt, self._counted)
        self.keeper.withdrawn = self.workers.withdraw
        self.listener.start()
        announce(self._ready_fd)
        self.parts.settle()
        watch = loop.create_task(self._watch())
        await self._gone.wait()
        watch.cancel()

    def _worker_command(self) -> list[str]:
        return [*_program(), "--settings", settings_to_json(self.settings), *(["--native", self._native] if self._native else [])]

    def _counted(self, stats: Stats) -> None:
        self.parts.stats.merge(stats)
        self.listener.keep_awake()

    async def _watch(self) -> None:
        swept, given_back_at = False, 0.0
        while True:
            await asyncio.sleep(_WATCH_S)
            if self.listener.rests_since_s() > _REST_S and self.listener.ended_at > given_back_at:
                given_back_at = self.listener.ended_at
                heap.give_back()
            self.pool.stand_still(self.parts.jobs.standing_still(self.pool))
            if not swept and not self.listener.connections:
                swept = True
                await self.keeper.sweep()
                if self._packs:
                    await self._packer.resume()
            if not self.claim.is_ours() or (not self.listener.connections and self._is_of_no_more_use()):
                self.leave()

    def _is_of_no_more_use(self) -> bool:
        rests = self.listener.rests_since_s() > _REST_S
        return self.parts.for_now or (rests and (self._traced or nobody_else_lives(self.workers.pids())))

    def leave(self) -> None:
        """Give up the name at once, finish what is in flight, go."""
        if not self._leaving:
            self._leaving = True
            self.claim.release()
            self.listener.stop_accepting()
            self._leaver = asyncio.ensure_future(self._drain())

    def _makes_way(self) -> bool:
        """Who was started by the first client that came, under whatever limits that had, leaves for one that may do more."""
        return self._by_client and time.monotonic() - self._born > _STAYS_S

    def _is_busy(self) -> bool:
        return self.pool.in_use + self.pool.waiting > 0 or self.listener.rests_since_s() < _BUSY_S

    async def _drain(self) -> None:
        try:
            await self.workers.leave()
            await self.listener.drained(but=self._stoppers)
            await self._packer.finish(_PACKING_PATIENCE_S if self._asked_to_stop else 0)
            self._last_answer = await self._answer_stats()
            await self.keeper.close()
            self.parts.observer.close()
        finally:
            # Whatever went wrong: a server without a name must not stay.
            self._stored.set()
            await self.listener.drained()
            trace.flush()
            self._gone.set()

    async def control(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Answers to CONTROL (docs/protocol.md, section 2)."""
        if name == "ping":
            connections, storing = len(self.listener.connections), len(self.listener.background)
            return {"version": __version__, "pid": os.getpid(), "connections": connections, "storing": storing}
        if name == "stop":
            # Answered when all is stored and checkpointed: a container may end right after.
            self._stoppers.add(asyncio.current_task())
            self._asked_to_stop = True
            self.leave()
            await self._stored.wait()
            return self._last_answer
        if name == "jobs":
            size = arguments.get("size")
            if isinstance(size, int) and size > 0:
                self.pool.resize(size)
            return self.parts.jobs.answer(self.pool)
        await self.workers.collect()
        if name == "zero":
            await self.keeper.zero_stats()
        elif name != "stats":
            raise ProtocolError(f"unknown control {name!r}")
        return await self._answer_stats()

    async def _answer_stats(self) -> dict[str, Any]:
        return answer_stats(await self.keeper.total_stats(), self.settings, await self.keeper.size(), self.pool)


def _program(module: str = "app") -> list[str]:
    """What starts a process of ours: frozen, we are one program; installed, a script that an interpreter runs."""
    return [sys.executable] if getattr(sys, "frozen", False) else [sys.executable, "-m", f"sccache_py.server.{module}"]


def answer_stats(stats: Stats, settings: config.Settings, size_bytes: int, pool: TokenPool | None) -> dict[str, Any]:
    surroundings: dict[str, Any] = {
        "cache_location": f'Local disk: "{settings.directory}"',
        "cache_size": size_bytes,
        "max_cache_size": settings.size_bytes,
        "version": __version__,
        "basedirs": list(settings.basedirs),
    }
    if pool is not None:
        surroundings["jobserver"] = {
            "size": pool.size,
            "in_use": pool.in_use,
            "waiting": pool.waiting,
            "waits": pool.waits,
            "wait_total_s": pool.wait_total_s,
            "wait_mean_s": pool.wait_total_s / max(1, pool.waits),
            "wait_longest_s": pool.wait_longest_s,
            "reclaimed": pool.reclaimed,
        }
    return {"stats": stats.to_dict(), "surroundings": surroundings}


def _working_directory() -> str:
    try:
        return os.getcwd()
    except OSError:
        return "/"


def _configure(environment: dict[str, str], where: str) -> config.Settings:
    """`where`: what relative paths are relative to."""
    environment = {**environment, "HOME": environment.get("HOME") or users_home()}
    path = config.file_path(environment)
    toml = None
    # Below a home that is not ours to enter (`sudo -u` keeps HOME=/root) there is none for us.
    if path is not None and os.path.exists(path := os.path.join(where, path)):
        with open(path, "rb") as f:
            toml = f.read()
    settings = config.settings(environment, toml)
    error_log = settings.error_log and os.path.join(where, settings.error_log)
    return dataclasses.replace(settings, directory=os.path.join(where, settings.directory), error_log=error_log)


def _start_log(settings: config.Settings) -> None:
    handler: logging.Handler = logging.StreamHandler()
    if settings.error_log:
        with contextlib.suppress(OSError):
            handler = logging.StreamHandler(open_log(settings.error_log))
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], format="%(asctime)s %(levelname)s %(name)s: %(message)s")


def print_stats(settings: config.Settings) -> int:
    """What is stored, for --show-stats with no server running; a directory that is not there is not made."""
    size, total = 0, Stats()
    if os.path.exists(os.path.join(settings.directory, "cache.db")):
        store = open_directory(settings)
        from sccache_py.server.store.keeper import STATS_KEY, stored_stats

        total, size = stored_stats(store.get(STATS_KEY)), store.size_bytes()
        store.close()
    json.dump(answer_stats(total, settings, size, None), sys.stdout)
    print()
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="sccache-py-server", description="The server of sccache-py; clients start it by themselves.")
    parser.add_argument("--socket", metavar="PATH", help="where to listen")
    parser.add_argument("--native", metavar="DIR", help="where the native client and the preload library are")
    parser.add_argument("--ready-fd", type=int, help="a descriptor to write a byte to when listening")
    parser.add_argument("--foreground", action="store_true", help="stay in the foreground, log to stderr")
    parser.add_argument("--print-stats", action="store_true", help="print the stored statistics as JSON and exit")
    parser.add_argument("--worker", nargs=2, type=int, metavar="FD", help=argparse.SUPPRESS)
    parser.add_argument("--settings", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        return _work(arguments.settings, arguments.native, *arguments.worker)

    where = _working_directory()
    environment = drop_surroundings()
    try:
        settings = _configure(environment, where)
    except (config.ConfigError, OSError) as e:
        print(f"sccache-py-server: {e}", file=sys.stderr)
        return 2
    _start_log(settings)
    try:
        if arguments.print_stats:
            return print_stats(settings)
        if not arguments.socket:
            parser.error("--socket is required")
        if not arguments.foreground and arguments.ready_fd is None and not environment.get("SCCACHE_NO_DAEMON"):
            detach()
        claim = Claim(arguments.socket if arguments.socket.startswith("\\x00") else os.path.join(where, arguments.socket))
    except AlreadyRunning:
        announce(arguments.ready_fd)
        print("sccache-py-server: a server is already running", file=sys.stderr)
        return 0
    except (OSError, StoreError) as e:
        if settings.error_log:
            log.error("the server does not start: %s", e)  # a daemon's stderr leads nowhere
        print(f"sccache-py-server: {e}", file=sys.stderr)
        return 1
    native = arguments.native or os.path.dirname(os.path.realpath(sys.argv[0]))
    sys.setswitchinterval(_SWITCH_S)
    heap.share_arena()
    asyncio.run(_run(settings, claim, native, arguments.ready_fd))
    return 0


def _work(settings_json: str, native: str | None, control_fd: int, listening_fd: int) -> int:
    die_with_parent()
    drop_surroundings()
    settings = settings_from_json(settings_json)
    _start_log(settings)
    sys.setswitchinterval(_SWITCH_S)
    heap.share_arena()

    async def run() -> None:
        await Worker(settings, native, control_fd, listening_fd).run()

    asyncio.run(run())
    return 0


async def _run(settings: config.Settings, claim: Claim, native: str, ready_fd: int | None) -> None:
    await Server(settings, claim, native, ready_fd).run()


if __name__ == "__main__":
    sys.exit(main())
