"""Precompiled headers and modules: what is made for other compiles to read, and the compiles that read it.

clang writes the mtimes and absolute paths of all sources into a precompiled header and refuses it where they are others, so it is
brought back only where they are the same.  gcc's says nothing of times.  Modules that are named on the command line are files
like any other; those that a compiler builds behind our back are left to it.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package

from c_world import one_compiler, shared_server  # noqa: F401 - fixtures

pytestmark = pytest.mark.slow

HEADER = "#ifndef A_H\n#define A_H\n#define A {}\nstatic inline int a(int x) {{ return x + A; }}\n#endif\n"
SOURCE = '#include "a.h"\nint f(void) { return a(A); }\n'
LONG_AGO = (1_600_000_000, 1_600_000_000)


def write_header(c, place=".", value=1):
    path = c.write(f"{place}/a.h", HEADER.format(value))
    os.utime(path, LONG_AGO)
    c.write(f"{place}/x.c", SOURCE)
    return path


def made(c, *words, cwd=None):
    """A precompiled header made through the cache; gcc dumps its heap into one, so that no two are alike and none is compared."""
    before = c.world.counts() if c.world.pids else {}
    done = c.world.cached(*words, cwd=cwd, rustc=c.name)
    assert (done.status, done.stderr) == (0, b"")
    return c.world.verdict_since(before), done


def is_used_until_touched(c, source, *words):
    """A precompiled header of clang's, made of `source` among others."""
    c.compile_twice(*words, "-x", "c-header", "a.h", "-o", c.object("a.pch"))
    shutil.move(c.object("a.pch"), c.p / "a.pch")
    use = (*words, "-include-pch", "a.pch", "-c", "x.c", "-o", c.object())
    c.compile_twice(*use)
    os.utime(source, (LONG_AGO[0] + 10, LONG_AGO[1] + 10))
    assert b"has been modified" in c.expect("fail", *use).stderr


def of(name):
    """For one of the two compilers, observed."""
    return pytest.mark.parametrize("c", [f"{name}-observed"], indirect=True)


# -- gcc's precompiled headers -----------------------------------------------------------------------------------------


@of("gcc")
def test_a_precompiled_header_of_gcc_comes_back_wherever_its_sources_are_the_same(c):
    """It holds contents, no times: touched is the same, edited is not, and another checkout gets it too."""
    header = write_header(c)
    words = ("-x", "c-header", "a.h", "-o", c.object("a.h.gch"))
    assert made(c, *words)[0] == "miss"
    first = made(c, *words)
    assert first[0] == "hit"
    os.utime(header)
    assert made(c, *words) == first
    c.write("a.h", HEADER.format(2))
    verdict, other = made(c, *words)
    assert (verdict, other == first[1]) == ("miss", False)
    write_header(c, "other")
    assert made(c, *words, cwd=c.p / "other") == first


@of("gcc")
def test_a_precompiled_header_of_gcc_is_an_input_of_its_users(c):
    """Restored from the cache, in this checkout and in another, and used: -Winvalid-pch says nothing, the object is gcc's own."""
    for place in ("one", "two"):
        write_header(c, place)
    words = ("-Winvalid-pch", "-c", "x.c", "-o", c.object())
    assert made(c, "a.h", "-o", c.object("a.h.gch"), cwd=c.p / "one")[0] == "miss"
    for place, verdict in (("one", "miss"), ("two", "hit")):
        # For each checkout from the cache, as its build would have it.
        assert made(c, "a.h", "-o", c.object("a.h.gch"), cwd=c.p / place)[0] == "hit"
        shutil.move(c.object("a.h.gch"), c.p / place)
        c.expect(verdict, *words, cwd=c.p / place)
    os.utime(c.p / "one" / "a.h")
    c.expect("hit", *words, cwd=c.p / "one")
    # gcc does not look into the header as long as there is a precompiled one: what it does with a stale one is its own affair.
    c.write("one/a.h", HEADER.format(2))
    stale = c.expect("hit", *words, cwd=c.p / "one")
    made(c, "a.h", "-o", c.object("a.h.gch"), cwd=c.p / "one")
    shutil.move(c.object("a.h.gch"), c.p / "one" / "a.h.gch")
    assert c.expect("miss", *words, cwd=c.p / "one") != stale
    c.expect("hit", *words, cwd=c.p / "two")


