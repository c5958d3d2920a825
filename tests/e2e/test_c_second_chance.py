"""SCCACHE_SECOND_CHANCE: who edits a comment gets the old object, if it is what the compiler would make now; else the compiler runs.

`Edits.twice` compiles, edits and compiles again; either way both compiles are held against uncached ones.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package

from c_world import C, one_compiler, shared_server  # noqa: F401 - fixtures

pytestmark = pytest.mark.slow

SOURCE = '#include "a.h"\nint g(int n)\n{\n\tif (n)\n\t\treturn f(n);\n\treturn 0;\n}\n'
HEADER = "#pragma once\n/* what it is */\nstatic inline int f(int n) { return n + 1; }\n"


@dataclass
class Edits:
    """Compiles with the wish, or without (`wish` empty)."""

    c: C
    wish: str = "1"
    environment: dict[str, str] = field(default_factory=dict)

    def expect(self, verdict: str, *words: str, compiler: str = "") -> Any:
        words = words or ("-O2",)
        how = {"rustc": compiler} if compiler else {}
        return self.c.expect(
            verdict, *words, "-c", "x.c", "-o", self.c.object(), env={"SCCACHE_SECOND_CHANCE": self.wish, **self.environment}, **how
        )

    def __post_init__(self) -> None:
        self.c.write("x.c", SOURCE)
        self.c.write("a.h", HEADER)

    def second_chances(self) -> int:
        return self.c.world.counts().get("second_chance_hits", 0)

    def twice(self, verdict: str, name: str, one: str, other: str, *words: str, compiler: str = "") -> Any:
        """verdict: of the compile after the edit."""
        self.c.write(name, one)
        first = self.expect("miss", *words, compiler=compiler)
        before = self.second_chances()
        self.c.write(name, other)
        if not self.c.observed:
            verdict = "miss"
        then = self.expect(verdict, *words, compiler=compiler)
        assert self.second_chances() - before == (verdict == "hit")
        return first, then


@pytest.fixture
def edits(c):
    return Edits(c)


def test_a_comment_in_a_header_runs_no_compiler_and_the_next_call_is_a_plain_hit(edits):
    """The edit session that this is for; `expect` sees that no process ran."""
    edits.twice("hit", "a.h", HEADER, HEADER.replace("what it is", "what it is,\n\n * told at length"))
    before = edits.second_chances()
    edits.expect("hit")
    edits.c.write("a.h", HEADER)
    edits.expect("hit")
    assert edits.second_chances() == before


def test_a_comment_in_the_source_is_one_too(edits):
    """The source's digest is in the recipe, not in the conditions."""
    edits.twice("hit", "x.c", SOURCE, "// new\n\n" + SOURCE.replace("return 0;", "return 0; /* else */  "))


def test_without_the_wish_nothing_is_remembered_and_nothing_found(edits):
    """It is off by default, and then costs nothing."""
    edits.wish = ""
    edits.twice("miss", "a.h", HEADER, HEADER + "// new\n")
    edits.wish = "1"
    edits.c.write("a.h", HEADER + "// newer\n")
    edits.expect("miss")


@pytest.mark.parametrize(
    "other",
    [
        HEADER.replace("n + 1", "n + 2"),
        HEADER.replace("/* what", "#define F 1 /* what"),
        HEADER.replace("\nstatic", '\n#include "b.h"\nstatic'),
        HEADER.replace("{ return", "{\n\treturn"),
        HEADER.replace("/* what it is */", "// what it is \\\n// still"),
    ],
)
def test_anything_but_a_comment_or_an_empty_line_is_compiled(edits, other):
    """Code, macros, includes, line breaks."""
    edits.c.write("b.h", "")
    edits.twice("miss", "a.h", HEADER, other)


LINE = 'extern void say(int);\n#include "a.h"\nvoid g(void) { say(f(LINE)); }\n'


def test_a_moved_line_that_the_object_tells_is_compiled_and_one_that_stays_is_not(edits):
    """__LINE__ is in the object."""
    header = HEADER + "#define LINE __LINE__\n"
    edits.c.write("a.h", header)
    edits.twice("hit", "x.c", LINE, LINE.replace("{ say", "{ say").replace("int);\n", "int); // changed\n"))
    edits.c.write("x.c", "// moved\n" + LINE)
    edits.expect("miss")


