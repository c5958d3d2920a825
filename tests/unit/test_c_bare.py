"""A text without its comments: what comes out alike must be the same to a compiler, messages included."""

from __future__ import annotations

import glob
import re
import shutil
import subprocess

import pytest

from sccache_py.compilers import c_bare, gcc
from sccache_py.compilers.c_bare import bare, counts_lines, ignores_comments, lines_told, may_be_bare
from sccache_py.compilers.c_dialects import CLANG, GCC, Dialect
from sccache_py.model import Plan

ALIKE = [
    (b"int x;\n", b"// one\n\nint x;\n"),
    (b"int x; /* a */\n", b"int x;  // b\n"),
    (b"#define A 1\nint x;\n", b"#define A 1 /* over\n lines */\nint x;\n"),
    (b'char s[] = "// no /* comment";\n', b'char s[] = "// no /* comment"; // one\n'),
    (b"int c = '\"'; int d;\n", b"int c = '\"'; int d; /* \" */\n"),
    (b"\tif (a)\n\t\tb();\n", b"\tif (a)\n\t\t// why\n\t\tb();\n"),
    (b"// \xc3\xa9\nint x;\n", b"int x;\n"),
]


@pytest.mark.parametrize(("one", "other"), ALIKE)
def test_comments_and_empty_lines_count_for_nothing(one, other):
    """That is what they are edited for."""
    first, second = bare(one), bare(other)
    assert first is not None
    assert second is not None
    assert first.text == second.text


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b"int x;\n", b"int  x;\n"),  # another column
        (b"int x;\n", b"/* a */ int x;\n"),
        (b"f(a, b)\n", b"f(a,\nb)\n"),
        (b"#define A 1 \\\n 2\n", b"#define A 1 \\\n\n 2\n"),
        (b"#define A \\\n\nint x;\n", b"#define A \\\nint x;\n"),
        (b"#define A \\\n// c\nint x;\n", b"#define A \\\nint x;\n"),
        (b"#define A /* a\n */ 1\n", b"#define A\n 1\n"),
        (b"a; /* x */ b;\n", b"a; /* y */ b;\n"),
        (b"/* fall through */\nx;\n", b"x;\n"),
        (b"// FALLTHRU\nx;\n", b"x;\n"),
        (b"/* /* */\nx;\n", b"x;\n"),
        (b"// left\n\tx;\n", b"\tx;\n"),  # gcc 12 stops at it, looking for misleading indentation
        (b'"a" "b"\n', b'"a"\n"b"\n'),
    ],
)
def test_what_may_mean_something_counts(one, other):
    """To the preprocessor, to a warning, or by its column."""
    first, second = bare(one), bare(other)
    assert first is None or second is None or first.text != second.text


@pytest.mark.parametrize(
    "text",
    [
        b"// goes on \\\nint x;\n",
        b"/\\\n/ comment\n",
        b"/* *\\\n/ int x;\n",
        b'R"(// )";\n',
        b"don't // do\n",
        b'"open // text\n',
        b"/* open\n",
        b"int x; // no end of line",
        b"// ??/\nint x;\n",
        b"#include <a//b.h>\n",
        b"#if __has_include(<sys/*.h>)\n",
        b"#define A \\ /* c */\nint x;\n",
        b"int x; \\ \n y;\n",
        b"int x;\r\n",
        b"int x;\f\n",
        b"\1\n",
        b"// \xe2\x80\xae turned\n",
        b"// \xff\n",
        b"#define N 1'000 /* c */ + '1'\n",
    ],
)
def test_where_it_is_not_sure_what_is_a_comment_a_text_counts_whole(text):
    """Splices, trigraphs, raw strings, header names; and what gcc warns of in comments."""
    assert bare(text) is None


def test_placed_keeps_every_line_of_code_where_it_is():
    """For objects that tell lines."""
    one, other, moved = bare(b"// a\nint x;\n"), bare(b"\nint x; // b\n"), bare(b"int x;\n")
    assert one is not None
    assert other is not None
    assert moved is not None
    assert one.placed == other.placed != moved.placed
    assert one.text == moved.text


def test_texts_that_may_be_left_out_because_of_another_are_marked():
    """`#pragma once` of gcc compares contents, comments and all."""
    found = [bare(t) for t in (b"#pragma once\n", b"int x;\n")]
    assert [b.once for b in found if b is not None] == [True, False]


def _preprocessed(text: bytes, language: str) -> list[bytes]:
    command = ["gcc", "-w", "-x", language, "-fpreprocessed", "-dD", "-E", "-P", "-"]
    return subprocess.run(command, input=text, capture_output=True, check=False).stdout.split()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc")
def test_gcc_finds_the_same_tokens_in_what_is_left_of_its_own_headers():
    """-fpreprocessed -dD drops comments, and nothing else: the compiler says what a comment is."""
    headers = [(path, "c") for path in sorted(glob.glob("/usr/include/*.h"))[::4]]
    headers += [(path, "c++") for path in sorted(glob.glob("/usr/include/c++/*/bits/*.h"))[::8]]
    wrong = []
    compared = 0
    for path, language in headers:
        with open(path, "rb") as f:
            text = f.read()
        found = bare(text)
        if found is not None:
            compared += 1
            tokens = _preprocessed(text, language)
            forms = [re.sub(rb"\x01\d+", b"", form) + b"\n" for form in (found.text, found.placed)]
            wrong += [path for form in forms if _preprocessed(form, language) != tokens]
    assert wrong == []
    assert compared > len(headers) // 2