# -- clang's -----------------------------------------------------------------------------------------------------------

MAKE = (
    ("-x", "c-header", "a.h"),
    ("-x", "c-header", "-fpch-instantiate-templates", "a.h"),
    ("-Xclang", "-emit-pch", "-x", "c", "-c", "a.h"),
)
USE = (("-include-pch", "a.h.pch"), ("-include", "a.h"), ("-Xclang", "-include-pch", "-Xclang", "a.h.pch"))


@pytest.mark.parametrize("words", MAKE, ids=" ".join)
@of("clang")
def test_a_precompiled_header_of_clang_comes_back_byte_for_byte_while_no_source_is_touched(c, words):
    """It holds mtimes and sizes of what it was made of, and paths: with any other of them it would be refused by clang."""
    header = write_header(c)
    args = (*words, "-o", c.object("a.pch"))
    first = c.compile_twice(*args)
    os.utime(header, (LONG_AGO[0] + 10, LONG_AGO[1] + 10))
    assert c.expect("miss", *args) != first
    c.expect("hit", *args)
    write_header(c, value=2)
    c.expect("miss", *args)
    write_header(c)
    c.expect("hit", *args)
    write_header(c, "other")
    c.expect("miss", *args, cwd=c.p / "other")
    c.expect("miss", *words, "-o", c.object("other.pch"))


@of("clang")
def test_a_precompiled_header_of_clang_that_includes_a_header_of_the_system_hits_each_time(c):
    """gcc asks where a system header is, which is remembered between requests; clang's are held to its time as well."""
    c.write("a.h", "#include <stdlib.h>\n")
    c.write("x.c", '#include "a.h"\n')
    c.compile_twice("-c", "x.c", "-o", c.object(), rustc="gcc")
    c.compile_twice("-x", "c-header", "a.h", "-o", c.object("a.pch"))


@of("clang")
def test_without_times_a_touched_header_makes_the_same_precompiled_one(c):
    """`-Xclang -fno-pch-timestamp`, which users of caches say."""
    header = write_header(c)
    args = ("-Xclang", "-fno-pch-timestamp", "-x", "c-header", "a.h", "-o", c.object("a.pch"))
    first = c.compile_twice(*args)
    os.utime(header)
    assert c.expect("hit", *args) == first
    write_header(c, value=2)
    assert c.expect("miss", *args) != first
    write_header(c, "other")
    c.expect("miss", *args, cwd=c.p / "other")


@pytest.mark.parametrize("how", USE, ids=" ".join)
@pytest.mark.parametrize("times", [(), ("-Xclang", "-fno-pch-timestamp")], ids=["times", "no times"])
@of("clang")
def test_a_precompiled_header_of_clang_is_used_as_clang_would_use_it(c, how, times):
    """Restored from the cache it is accepted; with a touched header it is refused by clang, and so it is here, unless it holds no times."""
    header = write_header(c)
    make = (*times, "-x", "c-header", "a.h", "-o", c.object("a.h.pch"))
    c.compile_twice(*make)
    c.expect("hit", *make)
    shutil.move(c.object("a.h.pch"), c.p / "a.h.pch")
    use = (*times, *how, "-c", "x.c", "-o", c.object())
    first = c.compile_twice(*use)
    os.utime(header, (LONG_AGO[0] + 10, LONG_AGO[1] + 10))
    if times:
        assert c.expect("hit", *use) == first
    else:
        refused = c.expect("fail", *use)
        assert b"has been modified" in refused.stderr
    os.utime(header, LONG_AGO)
    c.expect("hit", *use)
    # Edited: clang refuses by the size.
    header.write_text(HEADER.format(12345))
    os.utime(header, LONG_AGO)
    c.expect("fail", *use)


