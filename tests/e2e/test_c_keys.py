"""What decides an object file: sources, headers, where they were looked for, arguments, variables.

Each test compiles, changes one thing and must see a miss with the compiler's own bytes, or sees a hit where nothing that matters changed.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package

from c_world import one_compiler, shared_server  # noqa: F401 - fixtures

pytestmark = pytest.mark.slow

ONE = "int f(void) { return 1; }\n"
INCLUDES = '#include "a.h"\nint f(void) { return A; }\n'


def test_an_unchanged_source_hits_and_an_edited_one_misses(c):
    """The first thing anyone expects of a cache."""
    c.write("x.c", ONE)
    c.changes_text("x.c", "int f(void) { return 2; }\n", "-c", "x.c", "-o", c.object())


def test_an_edited_header_misses(c):
    """Headers are inputs, found by watching the compiler."""
    c.write("x.c", INCLUDES)
    c.write("a.h", "#define A 1\n")
    c.changes_text("a.h", "#define A 2\n", "-c", "x.c", "-o", c.object())


def test_another_name_for_the_object_still_hits(c):
    """Two targets of one build, or two build directories, compile the same source."""
    c.write("x.c", ONE)
    c.expect("miss", "-c", "x.c", "-O2", "-o", c.object())
    c.expect("hit", "-c", "x.c", "-O2", "-o", c.object("other-name.o"))
    (c.o / "sub").mkdir()
    c.world.outs.append(c.o / "sub")
    c.expect("hit", "-c", "x.c", "-O2", f"-o{c.o}/sub/y.o")


SEARCHED = {
    "one is passed over": ("#include <a.h>", ["-I.", "-isystem", "../one"]),
    "by its whole path": ("#include <a.h>", ["-isystem", ".", "-I{p}/one"]),
    "beside the source": ('#include "a.h"', ["-I../one", "-MD"]),
    "below": ("#include <b/a.h>", ["-I.", "-isystem", "../one/."]),
    "by a variable": ("#include <a.h>", ["-I.", "-MD"]),
}


@pytest.mark.parametrize("how", SEARCHED)
def test_two_names_of_one_directory_are_two_directories_elsewhere(c, how):
    """gcc and clang pass over the first of two that are the same, and clang 14 calls what is in them by one name."""
    include, words = SEARCHED[how]
    for place in ("one", "two"):
        c.write(f"{place}/x.c", f"{include}\nconst char *name(void) {{ return f(); }}\n")
        for header in ("a.h", "b/a.h"):
            c.write(f"{place}/{header}", "static inline const char *f(void) { return __FILE__; }\n")
    args = (*(word.format(p=c.p) for word in words), "-c", "x.c", "-o", c.object())
    env = {"C_INCLUDE_PATH": "../one"} if how == "by a variable" else {}
    for place, verdict in (("two", "miss"), ("one", "miss"), ("two", "hit"), ("one", "hit")):
        c.expect(verdict, *args, cwd=c.p / place, env=env)


def test_a_relative_include_directory_is_this_directorys(c):
    """Two build directories with a config.h each and the very same command line."""
    c.write("src/x.c", '#include "config.h"\nint f(void) { return A; }\n')
    for place, value in (("debug", 1), ("release", 2)):
        c.write(f"{place}/include/config.h", f"#define A {value}\n")
    args = ("-Iinclude", "-c", "../src/x.c", "-o", c.object())
    c.expect("miss", *args, cwd=c.p / "debug")
    c.expect("miss", *args, cwd=c.p / "release")
    c.expect("hit", *args, cwd=c.p / "debug")
    c.expect("hit", *args, cwd=c.p / "release")


@pytest.mark.parametrize("option", ["-I", "-iquote", "-isystem", "-idirafter"])
def test_a_new_header_that_shadows_an_old_one_misses(c, option):
    """Open for years in other caches: the file that was read is unchanged, but another would be read now."""
    (c.p / "first").mkdir()
    c.write("x.c", INCLUDES)
    c.write("second/a.h", "#define A 1\n")
    c.changes(
        lambda: c.write("first/a.h", "#define A 2\n"),
        lambda: os.unlink(c.p / "first" / "a.h"),
        option, "first", option, "second", "-c", "x.c", "-o", c.object(),
    )  # fmt: skip


def test_an_include_directory_that_appears_misses(c):
    """-I names it already; the compiler passed over it."""
    c.write("x.c", INCLUDES)
    c.write("second/a.h", "#define A 1\n")

    def remove():
        os.unlink(c.p / "first/a.h")
        os.rmdir(c.p / "first")

    c.changes(lambda: c.write("first/a.h", "#define A 2\n"), remove, "-Ifirst", "-Isecond", "-c", "x.c", "-o", c.object())


def test_an_answer_of_has_include_that_changes_misses(c):
    """No list of headers tells that one was asked for."""
    c.write("x.c", '#if __has_include("b.h")\nint f(void) { return 2; }\n#else\nint f(void) { return 1; }\n#endif\n')
    c.changes(lambda: c.write("b.h", ""), lambda: os.unlink(c.p / "b.h"), "-c", "x.c", "-o", c.object())


def test_an_include_directory_behind_a_link_that_is_retargeted_misses(c):
    """`include/current -> v1`: every path on the command line stays the same."""
    c.write("x.c", INCLUDES)
    c.write("v1/a.h", "#define A 1\n")
    c.write("v2/a.h", "#define A 2\n")
    link = c.p / "current"

    def point(to):
        link.unlink(missing_ok=True)
        link.symlink_to(to)

    point("v1")
    c.changes(
        lambda: point("v2"), lambda: point("v1"), "-isystem", "current", "-MD", "-MF", str(c.o / "x.d"), "-c", "x.c", "-o", c.object()
    )


def test_a_retargeted_link_to_the_same_header_misses_where_outputs_may_name_it(c):
    """gcc writes where a system header really is into depfile and debug information; every file that was read is the same."""
    c.write("x.c", INCLUDES)
    for place in ("v1", "v2"):
        c.write(f"{place}/a.h", "#define A 1\n")
    link = c.p / "current-include-directory"

    def point(to):
        link.unlink(missing_ok=True)
        link.symlink_to(to)

    point("v1")
    args = ("-g", "-isystem", link.name, "-MD", "-MF", str(c.o / "x.d"), "-c", "x.c", "-o", c.object())
    c.changes(lambda: point("v2"), lambda: point("v1"), *args, visible=c.is_gcc)


def test_a_precompiled_header_that_appears_beside_its_header_misses(c):
    """gcc takes a.h.gch where it stands beside a.h, whatever is in it."""
    if not c.is_gcc:
        pytest.skip("clang takes one only where it is asked for")
    c.write("x.c", '#include "a.h"\nint f(void) { return A; }\n')
    c.write("a.h", "#define A 1\n")
    c.compile_twice("-c", "x.c", "-o", c.object())
    c.write("other.h", "#define A 2\n")
    made = c.world.run(["gcc", "-x", "c-header", "other.h", "-o", "a.h.gch"], c.p, {})
    assert made.returncode == 0
    if not c.left_out("precompiled header without observation", "-c", "x.c", "-o", c.object()):
        c.expect("miss", "-c", "x.c", "-o", c.object())
        c.expect("hit", "-c", "x.c", "-o", c.object())
    os.unlink(c.p / "a.h.gch")
    c.expect("hit", "-c", "x.c", "-o", c.object())


def test_macros_by_argument_are_told_apart(c):
    """-DA B (B is a file) is not -DAB."""
    c.write("x.c", "#ifdef AB\nint ab;\n#endif\n#ifdef A\nint a;\n#endif\n")
    c.expect("miss", "-DA", "-c", "x.c", "-o", c.object())
    c.expect("miss", "-DAB", "-c", "x.c", "-o", c.object())
    c.expect("miss", "-D", "A", "-U", "A", "-c", "x.c", "-o", c.object())
    c.expect("hit", "-D", "A", "-c", "x.c", "-o", c.object())


def test_an_included_argument_file_counts(c):
    """-include and -imacros read files that no source names."""
    c.write("x.c", "int f(void) { return A; }\n")
    c.write("force.h", "#define A 1\n")
    for option in ("-include", "-imacros"):
        c.changes_text("force.h", "#define A 2\n", option, "force.h", "-c", "x.c", "-o", c.object())
        for words in ((f"-{option}", "force.h"), (f"-{option}=force.h",)):
            c.expect("hit", *words, "-c", "x.c", "-o", c.object())


def test_a_file_that_the_assembler_includes_counts(c):
    """No depfile names what .incbin reads."""
    c.write("x.c", '__asm__(".section .rodata\\n.incbin \\"blob\\"\\n");\n')
    c.write("blob", "one")
    if not c.left_out("assembler may read files without observation", "-c", "x.c", "-o", c.object()):
        c.changes_text("blob", "two", "-c", "x.c", "-o", c.object())


def test_a_file_that_the_preprocessor_embeds_counts(c):
    """C23's #embed: bytes that become part of the object, and of which older compilers know nothing."""
    known = (f"clang-{version}" for version in range(19, 40)) if c.name == "clang" else (f"gcc-{version}" for version in range(15, 30))
    compiler = next((name for name in known if shutil.which(name)), None)
    if compiler is None:
        pytest.skip(f"no {c.name} that knows #embed")
    asks = '#if __has_embed("other")\nint there = 1;\n#endif\n'
    c.write("x.c", 'const unsigned char x[] = {\n#embed "blob"\n};\n' + asks)
    c.write("blob", "one")
    args = ("-std=c23", "-c", "x.c", "-o", c.object())
    if not c.left_out("may read files of which no list tells, without observation", *args, rustc=compiler):
        c.changes_text("blob", "two", *args, rustc=compiler)
        c.changes(lambda: c.write("other", "!"), lambda: (c.p / "other").unlink(), "-O1", *args, rustc=compiler)


