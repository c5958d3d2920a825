"""What a C compile leaves, and what is not cached: every file comes back with this call's names, or the compiler itself runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package

from c_world import one_compiler, shared_server  # noqa: F401 - fixtures

pytestmark = pytest.mark.slow

ONE = "int f(int x) { return x + 1; }\n"
# Enough headers that a depfile has several lines, which break elsewhere for another target.
HEADERS = '#include <stdio.h>\n#include <stdlib.h>\n#include "a.h"\n#include "some dir/b$.h"\nint f(void) { return A; }\n'


def write_headers(c) -> None:
    c.write("x.c", HEADERS)
    c.write("a.h", "#define A 1\n")
    c.write("some dir/b$.h", "\n")


def test_a_depfile_names_this_calls_object(c):
    """Whoever reads it is told to rebuild the other object otherwise."""
    write_headers(c)
    c.expect("miss", "-MD", "-c", "x.c", "-o", c.object())
    c.expect("hit", "-MD", "-c", "x.c", "-o", c.object())
    for name in ("y.o", "a-much-longer-name-that-moves-the-line-breaks.o", "with space.o", "no-suffix", "two.dots.o", "$#.o"):
        c.expect("hit", "-MD", "-c", "x.c", "-o", c.object(name))


@pytest.mark.parametrize("option", ["-MD", "-MMD"])
@pytest.mark.parametrize("phony", [(), ("-MP",)])
def test_a_depfile_goes_where_it_is_told_and_says_what_it_is_told(c, option, phony):
    """-MF, -MT and -MQ of this call; -MP's empty rules for each header."""
    write_headers(c)
    first = (option, *phony, "-c", "x.c", "-o", c.object(), "-MF", str(c.o / "x.d"))
    c.expect("miss", *first)
    c.expect("hit", option, *phony, "-c", "x.c", "-o", c.object("y.o"), f"-MF{c.o}/elsewhere.dep")
    c.expect("miss", *first, "-MT", "a target$ of this call")
    c.expect("hit", *first, "-MT", "another target, which is so long that it takes more than a whole line by itself, or nearly")
    c.expect("miss", *first, "-MQ", "a target$ of this call")
    c.expect("hit", *first, "-MQ", "other#")
    c.expect("miss", *first, "-MT", "one", "-MQ", "two")
    c.expect("hit", *first, "-MT", "three", "-MQ", "four")


def test_a_depfile_without_a_name_for_the_object(c):
    """Both get their names from the source and go to the cwd."""
    c.write("src/x.c", ONE)
    for place in ("one", "two"):
        c.world.outs.append(c.p / place)
        (c.p / place).mkdir()
    c.expect("miss", "-MD", "-c", "../src/x.c", cwd=c.p / "one")
    done = c.expect("hit", "-MD", "-c", "../src/x.c", cwd=c.p / "two")
    assert done.names() == {"x.o", "x.d"}


def test_a_depfile_by_the_preprocessors_option(c):
    """The Linux kernel's way: -Wp,-MMD,FILE."""
    write_headers(c)
    c.expect("miss", f"-Wp,-MMD,{c.o}/.x.o.d", "-c", "x.c", "-o", c.object())
    c.expect("hit", f"-Wp,-MMD,{c.o}/.x.o.d", "-c", "x.c", "-o", c.object())
    c.expect("hit", f"-Wp,-MMD,{c.o}/.y.o.d", "-c", "x.c", "-o", c.object("y.o"))
    c.expect("miss", f"-Wp,-MD,{c.o}/.x.o.d", "-c", "x.c", "-o", c.object())


@pytest.mark.parametrize("words", [("-MMD", "-Wp,-MMD,x.dep"), ("-Wp,-MD,x.dep", "-MD")], ids=" ".join)
def test_a_depfile_by_both_ways_names_this_calls_object(c, words):
    """gcc's names the object after the source by -Wp,-MD alone, after -o with a -MD beside it, and the source's without -o."""
    write_headers(c)
    (c.p / "build").mkdir()
    c.world.outs.append(c.p / "build")
    c.expect("miss", *words, "-c", "../x.c", cwd=c.p / "build")
    c.expect("hit", *words, "-c", "../x.c", "-o", "y.o", cwd=c.p / "build")
    c.expect("hit", *words, "-c", "../x.c", "-o", "a-rather-long-name-for-an-object.o", cwd=c.p / "build")
    c.expect("hit", *words, "-c", "../x.c", cwd=c.p / "build")


