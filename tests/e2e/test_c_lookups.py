"""What a compile looked for and how: each way in which a new file, or a link, can change what is found.

Observation sees look-ups; without it they are read off the texts, so here they are written in every way that compilers understand.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package

from c_world import one_compiler, shared_server  # noqa: F401 - fixtures

pytestmark = pytest.mark.slow

USE = "int f(void) { return A; }\n"
ANSWER = "\n#define A 1\n#else\n#define A 2\n#endif\n" + USE


@pytest.mark.parametrize(
    "directive",
    [
        '#include "a.h"',
        "#include <a.h>",
        '# /* x */ include /* y */ "a.h"',
        '#inc\\\nlude "a.\\\nh"',
        '%:include "a.h"',
        '??=inc??/\nlude "a.h"',
        '#import "a.h"',
    ],
)
def test_a_header_that_appears_first_is_a_miss_however_it_is_included(c, directive):
    """The preprocessor does not care how it is written, and nor may we."""
    c.write("x.c", f"{directive}\n{USE}")
    c.write("second/a.h", "#define A 1\n")
    (c.p / "first").mkdir()
    args = ("-std=c99", "-w", "-Ifirst", "-Isecond", "-c", "x.c", "-o", c.object())
    c.changes(lambda: c.write("first/a.h", "#define A 2\n"), lambda: os.unlink(c.p / "first/a.h"), *args)


@pytest.mark.parametrize("option", ["-include", "-imacros"])
def test_a_header_that_appears_first_is_a_miss_where_the_command_line_includes_it(c, option):
    """The cwd comes first then, not the directory of the source."""
    c.write("src/x.c", USE)
    c.write("inc/a.h", "#define A 1\n")
    args = ("-Iinc", option, "a.h", "-c", "src/x.c", "-o", c.object())
    c.changes(lambda: c.write("a.h", "#define A 2\n"), lambda: os.unlink(c.p / "a.h"), *args)


def test_a_link_to_nothing_is_passed_over_until_it_leads_somewhere(c):
    """A checkout without its submodules has such links; the compiler goes on to the next directory."""
    c.write("x.c", f'#include "a.h"\n{USE}')
    c.write("second/a.h", "#define A 1\n")
    (c.p / "first").mkdir()
    (c.p / "first/a.h").symlink_to("../sub/a.h")
    args = ("-Ifirst", "-Isecond", "-c", "x.c", "-o", c.object())
    c.changes(lambda: c.write("sub/a.h", "#define A 2\n"), lambda: os.unlink(c.p / "sub/a.h"), *args)


def test_a_header_between_two_of_a_chain_is_a_miss(c):
    """#include_next goes on behind the directory of the header that says it."""
    c.write("x.c", f"#include <a.h>\n{USE}")
    c.write("i1/a.h", "#include_next <a.h>\n")
    c.write("i3/a.h", "#define A 1\n")
    (c.p / "i2").mkdir()
    args = ("-Ii1", "-Ii2", "-Ii3", "-c", "x.c", "-o", c.object())
    c.changes(lambda: c.write("i2/a.h", "#define A 2\n"), lambda: os.unlink(c.p / "i2/a.h"), *args)


@pytest.mark.parametrize(
    "question",
    ['__has_include("b.h")', "__has_include ( /* here */ <b.h> )", "defined(__has_include) && __has_include(<b.h>)", "H"],
)
def test_what_is_only_asked_for_is_looked_for(c, question):
    """Also in a macro of the command line."""
    c.write("x.c", f"#if {question}{ANSWER}")
    (c.p / "inc").mkdir()
    args = ("-Iinc", '-DH=__has_include("b.h")', "-c", "x.c", "-o", c.object())
    c.changes(lambda: c.write("inc/b.h", ""), lambda: os.unlink(c.p / "inc/b.h"), *args)


def test_what_a_headers_macro_asks_for_is_looked_for_beside_its_user(c):
    """`"…"` begins where the macro is used, not where it is written."""
    c.write("src/x.c", f'#include "has.h"\n#if HAS || ALSO{ANSWER}')
    c.write("inc/has.h", '#define HAS __has_include("b.h")\n')
    args = ("-Iinc", '-DALSO=__has_include("c.h")', "-c", "src/x.c", "-o", c.object())
    for name in ("b.h", "c.h"):
        c.changes(lambda name=name: c.write(f"src/{name}", ""), lambda name=name: os.unlink(c.p / "src" / name), *args)
        c.write("src/x.c", (c.p / "src/x.c").read_text() + "\n")  # a new source: nothing is known of it