@pytest.mark.parametrize("variable", ["CPATH", "C_INCLUDE_PATH"])
def test_a_variable_that_names_include_directories_counts(c, variable):
    """They are -I by other means."""
    c.write("x.c", INCLUDES.replace('"', "<").replace("a.h<", "a.h>"))
    c.write("one/a.h", "#define A 1\n")
    c.write("two/a.h", "#define A 2\n")
    args = ("-c", "x.c", "-o", c.object())
    c.expect("miss", *args, env={variable: str(c.p / "one")})
    c.expect("miss", *args, env={variable: str(c.p / "two")})
    c.expect("hit", *args, env={variable: str(c.p / "one")})
    c.expect("fail", *args)


def test_variables_that_decide_nothing_do_not_count(c):
    """Another terminal, another jobserver, another place for temporary files."""
    c.write("x.c", ONE)
    (c.p / "tmp").mkdir()
    c.expect("miss", "-c", "x.c", "-o", c.object(), env={"TERM": "xterm", "MAKEFLAGS": "-j2"})
    c.expect("hit", "-c", "x.c", "-o", c.object(), env={"TERM": "dumb", "TMPDIR": str(c.p / "tmp"), "X": "y"})
    c.expect("miss", "-O", "-c", "x.c", "-o", c.object(), env={"TMPDIR": str(c.p / "tmp")})
    os.rmdir(c.p / "tmp")
    c.expect("hit", "-O", "-c", "x.c", "-o", c.object())