@pytest.mark.parametrize("words", ["-Wp,-MMD,w.d -MF f.d", "-MF f.d -Wp,-MMD,w.d", "-Wp,-MD,w.d -MMD -MF f.d", "-MMD -MF f.d -Wp,-MMD,w.d"])
def test_of_two_names_for_a_depfile_the_compilers_choice_counts(c, words):
    """gcc's driver hands -Wp's on behind all others, clang takes the last."""
    write_headers(c)
    c.world.outs.append(c.p / "build")
    (c.p / "build").mkdir()
    for verdict, name in (("miss", "x.o"), ("hit", "x.o"), ("hit", "a-longer-name.o")):
        c.expect(verdict, *words.split(), "-c", "../x.c", "-o", name, cwd=c.p / "build")


@pytest.mark.parametrize("there", ["of an earlier compile", ""], ids=["built", "empty"])
@pytest.mark.parametrize("words", ["-MD -c", "-S -MMD", "-x c-header -MD", "--coverage -c", "-fstack-usage -c", "-g -gsplit-dwarf -c"])
def test_a_file_that_is_there_keeps_its_mode_and_links_as_the_compiler_would_have_it(c, words, there):
    """It writes some outputs over what is there, and puts others in its place: a build tree copied by hard links shows it.

    as does the one to an empty file, which mktemp made for its owner alone, and the other to an object."""
    write_headers(c)
    args = (*words.split(), "-frandom-seed=1", "x.c", "-o", "x.out", *(("-MF", "x.d") if "D" in words else ()))
    left_out = [name for name in ("c-header", "--coverage", "-fstack-usage", "-gsplit-dwarf") if name in words]
    if left_out and c.left_out(f"C without observation: {left_out[0]}", *args):
        return
    names = ("x.out", "x.d", "x.gcno", "x.su", "x.dwo")

    def after(*command):
        for name in names:
            for path in (c.p / name, c.p / f"{name}.link"):
                path.unlink(missing_ok=True)
            c.write(name, there).chmod(0o640)
            (c.p / f"{name}.link").hardlink_to(c.p / name)
        assert c.world.run([*command, c.name, *args], c.p, c.world.server_env).returncode == 0
        return [(oct((c.p / name).stat().st_mode), (c.p / name).samefile(c.p / f"{name}.link")) for name in names]

    c.world.cached(*args, rustc=c.name)
    hits = c.world.counts().get("cache_hits", 0)
    assert after(c.world.client) == after()
    assert c.world.counts()["cache_hits"] == hits + 1


def test_an_object_is_not_left_where_its_depfile_cannot_be_written(c):
    """The compiler fails before it makes one: what a hit had written would be taken for its work."""
    write_headers(c)
    args = ("-MD", "-MF", "x.d", "-c", "x.c", "-o", c.object())
    c.compile_twice(*args)
    (c.p / "x.d").unlink()
    (c.p / "x.d").mkdir()
    assert c.expect("fail", *args).names() == set()


@pytest.mark.parametrize("flags", ["-MQ -MT", "-MT -MQ", "-MQ -MQ -MT", "-MQ -MT -MQ -MT", "-MT -MQ -MQ -MT -MT"])
def test_quoted_and_plain_targets_come_in_the_compilers_order(c, flags):
    """gcc writes plain ones first, in the place of quoted ones that came before."""
    write_headers(c)
    for verdict, names in (("miss", "abcde"), ("hit", "vwxyz")):
        targets = [word for flag, name in zip(flags.split(), names, strict=False) for word in (flag, f"${name}")]
        c.expect(verdict, "-MD", "-MF", str(c.o / "x.d"), *targets, "-c", "x.c", "-o", c.object())


@pytest.mark.parametrize("name", ["x.s", "x.i"])
def test_a_source_that_is_not_preprocessed_leaves_no_depfile(c, name):
    """CMake asks for one beside every assembler source."""
    c.write(name, "int f;\n" if name == "x.i" else "nop\n")
    args = ("-MD", "-MF", str(c.o / "x.d"), "-c", name, "-o", c.object())
    language = {"x.s": "assembler", "x.i": "cpp-output"}[name]
    if not c.left_out(f"C without observation: {language}", *args):
        assert c.compile_twice(*args).names() == {"x.o"}


