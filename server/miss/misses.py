"""A miss: token, compiler, record, store.

The compiler runs observed, with our jobserver in place of its caller's.  Its answer goes out as soon as its record is judged and
its outputs are held open; they are copied and hashed behind the answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import functools
import logging
import os
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field

from sccache_py import config, makeflags
from sccache_py.compilers import c_options
from sccache_py.compilers.driver import Told
from sccache_py.conditions import Draft
from sccache_py.errors import StoreBusy, StoreLate
from sccache_py.model import PROBE, Plan, Reason, Stored, Variant
from sccache_py.observation import plain
from sccache_py.profiles import ProfileNames, is_profile, profile_names
from sccache_py.server.answers import Client, Finished
from sccache_py.server.filesystem.files import coarse_ns, open_regular
from sccache_py.server.filesystem.sight import Sight
from sccache_py.server.hit.other_defines import OtherDefines
from sccache_py.server.hit.second_chance import SecondChance
from sccache_py.server.jobs.memory import Peaks
from sccache_py.server.jobs.under_way import COMPILING, FINISHING
from sccache_py.server.jobserver import Grant, Need, TokenPool
from sccache_py.server.miss import deposit
from sccache_py.server.miss.flights import Flights, Landing
from sccache_py.server.miss.look import FileLook, TextMemo
from sccache_py.server.miss.writers import Writers
from sccache_py.server.planning import Job
from sccache_py.server.process import machine, trace
from sccache_py.server.process.threads import StoreThreads, Threads
from sccache_py.server.running.observer import Observer, Record
from sccache_py.server.running.runner import Nobody, Ran, Runner
from sccache_py.server.running.spawn import Command, SpawnError
from sccache_py.server.store.keeper import Keeper
from sccache_py.stats import Stats

log = logging.getLogger(__name__)

# What rustc 1.95 (jobserver-rs), GNU make 4.3 and 4.4, and gcc 12 and 13 say of a jobserver that they cannot use: it belongs to
# one run, not to the result.
_JOBSERVER_TROUBLE = re.compile(
    rb"failed to connect to jobserver|early EOF on jobserver|failed to (acquire|release) jobserver token"
    rb"|jobserver (is not available|unavailable|mode not supported|tokens)|--jobserver-auth|resetting jobserver mode"
)

# A failure may be an answer (`_may_fail`), but not if it was the machine's: a disk that was full, and the build script would be told
# for ever that this compiler cannot do what it was asked.  rustc gives the number; 2, ENOENT, is what a missing header is, too.
_LACKS = [
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOMEM, errno.EAGAIN, errno.EMFILE),
    *(errno.ENFILE, errno.ETXTBSY, errno.EBUSY, errno.EINTR, errno.ESTALE, errno.EISDIR, errno.ENOTDIR),
]
_PASSING_TROUBLE = re.compile(
    rb"\(os error (?!2\))|[Oo]ut of memory|[Mm]emory exhausted|memory allocation of|conflicts with the existing"
    rb"|(couldn't|could not|failed to) (create|write|open output)"
    rb"|LLVM ERROR|internal compiler error|panicked at|signal terminated|terminated (with|by) signal|"
    + b"|".join(re.escape(os.strerror(number).encode()) for number in _LACKS)
)

# Where compilers are told to keep their temporary files.
_TEMPORARY = ("TMPDIR", "TMP", "TEMP")

_READ_AT_ONCE_BYTES = 256 * 1024

# So long may one copy into the store take (some gigabytes): equal compiles wait for it.
_COPYING_PATIENCE_S = 15.0

# cargo starts dependents on a notice, and sets the times of what was noticed when that compiler has ended.
_YOUNG_NS = 2_000_000_000

# Recipes that are remembered as reading what was made just before; more have not come together in one place.
_TOO_NEW = 100_000


@dataclass(frozen=True, slots=True)
class Asked:
    """What a compiler that cannot be observed said before it compiled, and when."""

    draft: Draft | Reason
    began_ns: int


# A source that has the compiler read what its caller gives it by a descriptor, where ours is empty, or what the kernel says at that
# moment, which compilers also ask for themselves.  Names in other strings are no files of the compiler's.
_INCLUDES_SPECIAL = re.compile(
    rb'(?:include|include_next|import|embed|incbin|include_str|include_bytes)\b[^\n"<]{0,40}["<]'
    rb"(?:(?P<descriptor>/dev/(?:fd/|std(?:in|out|err)\b)|/proc/(?:self|thread-self|\d+)/fd/)|/proc/|/sys/)"
)


@dataclass(frozen=True, slots=True)
class _Before:
    """What was seen just before a compile: inputs made a moment ago, and how profiles of its macros will be called."""

    digests: dict[str, bytes | None]
    profiles: ProfileNames | None


@dataclass(slots=True)
class Misses:
    """in_background: for work that outlives the request; stored: is told what was."""

    settings: config.Settings
    keeper: Keeper
    pool: TokenPool
    runner: Runner
    observer: Observer
    depositor: deposit.Depositor
    threads: Threads
    stats: Stats
    second: SecondChance
    in_background: Callable[[Awaitable[None]], None]
    others: OtherDefines | None = None
    stored: Callable[[Plan, Variant], None] = lambda plan, variant: None
    peaks: Peaks = field(default_factory=Peaks)
    _copying: StoreThreads = field(default_factory=lambda: StoreThreads(patience_s=_COPYING_PATIENCE_S))
    _texts: TextMemo = field(default_factory=TextMemo)
    _writers: Writers = field(default_factory=Writers)
    _too_new: set[bytes] = field(default_factory=set)  # recipes that were not stored for an input as young as the clock's tick

    async def compile(self, job: Job, client: Client, flight: Flights.Flight | None, verify: Stored | None = None) -> Finished | Reason:
        """verify: a stored result that this compile is to be compared with.  A Reason: nothing ran."""
        plan = job.plan
        sources = [plan.source, *plan.more_sources]
        special = await self._include_special(sources)
        if special is not None:
            return special
        await self._let_inputs_age(job, (*sources, *plan.known_inputs, *job.response_files))
        before = await self._look_before(job)
        trace.mark("clock")
        began = time.perf_counter()
        record: Record | None = None
        used, whole = 0, False
        try:
            lease = job.request.env.get(makeflags.LEASE_VARIABLE, "")
            with self._writers.one_more(plan.must_write) as writer:
                async with self.pool.token(client.build.key, lease, await self._expect(job), job.seen.waits_as, plan.checks) as grant:
                    trace.mark("token")
                    if job.observed:  # not before: hundreds may wait for a token, and each record takes its memory
                        record = self.observer.begin(len(sources), len(plan.known_inputs))
                        if record is None:
                            return Reason.RECORD_LOST
                    job.seen.turns_to(COMPILING, grant.id)
                    asked = await self._ask(job) if plan.question and not (job.observed or self.settings.read_only) else None
                    with self.runner.room.made() if grant.on_the_house else contextlib.nullcontext():
                        ran, ours = await self._run(job, client, record, grant)
                    trace.mark("run")
                job.seen.turns_to(FINISHING)
                self.peaks.note((plan.source, plan.arguments), ran.peak_rss_kib, ran.took_ns / 1e9)
                self._count(job, ran)
                if record is not None:
                    ran.left_running = ran.left_running or not await record.is_released()
                    used, whole = record.used(), not ran.left_running
                examined = await self._examine(job, ran, ours, record, before, asked)
            if not writer.is_alone and isinstance(examined, deposit.Examined):
                examined.close()
                examined = Reason.OUTPUT_SHARED
            trace.mark("examine")
        except SpawnError as e:
            log.warning("%s: %s", job.compiler.program, e)
            return Reason.UNSUPPORTED_COMPILER
        finally:
            if record is not None:
                self.observer.end(record, used, whole)
        if isinstance(examined, Reason):
            if examined is Reason.INPUT_TOO_NEW and len(self._too_new) < _TOO_NEW:
                self._too_new.add(job.recipe)
            self._not_stored(examined, plan)
        elif examined is not None:
            if flight is not None:
                flight.keep()
            self.in_background(self._store(job, ran, examined, flight, began, verify))
        return Finished(ran.killed_by, ran.status)

    async def _expect(self, job: Job) -> Need | None:
        """The memory that this compile will want: what the last one like it took, here or as the store remembers it."""
        if not self.settings.memory_admission:
            return None
        need = self.peaks.expect((job.plan.source, job.plan.arguments))
        if need is None and (variants := self.keeper.manifest_now(job.recipe)):
            result = self.keeper.result_now(variants[0].result) or await self.keeper.result(variants[0].result)
            need = Need(result.peak_rss_kib, result.took_ns / 1e9) if result is not None else None
        return need

    async def _run(self, job: Job, client: Client, record: Record | None, grant: Grant) -> tuple[Ran, tuple[str, ...]]:
        """The compiler, with our jobserver in place of the caller's; and the paths by which it may name that."""
        request = job.request
        private = grant.open_private() if job.plan.wants_jobserver else None
        inherit = (private.child_r, private.child_w) if private is not None else ()
        try:
            env = (
                makeflags.with_jobserver(request.env, self.pool.size, *inherit) if inherit else makeflags.without_jobserver(request.env)
            )
            env[makeflags.LEASE_VARIABLE] = grant.lease
            if record is not None:
                env = self.observer.environment(env, record, job.compiler.covered)
            argv = [*request.argv, *job.plan.terminal]
            command = Command(job.compiler.program, argv, request.cwd, env, inherit, request, job.stdin)
            ran = await self.runner.run(command, client)
        finally:
            if private is not None:
                private.close()
        ours = tuple(f"{d}/{fd}" for fd in inherit for d in ("/dev/fd", "/proc/self/fd")) + _told_elsewhere(job)
        return ran, (*ours, self.observer.library) if self.observer.library is not None else ours

    async def _ask(self, job: Job) -> Asked:
        """What the compiler would read, by its own answer.  Before it compiles: what changes from now on shows in the conditions."""
        plan, request, compiler = job.plan, job.request, job.compiler
        # gcc translates what it says of the directories that it searches.
        env = {**makeflags.without_jobserver(request.env), "LC_ALL": "C", "LANGUAGE": ""}
        for name in c_options.NOT_FOR_QUESTIONS.intersection(env):
            del env[name]
        began_ns = coarse_ns()
        try:
            ran = await self.runner.run(
                Command(compiler.program, [request.argv[0], *plan.question], request.cwd, env, (), request), Nobody()
            )
        except SpawnError:  # response files may hold more than a command line does
            return Asked(Reason.FALLBACK_LIST, began_ns)
        if ran.killed_by is not None or ran.status != 0 or ran.talked_too_much or ran.left_running:
            return Asked(Reason.FALLBACK_LIST, began_ns)
        told, look = Told(ran.stdout, ran.stderr), FileLook(job.sight.memo, self._texts, began_ns)
        extra = job.wishes.extra_files
        draft = await self.threads.run(lambda: deposit.draft_listed(plan, compiler.driver, told, request.env, request.cwd, extra, look))
        trace.mark("list")
        return Asked(draft, began_ns)

    async def _include_special(self, sources: Iterable[str | None]) -> Reason | None:
        for source in filter(None, sources):
            with contextlib.suppress(OSError):
                # Most are read sooner than a thread is woken.
                is_short = os.stat(source).st_size <= _READ_AT_ONCE_BYTES
                found = _includes_special(source) if is_short else await self.threads.run(functools.partial(_includes_special, source))
                if found is not None:
                    return found
        return None

    async def _let_inputs_age(self, job: Job, paths: Iterable[str | None]) -> None:
        """An input as young as the clock's tick could change again without showing it: wait until the clock has passed it (≤ 25 ms).

        What the lookup found changed is an input, too.  A recipe that reads what nobody knows of (a header that each build makes anew,
        just before) waits, once it was not stored for that, until all that is there now has aged.
        """
        newest = coarse_ns() if job.recipe in self._too_new else job.sight.newest_ns()
        for path in filter(None, paths):
            with contextlib.suppress(OSError):
                newest = max(newest, os.stat(path).st_ctime_ns)
        for _ in range(25):
            if not 0 <= newest - coarse_ns() < 50_000_000:
                return
            await asyncio.sleep(0.001)

    async def _look_before(self, job: Job) -> _Before:
        request, plan = job.request, job.plan
        names = profile_names(request.env, plan.arguments, request.cwd) if job.observed and plan.language == "Rust" else None
        if names is not None:
            directory = names.directory
            with contextlib.suppress(OSError):
                names = dataclasses.replace(names, taken=frozenset(await self.threads.run(lambda: os.listdir(directory))))
        return _Before(await self._digests_of_young(job), names)

    async def _digests_of_young(self, job: Job) -> dict[str, bytes | None]:
        """What was made a moment ago may still have its times set, by whoever made it; then only its content shows that it is as it was."""
        young = []
        for path in job.plan.known_inputs:
            with contextlib.suppress(OSError):
                if coarse_ns() - os.stat(path).st_ctime_ns < _YOUNG_NS:
                    young.append(path)
        if not young:
            return {}
        sight = Sight(job.sight.memo)
        return await self.threads.run(lambda: {path: sight.hash_now(path) for path in young})

    async def _examine(
        self, job: Job, ran: Ran, ours: tuple[str, ...], record: Record | None, before: _Before, asked: Asked | None
    ) -> deposit.Examined | Reason | None:
        """None: the compile failed."""
        if _failed(job, ran):
            return None
        if self.settings.read_only:
            return Reason.READ_ONLY
        if ran.left_running:
            return Reason.LEFT_RUNNING
        if ran.talked_too_much:
            return Reason.TOO_TALKATIVE
        if _JOBSERVER_TROUBLE.search(ran.stderr):
            return Reason.JOBSERVER_WARNING
        if ran.status != 0 and (_PASSING_TROUBLE.search(ran.stderr) or not _has_places(job)):
            return Reason.PASSING_TROUBLE
        if ran.status != 0 and job.plan.language != "Rust" and not _speaks_english(job.request.env):
            return Reason.NOT_ENGLISH
        plan, request = job.plan, job.request

        def examine() -> deposit.Examined | Reason:
            if not job.is_as_planned():
                log.info("compiler or response file changed: %s", plan.source)
                return Reason.INPUT_TOO_NEW
            began_ns = ran.began_ns
            if record is not None:
                draft = deposit.draft_observed(plan, job.compiler.covered, ours, record.take(), request.env, ran, before.profiles)
            elif asked is not None:
                draft, began_ns = asked.draft, min(asked.began_ns, began_ns)
            else:
                look = FileLook(job.sight.memo, self._texts, began_ns)
                draft = deposit.draft_listed(plan, job.compiler.driver, None, request.env, request.cwd, job.wishes.extra_files, look)
            if isinstance(draft, Reason):
                return draft
            if draft.messages_unlisted and (ran.stdout or ran.stderr):
                return Reason.FALLBACK_FILES
            try:
                examined = deposit.examine(plan, draft, request.env, job.sight.memo, began_ns, before.digests)
                if draft.processors_count and not isinstance(examined, Reason):
                    examined.inputs.variant.processors = machine.processors_told(request.affinity)
                return examined
            except OSError as e:
                log.warning("%s: what it read cannot be looked at: %s", plan.source, e)
                return Reason.INPUT_VANISHED

        work = asyncio.ensure_future(self.threads.run(examine))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            work.add_done_callback(_give_back)  # it holds outputs open
            raise

    async def _store(
        self, job: Job, ran: Ran, examined: deposit.Examined, flight: Flights.Flight | None, began: float, verify: Stored | None
    ) -> None:
        copied: list[deposit.Entry | Reason] = []

        def make_entry() -> deposit.Entry | Reason:
            try:
                copied.append(self.depositor.make_entry(job.plan, job.recipe, examined, ran))
            finally:
                examined.close()
            return copied[0]

        trace.begin()
        stored = False
        try:
            entry: deposit.Entry | Reason
            try:
                entry = await self._copying.run(make_entry, late=lambda: deposit.discard(copied[0]))
            except StoreLate:  # it copies yet, from what is open
                entry = Reason.NO_ROOM
            except StoreBusy:
                examined.close()
                entry = Reason.NO_ROOM
            trace.mark("copy and hash")
            if verify is not None:
                await self._compare(job, verify, entry)
            if isinstance(entry, Reason):
                self._not_stored(entry, job.plan)
            else:
                second = await self.second.second(job, entry.variant, entry.result) if job.wishes.second_chance else None
                kin = self.others.kin(job, entry.result) if self.others is not None else None
                stored = await self.keeper.add(job.recipe, entry.variant, entry.result, entry.files, second, kin)
                trace.mark("store")
                if stored:
                    self.stored(job.plan, entry.variant)
                self.stats.add_duration("cache_write_duration", max(0.0, time.perf_counter() - began - ran.took_ns / 1e9))
        finally:
            if flight is not None:
                flight.land(Landing.STORED if stored else Landing.NOTHING)
            trace.end("stored behind the answer")

    async def _compare(self, job: Job, stored: Stored, fresh: deposit.Entry | Reason) -> None:
        """A stored result against what the compiler gave just now; one that differs is dropped."""
        self.stats.count("verified")
        if isinstance(fresh, Reason):
            return
        variant, result = stored
        before, now = (
            {o.path: (b"" if _is_never_twice_the_same(o.path) else o.digest, o.mode) for o in r.outputs} for r in (result, fresh.result)
        )
        if before == now and (result.stdout, result.stderr) == (fresh.result.stdout, fresh.result.stderr):
            return
        self.stats.count("verify_differences")
        differing = sorted(p for p in before.keys() | now.keys() if before.get(p) != now.get(p)) or ["what it said"]
        log.error("SCCACHE_VERIFY: %s: a stored result differs from the compiler's in %s", job.plan.source, ", ".join(differing))
        await self.keeper.forget(job.recipe, variant.result)

    def _count(self, job: Job, ran: Ran) -> None:
        """As sccache does, for which a question is no compile, and a failure no miss: nothing could have been found."""
        plan = job.plan
        self.stats.count("compile_requests")
        failed = _failed(job, ran)
        if failed:
            self.stats.count("compile_fails")
        if plan.asks:
            self.stats.count("requests_not_compile")
            self.stats.count("probe_misses")
            return
        self.stats.count("requests_executed")
        self.stats.count("compilations")
        if not failed:
            self.stats.count_language("cache_misses", plan.language, plan.dialect)
        self.stats.add_duration("compiler_write_duration", ran.took_ns / 1e9)

    def _not_stored(self, reason: Reason, plan: Plan) -> None:
        log.info("not stored (%s): %s", reason.value, plan.source)
        self.stats.count("non_cacheable_compilations")
        self.stats.not_cached(reason.value)