def test_native_is_this_processor(c):
    """The key has the processor's features; here only that it is cached at all can be seen."""
    c.write("x.c", ONE)
    c.compile_twice("-march=native", "-c", "x.c", "-o", c.object())


def test_a_sanitizers_ignore_list_counts(c):
    """It decides which functions are instrumented."""
    if c.is_gcc:
        pytest.skip("gcc has no such lists")
    c.write("x.c", "int f(int *p) { return *p; }\n")
    c.write("list", "src:*.cc\n")
    args = ("-fsanitize=address", "-fsanitize-ignorelist=list", "-c", "x.c", "-o", c.object())
    if not c.left_out("C without observation: -fsanitize", *args):
        c.changes_text("list", "fun:f\n", *args)


def test_a_sysroot_is_looked_into(c):
    """Cross builds bring headers of their own."""
    c.write("x.c", "#include <a.h>\nint f(void) { return A; }\n")
    c.write("root/usr/include/a.h", "#define A 1\n")
    c.changes_text("root/usr/include/a.h", "#define A 2\n", "--sysroot=root", "-isystem", "=/usr/include", "-c", "x.c", "-o", c.object())


def test_a_response_file_is_part_of_the_command_line(c):
    """Nested and quoted, as long command lines are given; and build tools delete the file afterwards."""
    c.write("x.c", "const char *s = S; int f(void) { return A; }\n")
    c.write("inner", '-DA=1 "-DS=\\"a b\\""\n')
    c.write("outer", "@inner\n-c 'x.c'\n")
    args = ("@outer", "-o", c.object())
    c.compile_twice(*args)
    c.expect("hit", "-DA=1", '-DS="a b"', "-c", "x.c", "-o", c.object())
    c.write("inner", '-DA=2 "-DS=\\"a b\\""\n')
    c.expect("miss", *args)