@of("clang")
def test_the_times_of_what_a_precompiled_header_of_clang_was_not_made_of_are_nothing_to_its_users(c):
    """An edit that is taken back, another branch and back, CMake's unity_0_cxx.cxx, which each configuration makes anew."""
    header = write_header(c)
    c.write("c++b.h", "#define C 1\n")  # as libstdc++'s c++config.h ends like everybody's config.h
    header.write_text('#include "c++b.h"\n' + header.read_text())
    os.utime(header, LONG_AGO)
    c.write("b.h", "#define B 1\n")
    c.write("x.c", '#include "b.h"\nint f(void) { return a(A) + B; }\n')
    c.compile_twice("-x", "c-header", "a.h", "-o", c.object("a.pch"))
    shutil.move(c.object("a.pch"), c.p / "a.pch")
    use = ("-include-pch", "a.pch", "-c", "x.c", "-o", c.object())
    first = c.compile_twice(*use)
    for name in ("b.h", "x.c"):
        os.utime(c.p / name)
    assert c.expect("hit", *use) == first
    c.write("b.h", "#define B 2\n")
    assert c.expect("miss", *use) != first
    os.utime(header)
    c.expect("fail", *use)


@of("clang")
def test_a_source_in_whose_place_clang_reads_another_file_counts_with_its_time(c):
    """A precompiled header names what stands in its place."""
    write_header(c)
    other = c.write("other", (c.p / "a.h").read_text())
    os.utime(other, LONG_AGO)
    map_ = {"version": 0, "roots": [{"name": str(c.p / "a.h"), "type": "file", "external-contents": str(other)}]}
    c.write("map", json.dumps(map_ | {"use-external-names": False}))
    words = ("-ivfsoverlay", "map")
    is_used_until_touched(c, other, *words)


@pytest.mark.parametrize("words", [("-g", "-gmodules"), ("-Xclang", "-fmodule-format=obj")], ids=" ".join)
@of("clang")
def test_a_precompiled_header_of_clang_in_an_object_is_refused_where_clang_refuses_it(c, words):
    """So that a debugger finds types in it: it does not begin as others do, and clang looks at the same times."""
    header = write_header(c)
    is_used_until_touched(c, header, *words)


@of("clang")
def test_a_precompiled_header_of_clang_that_was_made_again_is_the_same_to_its_users(c):
    """`ninja clean` removes it, and what comes back from the cache is new; the sources are as old as they were."""
    write_header(c)
    pch = c.p / "a.pch"
    make, use = ("-x", "c-header", "a.h", "-o", c.object("a.pch")), ("-include-pch", "a.pch", "-c", "x.c", "-o", c.object())
    c.write("x.c", "int f(void) { return a(A); }\n")
    for verdict in ("miss", "hit", "hit"):
        assert made(c, *make)[0] == verdict
        shutil.move(c.object("a.pch"), pch)
        os.utime(pch)
        c.expect(verdict, *use)
    # One that is told of in another is refused where its time is another.
    c.write("b.h", "#define B 1\n")
    c.write("y.c", "int f(void) { return a(A) + B; }\n")
    assert made(c, "-include-pch", "a.pch", "-x", "c-header", "b.h", "-o", c.object("b.pch"))[0] == "miss"
    shutil.move(c.object("b.pch"), c.p / "b.pch")
    chained = ("-include-pch", "b.pch", "-c", "y.c", "-o", c.object())
    c.compile_twice(*chained)
    os.utime(pch, LONG_AGO)
    c.expect("fail", *chained)


@of("clang")
def test_a_precompiled_header_of_clang_from_another_checkout_is_refused_or_used_as_clang_does(c):
    """It names the headers that it was made of where they were made: those are looked at, not this checkout's."""
    for place in ("one", "two"):
        write_header(c, place)
    c.compile_twice("-x", "c-header", "a.h", "-o", c.object("a.pch"), cwd=c.p / "one")
    shutil.move(c.object("a.pch"), c.p / "one" / "a.pch")
    shutil.copy(c.p / "one" / "a.pch", c.p / "two" / "a.pch")
    use = ("-include-pch", "a.pch", "-c", "x.c", "-o", c.object())
    c.expect("miss", *use, cwd=c.p / "one")
    c.expect("hit", *use, cwd=c.p / "one")
    os.rename(c.p / "one" / "a.h", c.p / "one" / "gone.h")
    c.expect("fail", *use, cwd=c.p / "two")
    c.expect("fail", *use, cwd=c.p / "one")


