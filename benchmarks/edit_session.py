"""Does a second chance pay?  An edit session in which a header changes, sometimes only in a comment.

usage: edit_session.py [--compilers g++ clang++] [--files 8] [--users 6] [--edits 10] [--shares 0 0.1 0.25 0.5] [--client sccache-py]

A project of `--files` sources, of which `--users` include the header that is edited.  After each edit its users are compiled, one after
the other, in three ways, in a server of the session's own:

- `off`: through the cache,
- `on`: through the cache with SCCACHE_SECOND_CHANCE=1, in which a comment is a hit and any other edit costs looking at texts,
- `text`: what a second chance by preprocessed text would take at the least: the preprocessor for each, and what `off` took where its text,
  without line markers, is another than before; a hit is taken to cost nothing.

Over objects that do not depend on lines (no -g, no coverage, no __LINE__): with debug information no second chance hits.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

# What a source includes, and a function that uses it.
KINDS = {
    "C-like, 2 headers": (("cstdio", "cstdlib"), 'std::printf("%d", x);'),
    "C++, 4 headers": (
        ("map", "string", "vector", "iostream"),
        "std::map<std::string, int> m; m[std::to_string(x)] = x; std::cout << m.size();",
    ),
    "C++, 3 headers, templates": (
        ("regex", "string", "functional"),
        'std::function<bool()> f = [x] { return std::regex_search(std::to_string(x), std::regex("a+")); }; f();',
    ),
}

OPTIONS = ("-std=c++17", "-O2", "-I.")


@dataclass
class Project:
    place: Path
    client: str
    env: dict[str, str]
    compiler: str
    kind: str
    users: int
    texts: dict[str, bytes] = field(default_factory=dict)  # by source: digest of what the preprocessor said last
    took_s: dict[str, list[float]] = field(default_factory=dict)  # by way and kind of edit

    def write(self, files: int) -> None:
        headers, body = KINDS[self.kind]
        includes = "".join(f"#include <{name}>\n" for name in headers)
        self.edit(0, 0)
        for number in range(files):
            ours = '#include "api.h"\n' if number < self.users else "static int api(int x) { return x; }\n"
            source = f"{includes}{ours}int f{number}(int n) {{ int x = api(n) + {number}; {body} return x; }}\n"
            (self.place / f"f{number}.cc").write_text(source)

    def edit(self, comment: int, value: int) -> None:
        lines = "\n".join(f"// line {n} of edit {comment}" for n in range(1 + comment % 3))
        (self.place / "api.h").write_text(f"#pragma once\n{lines}\ninline int api(int x) {{ return x + {value}; }}\n")

    def run(self, *words: str, **env: str) -> tuple[float, bytes]:
        began = time.perf_counter()
        done = subprocess.run(words, cwd=self.place, env={**self.env, **env}, stdout=subprocess.PIPE, check=True)
        return time.perf_counter() - began, done.stdout

    def rebuild(self, is_comment: bool) -> dict[str, float]:
        """Seconds for all users of the header, by way."""
        total = dict.fromkeys(("off", "on", "text"), 0.0)
        for number in range(self.users):
            source = f"f{number}.cc"
            compile_it = (self.client, self.compiler, *OPTIONS, "-c", source, "-o", source + ".o")
            # Each way has a cache of its own.
            off, _ = self.run(*compile_it, SCCACHE_C_CUSTOM_CACHE_BUSTER="off")
            on, _ = self.run(*compile_it, SCCACHE_C_CUSTOM_CACHE_BUSTER="on", SCCACHE_SECOND_CHANCE="1")
            preprocess, text = self.run(self.compiler, *OPTIONS, "-E", "-P", source)
            digest = hashlib.blake2b(text).digest()
            by_text = preprocess + (0 if self.texts.get(source) == digest else off)
            self.texts[source] = digest
            kind = "comment" if is_comment else "code"
            for way, seconds in (("off", off), ("on", on), ("text", by_text)):
                total[way] += seconds
                self.took_s.setdefault(f"{way} {kind}", []).append(seconds)
            self.took_s.setdefault("preprocess", []).append(preprocess)
        return total


def session(project: Project, edits: int, shares: list[float]) -> None:
    project.rebuild(False)  # everything is in the page cache, and known
    project.took_s.clear()
    gains = []
    comment = value = 0
    for share in shares:
        dice = random.Random(1)
        kinds = [number < round(edits * share) for number in range(edits)]
        dice.shuffle(kinds)
        took = dict.fromkeys(("off", "on", "text"), 0.0)
        for is_comment in kinds:
            comment, value = (comment + 1, value) if is_comment else (comment, value + 1)
            project.edit(comment, value)
            for way, seconds in project.rebuild(is_comment).items():
                took[way] += seconds
        gains.append(f"{share:.0%}: {took['on'] / took['off'] - 1:+.1%} (by text {took['text'] / took['off'] - 1:+.1%})")
    medians = ", ".join(f"{name} {statistics.median(s) * 1e3:.1f}" for name, s in sorted(project.took_s.items()))
    print(f"{project.compiler:8} {project.kind:26} medians, ms: {medians}")
    print(f"{'':35} session, `on` against `off`, by share of comment-only edits: {', '.join(gains)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compilers", nargs="+", default=["g++", "clang++"])
    parser.add_argument("--files", type=int, default=8)
    parser.add_argument("--users", type=int, default=6)
    parser.add_argument("--edits", type=int, default=10)
    parser.add_argument("--shares", type=float, nargs="+", default=[0, 0.1, 0.25, 0.5])
    parser.add_argument("--client", default=shutil.which("sccache-py", path=os.path.dirname(sys.executable)) or "sccache-py")
    arguments = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="edit-session-"))
    env = {"PATH": os.environ["PATH"], "HOME": str(root), "SCCACHE_DIR": str(root / "cache"), "SCCACHE_SERVER_UDS": str(root / "s")}
    try:
        for compiler in arguments.compilers:
            if shutil.which(compiler) is None:
                print(f"no {compiler}")
                continue
            for number, kind in enumerate(KINDS):
                place = root / f"{compiler}-{number}"
                place.mkdir()
                project = Project(place, arguments.client, env, compiler, kind, arguments.users)
                project.write(arguments.files)
                session(project, arguments.edits, arguments.shares)
    finally:
        subprocess.run([arguments.client, "--stop-server"], env=env, stdout=subprocess.DEVNULL, check=False)
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
