"""One command line in two checkouts: what it says relative to the cwd is each one's own, what it names whole is the very same.

Where checkouts say absolute paths of their own, see test_c_basedirs.py.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package

from c_world import one_compiler, shared_server  # noqa: F401 - fixtures

pytestmark = pytest.mark.slow


def both_read_the_header_of_the_first(c, *args):
    """Called from two directories: what changes in one is a miss in the other, too, and what changes there is nothing to it."""
    c.expect("miss", *args, cwd=c.p / "one")
    c.expect("miss", *args, cwd=c.p / "two")
    c.write("one/a.h", "#define A 2\n")
    c.expect("miss", *args, cwd=c.p / "two")
    c.write("two/a.h", "#define A 3\n")
    c.expect("hit", *args, cwd=c.p / "two")


def test_a_header_of_another_directory_named_by_its_whole_path_is_that_very_header(c):
    """Generated sources do so; told relative to the cwd, it would be looked for in this directory."""
    for place in ("one", "two"):
        c.write(f"{place}/x.c", f'#include "{c.p}/one/a.h"\nint f(void) {{ return A; }}\n')
        c.write(f"{place}/a.h", "#define A 1\n")
    args = ("-c", "x.c", "-o", c.object())
    both_read_the_header_of_the_first(c, *args)


def out_of_tree(c, source, header="#define A sizeof(__FILE__)\n"):
    """The build directories of two checkouts, of which one lies deeper; meson and `../configure` build so."""
    for place in ("one", "so/two"):
        c.write(f"{place}/src/x.c", source)
        c.write(f"{place}/inc/a.h", header)
        (c.p / place / "build").mkdir()
    return c.p / "one/build", c.p / "so/two/build"


def test_sources_above_the_working_directory_are_the_same_in_another_checkout(c):
    """What the dots lead to is told by name; but for where a list only says what was read."""
    one, two = out_of_tree(c, '#include "../inc/a.h"\nint f(void) { return A; }\n')
    args = ("-I../inc", "-MD", "-c", "../src/x.c", "-o", c.object())
    first = c.expect("miss", *args, cwd=one)
    assert c.expect("hit" if c.observed else "miss", *args, cwd=two) == first
    c.write("so/two/inc/a.h", "#define A 2\n")
    c.expect("miss", *args, cwd=two)
    c.expect("hit", *args, cwd=one)


def test_where_a_system_header_above_the_working_directory_lies_may_be_in_the_object(c):
    """gcc writes its whole path where that is shorter than the relative one."""
    one, two = out_of_tree(c, "#include <a.h>\nint f(void) { return A; }\n")
    long = "../" + "build/../" * 20
    args = ("-isystem", f"{long}inc", "-c", "../src/x.c", "-o", c.object())
    c.compile_twice(*args, cwd=one)
    c.expect("miss" if c.is_gcc or not c.observed else "hit", *args, cwd=two)


def test_a_directory_that_is_searched_once_in_one_checkout_is_searched_twice_from_another(c):
    """Under its whole path and a relative one it is one; from elsewhere the relative one is another."""
    header = "#ifdef Q\n#define A 8\n#endif\n#define Q\n#include_next <a.h>\n"
    one, two = out_of_tree(c, "#include <a.h>\nint f(void) { return A; }\n", header)
    c.write("next/a.h", "#ifndef A\n#define A 7\n#endif\n")
    args = ("-I../inc", f"-I{c.p}/one/inc", f"-I{c.p}/next", "-c", "../src/x.c", "-o", c.object())
    first = c.compile_twice(*args, cwd=one)
    assert c.expect("miss", *args, cwd=two) != first


@pytest.mark.parametrize("word", ["-I{p}/one", "-I{p}/./one/", "-include{p}/one/a.h", "-I{p}//one"])
def test_a_directory_that_a_word_names_whole_is_that_very_directory(c, word):
    """A copied build tree goes on reading the headers of the first, as its makefiles say."""
    for place in ("one", "two"):
        c.write(f"{place}/src/x.c", "#ifndef A\n#include <a.h>\n#endif\nint f(void) { return A; }\n")
        c.write(f"{place}/a.h", "#define A 1\n")
    args = (word.format(p=c.p), "-c", "src/x.c", "-o", c.object())
    both_read_the_header_of_the_first(c, *args)


@pytest.mark.parametrize("target", [("--target=aarch64-linux-gnu",), ("-target", "x86_64-w64-mingw32")])
def test_a_compile_for_another_machine_is_the_same_in_another_checkout(c, target):
    """clang's way to compile across.  Which programs it finds along PATH counts; where it was called does not."""
    if c.is_gcc:
        pytest.skip("clang's")
    for place in ("one", "two"):
        c.write(f"{place}/x.c", '#include "a.h"\nint f(void) { return A; }\n')
        c.write(f"{place}/a.h", "#define A 1\n")
    args = (*target, "-O2", "-MD", "-c", "x.c", "-o", c.object())
    if c.left_out("C without observation: " + re.match("[-a-z]*=?", target[0])[0], *args, cwd=c.p / "one"):
        return
    first = c.expect("miss", *args, cwd=c.p / "one")
    assert c.expect("hit", *args, cwd=c.p / "two") == first
    c.write("two/a.h", "#define A 2\n")
    c.expect("miss", *args, cwd=c.p / "two")
    c.expect("miss", *args, "-g", cwd=c.p / "one")
    c.expect("miss", *args, "-g", cwd=c.p / "two")


