"""The way of one compile: plan → recipe → lookup → hit: outputs; miss: token, run, store.

Start reading here.  A request becomes a `Job` (what is compiled, by whom, under which recipe).  `answer_now` serves a hit whose
every part is in
memory without leaving the event loop; whatever else happens takes the long way, `answer`.  Whoever calls (listener.py) gets what
to say to the client, and learns nothing of compilers.

A value `Pass` means: the client runs the compiler itself, in place.  Until the compiler is started any trouble ends so.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from sccache_py import config, keys, makeflags
from sccache_py.model import Plan, Reason, Request, Result, Variant
from sccache_py.server import deposit, lookup
from sccache_py.server.files import FileMemo, Sight, coarse_ns
from sccache_py.server.flights import Flights
from sccache_py.server.jobserver import TokenPool
from sccache_py.server.keeper import Keeper
from sccache_py.server.machine import processor_features
from sccache_py.server.observer import Observer, Record
from sccache_py.server.restore import Damaged, Restorer
from sccache_py.server.runner import Audience, Command, Ran, Runner, SpawnError
from sccache_py.server.toolchains import Compiler, Toolchains
from sccache_py.stats import Stats

log = logging.getLogger(__name__)

T = TypeVar("T")

# Outputs up to this size in all are written on the event loop; a larger copy goes to a thread.
_INLINE_RESTORE_BYTES = 256 * 1024

_PLANS = 4000

# What rustc 1.95 (jobserver-rs), GNU make 4.3 and 4.4, and gcc 12 and 13 say of a jobserver that they cannot use: it belongs to
# one run, not to the result.
_JOBSERVER_TROUBLE = re.compile(
    rb"failed to connect to jobserver|early EOF on jobserver|failed to (acquire|release) jobserver token"
    rb"|jobserver (is not available|unavailable|mode not supported|tokens)|--jobserver-auth|resetting jobserver mode"
)


class Client(Audience, Protocol):
    """What the pipeline needs of a connection beyond its audience."""

    async def stdin(self) -> bytes | None:
        """What the caller's standard input holds; None if it is more than the protocol carries."""
        ...

    @property
    def build(self) -> str:
        """Whose turn it is in the token pool."""
        ...


@dataclass(frozen=True, slots=True)
class Pass:
    reason: Reason


@dataclass(frozen=True, slots=True)
class Replay:
    """A hit: the outputs are written, this is what the compiler said."""

    stdout: bytes
    stderr: bytes
    status: int


@dataclass(frozen=True, slots=True)
class Finished:
    """A miss that ran: everything it said has been relayed."""

    killed_by: int | None
    status: int


Answer = Pass | Replay | Finished


@dataclass(slots=True)
class Job:
    request: Request
    wishes: config.Wishes
    compiler: Compiler
    plan: Plan
    recipe: bytes
    extra_arguments: tuple[str, ...]
    observed: bool
    sight: Sight
    stdin: bytes | None
    began: float = field(default_factory=time.perf_counter)


