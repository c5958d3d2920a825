"""What a C text may look for, read without a preprocessor: too much is a miss, too little is a wrong hit."""

from __future__ import annotations

import pytest

from sccache_py.compilers.c_includes import names_in
from sccache_py.model import Reason


@pytest.mark.parametrize(
    "text",
    [
        b'#include "a.h"',
        b'  #  include"a.h" // why',
        b'# /* x */ include /* y\n */ "a.h"',
        b'/* z */ #include "a.h"',
        b'#inc\\\nlude "a.h"',
        b'#inc\\ \r\nlude \\\n"a.h"',
        b'??=inc??/\nlude "a.h"',
        b'%:include "a.h"',
        b'#import "a.h"',
        b'#if 0\n#include "a.h"\n#endif',
        b'#if __has_include("a.h")',
        b'#if defined(__has_include) && __has_include ( /* here */ "a.h" )',
        b'#define HAS __has_include("a.h")',
        b'#error don\'t\n#include "a.h"',
        b'const char *s = R"x(" /* )x"; /* */\n#include "a.h"',
    ],
)
def test_a_name_is_found_however_it_is_written(text):
    """The compiler finds it, too."""
    names = names_in(text)
    assert names.quoted | names.asked == {"a.h"}
    assert names.trouble is None


def test_the_four_ways_to_look_are_told_apart():
    """They begin in different directories; a quoted one that goes on does not, in the source itself."""
    names = names_in(b'#include "q"\n#include <a>\n#include_next "qn"\n#if __has_include_next(<an>)\n#endif\n')
    assert (names.quoted, names.angled, names.quoted_next, names.angled_next) == ({"q", "qn"}, {"a"}, {"qn"}, {"an"})


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        (Reason.FALLBACK_COMPUTED, b"#include HEADER"),
        (Reason.FALLBACK_COMPUTED, b"  # include_next\\\n HEADER"),
        (Reason.FALLBACK_COMPUTED, b"#if __has_include(HEADER)"),
        (Reason.FALLBACK_COMPUTED, b"#define HAS __has_include\n"),
        (Reason.FALLBACK_COMPUTED, b"#define HAS(x) __has_include(x)"),
        (Reason.FALLBACK_COMPUTED, b"__has_inc"),
        (Reason.FALLBACK_FILES, b"#embed <blob>"),
        (Reason.FALLBACK_FILES, b'#if __has_embed("blob")'),
        (Reason.FALLBACK_FILES, b'#pragma GCC dependency "grammar.y"'),
        (Reason.FALLBACK_FILES, b'import "a.h";'),
        (Reason.FALLBACK_FILES, b"@import Foundation;"),
        (Reason.FALLBACK_ASSEMBLER, b'asm(".incbin \\"blob\\"");'),
        (Reason.FALLBACK_ASSEMBLER, b'asm(".inc" /* x */ "bin \\"blob\\"");'),
        (Reason.FALLBACK_ASSEMBLER, b'asm(".include \\"blob\\"");'),
        (Reason.FALLBACK_ASSEMBLER, b"#define A(x) .inc##x"),
        (Reason.FALLBACK_ASSEMBLER, b'asm(STRING(.inc) "bin \\"blob\\"");'),
    ],
)
def test_what_a_text_does_not_show_is_a_reason(reason, text):
    """A name made by a macro may be any name."""
    assert names_in(text).trouble is reason


@pytest.mark.parametrize(
    "text",
    [
        b"#ifdef __has_include\n#elif !defined __has_include\n#endif",
        b"#ifndef __has_include\n#define __has_include(x) 0\n#endif",
        b"/* #include what you use; __has_include is new */",
        b"// #include FT_FREETYPE_H",
        b"#include",
        b"struct __has_is_transparent;",
        b"#pragma GCC system_header",
        b"int inclination; x.inc = y.i; f(x.inc); struct s z = {.i = 1, .in[2] = 3};",
    ],
)
def test_what_looks_for_nothing_is_no_trouble(text):
    """Every system header would be refused otherwise."""
    names = names_in(text)
    assert names.trouble is None
    assert not (names.pastes_has and names.bare_include)


@pytest.mark.parametrize(
    "text",
    [
        b"#define HAS(x) __has_##x\n#if HAS(include)(NAME)",
        b"#define CAT(a, b) a##b\n#if CAT(__has_, include_next)(NAME)",
    ],
)
def test_a_name_that_is_pasted_together_shows_by_its_pieces(text):
    """libstdc++ pastes `__has_` to names of its own, so both pieces must be there."""
    names = names_in(text)
    assert names.pastes_has
    assert names.bare_include
    assert not names_in(b'#define HAS(x) __has_##x\n#error include me\n#include <a.h>\nconst char *s = "include";').bare_include


@pytest.mark.parametrize("text", [b'#line 2 "x.y"', b'int a;\n # 7 "x.y" 3\n', b"??=li\\\nne 1", b"/* */ %: /* */ line 4 NAME"])
def test_lines_of_another_file_are_found(text):
    """gcc quotes them in what it says."""
    assert names_in(text).says_lines
    assert not names_in(b"#include <line.h>\n#define line 1\nint f(void) { return line; }\n").says_lines
