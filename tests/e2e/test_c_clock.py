"""What a source says of the time of its compile: stored only where it is an input, or where the object does not say it.

The compilers are the real ones: that they ask for TZ to expand `__DATE__` is true of these, and a new version has to pass here.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package

from c_world import one_compiler, shared_server  # noqa: F401 - fixtures
from stage import World, world

__all__ = ["world"]  # a fixture

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("macro", ["__DATE__", "__TIME__", "__TIMESTAMP__"])
def test_the_time_of_the_compile_is_not_replayed(c, macro):
    """A hit would bring back the day of the first compile."""
    c.write("x.c", '#include "a.h"\nconst char *when = A;\n')
    c.write("a.h", f"#define A {macro}\n")
    # The two compiles of one expectation may see different seconds, so bytes are not compared here.
    for _ in range(2):
        c.world.cached("-c", "x.c", "-o", c.object(), rustc=c.name)
    c.world.note_server()
    assert c.world.counts().get("cache_hits", 0) == 0
    assert c.world.reasons() == {"__DATE__, __TIME__ or __TIMESTAMP__": 2}


@pytest.mark.parametrize("macro", ["__DATE__", "__TIME__", "__TIMESTAMP__"])
def test_the_time_that_nobody_asks_for_is_not_in_the_object(c, macro):
    """A version header says __DATE__, every source includes it, and one prints it: the others are as good as any."""
    c.write("a.h", f"#define BUILT {macro}\n")
    c.write("x.c", '#include "a.h"\nint f(void) { return 1; }\n')
    c.write("y.c", '#include "a.h"\nconst char *f(void) { return BUILT; }\n')
    if not c.observed:
        c.not_stored("__DATE__, __TIME__ or __TIMESTAMP__", "-c", "x.c", "-o", c.object())
        return
    c.compile_twice("-c", "x.c", "-o", c.object())
    script = c.write("cc.sh", f'#!/bin/sh\nexec {c.name} "$@"\n')
    script.chmod(0o755)
    c.compile_twice("-c", "x.c", "-o", c.object(), rustc=str(script))
    for compiler in (c.name, str(script)):
        for _ in range(2):
            before = c.world.counts()
            c.world.cached("-c", "y.c", "-o", c.object("y.o"), rustc=compiler)
            assert c.world.verdict_since(before) == "miss"
    assert c.world.reasons() == {"__DATE__, __TIME__ or __TIMESTAMP__": 4}


@pytest.mark.parametrize("macro", ["DATE", "TIME", "TIMESTAMP"])
def test_the_time_that_a_macro_spells_is_the_time(c, macro):
    """Put together of two words, which stand in no text."""
    c.write("x.c", f"#define TOGETHER(a, b) a##b\n#define AGAIN(a, b) TOGETHER(a, b)\nconst char *when = AGAIN(__{macro}, __);\n")
    if not c.observed:
        pytest.skip("only observation tells (docs/c-compilers.md)")
    for _ in range(2):
        c.world.cached("-c", "x.c", "-o", c.object(), rustc=c.name)
    c.world.note_server()
    assert c.world.reasons() == {"__DATE__, __TIME__ or __TIMESTAMP__": 2}


def test_the_time_in_a_precompiled_header_is_the_users(c):
    """Its text is not searched: it names every macro."""
    if not (c.is_gcc and c.observed):
        pytest.skip("gcc's, as observed")
    c.write("a.h", "#define A __TIMESTAMP__\n")
    c.write("x.c", '#include "a.h"\nconst char *when = A;\n')
    assert c.world.uncached("a.h", rustc=c.name).status == 0
    c.not_stored("__DATE__, __TIME__ or __TIMESTAMP__", "-c", "x.c", "-o", c.object())


def test_a_script_that_says_when_it_ran_is_not_replayed(c):
    """bash's printf; that a script asks perl or python for the time is not seen (docs/c-compilers.md)."""
    if not c.observed or not Path("/bin/bash").exists():
        pytest.skip("scripts are left to the client" if Path("/bin/bash").exists() else "no bash")
    c.write("x.c", "const char *when = WHEN;\n")
    script = c.write("cc.sh", f'#!/bin/bash\nprintf -v when "%(%T)T" -1\nexec {c.name} "-DWHEN=\\"$when\\"" "$@"\n')
    script.chmod(0o755)
    c.world.cached("-c", "x.c", "-o", c.object(), rustc=str(script))
    c.world.note_server()
    assert c.world.reasons() == {"__DATE__, __TIME__ or __TIMESTAMP__": 1}