@dataclass(slots=True)
class Pipeline:
    settings: config.Settings
    memo: FileMemo
    toolchains: Toolchains
    keeper: Keeper
    pool: TokenPool
    runner: Runner
    observer: Observer
    restorer: Restorer
    depositor: deposit.Depositor
    flights: Flights
    threads: Executor
    stats: Stats
    in_background: Callable[[Awaitable[None]], None]
    _plans: dict[tuple[object, ...], Plan | Reason] = field(default_factory=dict)

    # -- a hit from memory ---------------------------------------------------------------------------------------

    def answer_now(self, request: Request) -> Answer | None:
        """A hit or a Pass that needs nothing but stats and memory; None: take the long way."""
        wishes = config.wishes(request.env)
        compiler = self.toolchains.find_now(request)
        if compiler is None:
            return None
        job = self._plan(request, wishes, compiler, Sight(self.memo))
        if not isinstance(job, Job):
            return self._pass(job) if job is not None else None
        if wishes.recache or wishes.verify_every:
            return None
        variants = self.keeper.manifest_now(job.recipe)
        if variants is None:
            return None
        variant = lookup.first_holding(variants, job.plan, request.env, job.sight)
        if not isinstance(variant, Variant):
            return None
        result = self.keeper.result_now(variant.result)
        if result is None or any(o.inline is None for o in result.outputs) or sum(o.size for o in result.outputs) > _INLINE_RESTORE_BYTES:
            return None
        try:
            self.restorer.restore(job.plan, result, {}, request.umask)
        except (Damaged, OSError):
            return None
        return self._count_hit(job, variant, result)

    # -- the long way --------------------------------------------------------------------------------------------

    async def answer(self, request: Request, client: Client) -> Answer:
        job = await self._make_job(request, client)
        if not isinstance(job, Job):
            return self._pass(job)
        if job.wishes.recache:
            self.stats.count("forced_recaches")
            return await self._compile(job, client, None)

        hit = await self._hit(job)
        flight = self.flights.under_way(job.recipe)
        if hit is None and flight is not None:
            # Another client compiles this very recipe: wait, holding nothing, and look again with our own files.
            self.stats.count("joined_flights")
            if await flight.landed():
                job.sight = Sight(self.memo)
                hit = await self._hit(job)
        if hit is not None:
            return hit
        with self.flights.lead(job.recipe) as flight:
            return await self._compile(job, client, flight)

    async def hit_only(self, request: Request) -> Answer | None:
        """What a hit worker can answer; None: the owner must."""
        if config.wishes(request.env) != config.NO_WISHES:
            return None
        job = await self._make_job(request, None)
        if not isinstance(job, Job):
            return None if job is Reason.STDIN else self._pass(job)
        return await self._hit(job)

    async def _make_job(self, request: Request, client: Client | None) -> Job | Reason:
        compiler = self.toolchains.find_now(request)
        if compiler is None:
            compiler = await self.toolchains.identify(request)
        wishes = config.wishes(request.env)
        sight = Sight(self.memo)
        job = self._plan(request, wishes, compiler, sight)
        if job is None:
            # The main source is on standard input, or it is large and not known yet.
            plan = self._plan_of(request, compiler)
            assert isinstance(plan, Plan)
            stdin = None
            if plan.reads_stdin:
                stdin = await client.stdin() if client is not None else None
                if stdin is None:
                    return Reason.STDIN
            source = plan.source
            if source is not None:
                await self._in_thread(lambda: sight.hash_now(source))
            job = self._plan(request, wishes, compiler, sight, stdin)
            assert job is not None
        return job

    def _plan(
        self, request: Request, wishes: config.Wishes, compiler: Compiler | Reason, sight: Sight, stdin: bytes | None = None
    ) -> Job | Reason | None:
        """None: standard input must be read, or the digest of the main source computed, first."""
        if wishes.no_cache:
            return Reason.NO_CACHE
        plan = self._plan_of(request, compiler)
        if isinstance(plan, Reason):
            return plan
        assert isinstance(compiler, Compiler)
        observed = self.settings.observe and self.observer.can_preload(compiler.image)
        if not observed:
            if compiler.is_script:
                return Reason.FALLBACK_SCRIPT
            if plan.linked:
                return Reason.NOT_COMPILING if plan.asks else Reason.STDIN if plan.reads_stdin else Reason.CRATE_TYPE
            if plan.dep_info is None:
                return Reason.FALLBACK_NO_DEP_INFO
        source = b"" if stdin is None else keys.digest(stdin)
        if plan.reads_stdin and stdin is None:
            return None
        if plan.source is not None:
            found = sight.digest(plan.source)
            if found is None:
                return Reason.MISSING_INPUT
            if found == Sight.UNHASHED:
                return None
            source = found
        extra = _terminal_arguments(plan, request)
        more = [("mode", b"observed" if observed else b"listed")]
        more += [("extra", os.fsencode(a)) for a in extra]
        if wishes.buster:
            more.append(("buster", os.fsencode(wishes.buster)))
        if "LD_PRELOAD" in request.env:
            more.append(("preload", os.fsencode(request.env["LD_PRELOAD"])))
        if plan.native_cpu:
            more.append(("processor", processor_features()))
        if not observed:
            names = keys.fallback_environment(request.env, keys.EXTRA_ENV_DEFAULT if wishes.extra_env is None else wishes.extra_env)
            more += [("env", os.fsencode(f"{n}={request.env[n]}")) for n in names]
        recipe = keys.KeyHash()
        keys.describe_recipe(plan, compiler.identity, source, request.env, more, recipe)
        return Job(request, wishes, compiler, plan, recipe.key(), extra, observed, sight, stdin)

    def _plan_of(self, request: Request, compiler: Compiler | Reason) -> Plan | Reason:
        if isinstance(compiler, Reason):
            return compiler
        call = (compiler.driver.name, request.cwd, *request.argv[1:])
        plan = self._plans.get(call)
        if plan is None:
            argv = request.argv[1:]
            if any(a.startswith("@") for a in argv):
                return Reason.RESPONSE_FILE
            plan = compiler.driver.parse(argv, request.cwd)
            if len(self._plans) >= _PLANS:
                self._plans.clear()
            self._plans[call] = plan
        return plan

    async def _hit(self, job: Job) -> Replay | None:
        """Look in memory first, then in the store, where another server may have put it."""
        remembered = self.keeper.manifest_now(job.recipe)
        variant = await self._first_holding(job, remembered) if remembered else None
        if variant is None:
            variant = await self._first_holding(job, await self.keeper.manifest(job.recipe))
        if variant is None:
            return None
        result = self.keeper.result_now(variant.result) or await self.keeper.result(variant.result)
        if result is None:
            return None
        paths: dict[bytes, str] = {}
        for output in result.outputs:
            if output.inline is None:
                path = await self.keeper.output_path(output)
                if path is None:
                    await self.keeper.forget(job.recipe, variant.result)
                    return None
                paths[output.digest] = path
        try:
            await self._in_thread(lambda: self.restorer.restore(job.plan, result, paths, job.request.umask))
        except Damaged as e:
            self.stats.count("cache_read_errors")
            log.warning("store: %s is damaged: dropped", e)
            await self.keeper.forget(job.recipe, variant.result)
            return None
        except OSError as e:
            # The compiler says better than we could what is wrong with the output directory.
            log.info("outputs not restored (%s): the compiler runs", e)
            return None
        return self._count_hit(job, variant, result)

    async def _first_holding(self, job: Job, variants: list[Variant]) -> Variant | None:
        while True:
            found = lookup.first_holding(variants, job.plan, job.request.env, job.sight)
            if not isinstance(found, lookup.Pending):
                return found
            await self._in_thread(job.sight.hash_all)

    def _count_hit(self, job: Job, variant: Variant, result: Result) -> Replay:
        roles = job.plan.roles
        self._count_request(executed=True)
        self.stats.count_language("cache_hits", job.plan.language, job.plan.dialect)
        self.stats.add_duration("cache_read_hit_duration", time.perf_counter() - job.began)
        self.keeper.put_first(job.recipe, variant)
        self.keeper.mark_used(job.recipe, variant.result, result)
        return Replay(roles.fill_template(result.stdout), roles.fill_template(result.stderr), result.status)

    def _pass(self, reason: Reason) -> Pass:
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

    # -- a miss --------------------------------------------------------------------------------------------------

    async def _compile(self, job: Job, client: Client, flight: Flights.Flight | None) -> Answer:
        plan = job.plan
        await self._let_inputs_age(plan)
        record = self.observer.begin() if job.observed else None
        if job.observed and record is None:
            return self._pass(Reason.RECORD_LOST)
        began = time.perf_counter()
        used, whole = 0, False
        try:
            async with self.pool.token(client.build):
                ran, ours = await self._run(job, client, record)
            self._count_request(executed=True)
            self.stats.count("compilations")
            self.stats.count_language("cache_misses", plan.language, plan.dialect)
            self.stats.add_duration("compiler_write_duration", ran.took_ns / 1e9)
            data = b""
            if record is not None:
                data = await self._in_thread(record.take)
                used, whole = len(data), not ran.left_running
            examined = await self._examine(job, ran, ours, data)
        except SpawnError as e:
            log.warning("%s: %s", job.compiler.program, e)
            return self._pass(Reason.UNSUPPORTED_COMPILER)
        finally:
            if record is not None:
                self.observer.end(record, used, whole)
        if isinstance(examined, Reason):
            self._not_stored(examined)
        elif examined is None:
            self.stats.count("compile_fails")
        else:
            if flight is not None:
                flight.keep()
            self.in_background(self._store(job, ran, examined, flight, began))
        return Finished(ran.killed_by, ran.status)

    async def _run(self, job: Job, client: Client, record: Record | None) -> tuple[Ran, tuple[str, ...]]:
        """The compiler, with our jobserver in place of the caller's; and the paths by which it may name that."""
        request = job.request
        env = makeflags.without_jobserver(request.env)
        private = self.pool.open_private() if job.plan.wants_jobserver else None
        inherit: tuple[int, ...] = ()
        try:
            if private is not None:
                inherit = (private.child_r, private.child_w)
                env = makeflags.with_jobserver(request.env, self.pool.size, *inherit)
            if record is not None:
                env = self.observer.environment(env, record)
            argv = [*request.argv, *job.extra_arguments]
            command = Command(job.compiler.program, argv, request.cwd, env, inherit, request, job.stdin)
            ran = await self.runner.run(command, client)
        finally:
            if private is not None:
                private.close()
        ours = tuple(f"{d}/{fd}" for fd in inherit for d in ("/dev/fd", "/proc/self/fd"))
        return ran, ours

    async def _let_inputs_age(self, plan: Plan) -> None:
        """An input as young as the clock's tick could change again without showing it: wait for the next tick (≤ 10 ms)."""
        newest = 0
        for path in (plan.source, *plan.known_inputs) if plan.source else plan.known_inputs:
            with contextlib.suppress(OSError):
                newest = max(newest, os.stat(path).st_ctime_ns)
        for _ in range(10):
            if not 0 <= newest - coarse_ns() < 20_000_000:
                return
            await asyncio.sleep(0.001)

    async def _examine(self, job: Job, ran: Ran, ours: tuple[str, ...], record: bytes) -> deposit.Examined | Reason | None:
        """None: the compile failed."""
        succeeded = ran.killed_by is None and ran.status == 0
        if ran.killed_by is not None or not (succeeded or _may_fail(job)):
            return None
        if self.settings.read_only:
            return Reason.READ_ONLY
        if ran.left_running:
            return Reason.LEFT_RUNNING
        if ran.talked_too_much:
            return Reason.TOO_TALKATIVE
        if _JOBSERVER_TROUBLE.search(ran.stderr):
            return Reason.JOBSERVER_WARNING
        plan, request = job.plan, job.request
        if job.observed:
            return await self._in_thread(lambda: deposit.examine_observed(plan, job.compiler.covered, ours, record, request.env, succeeded))
        return await self._in_thread(
            lambda: deposit.examine_listed(plan, job.compiler.driver, request.env, request.cwd, job.wishes.extra_files)
        )

    async def _store(self, job: Job, ran: Ran, examined: deposit.Examined, flight: Flights.Flight | None, began: float) -> None:
        stored = False
        try:
            entry = await self._in_thread(lambda: self.depositor.make_entry(job.plan, job.recipe, job.request.env, examined, ran))
            if isinstance(entry, Reason):
                log.info("not stored (%s): %s", entry.value, job.plan.source)
                self._not_stored(entry)
            else:
                stored = await self.keeper.add(job.recipe, entry.variant, entry.result, entry.files)
                self.stats.add_duration("cache_write_duration", max(0.0, time.perf_counter() - began - ran.took_ns / 1e9))
        finally:
            examined.close()
            if flight is not None:
                flight.land(stored)

    def _not_stored(self, reason: Reason) -> None:
        self.stats.count("non_cacheable_compilations")
        self.stats.not_cached(reason.value)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self.threads, work)


def _may_fail(job: Job) -> bool:
    """Whether a failure is an answer too: questions, and what a build script compiles to find out what this compiler can."""
    if not job.observed:
        return False
    place = job.request.env.get("OUT_DIR")
    plan = job.plan
    return plan.asks or plan.reads_stdin or (place is not None and any(f"{d}/".startswith(f"{place}/") for d in plan.may_write))


def _terminal_arguments(plan: Plan, request: Request) -> tuple[str, ...]:
    """What the compiler would find out by looking at its stderr, which is our pipe: said to it, and part of the key."""
    if not request.is_terminal(2):
        return ()
    extra: list[str] = []
    if plan.chooses_color and not request.env.get("NO_COLOR") and request.env.get("TERM", "dumb") != "dumb":
        extra.append("--color=always")
    if plan.chooses_width and request.columns:
        extra.append(f"--diagnostic-width={request.columns}")
    return tuple(extra)