# -- clang's modules ---------------------------------------------------------------------------------------------------


@of("clang")
def test_implicit_modules_are_left_to_clang_and_fill_its_module_cache(c):
    """It builds what it needs into a cache of its own, for itself to judge."""
    c.write("module.modulemap", 'module M { header "m.h" export * }\n')
    c.write("m.h", "int m(void);\n")
    c.write("x.c", '#include "m.h"\nint f(void) { return m(); }\n')
    words = ("-fmodules", f"-fmodules-cache-path={c.p}/modules", "-c", "x.c", "-o", c.object())
    c.refused("-fmodules", *words)
    assert list((c.p / "modules").rglob("M-*.pcm"))
    shutil.rmtree(c.p / "modules")
    c.world.cached(*words, rustc=c.name)
    assert list((c.p / "modules").rglob("M-*.pcm"))


@of("clang")
def test_an_explicit_module_from_a_module_map_is_an_input(c):
    """-fno-implicit-modules: made by one compile, named to another."""
    c.write("module.modulemap", 'module M { header "m.h" export * }\n')
    c.write("m.h", "#define M 1\n")
    c.write("x.c", '#include "m.h"\nint f(void) { return M; }\n')
    explicit = ("-fmodules", "-fno-implicit-modules")
    make = (*explicit, "-fmodule-name=M", "-Xclang", "-emit-module", "-x", "c", "-c", "module.modulemap", "-o", c.object("M.pcm"))
    use = (*explicit, "-fmodule-map-file=module.modulemap", "-fmodule-file=M=M.pcm", "-c", "x.c", "-o", c.object())
    first = c.compile_twice(*make)
    os.utime(c.p / "m.h")
    assert c.expect("hit", *make) == first  # an explicit module holds no times
    shutil.move(c.object("M.pcm"), c.p / "M.pcm")
    used = c.compile_twice(*use)
    os.utime(c.p / "m.h")
    assert c.expect("hit", *use) == used
    c.write("m.h", "#define M 2\n")
    c.expect("miss", *make)
    shutil.move(c.object("M.pcm"), c.p / "M.pcm")
    assert c.expect("miss", *use) != used


@pytest.mark.parametrize("how", [("-fprebuilt-module-path=.",), ("-fmodule-file=foo.pcm",)], ids=" ".join)
@of("clang")
def test_modules_of_c_plus_plus_20_by_clang(c, how):
    """--precompile makes one, which is compiled itself and imported by others."""
    c.write("foo.cppm", "export module foo;\nexport inline int f() { return 1; }\n")
    c.write("x.cc", "import foo;\nint g() { return f(); }\n")
    std = "-std=c++20"
    make = (std, "--precompile", "foo.cppm", "-o", c.object("foo.pcm"))
    first = c.compile_twice(*make, rustc=c.plus)
    shutil.move(c.object("foo.pcm"), c.p / "foo.pcm")
    c.compile_twice(std, "-c", "foo.pcm", "-o", c.object("foo.o"), rustc=c.plus)
    use = (std, *how, "-c", "x.cc", "-o", c.object())
    used = c.compile_twice(*use, rustc=c.plus)
    os.utime(c.p / "foo.cppm")
    c.expect("hit", *use, rustc=c.plus)
    assert c.expect("hit", *make, rustc=c.plus) == first
    c.write("foo.cppm", "export module foo;\nexport inline int f() { return 2; }\n")
    c.expect("miss", *make, rustc=c.plus)
    shutil.move(c.object("foo.pcm"), c.p / "foo.pcm")
    assert c.expect("miss", *use, rustc=c.plus) != used
    os.unlink(c.p / "foo.pcm")
    c.expect("fail", *use, rustc=c.plus)


