"""An output that is the source, or another output: in the key, where names are roles, that does not show."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package

from c_world import one_compiler, shared_server  # noqa: F401 - fixtures

pytestmark = pytest.mark.slow

ONE = "int f(int x) { return x + 1; }\n"
TWICE = "output is the source or another output"


def compile_both_ways(c, words, source):
    """Status and messages of a compile with the cache and without; the source is written anew before each, for one may be lost."""
    found = []
    for run in (c.world.cached, c.world.uncached):
        c.write(source, ONE)
        done = run(*words, rustc=c.name)
        found.append((done.status, done.stdout, done.stderr, done.files, (c.p / source).read_bytes()))
    return found


@pytest.mark.parametrize("output", ["x.c", "./x.c", "there/x.c"])
def test_an_output_that_is_the_source_is_not_written_over_it(c, output):
    """gcc refuses that, by name and behind linked directories; a hit would be the end of the source."""
    c.write("x.c", ONE)
    (c.p / "there").symlink_to(".")
    c.compile_twice("-c", "x.c", "-o", c.object())
    cached, uncached = compile_both_ways(c, ("-c", "x.c", "-o", output), "x.c")
    assert cached == uncached
    assert (cached[0] != 0) == c.is_gcc
    if output == "x.c":
        assert c.world.reasons() == {TWICE: 1}


def test_an_object_and_its_depfile_in_one_file_are_left_to_the_compiler(c):
    """Whichever it writes last stays."""
    c.write("x.c", ONE)
    c.compile_twice("-MD", "-c", "x.c", "-o", c.object())
    c.world.control("zero")
    c.refused(TWICE, "-MD", "-MF", c.object(), "-c", "x.c", "-o", c.object())


def test_an_object_and_its_depfile_in_one_file_behind_a_link_are_no_hit(c):
    c.write("x.c", ONE)
    (c.p / "there").symlink_to(c.o)
    c.compile_twice("-MD", "-c", "x.c", "-o", c.object())
    c.expect("miss", "-MD", "-MF", str(c.p / "there" / "x.o"), "-c", "x.c", "-o", c.object())
    c.expect("hit", "-MD", "-c", "x.c", "-o", c.object())


@pytest.mark.parametrize("name", ["x.o", "x.d"])
def test_what_was_found_out_of_an_own_output_is_not_kept(c, name):
    """The next compile finds what this one made; and for one with another output it is a file like any other."""
    c.write("x.c", f'#if __has_include("{name}")\nint there;\n#else\nint missing;\n#endif\n')
    args = ("-MD", "-c", "x.c", f"-I{c.o}", "-o")
    c.expect("miss", *args, c.object())
    cached = c.world.run([str(c.world.client), c.name, *args, c.object()], None, c.world.server_env)
    assert (cached.returncode, cached.stderr) == (0, b"")
    assert b"there" in (c.o / "x.o").read_bytes()
    (c.p / name).write_bytes(b"")
    other = c.expect("miss", "-MD", "-c", "x.c", "-o", c.object("y.o"))
    assert b"there" in other.file("y.o")