def test_an_assertion_that_moves_is_compiled(edits):
    """It prints its line; who includes <assert.h> and asserts nothing is not concerned."""
    edits.twice("hit", "x.c", "#include <assert.h>\n" + SOURCE, "#include <assert.h>\n// new\n" + SOURCE)
    asserts = "#include <assert.h>\n" + SOURCE.replace("return 0;", "assert(n == 0); return 0;")
    edits.twice("miss", "x.c", asserts, "// new\n" + asserts)


def test_a_macro_of_another_library_that_asserts_is_seen(edits):
    """The source does not say `assert` itself."""
    (edits.c.p / "lib").mkdir()
    edits.c.write("lib/check", "#include <assert.h>\n#define CHECK(x) assert(x)\n")
    source = '#include "lib/check"\n' + SOURCE.replace("return 0;", "CHECK(n == 0); return 0;")
    edits.twice("miss", "x.c", source, "// new\n" + source)


def test_an_assertion_by_a_macro_of_the_command_line_is_seen(edits):
    """No text says `assert` then."""
    source = "#include <assert.h>\n" + SOURCE.replace("return 0;", "CHECK(n == 0); return 0;")
    edits.twice("miss", "x.c", source, "// new\n" + source, "-DCHECK=assert")


def test_where_a_compiler_names_a_place_in_a_function_s_name_lines_count(edits):
    """clang calls a lambda after its line and column."""
    source = "template <class T> const char *name(T) { return __PRETTY_FUNCTION__; }\nconst char *f() { return name([] {}); }\n"
    edits.twice("miss", "x.c", source, "\n" + source, "-O2", "-std=c++17", "-x", "c++", compiler=edits.c.plus)


@pytest.mark.parametrize("option", ["-g", "-ggdb1", "-O2 -fsanitize=undefined", "-O2 -Wdocumentation", "-std=gnu90"])
def test_options_under_which_lines_or_comments_count_are_refused(edits, option):
    """Debug information, reports with lines, warnings about comments; `//` is no comment in C90."""
    if option == "-O2 -Wdocumentation" and edits.c.is_gcc:
        pytest.skip("clang's")
    if not edits.c.observed and "sanitize" in option:
        pytest.skip("left to the compiler")
    edits.twice("miss", "a.h", HEADER, HEADER.replace("what", "that"), *option.split())


MISLEADING = "int h(void);\nint g(int n)\n{\n\tif (n)\n\t\th();\n%s\n\treturn 0;\n}\n"


def test_a_warning_that_layout_makes_is_the_compiler_s_to_give(edits):
    """Indentation; and a comment that keeps gcc from finding it misleading."""
    words = ("-O2", "-Wall")
    edits.twice("miss", "x.c", MISLEADING % "\th();", MISLEADING % "\t\th();", *words)
    first, then = edits.twice("miss", "x.c", MISLEADING % "// set apart\n\t\th(), n++;", MISLEADING % "\t\th(), n++;", *words)
    assert not edits.c.is_gcc or (first.stderr, b"misleading" in then.stderr) == (b"", True)
    edits.twice("hit", "x.c", MISLEADING % "\tn--;", MISLEADING % "\t// well indented\n\tn--; // new", *words)


def test_an_error_that_indentation_makes_is_an_error(edits):
    """-Werror=misleading-indentation: a cached success would hide it."""
    words = ("-O2", "-Werror=misleading-indentation")
    edits.c.write("x.c", MISLEADING % "\th();")
    edits.expect("miss", *words)
    edits.c.write("x.c", MISLEADING % "\t\th();")
    edits.expect("fail", *words)


FALL = "int g(int n)\n{\n\tswitch (n) {\n\tcase 1:\n\t\tn++;\n\t\t/* %s */\n\tcase 2:\n\t\treturn n;\n\t}\n\treturn 0;\n}\n"


def test_a_comment_that_a_warning_heeds_is_code(edits):
    """gcc believes `/* fall through */`."""
    edits.twice("miss", "x.c", FALL % "fall through", FALL % "goes on", "-O2", "-Wextra", "-Wimplicit-fallthrough=3")


def test_a_comment_of_which_a_warning_speaks_is_code(edits):
    """-Wcomment is part of -Wall."""
    edits.twice("miss", "a.h", HEADER, HEADER.replace("what it", "what /* it"), "-O2", "-Wall")


