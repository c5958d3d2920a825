"""Would a second chance by preprocessed text pay?  An edit session in which a header changes, sometimes only in a comment.

usage: edit_session.py [--compilers g++ clang++] [--files 8] [--users 6] [--edits 10] [--shares 0 0.1 0.25 0.5]

A project of `--files` sources, of which `--users` include the header that is edited.  After each edit its users are compiled, one after
the other: once as a cache without a second chance does it, each of them in full; and once with one, the cheapest that there can be:
the preprocessor runs for each, and the compiler only where its text, without line markers, is another than before.  A hit is taken to cost
nothing.  So what is said here is the most that a second chance could gain, over objects that do not depend on lines (no -g, no
coverage, no __LINE__): with debug information there is none at all.

It pays where the share of edits that change comments only is above preprocessing / compiling, which is printed as `break-even`.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import shutil
import statistics
import subprocess
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
    compiler: str
    kind: str
    users: int
    texts: dict[str, bytes] = field(default_factory=dict)  # by source: digest of what the preprocessor said last
    preprocess_s: list[float] = field(default_factory=list)
    compile_s: list[float] = field(default_factory=list)

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

    def run(self, *words: str) -> tuple[float, bytes]:
        began = time.perf_counter()
        done = subprocess.run([self.compiler, *OPTIONS, *words], cwd=self.place, stdout=subprocess.PIPE, check=True)
        return time.perf_counter() - began, done.stdout

    def compile(self, source: str) -> float:
        seconds, _ = self.run("-c", source, "-o", source + ".o")
        self.compile_s.append(seconds)
        return seconds

    def rebuild(self) -> tuple[float, float]:
        """Seconds for all users of the header, (without, with) a second chance."""
        without = with_it = 0.0
        for number in range(self.users):
            source = f"f{number}.cc"
            full = self.compile(source)
            seconds, text = self.run("-E", "-P", source)
            self.preprocess_s.append(seconds)
            digest = hashlib.blake2b(text).digest()
            without += full
            with_it += seconds + (0 if self.texts.get(source) == digest else full)
            self.texts[source] = digest
        return without, with_it


def session(compiler: str, kind: str, files: int, users: int, edits: int, shares: list[float]) -> None:
    place = Path(tempfile.mkdtemp(prefix="edit-session-"))
    try:
        project = Project(place, compiler, kind, users)
        project.write(files)
        project.rebuild()  # everything is in the page cache, and known
        project.preprocess_s.clear()
        project.compile_s.clear()
        gains = []
        for share in shares:
            dice = random.Random(1)
            kinds = [number < round(edits * share) for number in range(edits)]
            dice.shuffle(kinds)
            comment = value = 0
            without = with_it = 0.0
            for is_comment in kinds:
                comment, value = (comment + 1, value) if is_comment else (comment, value + 1)
                project.edit(comment, value)
                one, other = project.rebuild()
                without, with_it = without + one, with_it + other
            gains.append(f"{share:.0%}: {with_it / without - 1:+.0%}")
        preprocess, full = statistics.median(project.preprocess_s), statistics.median(project.compile_s)
        print(
            f"{compiler:8} {kind:26} preprocess {preprocess * 1e3:5.0f} ms, compile {full * 1e3:5.0f} ms, "
            f"break-even {preprocess / full:4.0%}; rebuilds by share of comment-only edits: {', '.join(gains)}",
            flush=True,
        )
    finally:
        shutil.rmtree(place)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compilers", nargs="+", default=["g++", "clang++"])
    parser.add_argument("--files", type=int, default=8)
    parser.add_argument("--users", type=int, default=6)
    parser.add_argument("--edits", type=int, default=10)
    parser.add_argument("--shares", type=float, nargs="+", default=[0, 0.1, 0.25, 0.5])
    arguments = parser.parse_args()
    for compiler in arguments.compilers:
        if shutil.which(compiler) is None:
            print(f"no {compiler}")
            continue
        for kind in KINDS:
            session(compiler, kind, arguments.files, arguments.users, arguments.edits, arguments.shares)


if __name__ == "__main__":
    main()