@pytest.mark.parametrize(
    "text",
    [
        '#define NAME "a.h"\n#include NAME\n' + USE,
        "#include N\n" + USE,
        '#define HAS __has_include\n#if HAS("b.h")' + ANSWER,
        '#define NAME "b.h"\n#if __has_include(NAME)' + ANSWER,
        '#define HAS(x) __has_##x\n#if HAS(include)("b.h")' + ANSWER,
    ],
)
def test_names_that_macros_make_are_not_guessed(c, text):
    """Without observation nobody knows what was looked for."""
    c.write("x.c", text)
    c.write("inc/a.h", "#define A 1\n")
    args = ("-Iinc", '-DN="a.h"', "-c", "x.c", "-o", c.object())
    if c.left_out("computed #include or __has_include without observation", *args):
        return

    def appear():
        c.write("a.h", "#define A 3\n")
        c.write("b.h", "")

    def vanish():
        os.unlink(c.p / "a.h")
        os.unlink(c.p / "b.h")

    c.changes(appear, vanish, *args)


def test_a_predefined_header_may_be_anyones(c):
    """gcc reads <stdc-predef.h> before the source, from the first directory that has one."""
    c.write("x.c", "#ifdef Q\nint q;\n#endif\n")
    (c.p / "inc").mkdir()
    args = ("-Iinc", "-c", "x.c", "-o", c.object())
    if not c.is_gcc:
        c.compile_twice(*args)
        return
    c.changes(lambda: c.write("inc/stdc-predef.h", "#define Q\n"), lambda: os.unlink(c.p / "inc/stdc-predef.h"), *args)


def test_a_system_headers_own_header_may_be_shadowed(c):
    """-I comes before the system's directories for what they include, too."""
    c.write("x.c", "#include <stdio.h>\n#ifdef Q\nint q;\n#endif\n")
    (c.p / "inc").mkdir()

    def vanish():
        os.unlink(c.p / "inc/bits/types.h")
        os.rmdir(c.p / "inc/bits")

    shadow = "#define Q\n#include_next <bits/types.h>\n"
    c.changes(lambda: c.write("inc/bits/types.h", shadow), vanish, "-Iinc", "-c", "x.c", "-o", c.object())


def test_dots_behind_a_link_are_not_undone(c):
    """sub/../a.h is beside what `sub` leads to."""
    c.write("x.c", f'#include "sub/../a.h"\n{USE}')
    for place, value in (("one", 1), ("two", 2)):
        c.write(f"{place}/a.h", f"#define A {value}\n")
        (c.p / place / "sub").mkdir()
    link = c.p / "sub"

    def point(to):
        link.unlink(missing_ok=True)
        link.symlink_to(f"{to}/sub")

    point("one")
    c.changes(lambda: point("two"), lambda: point("one"), "-c", "x.c", "-o", c.object())


def test_a_link_decides_which_of_two_directories_is_searched_twice(c):
    """A directory that is named again as the system's is passed over at its first place."""
    c.write("x.c", f"#include <a.h>\n{USE}")
    for place, value in (("i1", 1), ("i2", 2), ("i3", 3)):
        c.write(f"{place}/a.h", f"#define A {value}\n")
    link = c.p / "current"

    def point(to):
        link.unlink(missing_ok=True)
        link.symlink_to(to)

    point("i1")
    args = ("-Icurrent", "-Ii2", "-isystem", "i1", "-c", "x.c", "-o", c.object())
    c.changes(lambda: point("i3"), lambda: point("i1"), *args)


def test_a_shortened_system_header_looks_beside_where_it_is(c):
    """gcc takes the shorter of two names for a system header, and its quotes begin there."""
    c.write("x.c", f"#include <a.h>\n{USE}")
    c.write("s/r.h", '#include "b.h"\n')
    place = "a/long/way/to/the/system"
    c.write(f"{place}/b.h", "#define A 3\n")
    (c.p / place / "a.h").symlink_to(c.p / "s/r.h")
    args = ("-isystem", str(c.p / place), "-c", "x.c", "-o", c.object())
    c.compile_twice(*args)
    c.write("s/b.h", "#define A 2\n")
    c.expect("miss" if c.is_gcc else "hit", *args)