def test_a_result_with_messages_gets_no_second_chance(edits):
    """They tell lines."""
    edits.twice("miss", "a.h", HEADER, HEADER.replace("what", "that"), "-O2", "-Wunused-parameter", "-Wmissing-prototypes")


def test_the_depfile_is_what_the_compiler_would_write(edits):
    """Same includes, same depfile; an include that adds nothing is an edit, and is in it."""
    words = ("-O2", "-MD", "-MF", str(edits.c.o / "x.d"))
    edits.twice("hit", "a.h", HEADER, HEADER.replace("what", "that"), *words)
    edits.c.write("empty.h", "")
    edits.c.write("a.h", HEADER + '#include "empty.h"\n')
    assert b"empty.h" in edits.expect("miss", *words).file("x.d")
    edits.c.write("empty.h", "// still\n")
    assert b"empty.h" in edits.expect("hit" if edits.c.observed else "miss", *words).file("x.d")


def test_a_header_that_appears_is_a_miss_even_if_only_a_comment_changed(edits):
    """Every other condition of the first compile holds as ever."""
    for name in ("early", "late"):
        (edits.c.p / name).mkdir()
    edits.c.write("late/b.h", "#define B 1\n")
    source = '#include "a.h"\n#include <b.h>\nint x = B;\n'
    words = ("-O2", "-Iearly", "-Ilate")
    edits.twice("hit", "x.c", source, "// new\n" + source, *words)
    edits.c.write("early/b.h", "#define B 2\n")
    edits.c.write("x.c", "// newer\n" + source)
    edits.expect("miss", *words)


def test_a_file_that_the_assembler_takes_in_counts_with_its_comments(edits):
    """`.incbin` reads a header's bytes, comments and all."""
    source = '__asm__(".section .rodata\\n.global b\\nb: .incbin \\"a.h\\"");\nint x;\n'
    edits.c.write("x.c", source)
    if edits.c.left_out("assembler may read files without observation", "-O2", "-c", "x.c", "-o", edits.c.object()):
        return
    edits.twice("miss", "a.h", HEADER, HEADER.replace("what", "that"))
    edits.twice("miss", "x.c", source + "// what\n", source + "// that\n")


def test_pragma_once_of_two_equal_headers_counts_them_whole(edits):
    """gcc takes the second of two headers with the same content and time for the first."""
    edits.c.write("b/a.h", HEADER.replace("f(", "e("))
    source = SOURCE.replace('"a.h"\n', '"a.h"\n#include "b/a.h"\n')
    edits.c.write("x.c", source)
    edits.twice("hit", "a.h", HEADER, HEADER.replace("what", "that"))
    edits.c.write("b/a.h", HEADER)
    edits.c.write("a.h", HEADER)
    edits.expect("miss" if edits.c.is_gcc else "fail")


def test_a_verified_second_chance_is_compared_with_a_compile(edits):
    """Whoever doubts it can have it checked."""
    if not edits.c.observed:
        pytest.skip("there is none")
    edits.expect("miss")
    edits.c.write("a.h", HEADER.replace("what", "that"))
    edits.environment = {"SCCACHE_VERIFY": "1"}
    edits.expect("miss")
    counts = edits.c.world.counts()
    assert (counts["verified"], counts.get("verify_differences", 0)) == (1, 0)


def test_cplusplus_with_the_standard_library(edits):
    """Its headers speak of lines only in macros that this does not use."""
    body = 'std::map<std::string, int> m; m["a"] = n; return f(m.size());'
    edits.c.write("x.c", f'#include "a.h"\n#include <map>\n#include <string>\nint g(int n) {{ {body} }}\n')
    words = ("-O2", "-std=c++17", "-x", "c++", "-Wall", "-Wextra")
    edits.twice("hit", "a.h", HEADER, "// new\n" + HEADER, *words, compiler=edits.c.plus)


def test_a_header_that_only_the_assembler_reads_counts_whole_wherever_it_is_named(edits):
    """By a text that itself is never compared without comments: it has another name, or a raw string."""
    if not edits.c.observed:
        pytest.skip("left to the compiler")
    edits.c.write("data", '__asm__(".section .rodata\\n.global b\\nb: .incbin \\"a.h\\"");\n')
    edits.c.write("x.c", '#include "data"\nint x;\n')
    edits.twice("miss", "a.h", HEADER, HEADER.replace("what", "that"))