@of("clang")
def test_a_module_that_appears_earlier_on_the_path_misses(c):
    """-fprebuilt-module-path is searched in order."""
    for place, value in (("one", 1), ("two", 2)):
        c.write(f"{place}/foo.cppm", f"export module foo;\nexport inline int f() {{ return {value}; }}\n")
        ran = c.world.run(["clang++", "-std=c++20", "--precompile", "foo.cppm", "-o", "foo.pcm"], c.p / place, {})
        assert ran.returncode == 0
    c.write("x.cc", "import foo;\nint g() { return f(); }\n")
    os.rename(c.p / "one" / "foo.pcm", c.p / "one" / "kept")
    c.changes(
        lambda: os.rename(c.p / "one" / "kept", c.p / "one" / "foo.pcm"), lambda: os.rename(c.p / "one" / "foo.pcm", c.p / "one" / "kept"),
        "-std=c++20", "-fprebuilt-module-path=one", "-fprebuilt-module-path=two", "-c", "x.cc", "-o", c.object(), rustc=c.plus,
    )  # fmt: skip


@pytest.mark.parametrize("word", ["-fmodule-output={o}/foo.pcm", "-fmodule-output"])
@of("clang")
def test_a_module_that_is_made_beside_its_object_comes_back_with_it(c, word):
    """clang 16's way, which CMake takes: one call makes both."""
    clang = next((name for name in (f"clang++-{version}" for version in range(16, 30)) if shutil.which(name)), None)
    if clang is None:
        pytest.skip("no clang of 16 or later")
    c.write("foo.cppm", "export module foo;\nexport inline int f() { return 1; }\n")
    c.write("x.cc", "import foo;\nint g() { return f(); }\n")
    make = ("-std=c++20", word.format(o=c.o), "-MD", "-c", "foo.cppm", "-o", c.object("foo.o"))
    c.changes_text("foo.cppm", "export module foo;\nexport inline int f() { return 2; }\n", *make, rustc=clang)
    os.utime(c.p / "foo.cppm")
    assert c.expect("hit", *make, rustc=clang).names() == {"foo.d", "foo.o", "foo.pcm"}
    shutil.copy(c.o / "foo.pcm", c.p / "foo.pcm")
    use = ("-std=c++20", "-fmodule-file=foo=foo.pcm", "-c", "x.cc", "-o", c.object())
    c.compile_twice(*use, rustc=clang)


# -- gcc's modules -----------------------------------------------------------------------------------------------------


@of("gcc")
def test_modules_of_c_plus_plus_20_by_gcc(c):
    """-fmodules-ts: a module goes to gcm.cache, whence it is imported; both come back, also where that directory is gone."""
    std = ("-std=c++20", "-fmodules-ts")
    c.world.outs.append(c.p / "gcm.cache")
    c.write("foo.cc", "export module foo;\nexport int f() { return 1; }\n")
    c.write("x.cc", "import foo;\nint g() { return f(); }\n")
    # gcc writes the time of the build into the module, for people to read.
    how = {"env": {"SOURCE_DATE_EPOCH": "1000000000"}, "rustc": c.plus}
    make = (*std, "-c", "foo.cc", "-o", c.object("foo.o"))
    first = c.compile_twice(*make, **how)
    assert first.names() == {"foo.gcm", "foo.o"}
    os.utime(c.p / "foo.cc")
    assert c.expect("hit", *make, **how) == first
    modules = [c.world.outs.pop()]
    used = c.compile_twice(*std, "-c", "x.cc", "-o", c.object(), **how)
    shutil.rmtree(modules[0])
    assert c.world.cached(*make, **how).status == 0  # gcm.cache is made anew
    use = (*std, "-c", "x.cc", "-o", c.object())
    assert c.expect("hit", *use, **how) == used
    c.write("foo.cc", "export module foo;\nexport inline int f() { return 2; }\n")
    c.expect("miss", *make, **how)
    assert c.expect("miss", *use, **how) != used
    shutil.rmtree(modules[0])
    c.expect("fail", *use, **how)


@of("gcc")
def test_a_module_of_gcc_tells_when_it_was_made(c):
    """Unless SOURCE_DATE_EPOCH says so: what would be brought back is the time of another compile."""
    c.write("foo.cc", "export module foo;\n")
    for _ in range(2):
        c.world.cached("-std=c++20", "-fmodules-ts", "-c", "foo.cc", "-o", c.object(), rustc=c.plus)
    c.world.note_server()
    assert c.world.counts()["cache_hits"] == 0
    assert c.world.reasons() == {"__DATE__, __TIME__ or __TIMESTAMP__": 2}