def _give_back(work: asyncio.Future[deposit.Examined | Reason]) -> None:
    if not work.cancelled() and work.exception() is None and isinstance(examined := work.result(), deposit.Examined):
        examined.close()


def _is_never_twice_the_same(folded: str) -> bool:
    """A profile holds addresses, and what a probe leaves the hash of a random name."""
    return is_profile(folded) or folded == f"${PROBE}"


def _told_elsewhere(job: Job) -> tuple[str, ...]:
    """What is read and is no input: response files, which are part of the command line, and where temporary files go."""
    request = job.request
    files = [w[1:] for w in request.argv if w.startswith("@")] if job.compiler.driver.expands_response_files else []
    files += [request.env[name] for name in _TEMPORARY if request.env.get(name)]
    return tuple(plain(os.path.join(request.cwd, name)) for name in files)


def _has_places(job: Job) -> bool:
    """Whether the directories are there that a compiler writes to, which are no conditions."""
    request = job.request
    temporary = (request.env[name] for name in _TEMPORARY if request.env.get(name))
    # rustc makes what it is told to write to, and says if it cannot.
    outputs = (os.path.dirname(path) for path in job.plan.must_write) if job.plan.language != "Rust" else ()
    places = {*temporary, *outputs}
    return all(os.access(os.path.join(request.cwd, place), os.W_OK | os.X_OK) for place in places)


