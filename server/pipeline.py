"""The way of one compile: plan → recipe → lookup → hit: outputs; miss: token, run, store.

Start reading here.  A request becomes a `Job` (planning.py: what is compiled, by whom, under which recipe).  `answer_now` serves
a hit whose every part is in memory without leaving the event loop; whatever else happens takes the long way, `answer`, which ends
in a hit from the store or in a compile (misses.py).  Whoever calls (connection.py) gets what to say to the client, and learns
nothing of compilers.

A `Pass` means: the client runs the compiler itself, in place.  Until the compiler is started any trouble ends so.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from sccache_py import config
from sccache_py.makeflags import LEASE_VARIABLE
from sccache_py.model import Reason, Refusal, Request, Result, Stored, Variant
from sccache_py.server.answers import Answer, Client, MakeWay, Pass, Replay
from sccache_py.server.filesystem import permits
from sccache_py.server.filesystem.files import FileMemo
from sccache_py.server.filesystem.sight import Sight
from sccache_py.server.hit import lookup
from sccache_py.server.hit.other_defines import OtherDefines
from sccache_py.server.hit.restore import Damaged, Restorer
from sccache_py.server.hit.second_chance import SecondChance
from sccache_py.server.jobs.under_way import COMPILING, FINISHING, WAITING_FOR_RESULT, Jobs, Seen
from sccache_py.server.miss.flights import Flights, Landing
from sccache_py.server.miss.misses import Misses
from sccache_py.server.planning import Job, Planner
from sccache_py.server.process import trace
from sccache_py.server.process.threads import Threads
from sccache_py.server.store.keeper import Keeper
from sccache_py.stats import Stats

log = logging.getLogger(__name__)

# Outputs up to this size in all are written on the event loop, within a millisecond; a larger copy goes to a thread, which costs 0.2 ms.
_INLINE_RESTORE_BYTES = 2 * 1024 * 1024


def _restores_at_once(result: Result) -> bool:
    """Not what can be executed, either: that may have to wait (files.publish)."""
    return sum(o.size for o in result.outputs) <= _INLINE_RESTORE_BYTES and not any(o.mode & 0o111 for o in result.outputs)


def _replay(job: Job, result: Result) -> Replay:
    roles = job.plan.roles
    return Replay(roles.fill_template(result.stdout), roles.fill_template(result.stderr), result.status)


@dataclass(slots=True)
class Pipeline:
    memo: FileMemo
    planner: Planner
    keeper: Keeper
    restorer: Restorer
    flights: Flights
    misses: Misses
    jobs: Jobs
    second: SecondChance
    threads: Threads
    stats: Stats
    others: OtherDefines | None = None  # the owner's alone
    makes_way: Callable[[], bool] = lambda: False  # whether a caller who may do more shall have a server of his own
    _verifiable: int = 0

    # -- a hit from memory ---------------------------------------------------------------------------------------

    def answer_now(self, request: Request) -> Answer | Job | None:
        """A hit or a Pass that needs nothing but stats and memory; else take the long way, with the Job if it got so far."""
        job = self.planner.plan_now(request)
        trace.mark("key")
        if not isinstance(job, Job):
            return self._pass(job, request) if job is not None else None
        if job.wishes.recache or job.wishes.verify_every:
            return job
        job.tried = self.keeper.manifest_now(job.recipe)
        if job.tried is None:
            return job
        variant = lookup.first_holding(job.tried, job.plan, request, job.sight)
        trace.mark("lookup")
        if not isinstance(variant, Variant):
            job.tried = None if variant is lookup.Pending.DIGESTS else job.tried
            return job
        job.holding = variant
        result = self.keeper.result_now(variant.result)
        files = self.keeper.files_now(variant.result)
        if result is None or files is None or not _restores_at_once(result):
            return job
        try:
            self.restorer.restore(job.plan, result, files, request)
        except (Damaged, OSError):
            return job
        trace.mark("write")
        # The caller need not wait for our books.
        asyncio.get_running_loop().call_soon(self._count_hit, job, variant, result)
        return _replay(job, result)

    # -- the long way --------------------------------------------------------------------------------------------

    async def answer(self, request: Request, client: Client, begun: Job | None) -> Answer:
        """begun: what answer_now gave."""
        if not client.may_what_we_may():
            return self._leave_to(request)
        job = begun or await self.planner.make_job(request, client)
        trace.mark("key")
        if not isinstance(job, Job):
            return self._pass(job, request)
        job.seen = Seen(client.pid, lambda: client.build.name, job.compiler.program, job.plan.source or "-", request.cwd)
        with self.jobs.watch(job.seen):
            return await self._answer(job, client)

    async def _answer(self, job: Job, client: Client) -> Answer:
        if job.wishes.recache:
            self.stats.count("forced_recaches")
            return await self._compile(job, client)

        if self._is_due_for_verification(job):
            stored = await self._find(job)
            if stored is not None:
                return await self._compile(job, client, verify=stored)
        hit = await self._hit(job)
        while hit is None and (flight := self.flights.under_way(job.recipe)) is not None and not self._holds_up(job, flight):
            # Another client compiles this very recipe: wait, holding nothing, and look again with our own files.
            self.stats.count("joined_flights")
            job.seen.turns_to(WAITING_FOR_RESULT, leader=flight.leader)
            landing = await flight.landed()
            if landing is Landing.STORED:
                job.sight = Sight(self.memo)
                hit = await self._hit(job)
            if landing is not Landing.ABANDONED:
                break
        if hit is not None:
            return hit
        with self.flights.lead(job.recipe, job.seen) as flight:
            return await self._compile(job, client, flight)

    def _holds_up(self, job: Job, flight: Flights.Flight) -> bool:
        """Whether this leader may wait for the very token under which who would wait for it runs (a job of a build under the wrapper)."""
        runs = flight.leader is not None and flight.leader.state in (COMPILING, FINISHING)
        return not runs and self.misses.pool.lends_to(job.request.env.get(LEASE_VARIABLE, ""))

    async def hit_only(self, request: Request, begun: Job | None) -> Answer | None:
        """What a hit worker can answer; None: the owner must."""
        if dataclasses.replace(config.wishes(request.env), second_chance=False) != config.NO_WISHES:
            return None
        job = begun or await self.planner.make_job(request, None)
        trace.mark("key")
        if not isinstance(job, Job):
            return None if job is Reason.STDIN else self._pass(job, request)
        job.wishes = config.NO_WISHES
        return await self._hit(job)

    def _is_due_for_verification(self, job: Job) -> bool:
        """Every Nth compile of a caller that set SCCACHE_VERIFY=N runs although it may be a hit, and is compared with it."""
        every = job.wishes.verify_every
        if not every:
            return False
        self._verifiable += 1
        return self._verifiable % every == 0

    async def _find(self, job: Job) -> Stored | None:
        """What would be replayed.  Memory first, then the store, where another server may have put it."""
        variant, job.holding, job.second = job.holding, None, False
        remembered = self.keeper.manifest_now(job.recipe)
        if variant is None and remembered and remembered is not job.tried:
            variant = await self._first_holding(job, remembered)
        job.tried = None
        if variant is None:
            variant = await self._first_holding(job, await self.keeper.manifest(job.recipe))
        if variant is None:
            found = await self.others.find(job) if self.others is not None else None
            if found is None and job.wishes.second_chance:
                found = await self.second.find(job)
            job.second = found is not None
            return found
        result = self.keeper.result_now(variant.result) or await self.keeper.result(variant.result)
        return None if result is None else (variant, result)

    async def _hit(self, job: Job) -> Replay | None:
        found = await self._find(job)
        trace.mark("lookup")
        if found is None:
            return None
        variant, result = found
        damaged: Damaged | None = None
        for _ in range(2):  # what was packed or stored anew since it was found is elsewhere now
            files = await self.keeper.files(variant.result, result)
            trace.mark("store")
            if files is not None:
                restore = functools.partial(self.restorer.restore, job.plan, result, files, job.request)
                try:
                    await self.threads.run(restore)
                except Damaged as e:
                    damaged = e
                except OSError as e:
                    # The compiler says better than we could what is wrong with the output directory.
                    log.info("outputs not restored (%s): the compiler runs", e)
                    return None
                else:
                    trace.mark("write")
                    self._count_hit(job, variant, result)
                    return _replay(job, result)
            result = await self.keeper.result(variant.result) or result
        if damaged is not None:
            self.stats.count("cache_read_errors")
            log.warning("store: %s is damaged: dropped", damaged)
        await self.keeper.forget(job.recipe, variant.result)
        return None

    async def _first_holding(self, job: Job, variants: list[Variant]) -> Variant | None:
        while True:
            found = lookup.first_holding(variants, job.plan, job.request, job.sight)
            if not isinstance(found, lookup.Pending):
                return found
            await self.threads.run(job.sight.hash_all)

    def _count_hit(self, job: Job, variant: Variant, result: Result) -> None:
        self._count_request(executed=not job.plan.asks)
        if job.plan.asks:
            self.stats.count("requests_not_compile")
            self.stats.count("probe_hits")
        else:
            self.stats.count_language("cache_hits", job.plan.language, job.plan.dialect)
            self.stats.add_duration("cache_read_hit_duration", time.perf_counter() - job.began)
            if job.second:
                self.stats.count("second_chance_hits")
        if variant.placed:
            self.memo.time_macros.note_that_they_only_include(output.digest for output in result.outputs)
        self.keeper.put_first(job.recipe, variant)
        self.keeper.mark_used(job.recipe, variant.result, result)

    async def _compile(self, job: Job, client: Client, flight: Flights.Flight | None = None, verify: Stored | None = None) -> Answer:
        if not permits.allows(job.request):
            return self._leave_to(job.request)
        log.info("compiling: %s", " ".join(job.request.argv))
        answer = await self.misses.compile(job, client, flight, verify)
        return self._pass(answer, job.request) if isinstance(answer, Reason) else answer

    def _leave_to(self, request: Request) -> Answer:
        return MakeWay() if self.makes_way() else self._pass(Reason.OTHER_LIMITS, request)

    def _pass(self, reason: Reason | Refusal, request: Request) -> Pass:
        log.info("not cached (%s): %s", reason.value, " ".join(request.argv))
        if reason is Reason.NOT_COMPILING:
            self.stats.count("requests_not_compile")
        elif reason is Reason.UNSUPPORTED_COMPILER:
            self.stats.count("requests_unsupported_compiler")
        else:
            self.stats.count("requests_not_cacheable")
            self.stats.not_cached(reason.value)
        self._count_request(executed=False)
        return Pass(reason)

    def _count_request(self, executed: bool) -> None:
        self.stats.count("compile_requests")
        if executed:
            self.stats.count("requests_executed")
