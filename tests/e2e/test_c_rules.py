"""-M and -MM without a compile: rules for make, of one source or of many, as makefiles ask for them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package

from c_world import one_compiler, shared_server  # noqa: F401 - fixtures

pytestmark = pytest.mark.slow

LEFT_OUT = "C without observation: "


@pytest.fixture(name="sources")
def two_sources(c):
    c.write("inc/a.h", "#ifdef DEEP\n#include <stddef.h>\n#include <deep.h>\n#endif\n")
    c.write("inc/deep.h", "\n")
    c.write("x.c", '#include "a.h"\n')
    c.write("y.c", '#include "a.h"\n#if __has_include("b.h")\n#include "b.h"\n#endif\n')
    return ("x.c", "y.c")


@pytest.mark.parametrize("words", [("-MM",), ("-M",), ("-E", "-MM"), ("-MM", "-MP", "-MT", "all x"), ("-MM", "-MQ", "$x", "-DDEEP")])
def test_rules_of_many_sources_are_said_again(c, sources, words):
    if c.left_out(LEFT_OUT + next(word for word in words if word.startswith("-M")), *words, "-Iinc", *sources):
        return
    done = c.compile_twice(*words, "-Iinc", *sources)
    assert done.stdout.count(b"x.c") == 1
    assert done.stdout.count(b"y.c") == 1


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.c", "int x;\n"),
        ("y.c", '#include "a.h"\n#include "deep.h"\n'),
        ("inc/a.h", '#include "deep.h"\n'),
        ("inc/b.h", "\n"),
        ("a.h", "\n"),
    ],
)
def test_rules_follow_what_is_read_and_what_is_not_there_yet(c, sources, name, text):
    if not c.observed:
        pytest.skip("not listed")
    words = ("-MM", "-Iinc", *sources)
    if (c.p / name).exists():
        c.changes_text(name, text, *words)
    else:
        c.changes(lambda: c.write(name, text), (c.p / name).unlink, *words)


def test_other_words_are_other_rules(c, sources):
    if not c.observed:
        pytest.skip("not listed")
    c.compile_twice("-MM", "-Iinc", *sources)
    c.expect("miss", "-MM", "-Iinc", "-DDEEP", *sources)
    c.expect("miss", "-M", "-Iinc", *sources)
    c.expect("miss", "-MM", "-Iinc", *reversed(sources))
    c.expect("hit", "-MM", "-Iinc", *sources)


def test_rules_name_targets_as_this_call_does(c, sources):
    if not c.observed:
        pytest.skip("not listed")
    c.compile_twice("-MM", "-Iinc", "-MT", "one.o", "x.c")
    c.expect("miss", "-MM", "-Iinc", "-MT", "two.o", "x.c")
    c.expect("miss", "-MM", "-Iinc", "-MQ", "one.o", "x.c")
    c.expect("hit", "-MM", "-Iinc", "-MT", "one.o", "x.c")


@pytest.mark.parametrize("option", ["-o", "-MF"])
def test_rules_in_a_file(c, sources, option):
    if not c.observed:
        pytest.skip("not listed")
    words = ("-M", "-Iinc", "x.c", option, c.object("x.d"))
    c.changes_text("inc/a.h", "#include <stddef.h>\n", *words)
    c.expect("miss", *words[:-1], c.object("other.d"))


def test_rules_over_their_source_are_left_to_the_compiler(c, sources):
    if not c.observed:
        pytest.skip("not listed")
    for name in ("z.c", "w.c"):
        c.write(name, "int x;\n")
    c.world.cached("-MM", "z.c", "-MF", "./z.c", rustc=c.name)
    assert c.world.reasons() == {"output is the source or another output": 1}


def test_a_missing_header_fails_each_time_and_with_mg_is_taken_for_made_later(c, sources):
    if not c.observed:
        pytest.skip("not listed")
    c.write("z.c", '#include "later.h"\n')
    for _ in range(2):
        cached, uncached = (run("-MM", "z.c", rustc=c.name) for run in (c.world.cached, c.world.uncached))
        assert (cached.status, cached.stdout, cached.stderr) == (uncached.status, uncached.stdout, uncached.stderr)
        assert cached.status != 0
    words = ("-MM", "-MG", "z.c")
    c.changes(lambda: c.write("later.h", '#include "inc/deep.h"\n'), (c.p / "later.h").unlink, *words)


def test_rules_of_fifty_sources_with_long_search_paths(c):
    """Their record is longer than that of any one compile."""
    if not c.observed:
        pytest.skip("not listed")
    directories = [f"inc/{n}" for n in range(70)]
    for directory in directories:
        (c.p / directory).mkdir(parents=True)
    for n in range(30):
        c.write(f"{directories[-1]}/h{n}.h", "\n")
    sources = [f"s{n}.c" for n in range(50)]
    for name in sources:
        c.write(name, "".join(f"#include <h{n}.h>\n" for n in range(30)))
    words = ("-MM", *(f"-I{directory}" for directory in directories), *sources)
    c.compile_twice(*words)
    c.write("inc/7/h3.h", "#include <h0.h>\n")
    c.expect("miss", *words)
