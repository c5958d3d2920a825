"""Two directories, or one by another name: what an object says of where it was compiled, and what takes that out of it."""

from __future__ import annotations

import itertools
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package

from c_world import one_compiler, shared_server  # noqa: F401 - fixtures

pytestmark = pytest.mark.slow

ONE = "int f(void) { return 1; }\n"
INCLUDES = '#include "a.h"\nint f(void) { return A; }\n'


def test_another_directory_hits_without_debug_information(c):
    """A second checkout: nothing in the object says where it was compiled."""
    for place in ("one", "two"):
        c.write(f"{place}/x.c", INCLUDES)
        c.write(f"{place}/a.h", "#define A 1\n")
    c.expect("miss", "-c", "x.c", "-o", c.object(), cwd=c.p / "one")
    c.expect("hit", "-c", "x.c", "-o", c.object(), cwd=c.p / "two")
    c.write("two/a.h", "#define A 2\n")
    c.expect("miss", "-c", "x.c", "-o", c.object(), cwd=c.p / "two")
    c.expect("hit", "-c", "x.c", "-o", c.object(), cwd=c.p / "one")


def test_debug_information_tells_two_directories_apart(c):
    """The object names its directory: a debugger would show the other checkout's source."""
    for place in ("one", "two"):
        c.write(f"{place}/x.c", ONE)
    c.expect("miss", "-g", "-c", "x.c", "-o", c.object(), cwd=c.p / "one")
    c.expect("miss", "-g", "-c", "x.c", "-o", c.object(), cwd=c.p / "two")
    c.expect("hit", "-g", "-c", "x.c", "-o", c.object(), cwd=c.p / "one")


@pytest.mark.parametrize("options", [("-g", "-g0"), ("-g3", "-ggdb0"), ("-gz",), ("-g", "-gz", "-g0")], ids=" ".join)
def test_debug_information_that_was_taken_back_tells_no_directory(c, options):
    """Makefiles say -g, and whoever does not want it appends what takes it back."""
    for place in ("one", "two"):
        c.write(f"{place}/x.c", ONE)
    c.expect("miss", *options, "-c", "x.c", "-o", c.object(), cwd=c.p / "one")
    c.expect("hit", *options, "-c", "x.c", "-o", c.object("y.o"), cwd=c.p / "two")


@pytest.mark.parametrize("options", [("-g0", "-g"), ("-g", "-gz"), ("-ggdb0", "-gdwarf-4")], ids=" ".join)
def test_debug_information_that_is_asked_for_last_tells_the_directory(c, options):
    """The other way round."""
    for place in ("one", "two"):
        c.write(f"{place}/x.c", ONE)
    c.expect("miss", *options, "-c", "x.c", "-o", c.object(), cwd=c.p / "one")
    c.expect("miss", *options, "-c", "x.c", "-o", c.object(), cwd=c.p / "two")


def test_what_is_compressed_is_not_shared_though_a_map_covers_the_directory(c):
    """Whether the map covers all that is in there, nobody can look."""
    for place in ("one", "two"):
        c.write(f"{place}/x.c", ONE)
    words = [("-g", "-gz", f"-ffile-prefix-map={c.p}/{place}=.", "-c", "x.c", "-o", c.object()) for place in ("one", "two")]
    c.expect("miss", *words[0], cwd=c.p / "one")
    c.expect("miss", *words[1], cwd=c.p / "two")
    c.expect("hit", *words[0], cwd=c.p / "one")


OFFLOADED = """\
int f(int *a)
{
#pragma omp target map(tofrom: a[0:4])
    a[0] = 1;
    return a[0];
}
"""


@pytest.mark.parametrize("mode", ["-c", "-S"])
def test_code_for_another_device_is_not_shared_with_another_directory(c, mode):
    """gcc puts it into sections of its own, compressed, with the cwd in them though nothing asks for debug information."""
    for place in ("one", "elsewhere"):
        c.write(f"{place}/x.c", OFFLOADED)
    args = ("-fopenmp", "-frandom-seed=1", "-O2", mode, "x.c", "-o", c.object())
    if not c.is_gcc or b".gnu.offload_lto_" not in c.expect("miss", *args, cwd=c.p / "one").file("x.o"):
        pytest.skip("this compiler makes none")
    c.expect("miss", *args, cwd=c.p / "elsewhere")
    c.expect("hit", *args, cwd=c.p / "one")