def test_a_listing_says_when_it_was_made(c):
    """-Wa,-ag; another listing is cached."""
    if not (c.is_gcc and c.observed):
        pytest.skip("gcc's, as observed")
    c.write("x.s", "nop\n")
    c.world.cached("-c", "x.s", "-Wa,-ag", "-o", c.object(), rustc=c.name)
    c.world.note_server()
    assert c.world.reasons() == {"__DATE__, __TIME__ or __TIMESTAMP__": 1}


def test_which_of_two_files_was_changed_last_is_not_remembered(c):
    """`#pragma GCC dependency` warns of a table that is older than its grammar."""
    c.write("a.y", "grammar\n")
    c.write("x.c", '#pragma GCC dependency "a.y"\nint x;\n')
    reason = "#pragma GCC dependency" if c.observed else "may read files of which no list tells, without observation"
    c.not_stored(reason, "-c", "x.c", "-o", c.object())


def test_an_object_for_windows_says_when_it_was_made(c):
    """For MSVC's incremental linker, which takes an object of the same time for the same object."""
    if c.is_gcc or not c.observed:
        pytest.skip("clang's; left to the client without observation")
    c.write("x.c", "int x;\n")
    args = ("--target=x86_64-pc-windows-msvc", "-c", "x.c", "-o", c.object())
    c.world.cached(*args, rustc=c.name)
    c.world.note_server()
    assert c.world.counts().get("cache_writes", 0) == 0  # which waits until it is known
    assert c.world.reasons() == {"__DATE__, __TIME__ or __TIMESTAMP__": 1}
    c.compile_twice("-mno-incremental-linker-compatible", *args)


def test_source_date_epoch_makes_the_date_an_input(c):
    """Reproducible builds set it, and their objects can be cached."""
    if not c.is_gcc:
        pytest.skip("clang 14 does not know the variable")
    c.write("x.c", "const char *when = __DATE__ __TIME__;\n")
    args = ("-c", "x.c", "-o", c.object())
    c.expect("miss", *args, env={"SOURCE_DATE_EPOCH": "1000000000"})
    c.expect("hit", *args, env={"SOURCE_DATE_EPOCH": "1000000000"})
    c.expect("miss", *args, env={"SOURCE_DATE_EPOCH": "1100000000"})


def test_a_date_that_is_defined_on_the_command_line_is_no_date(c):
    """Bazel defines __DATE__ as "redacted"."""
    c.write("x.c", "const char *when = __DATE__;\n")
    c.compile_twice("-Wno-builtin-macro-redefined", '-D__DATE__="redacted"', "-c", "x.c", "-o", c.object())


def test_a_depfile_that_is_changed_at_once_is_kept_as_it_was(c):
    """OpenSSL's makefile touches it behind each compile: half of its objects were not stored."""
    c.write("x.c", "int f(void) { return N; }\n")
    depfile = c.object("x.d")
    script = f'"$@" && touch {depfile} && echo more >> {depfile}'
    for number in range(8):
        words = ("-O2", f"-DN={number}", "-MD", "-MF", depfile, "-c", "x.c", "-o", c.object())
        argv = ["sh", "-c", script, "sh", str(c.world.client), c.name, *words]
        assert c.world.run(argv, c.p, c.world.server_env).returncode == 0
        c.world.note_server()
        c.expect("hit", *words)


def test_a_header_that_each_build_makes_anew_just_before_is_stored_from_the_second_time_on(world: World) -> None:
    """Nobody knows of it before the compile has read it; younger than the clock's tick, it was stored by no build."""
    script = """
        for n in 1 2 3 4 5 6 7 8; do printf '#include "h%d.h"\\nint f(void) { return A; }\\n' $n >x$n.c; done
        "$0" gcc -c -x c /dev/null -o out/x.o; sleep 0.05
        for n in 1 2 3 4 5 6 7 8; do
            for build in 1 2 3; do
                echo '#define A 1' >h$n.h; "$0" gcc -c x$n.c -o out/x.o || exit
            done
        done
    """
    ran = world.run_plain("sh", "-c", script, str(world.client))
    assert (ran.returncode, ran.stderr) == (0, b"")
    not_stored = re.findall(r"not stored .*/(x\d)\.c", world.log())
    assert len(not_stored) == len(set(not_stored)), "by the second build at last"
    assert world.counts().total("cache_hits") >= 8
