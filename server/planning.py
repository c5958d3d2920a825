"""From a request to a `Job`: which compiler this is, what it is told to do, and under which recipe the result would be known.

Nothing is looked up or run here.
"""

from __future__ import annotations

import functools
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from sccache_py import config, keys
from sccache_py.compilers import basedirs, c_search, response_files
from sccache_py.compilers.rustc import ASKS_NAME
from sccache_py.model import PROBE, Plan, Reason, Refusal, Request, Variant
from sccache_py.server.answers import Client
from sccache_py.server.filesystem.files import FileMemo, open_regular
from sccache_py.server.filesystem.sight import Sight
from sccache_py.server.filesystem.stamps import leads_to
from sccache_py.server.jobs.under_way import Seen, unseen
from sccache_py.server.process import trace
from sccache_py.server.process.machine import processor_features
from sccache_py.server.process.threads import Threads
from sccache_py.server.running.observer import Observer
from sccache_py.server.toolchains import preloads
from sccache_py.server.toolchains.compiler import Compiler
from sccache_py.server.toolchains.identify import Toolchains, files_below

_PLANS = 4000

# By it clang tells where its headers are by the name that it was called by.
_UNRESOLVED = "-no-canonical-prefixes"

_OWN_CWD = re.compile(r"/proc/(self|thread-self)/cwd(?=/|\Z)")

_DESCRIPTOR = re.compile(r"/dev/(fd/|std(in|out|err)\b|tty\b)|/proc/(self|thread-self|\d+)/fd/")


@dataclass(slots=True)
class Job:
    request: Request
    wishes: config.Wishes
    compiler: Compiler
    plan: Plan
    recipe: bytes
    observed: bool
    sight: Sight
    stdin: bytes | None
    response_files: dict[str, str | None] = field(default_factory=dict)  # path → text, by which the command line was read
    told: tuple[tuple[str, bytes], ...] = ()  # what the recipe has beside plan, compiler, source and environment
    second: bool = False  # found by a second chance
    tried: list[Variant] | None = None  # a manifest of which none holds
    holding: Variant | None = None  # one that does, looked up a moment ago
    seen: Seen = field(default_factory=unseen)
    began: float = field(default_factory=time.perf_counter)

    def is_as_planned(self) -> bool:
        """Whether the compiler, the command line and the directory are what the recipe says: the compile may have waited for long."""
        is_there = leads_to(self.request.cwd, self.request.here)  # else it read relative names elsewhere
        return is_there and self.compiler.is_unchanged() and all(_text(path) == text for path, text in self.response_files.items())


