"""Which definitions could be left out of a command line, and whether a text says them."""

from __future__ import annotations

import pytest

from sccache_py.compilers import c_defines
from sccache_py.compilers.c_dialects import CLANG, GCC
from sccache_py.compilers.gcc import C
from sccache_py.model import Plan


def split(*words: str, dialect=GCC, source: str = "x.c") -> c_defines.Split | None:
    driver = C(dialect, False, False, 12, "gcc")
    plan = driver.parse([*words, "-c", source, "-o", "x.o"], "/p", "/p")
    assert isinstance(plan, Plan)
    return c_defines.split(plan, driver.options)


@pytest.mark.parametrize("dialect", [GCC, CLANG])
def test_plain_definitions_are_loose(dialect):
    words = ["-g", "-O2", "-Wall", "-DZ_ID=1", "-I", "-D", "-D", 'A_ID="x y"', "-DFOO", "-isystem", "/i", "-include", "p.h"]
    found = split(*words, dialect=dialect)
    assert found is not None
    assert found.loose == (("A_ID", '="x y"'), ("FOO", ""), ("Z_ID", "=1"))
    assert "-D" in found.kept, "a directory of that name"
    assert not any("ID" in word for word in found.kept)


@pytest.mark.parametrize(
    "words",
    [
        ["-D_FOO=1"], ["-D__FOO"], ["-Dlinux"], ["-DWIN32"], ["-DA__B"], ["-DF(x)=1"], ["-DF= "], ["-DF=a b"], ['-DF="'], ["-DF=\\"],
        ["-DF=1", "-DF=2"], ["-DF=1", "-UF"], ["-D1F"], ["-DÄF"], ["-DF=ä"], ["-DF=#"], ["-DF=a\nb"], ["-DF='a'"], ["-Wp,-DF=1"],
        ["-DF=%:%:"], ["-DF=a%:%:b"], ['-DF="a??="'], ['-DF="\u202e"'], ['-DF="\udcff"'], ['-DF="\t"'],
    ],
)  # fmt: skip
def test_odd_definitions_are_not(words):
    found = split(*words)
    assert found is None or found.loose == ()


@pytest.mark.parametrize(
    "words",
    [
        ["-g3"], ["-ggdb3"], ["-gmacro"], ["-frecord-gcc-switches"], ["-grecord-gcc-switches"], ["-fdebug-macro"], ["-Wunused-macros"],
        ["-fplugin=x"], ["-flto"], ["-dD"], ["-Xpreprocessor", "-DX"], ["-fdump-tree-all"], ["-fpreprocessed"], ["-fmodules-ts"],
        ["-fverbose-asm"], ["-fembed-bitcode"], ["-fdiagnostics-format=sarif-file"], ["-traditional-cpp"], ["-specs=x"], ["-B/x"],
    ],
)  # fmt: skip
def test_where_an_output_may_tell_macros_nothing_is_left_out(words):
    assert split("-DFOO=1", *words) is None


def test_other_languages_keep_their_definitions():
    assert split("-DFOO=1", source="x.S") is None
    assert split("-DFOO=1", source="x.m") is None


WANTED = c_defines.pieces([b"BUILD_ID", b"ID3", b"IDUL"])


@pytest.mark.parametrize(
    ("text", "name", "said"),
    [
        (b"int x = BUILD_ID;", b"BUILD_ID", True),
        (b"int x = BUILD_IDS + A_BUILD_ID;", b"BUILD_ID", False),
        (b"// BUILD_ID", b"BUILD_ID", True),
        (b"C(BUILD, _ID)", b"BUILD_ID", True),
        (b"C(BUILD, ID)", b"BUILD_ID", False),
        (b"BUI\\\nLD_ID", b"BUILD_ID", True),
        (b"BUI\\ \t\r\nLD_ID", b"BUILD_ID", True),
        (b"BUI\\\v\nLD_ID", b"BUILD_ID", True),
        (b"B U ILD_ID", b"BUILD_ID", True),
        (b"__UINT64_C(ID)", b"IDUL", True),
        (b"B U I L D _ID", b"BUILD_ID", False),
        (b"A$BUILD_ID", b"BUILD_ID", True),
        (b"ID", b"ID3", True),
        (b"I D", b"ID3", True),
        (b"I", b"ID3", False),
    ],
)
def test_a_name_is_said_as_a_word_or_by_its_pieces(text, name, said):
    words = c_defines.said(text, WANTED)
    assert words is not None
    assert c_defines.may_be_said(name, words) == said


def test_a_text_is_searched_to_its_end():
    assert c_defines.said(b"x\n" * 200_000 + b"BUILD_ID", WANTED) == {b"BUILD_ID"}


@pytest.mark.parametrize("text", [b"gpch\0BUILD", b"BUI??/\nLD_ID"])
def test_what_is_no_plain_text_says_anything(text):
    assert c_defines.said(text, WANTED) is None


def test_the_command_line_itself_counts_but_for_what_differs():
    found = split("-DONE=TWO", "-DTWO=1", "-DTHREE=ONE", "-O2")
    assert found is not None
    words = c_defines.said(c_defines.told_beside(found, frozenset([b"TWO"])), c_defines.pieces([b"TWO", b"THREE", b"O2"]))
    assert words is not None
    assert {b"TWO", b"THREE", b"O2"} <= words