# -- which calls ---------------------------------------------------------------------------------------------------


def plan(*words: str, driver: Dialect = GCC, plus: bool = False) -> Plan:
    found = gcc.C(driver, plus).parse([*words, "-o", "x.o"], "/p", "/p")
    assert isinstance(found, Plan)
    return found


@pytest.mark.parametrize(
    "words", ["-c x.c", "-O2 -Wall -Wextra -Werror -MD -MF x.d -c x.c", "-std=gnu99 -pedantic -c x.c", "-g0 -c x.c", "-std=c++98 -c x.cc"]
)
def test_an_ordinary_compile_may_ignore_comments(words):
    """Warnings included: none of theirs speaks of a comment that is left out."""
    assert ignores_comments(plan(*words.split()))


@pytest.mark.parametrize(
    "words",
    [
        "-g -c x.c",
        "-ggdb3 -c x.c",
        "-S x.c",
        "-fsyntax-only x.c",
        "-c x.S",
        "-c x.s",
        "-c x.i",
        "-c x.m",
        "-x c-header -c x.h",
        "--coverage -c x.c",
        "-fprofile-generate -c x.c",
        "-fsanitize=address -c x.c",
        "-fstack-usage -c x.c",
        "-fverbose-asm -c x.c",
        "-flto -c x.c",
        "-fopenmp -c x.c",
        "-Wa,-a -c x.c",
        "-Xpreprocessor -C -c x.c",
        "-MG -MD -c x.c",
        "-fdirectives-only -c x.c",
        "-std=c89 -c x.c",
        "-std=iso9899:199409 -c x.c",
        "-ansi -c x.c",
        "-pedantic -c x.c",
        "-Wimplicit-fallthrough=1 -c x.c",
        "-Wtrailing-whitespace -c x.c",
        "-fplugin=p.so -c x.c",
        "-fmodules-ts -c x.cc",
        "-traditional-cpp -c x.c",
    ],
)
def test_calls_whose_object_or_messages_may_speak_of_lines_or_comments_are_left_out(words):
    """In doubt the compiler runs."""
    assert not ignores_comments(plan(*words.split()))


@pytest.mark.parametrize("words", ["-Weverything -c x.c", "-Wdocumentation -c x.c", "-fms-extensions -c x.c", "-include-pch x.pch -c x.c"])
def test_clang_has_more_of_them(words):
    """It warns of what comments document."""
    assert not ignores_comments(plan(*words.split(), driver=CLANG))


def test_only_the_project_s_texts_are_bared():
    """What lies in /usr is not edited; what has another name may be data."""
    names = ("$cwd/a.h", "/home/u/lib/a.hpp", "/usr/include/a.h", "$cwd/data.bin", "$cwd/x.gch")
    assert [may_be_bare(name) for name in names] == [True, True, False, False, False]


def test_lines_count_where_a_word_or_a_macro_tells_them():
    """<assert.h> says __LINE__ in a macro: it counts where somebody asserts, in whatever file."""
    call = plan("-c", "x.c")
    silent = lines_told(b"#include <assert.h>\nstatic_assert(1);\n")
    header, uses = lines_told(b"#define assert(x) f(__LINE__)\n"), lines_told(b"#define CHECK assert\n")
    assert not counts_lines(call, {"$cwd/x.c": silent, "/usr/include/assert.h": header})
    assert counts_lines(call, {"$cwd/x.c": silent, "/usr/include/assert.h": header, "/usr/local/include/check.h": uses})
    assert counts_lines(call, {"$cwd/x.c": silent, "$cwd/assert.h": header})
    assert counts_lines(call, {"$cwd/x.c": lines_told(b"f(__LINE__);\n")})
    assert counts_lines(plan("-DL=__LINE__", "-c", "x.c"), {"$cwd/x.c": silent})
    assert counts_lines(plan("-DCHECK=assert", "-c", "x.c"), {"$cwd/x.c": silent, "/usr/include/assert.h": header})


def test_the_library_s_own_assertions_lie_in_its_own_places():
    """libstdc++'s headers use __glibcxx_assert, of which c++config.h makes __LINE__."""
    config = lines_told(b"#define __glibcxx_assert(x) f(__LINE__)\n")
    library = {"/usr/include/x86_64-linux-gnu/c++/12/bits/c++config.h": config, "/usr/include/c++/12/vector": config - {""}}
    assert not counts_lines(plan("-c", "x.cc"), {"$cwd/x.cc": frozenset(), **library})
    assert counts_lines(plan("-c", "x.cc"), {"$cwd/x.cc": lines_told(b"__glibcxx_assert(0);\n"), **library})


def test_tables_are_sorted():
    """They are reviewed by eye."""
    for table in (c_bare._REFUSED, c_bare._SUFFIXES):
        assert list(table) == sorted(table)