@pytest.mark.parametrize("modes", [("-c", "-fsyntax-only"), ("-fsyntax-only", "-S"), ("-c", "-S"), ("-S", "-c")], ids=" ".join)
def test_of_several_ends_the_first_counts(c, modes):
    """Checkers add -fsyntax-only to a compile's own words."""
    c.write("x.c", "#warning so\nint f(void);\n")
    output = () if "-fsyntax-only" in modes else ("-o", c.object("x.s"))
    c.compile_twice(*modes, "-MMD", "-MF", str(c.o / "x.d"), "x.c", *output)


def test_dependencies_by_a_variable_are_left_to_the_compiler(c):
    """It appends to a file that others append to as well."""
    c.write("x.c", ONE)
    c.refused("variable DEPENDENCIES_OUTPUT", "-c", "x.c", "-o", c.object(), env={"DEPENDENCIES_OUTPUT": str(c.o / "deps")})


@pytest.mark.parametrize("option", ["-O2", "-O0", "-fPIC", "-std=c99", "-Wall", "-pedantic", "-pthread", "-fvisibility=hidden", "-m32"])
def test_usual_options_hit_for_another_object_and_directory(c, option):
    """What a build says most; none of them writes a name into the object."""
    for place in ("one", "two"):
        c.write(f"{place}/x.c", ONE)
    c.expect("miss", option, "-c", "x.c", "-o", c.object(), cwd=c.p / "one")
    c.expect("hit", option, "-c", "x.c", "-o", c.object("y.o"), cwd=c.p / "two")


# Entries of the option table whose outputs only observation knows.
NAMING = (
    "--coverage", "-fcallgraph-info", "-flto", "-fprofile", "-frecord-gcc-switches", "-ftest-coverage", "-fverbose-asm", "-gsplit-dwarf",
)  # fmt: skip


@pytest.mark.parametrize(
    "options",
    [
        ("-g", "-gsplit-dwarf"),
        ("--coverage", "-frandom-seed=1"),
        ("-fprofile-arcs", "-ftest-coverage", "-frandom-seed=1"),
        ("-fprofile-generate", "-frandom-seed=1"),
        ("-fcallgraph-info",),
        ("-flto", "-frandom-seed=1"),
        ("-g", "-gz"),
        ("-O2", "-fprofile-use", "-fno-strict-aliasing"),
        ("-S", "-fverbose-asm"),
        ("-frecord-gcc-switches",),
    ],
    ids=" ".join,
)
def test_what_names_the_object_is_not_taken_for_another_object(c, options):
    """Two -o names gave different objects, or further files beside them, whose names are not the other's."""
    if not c.is_gcc and {"-fcallgraph-info", "-fprofile-use"}.intersection(options):
        pytest.skip("gcc's")
    c.write("x.c", ONE)
    args = (*options, *(() if "-S" in options else ("-c",)), "x.c")
    named = next((n for n in NAMING for o in options if o.startswith(n)), None)
    if named is not None and c.left_out(f"C without observation: {named}", *args, "-o", c.object()):
        return
    first = c.expect("miss", *args, "-o", c.object())
    assert c.expect("hit", *args, "-o", c.object()) == first
    c.expect("miss", *args, "-o", c.object("y.o"))
    c.expect("hit", *args, "-o", c.object("y.o"))


def test_what_clang_gave_as_bitcode_is_compiled_from_the_cache(c):
    """The second half of a distributed ThinLTO build: bitcode, named as an object is or not, with the index that the link before made."""
    if c.is_gcc:
        pytest.skip("clang's")
    c.write("x.c", ONE)
    subprocess.run(["clang", "-O2", "-flto=thin", "-c", "x.c", "-o", "x.bc"], cwd=c.p, check=True)
    args = ("-O2", "-x", "ir", "x.bc", "-fthinlto-index=/dev/null", "-c", "-o", c.object())
    if c.left_out("C without observation: ir", *args):
        return
    c.compile_twice(*args)
    c.compile_twice("-O2", "-c", "x.bc", "-o", c.object())
    os.rename(c.p / "x.bc", c.p / "x.o")
    c.compile_twice("-O2", "-fthinlto-index=/dev/null", "-c", "x.o", "-o", c.object())
    c.refused("unknown source language .o", "-O2", "-c", "x.o", "-o", c.object())
    c.write("x.c", ONE.replace("1", "2"))
    subprocess.run(["clang", "-O2", "-flto=thin", "-c", "x.c", "-o", "x.bc"], cwd=c.p, check=True)
    c.expect("miss", *args)


