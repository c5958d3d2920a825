"""Does cargo leave the same files with the cache as without it?  Whole target directories are compared, byte for byte.

    python benchmarks/cargo_check.py                              # every project, cargo build
    python benchmarks/cargo_check.py ripgrep --verbs release,test
    python benchmarks/cargo_check.py /some/checkout --verbs check,clippy
    python benchmarks/cargo_check.py --list

Each project is built in the same directory four times: plain, through an empty cache, through the full one (by a server that was started
anew), and, where files differ, once more plain: through a wrapper of the same name that only runs what it is given.  What that
changes, too, is not the cache's doing and is counted apart.  For each build through the cache the table says how many calls cargo made,
how many were answered without a compiler, and why the others were not.  Everything is made below --work.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

# This folder holds a profile.py, which must not stand before the standard library's.
sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rich.console import Console
from rich.table import Table

from benchmarks import tools
from benchmarks.cargo_edits import EDITS, Edit
from benchmarks.cargo_projects import PROJECTS, checkout
from benchmarks.contenders import Ours


@dataclass(frozen=True, slots=True)
class Verb:
    words: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)


_RELEASE = ("build", "--release")
VERBS = {
    "build": Verb(("build",)),
    "release": Verb(_RELEASE),
    "check": Verb(("check", "--all-targets")),
    "clippy": Verb(("clippy", "--all-targets")),
    "test-no-run": Verb(("test", "--no-run")),
    "test": Verb(("test", "--", "--test-threads=1")),
    "bench": Verb(("bench", "--no-run")),
    "doc": Verb(("doc", "--no-deps")),
    "thin": Verb(_RELEASE, {"CARGO_PROFILE_RELEASE_LTO": "thin", "CARGO_PROFILE_RELEASE_OPT_LEVEL": "1"}),
    "fat": Verb(
        _RELEASE,
        {"CARGO_PROFILE_RELEASE_LTO": "fat", "CARGO_PROFILE_RELEASE_CODEGEN_UNITS": "1", "CARGO_PROFILE_RELEASE_OPT_LEVEL": "1"},
    ),
    "abort": Verb(("build",), {"CARGO_PROFILE_DEV_PANIC": "abort"}),
    "strip": Verb(("build",), {"CARGO_PROFILE_DEV_STRIP": "symbols"}),
    "packed": Verb(("build",), {"CARGO_PROFILE_DEV_SPLIT_DEBUGINFO": "packed"}),
    "unpacked": Verb(("build",), {"CARGO_PROFILE_DEV_SPLIT_DEBUGINFO": "unpacked"}),
    "clang": Verb(("build",), {"RUSTFLAGS": "-Clinker=clang"}),
    "lld": Verb(("build",), {"RUSTFLAGS": "-Clink-arg=-fuse-ld=lld"}),
    "bfd": Verb(("build",), {"RUSTFLAGS": "-Clink-arg=-fuse-ld=bfd"}),
    "target": Verb(("build", "--target", "x86_64-unknown-linux-gnu")),
    "wasm": Verb(("build", "--release", "--target", "wasm32-unknown-unknown")),
    "musl": Verb(("build", "--target", "x86_64-unknown-linux-musl")),
}

# What cargo keeps of its own: rustc's answers with the wrapper's path and time.
_CARGOS_OWN = {".rustc_info.json"}

# What cargo 1.95 writes out of a hash map, in another order every time: the files that a unit has read, in .fingerprint, and the depfile
# beside what it links into target/debug.  Where one crate makes several libraries, any of them may be that depfile's target.
_IN_ANY_ORDER = re.compile(r"/\.fingerprint/[^/]+/dep-[^/]+$|/(debug|release)/[^/]+\.d$")

# Times, and in which order cargo's units happened to end.
_TIMES = re.compile(rb"\b\d+(\.\d+)?m?s\b|\b\d+m \d+s\b")

_PLAIN, _COLD, _WARM, _AGAIN = "plain", "cold", "warm", "plain again"

Snapshot = dict[str, tuple[int, bytes]]


@dataclass(slots=True)
class Built:
    """One run of cargo: how it ended, what it said, what it left; and, through the cache, what became of its calls."""

    status: int
    said: list[bytes]
    files: Snapshot
    seconds: float
    calls: int = 0
    hits: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)


def snapshot(place: Path) -> Snapshot:
    found = {}
    for directory, _, names in os.walk(place):
        for name in names:
            path = os.path.join(directory, name)
            mode = os.lstat(path).st_mode
            if stat.S_ISLNK(mode):
                content = os.fsencode(os.readlink(path))
            elif _IN_ANY_ORDER.search(path):
                with open(path, "rb") as f:
                    content = bytes(sorted(f.read().rpartition(b": ")[2]))
            else:
                with open(path, "rb") as f:
                    content = hashlib.file_digest(f, "blake2b").digest()
            found[os.path.relpath(path, place)] = (mode, content)
    return found


def differing(one: Snapshot, other: Snapshot) -> set[str]:
    return {p for p in one.keys() | other.keys() if one.get(p) != other.get(p) and os.path.basename(p) not in _CARGOS_OWN}


class Check:
    """One project: its checkout, its room with an empty cache, and the builds in it."""

    def __init__(self, ours: Ours, work: Path, name: str, cargo_home: str | None) -> None:
        self.ours = ours
        self.place = work / "co" / os.path.basename(name)
        self.target = self.place / "target"
        self.kept = work / "targets" / self.place.name
        self.cargo_home = cargo_home
        self.log = Path(os.devnull)
        self.place.parent.mkdir(parents=True, exist_ok=True)
        checkout(name, self.place, self._homes(tools.online()))

    def _homes(self, env: dict[str, str]) -> dict[str, str]:
        return env | {"CARGO_HOME": self.cargo_home} if self.cargo_home else env

    def environment(self, verb: Verb, way: str) -> dict[str, str]:
        """The same for all, but for the wrapper: a link whose path tells nothing of what is behind it."""
        env = self._homes(self.ours.environment()) | {"SCCACHE_ERROR_LOG": str(self.log), "SCCACHE_LOG": "info", **verb.env}
        assert self.ours.room is not None
        link = self.ours.room.home / "sccache"
        link.unlink(missing_ok=True)
        if way == _AGAIN:
            link.write_text('#!/bin/sh\nexec "$@"\n')
            link.chmod(0o755)
        else:
            link.symlink_to(str(self.ours.program))
        return env if way == _PLAIN else env | {"RUSTC_WRAPPER": str(link)}

    def build(self, verb: Verb, way: str) -> Built:
        cached = way in (_COLD, _WARM)
        env = self.environment(verb, way)
        before = self.ours.stats() if cached else {}
        began = time.perf_counter()
        # Before the other words: what follows a "--" is the test program's.
        words = ["cargo", verb.words[0], "--offline", *verb.words[1:]]
        done = subprocess.run(words, cwd=self.place, env=env, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        took = time.perf_counter() - began
        said = sorted(_TIMES.sub(b"#", done.stdout + done.stderr).splitlines())
        built = Built(done.returncode, said, {}, took)
        if cached:
            # Whatever is still being stored is stored then; the next build finds it in the store, not in memory.
            self.ours.ask("--stop-server")
            self._count(built, before)
        built.files = snapshot(self.target)
        return built

    def _count(self, built: Built, before: Mapping[str, int]) -> None:
        after = self.ours.stats()
        grown = {name: count - before.get(name, 0) for name, count in after.items() if count != before.get(name, 0)}
        built.calls = grown.get("calls", 0)
        built.hits = grown.get("hits", 0)
        built.reasons = {name.removeprefix("reason "): n for name, n in grown.items() if name.startswith("reason ")}
        if self.log.exists():
            built.log = self.log.read_text(errors="replace").splitlines()

    def put_aside(self, verb: str, way: str) -> None:
        place = self.kept / f"{verb}-{way.replace(' ', '-')}"
        shutil.rmtree(place, ignore_errors=True)
        place.parent.mkdir(parents=True, exist_ok=True)
        if self.target.exists():
            self.target.rename(place)

    def edit(self, edits: Sequence[Edit]) -> list[Session]:
        """After each edit plain cargo brings its target directory up to date, and the cache starts from nothing: what it leaves must be
        the same files.  Then the edit is undone, and everything is as it was."""
        sessions = []
        for edit in (Edit("before any"), *edits, Edit("all undone")):
            with _edited(self.place, edit.files):
                verb = Verb(("build",), edit.env)
                self.put_aside("edit", "left")
                if (self.kept / "edit-plain").exists():
                    (self.kept / "edit-plain").rename(self.target)
                plain = self.build(verb, _PLAIN)
                self.put_aside("edit", _PLAIN)
                self.log = Path(f"{self.ours.room.home}/log-edit-{len(sessions)}") if self.ours.room else self.log
                ours = self.build(verb, _WARM)
                self.put_aside("edit", edit.name)
            # What plain cargo has left over from earlier is nobody's.
            other = {p for p, found in ours.files.items() if plain.files.get(p) != found and os.path.basename(p) not in _CARGOS_OWN}
            sessions.append(Session(edit.name, plain, ours, other))
            if sessions[-1].is_clean():
                shutil.rmtree(self.kept / f"edit-{edit.name.replace(' ', '-')}")
        return sessions

    def run(self, name: str, keep: bool) -> Verdict:
        assert self.ours.room is not None
        verb = VERBS[name]
        verdict = Verdict(self.place.name, name)
        for way in (_PLAIN, _COLD, _WARM):
            self.put_aside(name, "left")
            self.log = self.ours.room.home / f"log-{name}-{way}"
            built = self.build(verb, way)
            verdict.built[way] = built
            if way == _WARM and built.status == 0 and verb.words[0] != "test":
                verdict.compiled_again = _compiles(self.build(verb, _WARM).said)
            self.put_aside(name, way)
        plain = verdict.built[_PLAIN]
        for way in (_COLD, _WARM):
            verdict.findings[way] = differing(plain.files, verdict.built[way].files)
        if any(verdict.findings.values()) or any(b.said != plain.said for b in verdict.built.values()):
            again = verdict.built[_AGAIN] = self.build(verb, _AGAIN)
            self.put_aside(name, _AGAIN)
            verdict.not_ours = differing(plain.files, again.files)
            for way in (_COLD, _WARM):
                verdict.findings[way] -= verdict.not_ours
        if not keep and verdict.is_clean():
            shutil.rmtree(self.kept, ignore_errors=True)
        return verdict


@contextlib.contextmanager
def _edited(place: Path, files: Mapping[str, str | int | None]) -> Iterator[None]:
    """The files so, and afterwards with the old content and the old times."""
    old = {path: ((place / path).read_bytes(), (place / path).stat().st_mtime_ns) for path in files if (place / path).exists()}
    for path, text in files.items():
        if text is None:
            (place / path).unlink()
        elif isinstance(text, int):
            os.utime(place / path, (text, text))
        else:
            (place / path).write_text(text)
    try:
        yield
    finally:
        for path in files:
            (place / path).unlink(missing_ok=True)
        for path, (content, time_ns) in old.items():
            (place / path).write_bytes(content)
            os.utime(place / path, ns=(time_ns, time_ns))


@dataclass(slots=True)
class Session:
    """One edit: what plain cargo made of it, and what we did."""

    name: str
    plain: Built
    ours: Built
    other: set[str]

    def is_clean(self) -> bool:
        return self.plain.status == self.ours.status == 0 and not self.other


@dataclass(slots=True)
class Verdict:
    project: str
    verb: str
    built: dict[str, Built] = field(default_factory=dict)
    findings: dict[str, set[str]] = field(default_factory=dict)
    not_ours: set[str] = field(default_factory=set)  # what plain cargo does not reproduce, or what names the wrapper
    compiled_again: int = 0  # units that a second run after the warm one found stale

    def said_otherwise(self, way: str) -> list[bytes]:
        """Lines that are in one and not in the other, unless a wrapper that does nothing changes them, too."""
        plain, built, again = self.built[_PLAIN], self.built[way], self.built.get(_AGAIN)
        unlike = _unlike(plain.said, built.said)
        return [] if again is not None and (unlike == _unlike(plain.said, again.said) or built.said == again.said) else unlike

    def is_clean(self) -> bool:
        ways = (_COLD, _WARM)
        succeeded = not any(b.status for b in self.built.values())
        return succeeded and not self.compiled_again and not any(self.findings[w] or self.said_otherwise(w) for w in ways)

    def rows(self) -> Iterator[tuple[str, ...]]:
        for way in (_COLD, _WARM):
            built = self.built[way]
            reasons = ", ".join(f"{n} × {reason}" for reason, n in sorted(built.reasons.items(), key=lambda r: -r[1]))
            yield (
                f"{self.project} {self.verb}",
                f"{self.built[_PLAIN].seconds:.1f}",
                way,
                f"{built.seconds:.1f}",
                str(built.calls),
                str(built.hits),
                str(built.calls - built.hits),
                reasons,
                str(len(self.findings[way])),
                str(len(self.not_ours)),
                str(len(self.said_otherwise(way))),
                str(self.compiled_again) if way == _WARM else "",
            )

    def details(self) -> Iterator[str]:
        statuses = {way: built.status for way, built in self.built.items()}
        if any(statuses.values()):
            yield f"exit codes: {statuses}"
            yield from (f"  plain: {line.decode(errors='replace')}" for line in self.built[_PLAIN].said if b"error" in line)
        for way in (_COLD, _WARM):
            yield from (f"{way}: differs: {path}" for path in sorted(self.findings[way]))
            yield from (f"{way}: said otherwise: {line.decode(errors='replace')}" for line in self.said_otherwise(way))
        yield from (f"not ours: {path}" for path in sorted(self.not_ours))
        yield from (f"warm log: {line}" for line in self.built[_WARM].log if not line.endswith(" it holds"))
        yield from (f"cold log: {line}" for line in self.built[_COLD].log if "not cached" in line)


def _unlike(one: Sequence[bytes], other: Sequence[bytes]) -> list[bytes]:
    a, b = Counter(one), Counter(other)
    return sorted(((a - b) + (b - a)).elements())


def _compiles(said: Sequence[bytes]) -> int:
    return sum(1 for line in said if line.strip().startswith((b"Compiling", b"Checking", b"Documenting")))


class Watched(Ours):
    """Ourselves, with what the table needs of the statistics."""

    def stats(self) -> dict[str, int]:
        stats = json.loads(self.ask("--show-stats", "--stats-format", "json"))["stats"]
        hits = sum(stats["cache_hits"]["counts"].values())
        return {"calls": stats["compile_requests"], "hits": hits, **{f"reason {r}": n for r, n in stats["not_cached"].items()}}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("projects", nargs="*", metavar="PROJECT", help=f"of {', '.join(PROJECTS)}; or a directory; default: all")
    parser.add_argument("--verbs", default="build", help=f"of {', '.join(VERBS)}, with commas between; default: build")
    parser.add_argument("--ours", metavar="DIR", help="the bin directory of an installed sccache-py; default: the tree is installed anew")
    parser.add_argument("--work", metavar="DIR", default=str(tools.WORK / "check"), help="where all of it is made")
    parser.add_argument("--cargo-home", metavar="DIR", help="cargo's home, where crates are downloaded to; default: the caller's")
    parser.add_argument("--keep", action="store_true", help="keep the target directories, also those that agree")
    parser.add_argument("--edits", action="store_true", help=f"edit and build again, instead of the verbs: {', '.join(EDITS)}")
    parser.add_argument("--list", action="store_true", help="name the projects and verbs")
    chosen = parser.parse_args()
    unknown = [v for v in chosen.verbs.split(",") if v not in VERBS]
    unknown += [p for p in chosen.projects if p not in PROJECTS and not Path(p, "Cargo.toml").exists()]
    if unknown:
        parser.error(f"not known: {', '.join(unknown)}")
    return chosen


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    chosen = arguments()
    signal.signal(signal.SIGTERM, _interrupt)  # so that its server is stopped
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 190)
    if chosen.list:
        console.print("projects:", *PROJECTS, "\nverbs:", *VERBS)
        return 0
    ours = Watched(tools.ours(chosen.ours).program)
    work = Path(chosen.work).absolute()
    if chosen.edits:
        return _edits(chosen, ours, work, console)
    verdicts = []
    for project in chosen.projects or PROJECTS:
        try:
            with ours.at_work(work / "rooms"):
                check = Check(ours, work, project, chosen.cargo_home)
                for verb in chosen.verbs.split(","):
                    verdict = check.run(verb, chosen.keep)
                    verdicts.append(verdict)
                    for line in verdict.details():
                        console.print(f"{verdict.project} {verb}: {line}", markup=False, soft_wrap=True)
        except tools.Missing as e:
            console.print(f"{project}: left out: {e}", markup=False)
    table = Table("build", "plain s", "way", "s", "calls", "hits", "run", "not cached", "differ", "not ours", "said", "again")
    for verdict in verdicts:
        for row in verdict.rows():
            table.add_row(*row)
    console.print(table)
    return 0 if all(v.is_clean() for v in verdicts) else 1


def _edits(chosen: argparse.Namespace, ours: Watched, work: Path, console: Console) -> int:
    table = Table("project", "edit", "plain s", "s", "calls", "hits", "run", "not cached", "differ")
    clean = True
    for project in chosen.projects or EDITS:
        with ours.at_work(work / "rooms"):
            for session in Check(ours, work, project, chosen.cargo_home).edit(EDITS.get(project, ())):
                built = session.ours
                clean &= session.is_clean()
                for line in (*sorted(session.other), *built.log, *(line.decode() for line in session.plain.said if b"error" in line)):
                    console.print(f"{project}: {session.name}: {line}", markup=False, soft_wrap=True)
                seconds = (f"{b.seconds:.1f}" for b in (session.plain, built))
                counts = (str(n) for n in (built.calls, built.hits, built.calls - built.hits))
                table.add_row(project, session.name, *seconds, *counts, ", ".join(built.reasons), str(len(session.other)))
    console.print(table)
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
