"""SCCACHE_BASEDIRS: two checkouts that say absolute paths share results, and never get each other's paths or headers."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package

from c_world import C
from stage import CTL, ROOT

pytestmark = pytest.mark.slow

# Names of different length: an object that depends on the length of a path differs.
PLACES = ("one", "second")
SOURCE = '#include "a.h"\nint f(void) { return A; }\n'


@pytest.fixture(name="c", params=["gcc", "clang"])
def checkouts(request, make_world):
    """Two checkouts with the same sources, and a server that knows them."""
    if shutil.which(request.param) is None:
        pytest.skip(f"no {request.param}")
    world = make_world()
    world.env["PATH"] = "/usr/bin:/bin"
    world.server_env["SCCACHE_BASEDIRS"] = ":".join(f"{world.p}/{place}" for place in PLACES)
    c = C(world, request.param)
    write(c, SOURCE)
    # Learning the toolchain is no child of a compile.
    world.run([str(world.client), c.name, "--version"], None, world.server_env)
    world.note_server()
    return c


def write(c, source, header="#define A 1\n"):
    for place in PLACES:
        c.write(f"{place}/src/x.c", source)
        c.write(f"{place}/inc/a.h", header)
        (c.p / place / "build").mkdir(exist_ok=True)


def words(c, place, *more):
    """As CMake says it: absolute names of sources and include directories."""
    top = c.p / place
    return (*(w.format(top=top) for w in more), f"-I{top}/inc", "-c", str(top / "src/x.c"), "-o", c.object())


def expect(c, verdict, place, *more, cwd="build"):
    return c.expect(verdict, *words(c, place, *more), cwd=c.p / place / cwd)


def test_absolute_paths_below_a_base_directory_are_the_same_in_another_checkout(c):
    """What the setting is for."""
    expect(c, "miss", "one", "-O2")
    expect(c, "hit", "second", "-O2")
    expect(c, "miss", "second", "-O2", cwd="src")  # another place in the tree
    assert c.world.control("stats")["surroundings"]["basedirs"] == [f"{c.p}/{place}" for place in PLACES]


def test_each_checkout_is_asked_for_its_own_headers(c):
    """sccache issue 2863: a header that differs in the other checkout."""
    expect(c, "miss", "one")
    c.write("second/inc/a.h", "#define A 2\n")
    expect(c, "miss", "second")
    expect(c, "hit", "one")
    c.write("one/inc/a.h", "#define A 2\n")
    expect(c, "hit", "one")


@pytest.mark.parametrize("option", ["-MD", "-MMD"])
def test_a_depfile_names_this_checkouts_files(c, option):
    """Lines break where the longer or shorter names make them break."""
    for number in range(8):
        for place in PLACES:
            c.write(f"{place}/inc/header{number}.h", "\n")
    write(c, "".join(f'#include "header{n}.h"\n' for n in range(8)) + "#include <stdio.h>\n" + SOURCE)
    expect(c, "miss", "one", option, "-MF", str(c.o / "x.d"))
    expect(c, "hit", "second", option, "-MF", str(c.o / "x.d"))


@pytest.mark.parametrize(
    "source",
    [
        "const char *f(void) { return __FILE__; }\n",
        "int f(void) { return sizeof(__FILE__); }\n",
        "const char *f(void) { return __builtin_FILE(); }\n",
        '#include "a.h"\nint f(void) { return A; }\n',
    ],
    ids=["shown", "length", "builtin", "in a header"],
)
def test_what_depends_on_its_own_name_is_not_shared(c, source):
    """The object has the path in it, or only its length; a map of the base directory makes both alike."""
    write(c, source, "#define A sizeof(__FILE__)\n")
    for place in PLACES:
        expect(c, "miss", place)
        expect(c, "hit", place)
    expect(c, "miss", "one", "-ffile-prefix-map={top}=.")
    expect(c, "hit", "second", "-ffile-prefix-map={top}=.")


def test_a_relative_name_is_the_same_in_another_checkout(c):
    """No word is an absolute path, so __FILE__ is none."""
    write(c, '#include "a.h"\nint f(void) { return A; }\n', "#define A sizeof(__FILE__)\n")
    args = ("-I../inc", "-c", "../src/x.c", "-o", c.object())
    c.expect("miss", *args, cwd=c.p / "one/build")
    c.expect("hit", *args, cwd=c.p / "second/build")


def test_a_macro_that_names_the_file_counts_where_a_word_says_it(c):
    """-DHERE=__FILE__ is in no text that was read."""
    write(c, "int f(void) { return HERE; }\n")
    for place in PLACES:
        expect(c, "miss", place, "-DHERE=sizeof(__FILE__)")
        expect(c, "hit", place, "-DHERE=sizeof(__FILE__)")
    expect(c, "miss", "one", "-DHERE=sizeof(__FILE__)", "-fmacro-prefix-map={top}=.")
    expect(c, "hit", "second", "-DHERE=sizeof(__FILE__)", "-fmacro-prefix-map={top}=.")


# A number made of how clang calls the type of a lambda, "(lambda at /x/y.cpp:4:20)"; the object shows nothing of it.
PRINTED = """\
constexpr unsigned hash(const char *s) { unsigned h = 0; while (*s) h = 31 * h + *s++; return h; }
template <class T> constexpr unsigned name_of(T) { return hash(__PRETTY_FUNCTION__); }
constexpr unsigned number = name_of([] {});
unsigned f(void) { return number; }
"""


def test_where_a_type_without_a_name_stands_counts_whatever_is_mapped(c):
    """clang says it in __PRETTY_FUNCTION__, and no prefix map reaches that; gcc says <lambda()>."""
    write(c, PRINTED)
    for more in ((), ("-ffile-prefix-map={top}=.",)):
        expect(c, "miss", "one", "-xc++", "-std=c++17", *more)
        expect(c, "hit" if c.is_gcc else "miss", "second", "-xc++", "-std=c++17", *more)
        expect(c, "hit", "one", "-xc++", "-std=c++17", *more)


def test_assertions_are_shared_where_they_are_off(c):
    """<assert.h> names __FILE__, and so may every C++ header: they hand it on, and then the object shows it."""
    write(c, "#include <assert.h>\nint f(int x) { assert(x); return x; }\n")
    expect(c, "miss", "one", "-DNDEBUG")
    expect(c, "hit", "second", "-DNDEBUG")
    for place in PLACES:
        expect(c, "miss", place)


@pytest.mark.parametrize("standard", ["-std=c++11", "-std=c++17", "-std=c++20"])
def test_the_standard_library_keeps_nobody_apart(c, standard):
    """What every C++ source includes has __FILE__ in macros that few use."""
    write(c, '#include <algorithm>\n#include "a.h"\nint f(void) { return std::max(A, 2); }\n')
    expect(c, "miss", "one", "-xc++", standard)
    expect(c, "hit", "second", "-xc++", standard)


def test_debug_information_is_shared_only_where_the_base_directory_is_mapped(c):
    """sccache shares it as it is, with the other checkout's paths in it: here a hit is what the compiler would have written."""
    for place in PLACES:
        expect(c, "miss", place, "-g")
        expect(c, "miss", place, "-g", "-fdebug-prefix-map={top}/build=.")
    for option in ("-fdebug-prefix-map", "-ffile-prefix-map"):
        expect(c, "miss", "one", "-g", option + "={top}=.")
        expect(c, "hit", "second", "-g", option + "={top}=.")
        # A directory above both: what is left of their names differs.
        for place in PLACES:
            expect(c, "miss", place, "-g", f"{option}={c.p}=.")