def test_a_profile_that_is_used_counts(c):
    """-fprofile-use reads what an earlier run wrote."""
    c.write("x.c", "int f(int x) { return x > 3 ? x * 7 : x / 5; }\nint main(int n, char **v) { return f(n) == 99; }\n")
    if c.is_gcc:

        def run(*words):
            subprocess.run(words, cwd=c.p, env=c.world.env, check=True, timeout=60)

        run("gcc", "-O2", "-fprofile-generate", "-c", "x.c", "-o", "prof.o")
        run("gcc", "-fprofile-generate", "prof.o", "-o", "prog")
        subprocess.run(["./prog"], cwd=c.p, check=False, timeout=60)
        made = next(p for p in c.p.iterdir() if p.suffix == ".gcda")
        args = ("-O2", "-fprofile-use=profiles", "-Wmissing-profile", "-c", "x.c", "-o", c.object())
        if c.left_out("C without observation: -fprofile", *args):
            return
        without = c.compile_twice(*args)
        (wanted,) = re.findall(r"(profiles/\S+gcda)", without.stderr.decode())
        (c.p / wanted).parent.mkdir(parents=True)
        made.rename(c.p / wanted)
        used = c.compile_twice(*args)
        assert used.file("x.o") != without.file("x.o")
        shutil.rmtree(c.p / "profiles")
        c.expect("hit", *args)
        return
    profdata = shutil.which("llvm-profdata") or shutil.which("llvm-profdata-14")
    if profdata is None:
        pytest.skip("no llvm-profdata")
    c.write("text", "f\n0\n2\n10\n3\n")
    subprocess.run([profdata, "merge", "text", "-o", "x.profdata"], cwd=c.p, check=True, timeout=60)
    args = ("-O2", "-fprofile-instr-use=x.profdata", "-c", "x.c", "-o", c.object())
    if c.left_out("C without observation: -fprofile", *args):
        return
    c.compile_twice(*args)
    c.write("text", "f\n0\n2\n10\n9\n")
    subprocess.run([profdata, "merge", "text", "-o", "x.profdata"], cwd=c.p, check=True, timeout=60)
    c.expect("miss", *args)


def test_assembler_and_preprocessed_sources_are_cached(c):
    """.s, .S, .i and -S, and -x for names that say nothing."""
    c.write("x.S", '#include "a.h"\n.globl f\nf: ret\n')
    c.write("a.h", "\n")
    c.write("y.s", ".globl f\nf: ret\n")
    c.write("z.i", '# 1 "z.c"\nint f(void) { return 1; }\n')
    c.write("source", ONE)
    for words in (("-x", "c", "-c", "source"), ("-xc++", "-c", "source")):
        c.compile_twice(*words, "-o", c.object())
    languages = {"x.S": "assembler-with-cpp", "y.s": "assembler", "z.i": "cpp-output"}
    for words in (("-c", "x.S"), ("-c", "y.s"), ("-c", "z.i"), ("-S", "z.i")):
        if not c.left_out(f"C without observation: {languages[words[1]]}", *words, "-o", c.object()):
            c.compile_twice(*words, "-o", c.object())
    if c.observed:
        c.write("a.h", ".globl g\n")
        c.expect("miss", "-c", "x.S", "-o", c.object())


