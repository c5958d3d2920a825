"""Random programs and edits: each compiled once through the cache and once without it, and all that is left and said compared.

Nobody thinks of every way in which a compile can depend on its surroundings; this finds the ones nobody thought of.  It prints its seed.
SCCACHE_TEST_SEED=N replays a run, SCCACHE_TEST_STEPS=N makes it longer; what failed is told with its step, its edits and its command.
"""

from __future__ import annotations

import concurrent.futures
import os
import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package

from c_world import one_compiler, shared_server  # noqa: F401 - fixtures

pytestmark = pytest.mark.slow

# For each compiler, so 2,000 in all where it is observed, in 51 s on two cores, most of it the compilers'.  More are left to soak.
STEPS = {"observed": 1000, "fallback": 300}
SOAK_STEPS = 5000

# Walks at the same time, each with a tree and a cache of its own: one process would leave the second core idle.
HANDS = 2

# Of so many steps at least one hits: otherwise nothing is tested.  Without observation a third of what is compiled here is left out.
LEAST_HITS = {"observed": 8, "fallback": 24}

CHECKOUTS = ("a", "b")
HEADERS = ("one.h", "two.h", "opt.h")
PLACES = ("inc", "alt", "src", "build")

HEADER_TEXTS = (
    "#define {name} {n}\n",
    "/* comment {n} */\n#define {name} 1\n",
    "#pragma once\n#define {name} {n}\nstatic inline int in_{name}(int x) {{ return x + {name} + __LINE__; }}\n",
    '#if __has_include("opt.h")\n#include "opt.h"\n#endif\n#define {name} {n}\n',
    '#include "two.h"\n#define {name} {n}\nstatic const char *const where_{name} = __FILE__;\n',
    "#define {name} {n}\n#warning in {name}\n",
    "\n\n#define {name} {n}\n",
    "#if __has_include_next(<{file}>)\n#include_next <{file}>\n#else\n#define {name} {n}\n#endif\n",
)
SOURCE_TEXTS = (
    '#include "one.h"\nint f(void) {{ return ONE_H + {n}; }}\n',
    "#include <one.h>\n#include <two.h>\nint f(int x) {{ return x * ONE_H + TWO_H; }}\n",
    '#include <stddef.h>\n#include "two.h"\nsize_t f(void) {{ return TWO_H + {n}; }}\n',
    '#ifdef OPT_H\nint opt;\n#endif\n#include "one.h"\nconst char *f(void) {{ return __FILE__; }}\nint g = __LINE__ + ONE_H;\n',
    "#if __has_include(<opt.h>)\nint f(void) {{ return 1; }}\n#else\nint f(void) {{ return 2; }}\n#endif\n",
    # Both checkouts name the first one's: it is no header of theirs.
    '#include "{first}/inc/one.h"\nint f(void) {{ return ONE_H + {n}; }}\n',
    # The path is relative to the cwd.
    '__asm__(".section .rodata\\n.incbin \\"../src/blob\\"\\n.text\\n");\nint f(void) {{ int unused; return {n}; }}\n',
)
FLAGS = (
    ("-I../inc",), ("-I../alt", "-I../inc"), ("-I../link",), ("-isystem", "../link"), ("-iquote", "../alt", "-I../inc"),
    ("-idirafter", "../alt", "-idirafter", "../inc"), ("-I{top}/inc",), ("-I{top}/link", "-I{top}/inc"), ("-I../nowhere", "-I../inc"),
    ("-I../inc", "-include", "../inc/two.h"),
)  # fmt: skip
MORE_FLAGS = (
    (), (), (), ("-O2",), ("-Wall",), ("-DOPT_H",), ("-fPIC",), ("-S",), ("-g",), ("-g", "-O1"), ("-g", "-fdebug-prefix-map={top}=."),
    ("-ffile-prefix-map={cwd}=/x", "-g"), ("-g3",), ("-fstack-usage",), ("--coverage", "-frandom-seed=1"), ("-g", "-gsplit-dwarf"),
    ("-flto", "-frandom-seed=1"), ("-fsyntax-only",), ("-pthread",), ("-H",), ("-w",),
)  # fmt: skip
DEPFILE_FLAGS = (
    (), (), (), ("-MD",), ("-MMD", "-MP"), ("-MD", "-MF", "out/own.d"), ("-MMD", "-MT", "a target"), ("-Wp,-MD,out/wp.d",),
    ("-MD", "-MQ", "x$y"),
)  # fmt: skip
COLORS = ((), (), (), ("-fdiagnostics-color=always",), ("-fno-diagnostics-color",))
OUTPUTS = ((), ("-o", "out/x.o"), ("-o", "out/x.o"), ("-o", "{top}/build/out/y.o"), ("-o", "out/z"))