@pytest.mark.parametrize("option", ["-fdebug-compilation-dir=.", "-ffile-compilation-dir=.", "-fdebug-compilation-dir ."])
def test_a_directory_for_debug_information_makes_two_directories_alike(c, option):
    """clang's; Chromium builds so.  A path that shows all the same tells them apart."""
    if c.is_gcc:
        pytest.skip("clang's")
    for place in ("one", "two"):
        c.write(f"{place}/x.c", INCLUDES)
        c.write(f"{place}/a.h", "#define A 1\n")
    args = ("-g", *option.split(), "-c", "x.c", "-o", c.object())
    c.expect("miss", *args, cwd=c.p / "one")
    c.expect("hit", *args, cwd=c.p / "two")
    for place in ("one", "two"):
        c.expect("miss", *args, "-I", str(c.p / place), "-include", str(c.p / place / "a.h"), cwd=c.p / place)


@pytest.mark.parametrize("mode", ["-c", "-S"])
def test_debug_information_for_windows_names_the_object(c, mode):
    """By the word of the command line where the directory is said to be another: no path in there tells so."""
    if c.is_gcc or not c.observed:
        pytest.skip("clang's; left to the client without observation")
    c.write("x.c", ONE)
    args = ("--target=x86_64-w64-windows-gnu", "-g", "-gcodeview", "-fdebug-compilation-dir=.", mode, "../p/x.c", "-o")
    c.expect("miss", *args, "y.o", cwd=c.o)
    c.expect("miss", *args, "z.o", cwd=c.o)
    c.expect("hit", *args, "y.o", cwd=c.o)


@pytest.fixture
def short() -> Iterator[list[Path]]:
    """Two directories with short names, as a container may have one for its sources; not /ww, which is in each web address."""
    if not os.access("/", os.W_OK):
        pytest.skip("may not make a directory there")
    made: list[Path] = []
    for letters in itertools.product("qxz", repeat=2):
        try:
            Path("/", "".join(letters)).mkdir()
        except OSError:
            continue
        made.append(Path("/", "".join(letters)))
        if len(made) == 2:
            break
    try:
        yield made
    finally:
        for place in made:
            shutil.rmtree(place)


def test_a_header_that_a_variable_names_is_that_one_however_short_its_directory_s_name(c, short):
    """It is no header of whoever else compiles under that variable."""
    if not c.observed:
        pytest.skip("left to the client without observation")
    for place in short:
        (place / "x.c").write_text("#include <a.h>\nint f(void) { return A; }\n")
        (place / "inc").mkdir()
        (place / "inc" / "a.h").write_text("#define A 1\n")
    env = {"CPATH": str(short[0] / "inc")}
    args = ("-c", "x.c", "-o", c.object())
    c.expect("miss", *args, env=env, cwd=short[0])
    c.expect("miss", *args, env=env, cwd=short[1])
    (short[0] / "inc" / "a.h").write_text("#define A 2\n")
    c.expect("miss", *args, env=env, cwd=short[1])


def test_a_prefix_map_makes_two_directories_alike(c):
    """Who maps the directory away wants one object for all checkouts."""
    for place in ("one", "two"):
        c.write(f"{place}/x.c", ONE)
    for option in ("-ffile-prefix-map", "-fdebug-prefix-map"):
        c.expect("miss", "-g", f"{option}={c.p}/one=.", "-c", "x.c", "-o", c.object(), cwd=c.p / "one")
        c.expect("hit", "-g", f"{option}={c.p}/two=.", "-c", "x.c", "-o", c.object(), cwd=c.p / "two")


@pytest.mark.parametrize("option", ["-ffile-prefix-map", "-fdebug-prefix-map"])
def test_a_prefix_map_makes_split_debug_information_alike(c, option):
    """The file beside the object comes back to this checkout; the object's name is in both and tells two names apart."""
    words = []
    for place in ("one", "two"):
        c.write(f"{place}/x.c", '#include "a.h"\nstruct s { int a; };\nint f(struct s *q) { return q->a + A; }\n')
        c.write(f"{place}/a.h", "#define A 1\n")
        c.world.outs.append(c.p / place / "out")
        words.append(("-g", "-gsplit-dwarf", f"{option}={c.p}/{place}=/src", "-c", "x.c", "-o", "out/x.o"))
    if c.left_out("C without observation: -gsplit-dwarf", *words[0], cwd=c.p / "one"):
        return
    c.expect("miss", *words[0], cwd=c.p / "one")
    assert {"x.o", "x.dwo"} == c.expect("hit", *words[1], cwd=c.p / "two").names()
    c.expect("miss", *words[1][:-1], "out/y.o", cwd=c.p / "two")
    c.expect("miss", *words[1], "--coverage", "-frandom-seed=1", cwd=c.p / "two")
    c.expect("miss", *words[0], "--coverage", "-frandom-seed=1", cwd=c.p / "one")