@of("gcc")
def test_a_module_of_gcc_belongs_to_its_directory(c):
    """It names the directory that it was made in."""
    how = {"env": {"SOURCE_DATE_EPOCH": "1000000000"}, "rustc": c.plus}
    for place in ("one", "two"):
        c.world.outs.append(c.p / place / "gcm.cache")
        c.write(f"{place}/foo.cc", "export module foo;\n")
        done = c.expect("miss", "-std=c++20", "-fmodules-ts", "-c", "foo.cc", "-o", c.object(), cwd=c.p / place, **how)
        assert os.fsencode(c.p / place) in done.file("foo.gcm")


@of("gcc")
def test_a_header_unit_of_gcc_is_made_and_not_stored(c):
    """It goes to gcm.cache under a name of gcc's, in place of a .gch."""
    c.write("h.h", "int h();\n")
    c.world.outs.append(c.p / "gcm.cache")
    how = {"env": {"SOURCE_DATE_EPOCH": "1000000000"}, "rustc": c.plus}
    done = c.not_stored("expected output missing", "-std=c++20", "-fmodules-ts", "-x", "c++-header", "h.h", **how)
    assert done.names() == {"h.h.gcm"}


@of("gcc")
def test_modules_that_another_program_maps_are_left_to_gcc(c):
    """By option or variable: it is asked over a pipe or a socket."""
    c.write("x.cc", "int f() { return 1; }\n")
    words = ("-std=c++20", "-fmodules-ts", "-c", "x.cc", "-o", c.object())
    for mapper in ("|map", "=map", "<map", "localhost:1"):
        c.refused("-fmodule-mapper=", f"-fmodule-mapper={mapper}", *words, rustc=c.plus)
        c.world.control("zero")
    c.expect("pass", *words, env={"CXX_MODULE_MAPPER": "map"}, rustc=c.plus)
    assert c.world.reasons()["variable CXX_MODULE_MAPPER"] == 1


@of("gcc")
def test_modules_that_a_file_maps_are_where_it_says(c):
    """So CMake and ninja build them, and so every source of C++20 is called whether it imports anything or not."""
    c.write("foo.cc", "export module foo;\nexport int f() { return 1; }\n")
    c.write("x.cc", "import foo;\nint g() { return f(); }\n")
    c.write("y.cc", "int h() { return 1; }\n")
    c.write("map", f"$root .\nfoo {c.o}/foo.gcm\n")
    std = ("-std=c++20", "-fmodules-ts", "-fmodule-mapper=map", "-MD")
    how = {"env": {"SOURCE_DATE_EPOCH": "1000000000"}, "rustc": c.plus}
    c.compile_twice(*std, "-c", "y.cc", "-o", c.object("y.o"), rustc=c.plus)
    make = (*std, "-c", "foo.cc", "-o", c.object("foo.o"))
    assert c.compile_twice(*make, **how).names() == {"foo.d", "foo.gcm", "foo.o"}
    for place in ("one", "two"):
        shutil.copy(c.o / "foo.gcm", c.p / f"{place}.gcm")
    c.write("map", "$root .\nfoo one.gcm\n")
    use = (*std, "-c", "x.cc", "-o", c.object())
    c.changes_text("map", "$root .\nfoo two.gcm\n", *use, visible=False, **how)
    os.unlink(c.p / "one.gcm")
    c.expect("fail", *use, **how)


@pytest.mark.parametrize("c", ["gcc-fallback", "clang-fallback"], indirect=True)
def test_without_observation_precompiled_headers_and_modules_are_left_to_the_compiler(c):
    """No list tells what they hold, or what is read in their place."""
    write_header(c)
    c.left_out("C without observation: c-header", "-fsyntax-only", "-x", "c-header", "a.h")
    c.write("x.cc", "int f() { return 1; }\n")
    option = "-fmodules-ts" if c.is_gcc else "-fprebuilt-module-path=."
    reason = option if c.is_gcc else "-fprebuilt-"
    c.left_out(f"C without observation: {reason}", "-std=c++20", option, "-c", "x.cc", "-o", c.object(), rustc=c.plus)