class Tree:
    """Two checkouts with sources, headers in several places, a link among them, and a random hand that edits them."""

    def __init__(self, root: Path, hand: random.Random) -> None:
        self.root = root
        self.hand = hand
        self.env: dict[str, str] = {}
        self.outs = [root / checkout / "build" / "out" for checkout in CHECKOUTS]
        for checkout in CHECKOUTS:
            for place in PLACES:
                (root / checkout / place).mkdir(parents=True)
            (root / checkout / "link").symlink_to("inc")
            (root / checkout / "src" / "blob").write_text("blob")
            for name in ("one.h", "two.h"):
                for place in ("inc", "alt"):
                    (root / checkout / place / name).write_text(self.header(name, HEADER_TEXTS[0], 1))
            for name in ("x.c", "y.c"):
                (root / checkout / "src" / name).write_text(SOURCE_TEXTS[0].format(n=1, first=root / CHECKOUTS[0]))

    def header(self, name: str, text: str, n: int) -> str:
        if f'include "{name}"' in text:
            text = HEADER_TEXTS[0]  # it would include itself for ever
        return text.format(name=name.upper().replace(".", "_"), n=n, file=name)

    def edit(self) -> str:
        """Change one thing; what it was, to read."""
        hand = self.hand
        kinds = ("header", "header", "header", "remove", "link", "touch", "rename", "source", "source", "comment", "comment", "blob", "env")
        kind = hand.choice(kinds)
        tops = hand.choice((CHECKOUTS, CHECKOUTS[:1], CHECKOUTS[1:]))
        random_so_far = hand.getstate()
        for name in tops:
            # In both checkouts the same: they are to share results.
            hand.setstate(random_so_far)
            told = self._edit(kind, self.root / name)
        return f"{told} in {' and '.join(tops)}"

    def _edit(self, kind: str, top: Path) -> str:
        hand = self.hand
        n = hand.randrange(3)
        if kind == "source":
            path = top / "src" / hand.choice(("x.c", "y.c"))
            path.write_text(hand.choice(SOURCE_TEXTS).format(n=n, first=self.root / CHECKOUTS[0]))
        elif kind in ("header", "rename"):
            name = hand.choice(HEADERS)
            path = top / hand.choice(PLACES) / name
            text = self.header(name, hand.choice(HEADER_TEXTS), n)
            if kind == "header":
                path.write_text(text)
            else:
                # As an unpacker does: another file, with an old time.
                beside = path.with_suffix(".new")
                beside.write_text(text)
                os.utime(beside, (1e9, 1e9))
                beside.rename(path)
        elif kind == "remove":
            path = top / hand.choice(("alt", "alt", "src", "build")) / hand.choice(HEADERS)
            path.unlink(missing_ok=True)
        elif kind == "link":
            path = top / "link"
            path.unlink()
            path.symlink_to(hand.choice(("inc", "inc", "inc", "alt", "alt", "nowhere")))
        elif kind == "touch":
            path = hand.choice([p for p in sorted(top.rglob("*.[ch]")) if p.is_file()])
            os.utime(path)
        elif kind == "comment":
            path = hand.choice([p for p in sorted(top.rglob("*.[ch]")) if p.is_file()])
            lines = path.read_text().split("\n")
            at = hand.randrange(len(lines))
            if hand.random() < 0.3 and not lines[at].endswith("\\"):
                lines[at] += hand.choice((" // said", " /* said\n twice */", "  "))
            else:
                lines.insert(at, hand.choice((f"// said {n}", "", f"\t/* said {n} */")))
            path.write_text("\n".join(lines))
        elif kind == "blob":
            path = top / "src" / "blob"
            path.write_text(f"blob {n}")
        else:
            self.env = hand.choice(({}, {"CPATH": "../alt"}, {"C_INCLUDE_PATH": str(top / "alt")}, {"LC_ALL": "C"}, {"X": str(n)}))
            return f"env {self.env}"
        return f"{kind} {path.relative_to(top)}"

    def state(self) -> tuple[object, ...]:
        """All that a compile can depend on here, times aside."""
        found = []
        for path in sorted(self.root.rglob("*")):
            if "out" not in path.parts:
                found.append((str(path), os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None))
        return tuple(found)

    def command(self) -> tuple[Path, list[str], dict[str, str]]:
        """(cwd, words, environment)"""
        hand = self.hand
        top = self.root / hand.choice(CHECKOUTS)
        cwd = top / "build"
        words = [word for words in (FLAGS, MORE_FLAGS, COLORS, DEPFILE_FLAGS, OUTPUTS) for word in hand.choice(words)]
        if "-o" not in words:
            words += ["-o", "out/default.o"]
        if "-S" not in words and "-fsyntax-only" not in words:
            words.append("-c")
        words.append(hand.choice(("../src/x.c", "../src/x.c", "../src/y.c", "{top}/src/x.c")))
        env = dict(self.env)
        if hand.random() < 0.1:
            env["PWD"] = str(cwd)
        return cwd, [w.format(top=top, cwd=cwd) for w in words], env