def test_other_languages_are_counted_by_their_names(c):
    """--show-stats says what was cached."""
    c.write("x.cc", "int f() { return 1; }\n")
    c.write("y.m", "int f(void) { return 1; }\n")
    c.compile_twice("-c", "x.cc", "-o", c.object(), rustc=c.plus)
    c.compile_twice("-c", "x.cc", "-o", c.object("y.o"))
    c.write("x.s", "f: ret\n")
    if c.observed:
        c.compile_twice("-c", "x.s", "-o", c.object())
    stats = c.world.control("stats")["stats"]["languages"]
    assert set(stats["cache_hits"]) == ({"C/C++", "Assembler"} if c.observed else {"C/C++"})


def test_no_object_is_wanted(c):
    """-o /dev/null and -fsyntax-only ask only whether it compiles, and what the compiler says."""
    c.write("x.c", "int f(void) { int unused; return 1; }\n")
    for words in (("-c", "x.c", "-o", "/dev/null"), ("-fsyntax-only", "x.c")):
        done = c.compile_twice("-Wall", *words)
        assert b"unused" in done.stderr
    assert os.path.exists("/dev/null")


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("-E", ("-E", "x.c")),
        ("-M", ("-M", "-c", "x.c", "-o", "x.o")),
        ("-MM", ("-MM", "-MD", "x.c")),
        ("-save-temps", ("-save-temps", "-c", "x.c")),
        ("-v", ("-v", "-c", "x.c")),
        ("unhandled option --no-such-option", ("--no-such-option=1", "-c", "x.c")),
        ("multiple input files", ("-c", "x.c", "y.c")),
        ("unknown source language .q", ("-c", "x.q")),
        ("output to stdout", ("-S", "x.c", "-o", "-")),
        ("names a descriptor of the caller", ("-S", "x.c", "-o", "/dev/stdout")),
        ("-", ("-c", "-x", "c", "-", "-o", "z.o")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_cached_is_run_by_the_client_and_counted_by_its_reason(c, reason, words):
    """The user sees what the compiler says, and the statistics say why it was not cached."""
    for name in ("x.c", "y.c"):
        c.write(name, ONE)
    c.world.outs.append(c.p / "out")
    (c.p / "out").mkdir()
    for _ in range(2):
        ran = c.world.run([str(c.world.client), c.name, *words], c.p, c.world.server_env)
        plain = c.world.run([c.name, *words], c.p, {})
        assert ran.returncode == plain.returncode
        if reason != "-v":
            assert (ran.stdout, ran.stderr) == (plain.stdout, plain.stderr)
    assert c.world.reasons() == {reason: 2}


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("gcc", "-fmem-report"),
        ("gcc", "-fopt-info-vec=seen.txt"),
        ("gcc", "-ftime-report"),
        ("clang", "-fmodules"),
        ("clang", "-ftime-trace"),
    ],
)
def test_options_that_are_refused_are_counted_by_their_names(c, name, option):
    """What they write belongs to one run, or to a cache of the compiler's own."""
    if c.name != name:
        pytest.skip(f"{name}'s")
    c.write("x.c", ONE)
    c.world.cached(option, "-c", "x.c", "-o", c.object(), rustc=c.name)
    (reason,) = c.world.reasons()
    assert option.startswith(reason)


def test_questions_and_links_are_no_compilations(c):
    """Counted apart, as other caches do."""
    c.write("x.c", "int main(void) { return 0; }\n")
    for words in (("--version",), ("-dumpmachine",), ("-print-search-dirs",), ("x.c", "-o", str(c.o / "prog"))):
        c.expect("pass", *words)
    assert c.world.counts()["requests_not_compile"] == 4


def test_a_shell_script_that_calls_the_compiler_is_cached(c):
    """Many a build has one; what it adds to the command line is unknown, so names count."""
    c.write("x.c", ONE)
    script = c.write("my-cc", f'#!/bin/sh\nexec {c.name} -DA=1 "$@"\n')
    script.chmod(0o755)
    if c.left_out("script as compiler without observation", "-g", "-c", "x.c", "-o", c.object(), rustc=str(script)):
        return
    c.compile_twice("-g", "-c", "x.c", "-o", c.object(), rustc=str(script))
    script.write_text(f'#!/bin/sh\nexec {c.name} -O2 "$@"\n')
    c.expect("miss", "-g", "-c", "x.c", "-o", c.object(), rustc=str(script))


