"""Which plans are told relative to a base directory, and how: words only."""

from __future__ import annotations

import pytest

from sccache_py.compilers import basedirs
from sccache_py.compilers.c_dialects import CLANG, GCC
from sccache_py.compilers.gcc import C
from sccache_py.model import Plan

BASES = ("/w/a", "/w/b", "/w")


def plan(words, cwd, dialect=GCC):
    made = C(dialect, plus=False).parse(words.split(), cwd, cwd)
    assert isinstance(made, Plan)
    return made


def told(words, cwd="/w/a/build", bases=BASES, dialect=GCC):
    return basedirs.tell(plan(words, cwd, dialect), bases, "/usr/bin")


@pytest.mark.parametrize(
    "words",
    [
        "-I{}/inc -c {}/x.c -o x.o",
        "-I {} -isystem {}/sys -iquote{}/q -idirafter {}/d -include {}/pre.h -c {}/x.c",
        "-ffile-prefix-map={}=. -c {}/x.c",
        "-ffile-prefix-map={}/=/x -g -c {}/x.c",
        "-fdebug-prefix-map={}=. -g -c {}/x.c",
        "-fmacro-prefix-map={}/src=. -c {}/src/x.c",
        "-c ../src/x.c",
    ],
)
def test_two_checkouts_have_one_key(words):
    """Words that are paths of a checkout say where in it."""
    one, other = (told(words.replace("{}", top), f"{top}/build") for top in ("/w/a", "/w/b"))
    assert one.arguments == other.arguments
    assert (one.roles.path("base"), other.roles.path("base")) == ("/w/a", "/w/b")


@pytest.mark.parametrize(
    "words",
    [
        "-DTOP=/w/a -c /w/a/x.c",
        "-fdebug-prefix-map=/w/a/build=. -g -c /w/a/x.c",
        "-ffile-prefix-map=/w=. -c /w/a/x.c",
        "-g -c /w/a/x.c",
        "-O2 -flto -c /w/a/x.c",
        "--coverage -c /w/a/x.c",
        "-funique-internal-linkage-names -c /w/a/x.c",
        "-isystem /w/b/inc -c /w/a/x.c",
    ],
)
def test_what_may_show_in_a_way_that_nobody_sees_stays_as_it_is(words):
    """Then the path of the one checkout is in the key, and the other's is another."""
    one, other = told(words), told(words.replace("/w/a", "/w/b"), "/w/b/build")
    assert one.arguments != other.arguments


@pytest.mark.parametrize(
    ("words", "cwd", "bases"),
    [
        ("-Ia/inc -c /w/a/x.c", "/w", ("/w/a",)),  # a relative path leads into it
        ("-c /elsewhere/x.c", "/w/a", BASES),
        ("-c /w/ab/x.c", "/w/ab", ("/w/a",)),
        ("-c /w/a$b/x.c", "/w/a$b", ("/w/a$b",)),
        ("-c x.c", "/", ()),
    ],
)
def test_without_a_base_directory_of_its_own_a_plan_stays_as_it_is(words, cwd, bases):
    """The memo then even has the same object."""
    before = plan(words, cwd)
    assert basedirs.tell(before, bases, "/usr/bin") is before


def test_the_longest_base_directory_counts():
    """Nested checkouts: the inner one."""
    assert told("-c /w/a/x.c", bases=("/w", "/w/a")).roles.path("base") == "/w/a"


def test_where_the_cwd_is_in_the_checkout_is_in_the_key():
    """Relative words and __FILE__ mean another file elsewhere."""
    assert told("-c /w/a/x.c", "/w/a/one").arguments != told("-c /w/a/x.c", "/w/a/two").arguments
    assert told("-c /w/a/x.c", "/t").arguments == told("-c /w/b/x.c", "/t").arguments


def test_clang_is_told_alike():
    """One rule for both."""
    assert told("-I/w/a/i -c /w/a/x.c", dialect=CLANG).arguments == told("-I/w/b/i -c /w/b/x.c", "/w/b/build", dialect=CLANG).arguments


CGO = "-I . -ffile-prefix-map={0}=/tmp/go-build -I {0}/ -g -c x.c -o {0}/x.o"


def test_a_mapped_directory_is_told_so_without_being_named():
    """Where debug information shows the cwd, too: this one and the cwd are two."""
    one, other = (told(CGO.format(work), "/src/package", ()) for work in ("/tmp/go-1/b001", "/tmp/go-22/b001"))
    assert one.arguments == other.arguments
    assert one.cwd_in_key
    assert one.roles.path("base") == "/tmp/go-1/b001"


@pytest.mark.parametrize("work", ["/usr", "/usr/local/include/x", "/opt/gcc/include/x", "/opt/gcc/bin", "/opt", "/src/package/b"])
def test_where_the_compiler_looks_for_all_or_the_cwd_leads_stays_as_it_is(work):
    """A file that is found there without a word is the same one for all calls, whatever they map."""
    before = plan(CGO.format(work), "/src/package")
    assert basedirs.tell(before, (), "/opt/gcc/bin") is before


def test_a_map_alone_changes_no_key():
    """What says no absolute path has been the same in all checkouts before."""
    before = plan("-I../inc -ffile-prefix-map=/w/a=. -g -c ../x.c", "/w/a/build")
    assert basedirs.tell(before, (), "/usr/bin") is before