def test_a_file_with_two_names_looks_beside_both(c):
    """A header behind a link: its quotes begin where it was found, not where it is."""
    c.write("x.c", f'#include "p/a.h"\n#undef A\n#include "q/a.h"\n{USE}')
    c.write("p/a.h", '#include "b.h"\n')
    c.write("inc/b.h", "#define A 1\n")
    (c.p / "q").mkdir()
    (c.p / "q/a.h").symlink_to("../p/a.h")
    args = ("-Iinc", "-c", "x.c", "-o", c.object())
    c.compile_twice(*args)
    for place in ("p", "q"):
        c.write(f"{place}/b.h", f"#define A {ord(place)}\n")
        # clang looks beside the name by which it knew the file first.
        if c.is_gcc or place == "p" or not c.observed:
            c.expect("miss", *args)
        else:
            c.expect("hit", *args)
        os.unlink(c.p / place / "b.h")
        c.expect("hit", *args)


def test_what_only_the_compile_includes_counts(c):
    """gcc 12 passes over this pragma when it only preprocesses, so its list of headers has no a.h."""
    if not c.is_gcc:
        pytest.skip("gcc's")
    c.write("x.c", f'#pragma GCC target("avx2")\n#ifdef __AVX2__\n#include "a.h"\n#else\n#define A 0\n#endif\n{USE}')
    c.write("a.h", "#define A 1\n")
    c.changes_text("a.h", "#define A 2\n", "-c", "x.c", "-o", c.object())


@pytest.mark.parametrize("text", ['".incbin \\"blob\\""', '".inc" "bin \\"blob\\""', 'S(.inc) "bin \\"blob\\""', '".include \\"blob\\""'])
def test_what_the_assembler_reads_is_on_no_list(c, text):
    """However the directive is put together."""
    c.write("x.c", f"#define S(x) #x\n__asm__({text});\n")
    c.write("blob", ".long 1\n")
    if not c.left_out("assembler may read files without observation", "-c", "x.c", "-o", c.object()):
        c.changes_text("blob", ".long 2\n", "-c", "x.c", "-o", c.object())


def test_a_precompiled_header_without_its_header_is_taken(c):
    """gcc looks for a.h.gch in each directory before it looks for a.h."""
    if not c.is_gcc:
        pytest.skip("gcc's")
    c.write("x.c", f'#include "a.h"\n{USE}')
    c.write("second/a.h", "#define A 1\n")
    (c.p / "first").mkdir()
    args = ("-Ifirst", "-Isecond", "-c", "x.c", "-o", c.object())
    first = c.compile_twice(*args)
    c.write("other.h", "#define A 2\n")
    subprocess.run(["gcc", "-x", "c-header", "other.h", "-o", "first/a.h.gch"], cwd=c.p, env=c.world.env, check=True, timeout=60)
    assert c.expect("miss", *args) != first


def test_the_compilers_options_are_not_changed_by_the_question(c):
    """What the object records of its command line, and what -Werror says of it, is the caller's."""
    c.write("x.c", "int f(void) { return 1; }\n")
    for words in (("-g",), ("-Werror", "-Wall", "-Wextra", "-pedantic"), ("-MMD", "-MP"), ("-fsyntax-only", "-Werror"), ("-S", "-Werror")):
        mode = () if {"-fsyntax-only", "-S"}.intersection(words) else ("-c",)
        c.compile_twice(*words, *mode, "x.c", *(() if "-fsyntax-only" in words else ("-o", c.object())))


TWICE = '#include "one/h.h"\n#include "two/h.h"\nint f(void) { return N; }\n'
ONCE = "#pragma once\n#ifdef N\n#undef N\n#define N 2\n#else\n#define N 1\n#endif\n"


def write_twins(c) -> None:
    c.write("x.c", TWICE)
    for name in ("one/h.h", "two/h.h"):
        os.utime(c.write(name, ONCE), (1_000_000_000, 1_000_000_000))


