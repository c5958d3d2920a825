"""Whole builds: cargo projects and C projects, cold and warm, alone and two at once."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import machine, tools
from benchmarks.c_projects import RE2_TABLES
from benchmarks.contenders import Contender
from benchmarks.measure import CONTROL, PLAIN, Attic, Bench, Failed, timed

_ROUNDS = 3

# A cache that has not changed for so long does not change by itself.
_SETTLING_S = 4.0
_MOST_LOOKS = 30


@dataclass(frozen=True, slots=True)
class Work:
    """What is built.  prepare: before the clock starts; argv: what is timed; made: where its outputs go."""

    workload: str
    title: str
    language: str
    cwd: Path
    made: Path
    prepare: Callable[[Contender], None]
    argv: Callable[[Contender], Sequence[str]]


_VERBS: dict[str, tuple[str, tuple[str, ...]]] = {
    "build": ("build", ("build",)),
    "check": ("check", ("check",)),
    "release": ("build --release", ("build", "--release")),
    "test": ("test --no-run", ("test", "--no-run")),
}


def cargo(bench: Bench, workload: str, project: str, verb: str = "build") -> None:
    """demo, big170, big750 and the verbs of cargo on them."""
    try:
        place = tools.project(project)
    except tools.Missing as e:
        bench.results.remark(f"{workload}: left out: {e}")
        return
    words, arguments = _VERBS[verb]
    title = f"{project}, cargo {words}"
    work = Work(workload, title, "rust", place, place / "target", _nothing, lambda _: ["cargo", *arguments, "--locked", "--offline"])
    _compare(bench, work)


def _nothing(_: Contender) -> None:
    pass


def c_of_crates(bench: Bench) -> None:
    """C and C++ that crates carry, by ninja files of ours."""
    if shutil.which("ninja") is None:
        bench.results.remark("c: left out: ninja is not installed")
        return
    try:
        crates = tools.crate_sources()
    except tools.Missing as e:
        bench.results.remark(f"c: crates' sources left out: {e}")
        crates = {}
    for name, language, flags, patterns in (
        ("zstd-sys", "c", "-O2 -Izstd/lib -Izstd/lib/common -Izstd/lib/legacy -DZSTD_DISABLE_ASM", ("zstd/lib/*/*.c",)),
        ("lua-src", "c", "-O2 -DLUA_USE_LINUX", ("lua-5.4*/l*.c", "lua-5.3*/l*.c")),
        ("libsqlite3-sys", "c", "-O2 -DSQLITE_THREADSAFE=1", ("sqlite3/sqlite3.c",)),
        ("meshopt", "c++", "-O2", ("vendor/src/*.cpp",)),
    ):
        if name in crates:
            _ninja_project(bench, name, language, flags, _sources(crates[name], patterns), crates[name])


def debian(bench: Bench) -> None:
    """Debian's sources, by their own makefiles and cmake's."""
    for name, compare in (("leveldb", _cmake_project), ("re2", _cmake_project), ("redis", _redis)):
        bench.tick(f"Debian's {name}")
        try:
            compare(bench, name, tools.debian_source(name))
        except tools.Missing as e:
            bench.results.remark(f"debian: {name} left out: {e}")


def _sources(place: Path, patterns: Sequence[str]) -> list[Path]:
    """Those of the first pattern that finds any; no tests."""
    for pattern in patterns:
        found = sorted(p for p in place.glob(pattern) if not any(w in p.name for w in ("test", "benchmark", "fuzz", "tool")))
        if found:
            return found
    return []


def _ninja_project(bench: Bench, name: str, language: str, flags: str, sources: Sequence[Path], place: Path) -> None:
    if not sources:
        bench.results.remark(f"c: {name} carries no sources that we know")
        return
    made = bench.work / "checkouts" / f"{name}-build"
    compiler = "gcc" if language == "c" else "g++"

    def prepare(contender: Contender) -> None:
        made.mkdir(parents=True)
        call = " ".join(shlex.quote(word) for word in contender.command([compiler]))
        text = f"rule cc\n  command = cd {place} && {call} {flags} -MD -MF $out.d -c $in -o $out\n  depfile = $out.d\n"
        text += "".join(f"build {made}/{n}-{s.stem}.o: cc {s}\n" for n, s in enumerate(sources))
        (made / "build.ninja").write_text(text)

    work = Work("c", f"{name}, {len(sources)} files, ninja", language, made.parent, made, prepare, lambda _: ["ninja", "-C", str(made)])
    _compare(bench, work)


def _cmake_project(bench: Bench, name: str, source: Path) -> None:
    if missing := [program for program in ("cmake", "ninja") if shutil.which(program) is None]:
        raise tools.Missing(f"{' and '.join(missing)} not installed")
    if name == "re2":
        tools.run(["sh", "-c", RE2_TABLES], cwd=source)
    made = bench.work / "checkouts" / f"{name}-build"

    def prepare(contender: Contender) -> None:
        launcher = [] if contender.program is None else [f"-DCMAKE_{x}_COMPILER_LAUNCHER={contender.program}" for x in ("C", "CXX")]
        left_out = [f"-D{name.upper()}_BUILD_{what}=OFF" for what in ("TESTS", "TESTING", "BENCHMARKS")]
        options = ["-GNinja", "-DCMAKE_BUILD_TYPE=Release", *left_out]
        timed(["cmake", "-S", str(source), "-B", str(made), *options, *launcher], contender.environment(), source)

    _compare(bench, Work("debian", f"Debian's {name}, cmake and ninja", "c++", source, made, prepare, lambda _: ["ninja", "-C", str(made)]))


def _redis(bench: Bench, name: str, source: Path) -> None:
    """By its own makefile, which builds beside the sources: each build has a copy of them."""
    made = bench.work / "checkouts" / f"{name}-build"

    def prepare(_: Contender) -> None:
        shutil.copytree(source, made, symlinks=True)

    def make(contender: Contender) -> Sequence[str]:
        call = shlex.join(contender.command(["gcc"]))
        words = [f"CC={call}", "MALLOC=libc", "redis-server", "redis-cli"]
        # As Debian's builds have it: exported, so that make's $(shell …) sees it, too; else one header says the time.
        return ["env", "SOURCE_DATE_EPOCH=1600000000", "make", f"-j{machine.processors()}", "-C", str(made / "src"), *words]

    _compare(bench, Work("debian", f"Debian's {name}, make", "c", source, made, prepare, make))


def _compare(bench: Bench, work: Work) -> None:
    """Each round: everybody cold with an empty cache, then warm.  Those that only compile are measured cold, twice."""
    contenders = {c.name: c for c in bench.those_for(work.language)}
    cold, warm = f"{work.title}, cold", f"{work.title}, warm"
    times: dict[str, dict[str, list[float]]] = {cold: {n: [] for n in contenders}, warm: {n: [] for n in contenders}}
    sizes: dict[str, dict[str, list[float]]] = {"memory": {}, "cache": {}, "hits": {}}
    attic = Attic(bench.work / "attic")
    try:
        for n in range(bench.rounds_or(_ROUNDS)):
            names = [name for name in contenders if name != CONTROL]
            turn = n % len(names) if names else 0
            # The control comes right after the compiler alone: a pair.
            order = [x for name in names[turn:] + names[:turn] for x in ((PLAIN, CONTROL) if name == PLAIN else (name,))]
            for name in order:
                if name not in contenders:
                    continue
                try:
                    _one_round(bench, work, contenders[name], attic, times, sizes)
                except Failed as e:
                    bench.results.remark(f"{work.title}: {name} failed and is left out: {e}")
                    del contenders[name]
                    for case in (cold, warm):
                        times[case].pop(name)
    finally:
        attic.put(work.made)
        bench.tick("deleting what was built")
        attic.empty()
    bench.results.add_all(work.workload, cold, "s", times[cold], {})
    bench.results.add_all(work.workload, warm, "s", times[warm], {})
    for name in contenders:
        bench.results.add(work.workload, f"{work.title}: memory of all servers", name, "MB", sizes["memory"].get(name, []))
        bench.results.add(work.workload, f"{work.title}: cache on disk", name, "MB", sizes["cache"].get(name, []))
        bench.results.add(work.workload, f"{work.title}: hits of the warm build", name, "hits", sizes["hits"].get(name, []), detail=True)


def _one_round(
    bench: Bench,
    work: Work,
    contender: Contender,
    attic: Attic,
    times: dict[str, dict[str, list[float]]],
    sizes: dict[str, dict[str, list[float]]],
) -> None:
    cold, warm = times
    name = contender.name
    with contender.at_work(bench.rooms):
        bench.tick(f"{cold}: {name}")
        times[cold][name].append(_build(work, contender, attic))
        if contender.program is None:
            return
        servers = contender.servers()
        machine.wait_for_rest(servers)
        before = contender.hits()
        bench.tick(f"{warm}: {name}")
        times[warm][name].append(_build(work, contender, attic))
        after = contender.hits()
        # Short, and so told apart less well by one look than what is cold.
        times[warm][name].append(_build(work, contender, attic))
        if before is not None and after is not None:
            sizes["hits"].setdefault(name, []).append(after - before)
        assert contender.room is not None
        sizes["cache"].setdefault(name, []).append(_settled_bytes(contender.room.cache) / 1e6)
        sizes["memory"].setdefault(name, []).append(machine.rss_bytes(contender.servers()) / 1e6)


def _settled_bytes(cache: Path) -> int:
    """Its size when what is compressed behind a build is compressed."""
    size = machine.disk_bytes(cache)
    for _ in range(_MOST_LOOKS):
        time.sleep(_SETTLING_S)
        before, size = size, machine.disk_bytes(cache)
        if size == before:
            break
    return size


def _build(work: Work, contender: Contender, attic: Attic) -> float:
    attic.put(work.made)
    work.prepare(contender)
    machine.touch_memory()
    return timed(work.argv(contender), contender.cargo_environment(), work.cwd)


def together(bench: Bench) -> None:
    """Two cold builds at once, of two checkouts, while somebody keeps saying `cargo check` in a third."""
    try:
        first = tools.project("big170")
    except tools.Missing as e:
        bench.results.remark(f"together: left out: {e}")
        return
    second, third = tools.second_checkout(first, "-second"), tools.second_checkout(first, "-third")
    attic = Attic(bench.work / "attic")
    longest: dict[str, list[float]] = {}
    checks: dict[str, list[float]] = {}
    contenders = {c.name: c for c in bench.those_for("rust") if c.name != CONTROL}
    try:
        for _ in range(bench.rounds_or(1)):
            for name, contender in list(contenders.items()):
                bench.tick(f"two builds at once: {name}")
                for place in (first, second, third):
                    attic.put(place / "target")
                try:
                    with contender.at_work(bench.rooms):
                        took, each = _two_and_checks(contender, (first, second), third)
                except Failed as e:
                    bench.results.remark(f"together: {name} failed and is left out: {e}")
                    del contenders[name]
                    continue
                longest.setdefault(name, []).append(took)
                checks.setdefault(name, []).extend(each)
    finally:  # an interrupted run has results, too
        for place in (first, second, third):
            attic.put(place / "target")
        attic.empty()
        bench.results.add_all("together", "two cold big170 builds at once, until both are done", "s", longest, {})
        bench.results.add_all("together", "cargo check after an edit, meanwhile", "s", checks, {})


def _two_and_checks(contender: Contender, builders: Sequence[Path], checker: Path) -> tuple[float, list[float]]:
    env, argv = contender.cargo_environment(), ["cargo", "build", "--locked", "--offline"]
    check = ["cargo", "check", "--locked", "--offline"]
    timed(check, env, checker)  # its dependencies are there; what follows is an edit and a check
    main, checks = checker / "src" / "main.rs", []
    began = time.perf_counter()
    with contextlib.ExitStack() as stack:
        said = [stack.enter_context(tempfile.TemporaryFile()) for _ in builders]
        running = [
            subprocess.Popen(argv, env=env, cwd=c, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=f)
            for c, f in zip(builders, said, strict=True)
        ]
        try:
            while any(p.poll() is None for p in running):
                main.write_text(main.read_text() + f"// edit {len(checks)}\n")
                checks.append(timed(check, env, checker))
                time.sleep(1)
            took = time.perf_counter() - began
        finally:
            for process in running:
                process.kill()
                process.wait()
        for process, file in zip(running, said, strict=True):
            if process.returncode != 0:
                file.seek(0)
                raise Failed(f"a build failed ({process.returncode}): {file.read().decode(errors='replace')[-2000:]}")
    return took, checks