def _speaks_english(env: Mapping[str, str]) -> bool:
    """gettext(3), locale(7): what gcc and the C library say is translated.  rustc has one language, and the numbers of errors."""
    told = next((env[name] for name in ("LC_ALL", "LC_MESSAGES", "LANG") if env.get(name)), "C")
    if told.partition(".")[0] in ("C", "POSIX"):
        return True
    return all(language.startswith("en") for language in (env.get("LANGUAGE") or told).split(":") if language)


def _failed(job: Job, ran: Ran) -> bool:
    return ran.killed_by is not None or (ran.status != 0 and not _may_fail(job))


def _may_fail(job: Job) -> bool:
    """Whether a failure is an answer too: questions, and what a build script compiles to find out what this compiler can."""
    if not job.observed:
        return False
    place = job.request.env.get("OUT_DIR")
    plan = job.plan
    return plan.asks or plan.reads_stdin or (place is not None and any(f"{d}/".startswith(f"{place}/") for d in plan.may_write))


def _includes_special(source: str) -> Reason | None:
    """Raises OSError."""
    with open_regular(source) as f:
        text = f.read()
    # Most have none, which a search for three words says a hundred times sooner.
    found = _INCLUDES_SPECIAL.search(text) if any(place in text for place in (b"/dev/", b"/proc/", b"/sys/")) else None
    if found is None:
        return None
    return Reason.DESCRIPTOR if found["descriptor"] else Reason.SPECIAL_FILE