def test_twins_under_pragma_once_are_told_apart_by_their_times(c):
    """gcc takes two headers with the same text for one if they were changed in the same second: the copy of an installed header."""
    write_twins(c)
    args = ("-c", "x.c", "-o", c.object())
    first = c.compile_twice(*args)
    os.utime(c.p / "two/h.h", (1_000_000_001, 1_000_000_001))
    if not c.is_gcc:
        c.expect("hit", *args)
        return
    assert c.expect("miss", *args) != first
    os.utime(c.p / "two/h.h", (1_000_000_000, 1_000_000_000))
    assert c.expect("hit", *args) == first


def test_twins_under_pragma_once_are_told_apart_by_their_inodes(c):
    """clang takes two names of one inode for one file: a tree that was copied with hard links."""
    write_twins(c)
    two = c.p / "two/h.h"

    def link() -> None:
        two.rename(c.p / "kept")
        two.hardlink_to(c.p / "one/h.h")

    first = c.compile_twice("-c", "x.c", "-o", c.object())
    link()
    if c.is_gcc:
        c.expect("hit", "-c", "x.c", "-o", c.object())
        return
    assert c.expect("miss", "-c", "x.c", "-o", c.object()) != first
    (c.p / "kept").replace(two)
    assert c.expect("hit", "-c", "x.c", "-o", c.object()) == first


@pytest.mark.parametrize("words", [("-c",), ("-S",), ("-O2", "-g", "-gz", "-c")], ids=" ".join)
def test_what_is_called_after_the_inode_of_a_source_is_for_that_inode(c, words):
    """clang names what OpenMP may run on another device __omp_offloading_DEVICE_INODE_f_l3, of the file that #line says."""
    if not c.is_gcc and c.left_out("C without observation: -fopenmp", "-fopenmp", "-c", "x.c"):
        return
    c.write("x.c", '#line 1 "said.c"\nvoid f(int *a) {\n#pragma omp target\n  a[0] = 1;\n}\n')
    said = c.write("said.c", "\n")
    args = ("-fopenmp", "-frandom-seed=1", *words, "x.c", "-o", c.object())

    def write_anew(path) -> None:
        path.rename(c.p / "kept")
        path.write_bytes((c.p / "kept").read_bytes())

    first = c.compile_twice(*args)
    write_anew(said)
    if c.is_gcc:
        c.expect("hit", *args)
        return
    assert c.expect("miss", *args) != first
    (c.p / "kept").replace(said)
    assert c.expect("hit", *args) == first
    said.unlink()
    c.expect("miss", *args)
    write_anew(c.p / "x.c")
    c.expect("miss", *args)
    c.expect("hit", *args)


def test_the_inode_of_a_source_is_nothing_to_openmp_without_another_device(c):
    """Another checkout shares it."""
    c.write("x.c", "void f(int *a) {\n#pragma omp parallel\n  a[0] = 1;\n}\n")
    if not c.is_gcc and c.left_out("C without observation: -fopenmp", "-fopenmp", "-c", "x.c", "-o", c.object()):
        return
    c.expect("miss", "-fopenmp", "-c", "x.c", "-o", c.object())
    text = (c.p / "x.c").read_bytes()
    (c.p / "x.c").rename(c.p / "kept")
    c.write("x.c", text)
    c.expect("hit", "-fopenmp", "-c", "x.c", "-o", c.object())


@pytest.mark.parametrize("directive", ["#import", "# /* */ import", "%:\\\nimport"])
def test_imported_twins_are_told_apart_by_their_times(c, directive):
    """The same without a word of it in the headers."""
    write_twins(c)
    c.write("x.c", TWICE.replace("#include", directive))
    for name in ("one/h.h", "two/h.h"):
        os.utime(c.write(name, ONCE.replace("#pragma once\n", "")), (1_000_000_000, 1_000_000_000))
    args = ("-Wno-deprecated", "-c", "x.c", "-o", c.object())
    first = c.compile_twice(*args)
    os.utime(c.p / "two/h.h", (1_000_000_001, 1_000_000_001))
    if c.is_gcc:
        assert c.expect("miss", *args) != first
    else:
        c.expect("hit", *args)