@pytest.mark.timeout(300)
@pytest.mark.parametrize("steps", [None, pytest.param(SOAK_STEPS, marks=[pytest.mark.soak, pytest.mark.timeout(1200)])])
def test_random_edits_and_commands_give_what_the_compiler_gives(c, steps):
    """One seed, one compiler, many small projects' worth of mornings."""
    seed = int(os.environ.get("SCCACHE_TEST_SEED") or random.SystemRandom().randrange(1 << 32))
    steps = int(os.environ.get("SCCACHE_TEST_STEPS") or steps or STEPS[c.world.mode])
    print(f"SCCACHE_TEST_SEED={seed} SCCACHE_TEST_STEPS={steps}")
    # A hand's walk is decided by the seed and its number, whatever the others do meanwhile.
    with concurrent.futures.ThreadPoolExecutor(HANDS) as hands:
        walks = [hands.submit(walk, c.beside(f"hand{number}"), seed, number, steps // HANDS) for number in range(HANDS)]
    for done in walks:
        done.result()
    counts = c.world.counts()
    print({name: counts.get(name) for name in ("cache_hits", "cache_misses", "cache_writes", "compile_fails", "requests_not_cacheable")})
    assert counts["cache_hits"] * LEAST_HITS[c.world.mode] >= steps


def walk(c, seed, number, steps):
    """Edit and compile, each time in both ways."""
    hand = random.Random(f"{seed} {number}")
    tree = Tree(c.p, hand)
    c.world.outs[:] = tree.outs
    commands = [tree.command() for _ in range(6)]
    edits: list[str] = []
    state, known = tree.state(), {}
    for step in range(steps):
        if hand.random() < 0.35:
            edits.append(tree.edit())
            state = tree.state()
        if hand.random() < 0.15:
            commands[hand.randrange(len(commands))] = tree.command()
        cwd, words, env = hand.choice(commands)
        env = {**tree.env, **({"PWD": env["PWD"]} if "PWD" in env else {})}
        if number % 2:
            env["SCCACHE_SECOND_CHANCE"] = "1"
        cached = c.world.cached(*words, cwd=cwd, env=env, rustc=c.name)
        # The compiler itself is asked once for each state that things were in.
        question = (cwd, tuple(words), tuple(env.items()), state)
        if question not in known:
            known[question] = c.world.uncached(*words, cwd=cwd, env=env, rustc=c.name)
        uncached = known[question]
        told = f"seed {seed}, hand {number}, step {step}, in {cwd}, {env}: {c.name} {' '.join(words)}; edits: {', '.join(edits[-8:])}"
        assert cached.status == uncached.status, told
        assert cached.files == uncached.files, told
        assert (cached.stdout, cached.stderr) == (uncached.stdout, uncached.stderr), told