def test_a_prefix_map_that_covers_the_parent_keeps_the_rest_in_the_key(c):
    """/p/one and /p/two become ./one and ./two in the object."""
    for place in ("one", "two"):
        c.write(f"{place}/x.c", ONE)
        c.expect("miss", "-g", f"-ffile-prefix-map={c.p}=.", "-c", "x.c", "-o", c.object(), cwd=c.p / place)


_MAPS = ("-Wa,-g,--debug-prefix-map={}=.", "-Wa,-g,-debug-prefix-map,{}=.", "-Wa,--gdwarf-5 -Wa,--debug-p={}=.", "-Wa,@asked")


@pytest.mark.parametrize("word", _MAPS)
@pytest.mark.parametrize("c", ["gcc-observed"], indirect=True)
def test_a_prefix_map_of_the_assembler_keeps_the_rest_in_the_key(c, word):
    """Its debug information names ./one and ./two, and no option of gcc's says that there is any."""
    for place in ("one", "two"):
        c.write(f"{place}/x.s", ".globl f\nf: ret\n")
        c.write(f"{place}/asked", f"-g --debug-prefix-map={c.p}=.\n")
        c.expect("miss", *word.format(c.p).split(), "-c", "x.s", "-o", c.object(), cwd=c.p / place)
        c.expect("hit", *word.format(c.p).split(), "-c", "x.s", "-o", c.object(), cwd=c.p / place)


def test_a_prefix_map_of_a_header_elsewhere_is_not_told_by_the_cwd(c):
    """The map changes the header's name in the object in one call and not in the other."""
    for place in ("one", "two"):
        c.write(f"{place}/x.c", f'#include "{c.p}/one/h.h"\nint g(void) {{ return h(); }}\n')
    c.write("one/h.h", "static inline int h(void) { return 1; }\n")
    c.expect("miss", "-g", f"-ffile-prefix-map={c.p}/one=.", "-c", "x.c", "-o", c.object(), cwd=c.p / "one")
    c.expect("miss", "-g", f"-ffile-prefix-map={c.p}/two=.", "-c", "x.c", "-o", c.object(), cwd=c.p / "two")


def test_pwd_through_a_link_is_what_debug_information_says(c):
    """gcc and clang believe $PWD where it names the cwd."""
    c.write("one/x.c", ONE)
    (c.p / "link").symlink_to("one")
    args = ("-g", "-c", "x.c", "-o", c.object())
    c.expect("miss", *args, cwd=c.p / "one", env={"PWD": str(c.p / "one")})
    c.expect("miss", *args, cwd=c.p / "one", env={"PWD": str(c.p / "link")})
    c.expect("hit", *args, cwd=c.p / "one", env={"PWD": str(c.p / "one")})
    c.expect("hit", *args, cwd=c.p / "one", env={"PWD": "/nowhere"})


def test_pwd_that_names_no_directory_is_what_debug_information_says(c):
    """Bazel sets it so: the same object from every sandbox."""
    for place in ("one", "two"):
        c.write(f"{place}/x.c", ONE)
    args, nameless = ("-g", "-c", "x.c", "-o", c.object()), {"PWD": "/proc/self/cwd"}
    c.expect("miss", *args, cwd=c.p / "one")
    c.expect("miss", *args, cwd=c.p / "one", env=nameless)
    c.expect("hit", *args, cwd=c.p / "two", env=nameless)
    c.expect("miss", *args, cwd=c.p / "two")
    named = ("-g", f"-I{c.p}/one", "-c", "x.c", "-o", c.object())
    c.expect("miss", *named, cwd=c.p / "one", env=nameless)
    c.expect("miss", *named, cwd=c.p / "two", env=nameless)
    # Of what nobody can search for the real one, both count.
    packed = ("-g", "-flto", "-frandom-seed=1", "-c", "x.c", "-o", c.object())
    for place in ("one", "two") if c.observed else ():
        c.expect("miss", *packed, cwd=c.p / place, env=nameless)


def test_notes_that_go_where_the_kernel_says_come_from_the_compiler(c):
    """clang's .gcno goes where $PWD says, /proc/self/cwd: to everybody another directory."""
    c.write("x.c", ONE)
    args, nameless = ("--coverage", "-c", f"{c.p}/x.c", "-o", "x.o"), {"PWD": "/proc/self/cwd"}
    if c.observed and not c.is_gcc:
        c.not_stored("wrote outside its output directories", *args, cwd=c.o, env=nameless)