def test_twins_that_nobody_passes_over_may_have_any_times(c):
    """Headers with the same text are not rare: generated stubs, or those that only include another one."""
    for place, time in (("here", 1_000_000_000), ("there", 1_000_000_001)):
        c.write(f"{place}/x.c", TWICE)
        for name in ("one/h.h", "two/h.h"):
            os.utime(c.write(f"{place}/{name}", ONCE.replace("#pragma once\n", "")), (time, time))
    c.expect("miss", "-c", "x.c", "-o", c.object(), cwd=c.p / "here")
    c.expect("hit", "-c", "x.c", "-o", c.object(), cwd=c.p / "there")


def test_one_header_by_two_names_is_no_twin(c):
    """`inc/h.h` and `sub/../inc/h.h`: another checkout, where it has another time, hits."""
    for place in ("here", "there"):
        c.write(f"{place}/x.c", TWICE.replace("two", "sub/../one"))
        c.write(f"{place}/one/h.h", ONCE)
        (c.p / place / "sub").mkdir()
    os.utime(c.p / "there/one/h.h", (1_000_000_000, 1_000_000_000))
    c.expect("miss", "-c", "x.c", "-o", c.object(), cwd=c.p / "here")
    c.expect("hit", "-c", "x.c", "-o", c.object(), cwd=c.p / "there")


@pytest.mark.parametrize(
    "text", ['#include "a.h"\n' + "int f(void) { return A; }\n", '#if __has_include("a.h")\nint yes;\n#else\nint no;\n#endif\n']
)
def test_a_directory_that_is_called_as_a_header_counts(c, text):
    """It is opened and passed over, but a header in its place is not."""
    c.write("x.c", text)
    c.write("second/a.h", "#define A 1\n")
    (c.p / "first" / "a.h").mkdir(parents=True)
    args = ("-Ifirst", "-Isecond" if "#include" in text else "-Ithird", "-c", "x.c", "-o", c.object())

    def put_a_header() -> None:
        (c.p / "first" / "a.h").rmdir()
        c.write("first/a.h", "#define A 2\n")

    def put_the_directory() -> None:
        (c.p / "first" / "a.h").unlink()
        (c.p / "first" / "a.h").mkdir()

    c.changes(put_a_header, put_the_directory, *args)


@pytest.mark.parametrize("name", ["/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"])
@pytest.mark.parametrize("text", ['#include "{}"\nint f(void) {{ return A; }}\n', '__asm__(".section .rodata\\n.incbin \\"{}\\"");\n'])
def test_a_source_that_includes_what_is_on_stdin_is_left_to_the_compiler(c, text, name):
    """The server's is empty: the object would be another one, or none."""
    c.write("x.c", text.format(name))
    given = c.write("given", "#define A 7\n")
    args = [c.name, "-c", "x.c", "-o", c.object()]
    found = []
    for command in ([str(c.world.client), *args], args):
        env = {**c.world.env, **c.world.server_env}
        with given.open("rb") as stdin:
            done = subprocess.run(command, cwd=c.p, env=env, stdin=stdin, capture_output=True, timeout=60, check=False)
        found.append((done.returncode, done.stderr, Path(c.object()).read_bytes()))
    assert found[0] == found[1]
    assert found[0][0] == 0


@pytest.mark.parametrize("linked", [False, True])
def test_where_a_system_header_is_counts_though_a_directory_above_it_became_a_link(c, linked):
    """A link stands where a kit stood: no file changed, but gcc's depfile and __FILE__ tell the shorter path."""
    if not c.observed:
        pytest.skip("left to the client without observation")
    named, kit = c.world.root / "a-kit-with-a-long-name", c.world.root / "kit"
    place = c.world.root / "kits" if linked else named
    (place / "inc").mkdir(parents=True)
    (place / "inc" / "a.h").write_text("static const char *where(void) { return __FILE__; }\n")
    c.write("x.c", "#include <a.h>\nconst char *f(void) { return where(); }\n")
    if linked:
        named.mkdir()
        (named / "inc").symlink_to(place / "inc")
    args = ("-isystem", str(named / "inc"), "-MD", "-c", "x.c", "-o", c.object())
    c.expect("miss", *args)
    place.rename(kit)
    place.symlink_to(kit)
    c.expect("miss" if c.is_gcc or linked else "hit", *args)