def test_clang_that_is_called_as_cl_is_left_to_itself(c):
    """To it these two response files differ: as cl it knows no '…'."""
    if c.is_gcc:
        pytest.skip("clang's")
    c.write("x.c", "int c = C;\n")
    for text in ("'1'", "1"):
        c.write("r", f"-DC={text} -c x.c")
        c.expect("pass", "--driver-mode=cl", "--target=x86_64-linux-gnu", "@r", "-o", c.object())


def test_a_response_file_is_read_by_this_compilers_quotes(c):
    """Meson escapes a backslash in '…', as libiberty needs it before gcc 15."""
    c.write("x.c", "const char s[] = S;\n")
    c.write("r", """'-DS="a\\\\b"' -c x.c""")
    c.compile_twice("@r", "-o", c.object())


def test_warnings_are_replayed_only_where_they_name_the_same_paths(c):
    """A message with the directory in it belongs to that directory."""
    for place in ("one", "two"):
        c.write(f"{place}/x.c", '#include "a.h"\n')
        c.write(f"{place}/a.h", "#warning here\n")
    for place in ("one", "two"):
        c.expect("miss", "-I", str(c.p / place), "-c", "x.c", "-o", c.object(), cwd=c.p / place)
    c.expect("hit", "-I", str(c.p / "one"), "-c", "x.c", "-o", c.object(), cwd=c.p / "one")
    if not c.is_gcc:
        return
    c.expect("miss", "-c", "x.c", "-o", c.object(), cwd=c.p / "one")
    c.expect("hit", "-c", "x.c", "-o", c.object(), cwd=c.p / "two")


def test_a_failing_compile_is_not_remembered(c):
    """The next one may succeed, by a file that nobody looked for."""
    c.write("x.c", "int f(void) { return }\n")
    c.expect("fail", "-c", "x.c", "-o", c.object())
    c.expect("fail", "-c", "x.c", "-o", c.object())


def test_a_locale_that_is_installed_later_is_another_compilers_language(c, tmp_path):
    """Without it gcc quotes in ASCII; an image gets its locales after the first build."""
    have = Path("/usr/lib/locale/C.utf8")
    if not c.is_gcc or not have.is_dir():
        pytest.skip("gcc's, and to be copied from the C library's own")
    c.world.needs_observation("the C library's own files are on no list")
    c.write("x.c", "int f(void) { int unused; return 0; }\n")
    env = {"LC_ALL": "xx_XX.UTF-8", "LOCPATH": str(tmp_path)}
    args = ("-Wall", "-c", "x.c", "-o", c.object())
    first = c.compile_twice(*args, env=env)
    shutil.copytree(have, tmp_path / "xx_XX.utf8")
    assert c.expect("miss", *args, env=env).stderr != first.stderr
    c.expect("hit", *args, env=env)


@pytest.mark.parametrize("c", ["gcc-observed"], indirect=True)
def test_counts_of_earlier_runs_go_where_gcc_takes_them_away(c):
    """With -frandom-seed no stamp tells two compiles apart, so gcc removes what the old object counted; else it would be added up."""
    counts = c.p / "x.gcda"
    c.write("x.c", ONE)
    args = ("--coverage", "-frandom-seed=1", "-c", "x.c", "-o", "x.o")
    counts.write_bytes(b"old")
    c.world.cached(*args, rustc=c.name)
    assert not counts.exists()
    c.compile_twice(*args)
    counts.write_bytes(b"old")
    c.world.cached(*args, rustc=c.name)
    assert not counts.exists()
    c.expect("hit", *args)


@pytest.mark.parametrize("c", ["gcc-observed"], indirect=True)
def test_split_debug_information_of_an_earlier_compile_may_be_there(c):
    """objcopy removes it before it writes it: the same build without a clean."""
    (c.p / "x.dwo").write_bytes(b"old")
    c.write("x.c", ONE)
    c.compile_twice("-g", "-gsplit-dwarf", "-c", "x.c", "-o", "x.o")
