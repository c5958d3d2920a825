"""A macro that no text says changes nothing: the object that was made without it is found.  Whatever might say it is compiled.

`expect` holds each compile against an uncached one: object, messages, exit code.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package

from c_world import C, one_compiler, shared_server  # noqa: F401 - fixtures

pytestmark = pytest.mark.slow

SOURCE = '#include "a.h"\n#include <stddef.h>\nint g(int n) { return f(n); }\n'
HEADER = "#pragma once\nstatic inline int f(int n) { return n + 1; }\n"


@pytest.fixture
def project(c: C) -> C:
    c.write("x.c", SOURCE)
    c.write("a.h", HEADER)
    return c


def compile_(c: C, verdict: str, *words: str) -> None:
    c.expect(verdict if c.observed else "miss", *words, "-c", "x.c", "-o", c.object())


def alike(c: C, *words: str) -> None:
    """Whatever the cache makes of it."""
    args = (*words, "-c", "x.c", "-o", c.object())
    cached, uncached = c.world.cached(*args, rustc=c.name), c.world.uncached(*args, rustc=c.name)
    assert cached == uncached


@pytest.mark.parametrize("debug", ["-O2", "-g", "-g1", "-gdwarf-4"])
def test_another_value_that_nobody_uses_is_a_hit(project: C, debug: str) -> None:
    """The revision in every command line of a project; the next call finds it without looking twice."""
    compile_(project, "miss", debug, '-DBUILD_ID="1a2b"', "-DWITH_FOO")
    before = project.world.counts().get("second_chance_hits", 0)
    compile_(project, "hit", debug, '-DBUILD_ID="3c4d"', "-DWITH_FOO")
    compile_(project, "hit", debug, '-DBUILD_ID="3c4d"', "-DWITH_BAR=1")
    compile_(project, "hit", debug, "-DWITH_FOO=", '-DBUILD_ID="3c4d"')
    if project.observed:
        assert project.world.counts().get("second_chance_hits", 0) == before + 3
        compile_(project, "hit", debug, '-DBUILD_ID="3c4d"', "-DWITH_BAR=1")
        assert project.world.counts().get("second_chance_hits", 0) == before + 3


def test_with_a_macro_or_with_none_is_the_same_where_nobody_uses_it(project: C) -> None:
    """The first build of a switch that one module asks for."""
    compile_(project, "miss")
    compile_(project, "hit", "-DWITH_FOO")
    compile_(project, "miss", "-O1", "-DWITH_FOO")
    compile_(project, "hit", "-O1")
    project.write("a.h", HEADER.replace("+ 1", "+ WITH_FOO"))
    compile_(project, "miss", "-DWITH_FOO")
    compile_(project, "miss", "-DWITH_FOO", "-DWITH_BAR=2", "-UWITH_BAZ")
    project.write("a.h", HEADER)
    compile_(project, "hit", "-DWITH_BAR")


def test_the_first_macro_and_no_macro_any_more_are_hits(project: C) -> None:
    """`make CFLAGS+=-DWITH_FOO` in a project that defined nothing, and back."""
    compile_(project, "miss", "-O1")
    compile_(project, "hit", "-O1", "-DWITH_FOO")
    project.write("a.h", HEADER.replace("+ 1", "+ 2"))
    compile_(project, "miss", "-O1", "-DWITH_FOO")
    compile_(project, "hit", "-O1")
    project.write("a.h", HEADER + "#ifdef WITH_FOO\nint foo;\n#endif\n")
    compile_(project, "miss", "-O1")
    compile_(project, "miss", "-O1", "-DWITH_FOO")


def test_what_changed_beside_the_macro_is_a_miss(project: C) -> None:
    compile_(project, "miss", "-DBUILD_ID=1")
    project.write("a.h", HEADER.replace("+ 1", "+ 2"))
    compile_(project, "miss", "-DBUILD_ID=2")
    compile_(project, "hit", "-DBUILD_ID=3")
    project.write("x.c", SOURCE + "int h;\n")
    compile_(project, "miss", "-DBUILD_ID=4")
    compile_(project, "miss", "-O1", "-DBUILD_ID=3")


SAID = {
    "used": "int id = BUILD_ID;\n",
    "asked": "#ifdef BUILD_ID\nint id;\n#endif\n",
    "valued": "#if BUILD_ID > 1\nint id;\n#endif\n",
    "pasted": "#define C(a, b) a##b\nint id = C(BUILD, _ID);\n",
    "pasted late": "#define C(a, b) a##b\n#define D(a, b) C(a, b)\n#define X BUILD_\nint id = D(X, ID);\n",
    "pasted thrice": "#define C(a, b, c) a##b##c\nint id = C(BU, ILD, _ID);\n",
    "spliced": "int id = BUI\\\nLD_ID;\n",
    "spliced with a space": "int id = BUI\\ \nLD_ID;\n",
    "in a string": '#pragma push_macro("BUILD_ID")\n#undef BUILD_ID\n#define BUILD_ID 7\n#pragma pop_macro("BUILD_ID")\n',
    "undefined": "#undef BUILD_ID\n#define BUILD_ID 5\nint id = BUILD_ID;\n",
    "text": "#define S_(x) #x\n#define S(x) S_(x)\nconst char *id = S(BUILD_ID);\n",
}


@pytest.mark.parametrize("how", SAID)
def test_a_macro_that_is_said_in_any_way_is_compiled(project: C, how: str) -> None:
    project.write("a.h", HEADER + SAID[how])
    compile_(project, "miss", "-DBUILD_ID=1")
    compile_(project, "miss", "-DBUILD_ID=2")
    alike(project, "-DOTHER_ID=2")


def test_a_number_may_come_from_anywhere(project: C) -> None:
    """ID3 is ID and the line's number, or a counter's."""
    project.write("x.c", "#define C(a, b) a##b\n#define D(a, b) C(a, b)\nint id = D(ID, __LINE__);\n")
    compile_(project, "miss", "-DID3=1")
    compile_(project, "miss", "-DID3=2")


def test_what_a_compilers_own_macro_puts_behind_a_word_may_come_from_anywhere(project: C) -> None:
    """gcc has __UINT64_C, which pastes UL; clang names the suffix."""
    own = "__UINT64_C(x)" if project.is_gcc else "C_(x, __UINT64_C_SUFFIX__)"
    project.write("x.c", f"#define C_(a, b) C__(a, b)\n#define C__(a, b) a##b\n#define C(x) {own}\nunsigned long id = C(BUILD);\n")
    compile_(project, "miss", "-DBUILDUL=1")
    compile_(project, "miss", "-DBUILDUL=2")


def test_a_macro_that_another_macros_value_says_is_compiled(project: C) -> None:
    project.write("x.c", "int id = ALIAS;\n")
    compile_(project, "miss", "-DALIAS=BUILD_ID", "-DBUILD_ID=1")
    compile_(project, "miss", "-DALIAS=BUILD_ID", "-DBUILD_ID=2")
    compile_(project, "miss", "-DALIAS=5", "-DBUILD_ID=2")
    compile_(project, "hit", "-DALIAS=5", "-DBUILD_ID=3")


def test_what_another_file_is_included_by_counts(project: C) -> None:
    project.write("pre.h", "#define VALUE BUILD_ID\n")
    project.write("x.c", "int id = VALUE;\n")
    for how in ("-include", "-imacros"):
        compile_(project, "miss", how, "./pre.h", "-DBUILD_ID=1")
        compile_(project, "miss", how, "./pre.h", "-DBUILD_ID=2")
    project.write("one.h", "int one;\n")
    project.write("two.h", "int two;\n")
    project.write("x.c", "#include HEADER_OF\n")
    compile_(project, "miss", '-DHEADER_OF="one.h"')
    compile_(project, "miss", '-DHEADER_OF="two.h"')


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (["-g3", "-DBUILD_ID=1"], ["-g3", "-DBUILD_ID=2"]),
        (["-DBUILD_ID=1"], ["-DBUILD_ID=1", "-DBUILD_ID=2"]),
        (["-DBUILD_ID=1"], ["-DBUILD_ID=1", "-UBUILD_ID"]),
        (["-DOK=1"], ["-Dlinux=2"]),
        (["-DOK=1"], ["-D__GNUC__=2"]),
        (["-DOK=1"], ["-D__STDC__=2"]),
        (["-DOK=1"], ["-DBAD(x=2"]),
        (["-DOK=1"], ['-DBAD="x']),
        (["-DOK=1"], ["-DBAD="]),
        (["-DOK=1"], ["-D1BAD=2"]),
        (["-DOK=1"], ["-Ddefined=2"]),
        (["-DOK=1"], ["-DBAD-X=2"]),
        (["-DOK=1"], ["-DBAD=%:%:x"]),
        (["-DOK=1"], ["-Wall", '-DBAD="a??="']),
        (["-Wunused-macros", "-DOK=1"], ["-Wunused-macros", "-DBAD=2"]),
    ],
)
def test_odd_definitions_are_the_compilers(project: C, first: list[str], then: list[str]) -> None:
    """It complains of some, records others; whatever it does, we do the same."""
    compile_(project, "miss", *first)
    alike(project, *then)


def test_a_compile_that_said_something_is_not_found(project: C) -> None:
    """It may be about a macro."""
    project.write("x.c", SOURCE + "#warning look\n")
    compile_(project, "miss", "-DBUILD_ID=1")
    compile_(project, "miss", "-DBUILD_ID=2")


def test_precompiled_headers_are_no_texts(project: C) -> None:
    """Both compilers compare the macros of a precompiled header with those of its user."""
    project.write("x.c", '#include "a.h"\nint g(int n) { return f(n); }\n')
    assert project.world.run([project.name, "-x", "c-header", "-DBUILD_ID=1", "a.h", "-o", "a.h.gch"], None, {}).returncode == 0
    use = () if project.is_gcc else ("-include-pch", "a.h.gch")
    for number in (1, 2, 3):
        alike(project, *use, f"-DBUILD_ID={number}")


def test_a_script_may_go_by_any_word(project: C) -> None:
    """What it makes of a definition no text says."""
    project.write("cc.sh", f'#!/bin/sh\ncase "$*" in *-DFA*) exec {project.name} -O3 "$@" ;; *) exec {project.name} "$@" ;; esac\n')
    script = project.world.p / "cc.sh"
    script.chmod(0o755)
    for word in ("-DSLOW=1", "-DFAST=1", "-DSLOW=1"):
        args = (word, "-c", "x.c", "-o", project.object())
        assert project.world.cached(*args, rustc=str(script)) == project.world.uncached(*args, rustc=str(script))


PIECES = ["A", "B", "AB", "_", "A_B", "B_A", "AB_", "_A", "AA", "A1", "1", "C_A", "X"]
NAMES = ["A_B", "AB_A", "A_B1", "C_AB", "AA_A", "A_1", "X_A", "B_A_B"]


def test_random_texts_come_out_as_compiled(project: C) -> None:
    """Texts full of pieces of the names that are defined."""
    if not project.observed:
        return
    seed = random.randrange(1 << 30)
    print("seed", seed)
    chance = random.Random(seed)
    for number in range(25):
        lines = ["#define C(a, b) a##b", "#define D(a, b) C(a, b)", "#define E(a, b, c) D(a, D(b, c))"]
        for i in range(chance.randrange(1, 5)):
            one, two, three = (chance.choice(PIECES) for _ in range(3))
            text = chance.choice(
                [
                    f"#ifdef {chance.choice(NAMES)}\nint v{i};\n#endif",
                    f"#if D({one}, {two})\nint v{i};\n#endif",
                    f"#if D(D({one}, {two}), {three})\nint w{i};\n#endif",
                    f"/* {one} {two}{three} */",
                    f'const char *s{i} = "{one}{two}";',
                ]
            )
            lines.append(text)
        project.write("a.h", "\n".join(lines) + "\n")
        project.write("x.c", f'#include "a.h"\nint n{number};\n')
        for _ in range(4):
            given = [f"-D{name}={chance.randrange(3)}" for name in chance.sample(NAMES, 3)]
            alike(project, *given)