def test_a_macro_stays_what_it_says(c):
    """It may be used in ways that show nothing of it."""
    write(c, "int f(void) { return sizeof(TOP); }\n")
    for place in PLACES:
        expect(c, "miss", place, '-DTOP="{top}"')


def test_a_header_that_is_named_by_its_whole_path_is_that_very_header(c):
    """Both checkouts read the first one's: a change there counts for both, a change in the other for none."""
    write(c, f'#include "{c.p}/one/inc/a.h"\nint f(void) {{ return A; }}\n')
    expect(c, "miss", "one")
    expect(c, "miss", "second")
    c.write("one/inc/a.h", "#define A 2\n")
    expect(c, "miss", "second")
    c.write("second/inc/a.h", "#define A 3\n")
    expect(c, "hit", "second")


def test_a_link_out_of_the_base_directory_keeps_the_checkouts_apart(c):
    """gcc names a system header by where it really is, if that is shorter: of two checkouts one may be shorter than it."""
    c.write("elsewhe/b.h", "\n")
    write(c, "#include <b.h>\n" + SOURCE)
    for place in PLACES:
        (c.p / place / "link").symlink_to(c.p / "elsewhe")
    for place in PLACES:
        expect(c, "miss", place, "-isystem", "{top}/link", "-MD", "-MF", str(c.o / "x.d"))
        expect(c, "hit", place, "-isystem", "{top}/link", "-MD", "-MF", str(c.o / "x.d"))


def test_messages_are_this_checkouts(c):
    """A warning names its file."""
    write(c, SOURCE + "static int unused;\n")
    for place in PLACES:
        assert os.fsencode(place) in expect(c, "miss", place, "-Wall").stderr


@pytest.mark.parametrize("name", ["gcc", "clang"])
def test_each_checkout_may_name_itself(make_world, name):
    """As `export SCCACHE_BASEDIRS=$PWD` does, whichever of them started the server."""
    if shutil.which(name) is None:
        pytest.skip(f"no {name}")
    world = make_world()
    world.env["PATH"] = "/usr/bin:/bin"
    c = C(world, name)
    write(c, SOURCE)
    world.run([str(world.client), c.name, "--version"], None, world.server_env)
    world.note_server()
    for place, verdict in zip(PLACES, ("miss", "hit"), strict=True):
        world.env["SCCACHE_BASEDIRS"] = f"{c.p}/{place}"
        expect(c, verdict, place)
    world.env["SCCACHE_BASEDIRS"] = "no/directory"  # as if it were not said
    expect(c, "miss", PLACES[0])


def test_who_names_the_directory_above_may_map_each_checkout(c):
    c.world.server_env["SCCACHE_BASEDIRS"] = str(c.p)
    for place, verdict in zip(PLACES, ("miss", "hit"), strict=True):
        expect(c, verdict, place, "-g", "-ffile-prefix-map={top}=.")


def test_a_wrong_base_directory_is_said_when_the_server_starts_and_loses_nothing(make_world):
    """The build goes on; whoever asks is told."""
    world = make_world()
    world.env["PATH"] = "/usr/bin:/bin"
    world.write("x.c", "int f(void) { return 1; }\n")
    control = world.root / "control"
    control.write_text(CTL.format(python=sys.executable, root=str(ROOT)))
    control.chmod(0o755)
    server = str(world.client.parent / "sccache-py-server")
    wrong = {"SCCACHE_BASEDIRS": "relative/path", "SCCACHE_PY_CTL": str(control), "SCCACHE_PY_SERVER": server}
    said = world.run([str(world.client), "--start-server"], None, wrong)
    assert said.returncode != 0
    assert b"SCCACHE_BASEDIRS: 'relative/path' is not the absolute path of a directory" in said.stderr
    ran = world.run([str(world.client), "gcc", "-c", "x.c", "-o", str(world.o / "x.o")], None, wrong)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"", b"")
    assert (world.o / "x.o").exists()