@dataclass(slots=True)
class Planner:
    settings: config.Settings
    memo: FileMemo
    toolchains: Toolchains
    observer: Observer
    threads: Threads
    _plans: dict[tuple[object, ...], Plan | Reason | Refusal] = field(default_factory=dict)

    def plan_now(self, request: Request) -> Job | Reason | Refusal | None:
        """What can be said from memory and stats; None: make_job() must be awaited."""
        sight = Sight(self.memo)
        compiler = self.toolchains.find_now(request, sight)
        trace.mark("compiler")
        if compiler is None:
            return None
        return self._plan(request, config.wishes(request.env), compiler, sight)

    async def make_job(self, request: Request, client: Client | None) -> Job | Reason | Refusal:
        compiler = self.toolchains.find_now(request, Sight(self.memo))
        if compiler is None:
            compiler = await self.toolchains.identify(request)
        trace.mark("compiler")
        wishes = config.wishes(request.env)
        sight = Sight(self.memo)
        job = self._plan(request, wishes, compiler, sight)
        if job is None:
            # The main source is on standard input, or it is large and not known yet.
            plan = self._plan_of(request, compiler, {})
            assert isinstance(plan, Plan)
            stdin = None
            if plan.reads_stdin:
                stdin = await client.stdin() if client is not None else None
                if stdin is None:
                    return Reason.STDIN
            while job is None:
                await self.threads.run(sight.hash_all)
                job = self._plan(request, wishes, compiler, sight, stdin)
        return job

    def _plan(
        self, request: Request, wishes: config.Wishes, compiler: Compiler | Reason, sight: Sight, stdin: bytes | None = None
    ) -> Job | Reason | Refusal | None:
        """None: standard input must be read, or the digest of the main source computed, first."""
        if wishes.no_cache:
            return Reason.NO_CACHE
        if not (request.has_open(1) and request.has_open(2)):
            return Reason.CLOSED_STREAM  # gcc 12 fails if it cannot warn; and whatever is opened first gets that number
        response: dict[str, str | None] = {}
        plan = self._plan_of(request, compiler, response)
        trace.mark("plan")
        if not isinstance(plan, Plan):
            return plan
        assert isinstance(compiler, Compiler)
        refused = compiler.driver.refused_variable(request.env)
        if refused is not None:
            return refused
        loaders = preloads.refused_variable(request.env)
        if loaders is not None:
            return Refusal(Reason.REFUSED_VARIABLE, loaders)
        if plan.incremental is not None and not wishes.incremental:
            return Reason.INCREMENTAL
        observed = self.settings.observe and self.observer.can_preload(compiler.image)
        if not observed:
            if compiler.is_script:
                return Reason.FALLBACK_SCRIPT
            if plan.incremental is not None:
                return Reason.INCREMENTAL
            if plan.linked:
                return Reason.NOT_COMPILING if plan.asks else Reason.STDIN if plan.reads_stdin else Reason.CRATE_TYPE
            if plan.leaves_more:
                return Reason.FALLBACK_OUTPUTS
            if plan.searches:
                return Reason.FALLBACK_SEARCH
            if plan.unlisted is not None:
                return plan.unlisted
            if plan.dep_info is None and not plan.question:
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
        more = [("mode", b"observed" + self.observer.identity if observed else b"listed")]
        if stdin is not None and plan.roles.has(PROBE) and ASKS_NAME.search(stdin):
            more.append(("name", os.fsencode(plan.roles.spelled(PROBE))))
        for file in wishes.extra_files:
            found = sight.digest(os.path.join(request.cwd, file))
            if found == Sight.UNHASHED:
                return None
            more.append(("extra file", os.fsencode(file) + b"\0" + (found or b"")))
        if not observed and plan.target is not None:
            for path in files_below(os.path.join(compiler.place, plan.target)):
                found = sight.digest(path)
                if found == Sight.UNHASHED:
                    return None
                more.append(("library", os.fsencode(os.path.basename(path)) + b"\0" + (found or b"")))
        if wishes.buster:
            more.append(("buster", os.fsencode(wishes.buster)))
        if "LD_PRELOAD" in request.env:
            more.append(("preload", os.fsencode(request.env["LD_PRELOAD"])))
        if _UNRESOLVED in plan.arguments:
            more.append(("program", os.fsencode(compiler.program)))
        if plan.native_cpu:
            more.append(("processor", processor_features()))
        if not observed:
            names = keys.fallback_environment(request.env, keys.EXTRA_ENV_DEFAULT if wishes.extra_env is None else wishes.extra_env)
            more += [("env", os.fsencode(f"{n}={request.env[n]}")) for n in names]
        recipe = keys.KeyHash()
        keys.describe_recipe(plan, compiler.identity, source, request.env, more, recipe)
        return Job(request, wishes, compiler, plan, recipe.key(), observed, sight, stdin, response, tuple(more))

    def _plan_of(self, request: Request, compiler: Compiler | Reason, response: dict[str, str | None]) -> Plan | Reason | Refusal:
        """response: is given the response files that were read, with their texts."""
        if isinstance(compiler, Reason):
            return compiler
        driver = compiler.driver
        argv: Sequence[str] = request.argv[1:]
        if any(word.startswith("@") for word in argv):
            if not driver.expands_response_files:
                return Reason.RESPONSE_FILE
            if _name_a_descriptor(argv):
                return Reason.DESCRIPTOR

            def read(name: str) -> str | None:
                path = os.path.join(request.cwd, name)
                return response.setdefault(path, _text(path))

            expanded = response_files.expand(argv, read, driver.escapes_within_quotes)
            if expanded is None:
                return Reason.RESPONSE_FILE
            argv = expanded
        pwd = _pwd(request) if driver.uses_pwd else request.cwd
        searched = c_search.variables(request.env)
        named = request.env.get(config.BASEDIRS)
        bases = self.settings.basedirs if named is None else _base_directories(named, self.settings.basedirs)
        call = (driver.name, compiler.place, compiler.program, request.cwd, pwd, searched, bases, *argv)
        plan = self._plans.get(call)
        if plan is None:
            plan = Reason.DESCRIPTOR if _name_a_descriptor(argv) else driver.parse(argv, request.cwd, pwd)
            if isinstance(plan, Plan):
                plan = basedirs.tell(c_search.tell(plan, searched), bases, os.path.dirname(compiler.program))
                if compiler.place:
                    plan = replace(plan, roles=plan.roles.with_one("toolchain", compiler.place))
            if len(self._plans) >= _PLANS:
                self._plans.clear()
            self._plans[call] = plan
        if isinstance(plan, Plan) and request.is_terminal(2):
            terminal = driver.terminal_arguments(plan, request.env, request.columns)
            shown = self._plans.get((call, terminal))
            if shown is None:
                shown = self._plans[call, terminal] = replace(plan, terminal=terminal)
            return shown
        return plan


@functools.lru_cache(256)
def _base_directories(named: str, otherwise: tuple[str, ...]) -> tuple[str, ...]:
    """What a caller says, whoever started the server; otherwise: what it has, which stands where that is wrong."""
    try:
        return config.base_directories(named, [])
    except config.ConfigError:
        return otherwise


def _name_a_descriptor(words: Sequence[str]) -> bool:
    """Bash's <(…), /dev/stdin and the like: what is open there for the caller is not open for the server and its children."""
    return any(_DESCRIPTOR.search(word) for word in words)


def _pwd(request: Request) -> str:
    """$PWD where it names the cwd: gcc and clang write it into debug information.  Bazel says /proc/self/cwd, which is ours to us."""
    pwd = request.env.get("PWD", "")
    if pwd == request.cwd or not pwd.startswith("/"):
        return request.cwd
    own = _OWN_CWD.match(pwd)
    return pwd if leads_to(request.cwd + pwd[own.end() :] if own else pwd, request.here) else request.cwd


def _text(path: str) -> str | None:
    """A response file; None: there is none."""
    try:
        with open_regular(path) as f:
            return os.fsdecode(f.read())
    except (OSError, ValueError):
        return None