@pytest.mark.parametrize("name", ["x86_64-linux-gnu-gcc", "gcc-12", "cc", "c99-gcc", "clang-14", "musl-gcc"])
def test_compilers_are_known_whatever_they_are_called(c, name):
    """The program itself is asked which compiler it is."""
    if shutil.which(name, path=c.world.env["PATH"]) is None or not c.is_gcc:
        pytest.skip(f"no {name}")
    c.write("x.c", ONE)
    is_script = Path(shutil.which(name, path=c.world.env["PATH"])).read_bytes().startswith(b"#!")
    if is_script and c.left_out("script as compiler without observation", "-c", "x.c", "-o", c.object(), rustc=name):
        return
    c.compile_twice("-c", "x.c", "-o", c.object(), rustc=name)


def test_a_link_named_like_a_compiler_is_one(c):
    """/opt/cross/bin/my-gcc -> /usr/bin/gcc"""
    (c.p / "bin").mkdir()
    for name in ("my-clang++", "clang++") if not c.is_gcc else ("my-gcc",):
        (c.p / "bin" / name).symlink_to(shutil.which(c.name))
        c.write("x.c", ONE)
        c.compile_twice("-c", "x.c", "-o", c.object(), rustc=str(c.p / "bin" / name))


def test_a_launcher_between_us_and_the_compiler_is_left_alone(c):
    """`sccache-py ccache gcc`: the compile is theirs."""
    if shutil.which("ccache") is None:
        pytest.skip("no ccache")
    c.write("x.c", ONE)
    env = {"CCACHE_DIR": str(c.world.root / "ccache")}
    c.expect("pass", c.name, "-c", "x.c", "-o", c.object(), rustc="ccache", env=env)
    (c.p / "bin").mkdir()
    (c.p / "bin" / c.name).symlink_to(shutil.which("ccache"))
    c.expect("pass", "-c", "x.c", "-o", c.object(), rustc=str(c.p / "bin" / c.name), env=env)


def test_cmake_builds_through_a_launcher_and_again_from_the_cache(c):
    """CMAKE_C_COMPILER_LAUNCHER, ninja, -MD -MT -MF as CMake says them; the second build directory gets it all from the first's."""
    if shutil.which("cmake") is None or shutil.which("ninja") is None:
        pytest.skip("no cmake or no ninja")
    c.write("CMakeLists.txt", "cmake_minimum_required(VERSION 3.13)\nproject(p C)\nadd_library(one x.c y.c)\nadd_library(two x.c)\n")
    for name in ("x.c", "y.c"):
        c.write(name, '#include "h.h"\n' + ONE.replace("f(", f"{name[0]}("))
    c.write("h.h", "#include <stdio.h>\n")
    launcher = f"-DCMAKE_C_COMPILER_LAUNCHER={c.world.client}"
    before = c.world.counts().get("cache_hits", 0)

    def build(place, *words):
        env = {**c.world.server_env, "PATH": os.environ["PATH"]}
        for command in (
            ["cmake", "-G", "Ninja", "-B", place, f"-DCMAKE_C_COMPILER={shutil.which(c.name)}", *words],
            ["ninja", "-C", place],
        ):
            ran = c.world.run(command, c.p, env)
            assert ran.returncode == 0, ran.stdout + ran.stderr
        objects = [p for p in (c.p / place).rglob("*.o") if "CMakeFiles/CMake" not in str(p) and "CompilerId" not in str(p)]
        return {str(p.relative_to(c.p / place)): p.read_bytes() for p in objects}

    plain = build("plain")
    assert len(plain) == 3
    assert build("first", launcher) == plain
    hits = c.world.counts()["cache_hits"] - before
    assert build("second", launcher) == plain
    assert c.world.counts()["cache_hits"] - before - hits >= 3


def test_a_link_named_like_the_compiler_stands_for_it_on_path(c):
    """For build systems that know no launcher: a directory of links to us, first on PATH."""
    (c.p / "links").mkdir()
    (c.p / "links" / c.name).symlink_to(c.world.client)
    c.write("x.c", ONE)
    env = {**c.world.server_env, "PATH": f"{c.p}/links:{c.world.env['PATH']}"}
    for _ in range(2):
        assert c.world.run([c.name, "-c", "x.c", "-o", c.object()], c.p, env).returncode == 0
    assert c.world.counts()["cache_hits"] == 1