def as_cgo_says_it(c, work, *more):
    """Go makes a work directory under a new name for each build, and says so (cmd/go/internal/work, `ccompilerCmd`)."""
    work = c.p / work
    return ("-I", ".", "-g", "-O2", f"-ffile-prefix-map={work}=/tmp/go-build", "-I", f"{work}/", *more, "-o", c.object())


def test_a_directory_that_a_map_takes_out_of_the_object_may_have_another_name(c):
    """cgo compiles a package's C files in the package, with its own headers in a directory that is called otherwise each time."""
    c.write("package/x.c", '#include "export.h"\n#include "a.h"\nconst char *f(void) { return EXPORT + A; }\n')
    c.write("package/a.h", "#define A 1\n")
    for work in ("w1/b001", "longer22/b001"):
        c.write(f"{work}/export.h", "#define EXPORT __FILE__\n")
    package = c.p / "package"
    c.expect("miss", *as_cgo_says_it(c, "w1/b001", "-c", "x.c"), cwd=package)
    c.expect("hit", *as_cgo_says_it(c, "longer22/b001", "-c", "x.c"), cwd=package)
    c.write("longer22/b001/export.h", '#define EXPORT "other"\n')
    c.expect("miss", *as_cgo_says_it(c, "longer22/b001", "-c", "x.c"), cwd=package)
    c.write("longer22/b001/a.h", "#define A 2\n")  # behind the package's own
    c.expect("hit", *as_cgo_says_it(c, "longer22/b001", "-c", "x.c"), cwd=package)
    c.write("package/a.h", "#define A 3\n")
    c.expect("miss", *as_cgo_says_it(c, "w1/b001", "-c", "x.c"), cwd=package)


def test_what_is_compiled_in_such_a_directory_is_the_same_under_its_other_name(c):
    """cgo's generated sources; the package is named by its whole path there."""
    c.write("package/a.h", "#define A 1\n")
    for work in ("w1/b001", "longer22/b001"):
        c.write(f"{work}/export.h", "#define EXPORT __FILE__\n")
        c.write(f"{work}/x.c", '#include <export.h>\n#include "export.h"\n#include "a.h"\nconst char *f(void) { return EXPORT + A; }\n')
    more = (f"-I{c.p}/package", "-c", "x.c")
    c.expect("miss", *as_cgo_says_it(c, "w1/b001", *more), cwd=c.p / "w1/b001")
    c.expect("hit", *as_cgo_says_it(c, "longer22/b001", *more), cwd=c.p / "longer22/b001")
    c.write("w1/b001/export.h", '#define EXPORT "other"\n')
    c.expect("miss", *as_cgo_says_it(c, "w1/b001", *more), cwd=c.p / "w1/b001")


def test_two_checkouts_whose_names_a_map_takes_away_share_what_says_absolute_paths(c):
    """As with SCCACHE_BASEDIRS, which need not name them then; a macro with the path in it keeps them apart."""
    for place in ("one", "so/two"):
        c.write(f"{place}/src/x.c", '#include <a.h>\nint f(void) { return A; }\n#ifdef TOP\nint g = sizeof(TOP);\n#endif\n')
        c.write(f"{place}/inc/a.h", "#define A sizeof(__FILE__)\n")

    def words(place, *more):
        top = c.p / place
        return ("-g", f"-ffile-prefix-map={top}=.", f"-I{top}/inc", *more, "-c", str(top / "src/x.c"), "-o", c.object())

    c.expect("miss", *words("one"), cwd=c.p / "one")
    c.expect("hit", *words("so/two"), cwd=c.p / "so/two")
    for place in ("one", "so/two"):
        c.expect("miss", *words(place, f'-DTOP="{c.p}/{place}"'), cwd=c.p / place)
    c.write("so/two/inc/a.h", "#define A 2\n")
    c.expect("miss", *words("so/two"), cwd=c.p / "so/two")
