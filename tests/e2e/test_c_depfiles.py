"""What a depfile is called and what it calls its target, where compilers do not take a name as it is said."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package

from c_world import one_compiler, shared_server  # noqa: F401 - fixtures

pytestmark = pytest.mark.slow


def write(c) -> None:
    c.write("x.c", '#include "a.h"\nint f(void) { return A; }\n')
    c.write("a.h", "#define A 1\n")
    c.world.outs.append(c.p / "out")


def test_a_target_is_told_without_the_directory_that_it_is_in_by_gcc(c):
    """gcc leaves out `./` before a target, with -MT too; clang does not."""
    write(c)
    c.expect("miss", "-MD", "-c", "x.c", "-o", "out/x.o")
    for name in ("./out/x.o", ".//out/y.o", "././/out/y.o", "./out/./x.o", "out/../out/x.o", ".///./out/with space.o"):
        c.expect("hit", "-MD", "-c", "x.c", "-o", name)
    for option in ("-MT", "-MQ"):
        c.expect("miss", "-MD", option, "target", "-c", "x.c", "-o", "out/x.o")
        for name in ("./target", ".//./target$", "../target", ".target", "./.x", ".", ".."):
            c.expect("hit", "-MD", option, name, "-c", "x.c", "-o", "out/x.o")


@pytest.mark.parametrize("name", [".o", "..x", ".x", "x", "x.", ".x.o", "...", "x.o.o"])
def test_a_depfile_is_called_after_the_object_up_to_its_last_dot(c, name):
    """Also where that is the first character."""
    write(c)
    c.expect("miss", "-MD", "-c", "x.c", "-o", "out/first.o")
    assert len(c.expect("hit", "-MD", "-c", "x.c", "-o", f"out/{name}").names()) == 2


@pytest.mark.parametrize("name", [".c", "..c", ".x.c", "x.y.c"])
def test_what_is_called_after_the_source_is_so_where_its_name_begins_with_a_dot(c, name):
    """gcc makes .c.o of .c, clang .o; both ..o of ..c."""
    write(c)
    (c.p / "x.c").rename(c.p / name)
    c.world.outs.append(c.p / "build")
    (c.p / "build").mkdir()
    for verdict in ("miss", "hit"):
        made = c.expect(verdict, "-I..", "-MD", "-xc", "-c", f"../{name}", cwd=c.p / "build")
        assert len(made.names()) == 2


def test_a_target_that_gcc_takes_for_a_pipe_is_gcc_s_to_refuse(c):
    """Its driver ends one command there and begins another; other targets of the same compile are in the cache."""
    write(c)
    c.expect("miss", "-MD", "-MT", "target", "-c", "x.c", "-o", "out/x.o")
    args = ("-MD", "-MT", "|", "-c", "x.c", "-o", "out/x.o")
    cached, uncached = (compile(*args, rustc=c.name) for compile in (c.world.cached, c.world.uncached))
    assert (cached.status, cached.files) == (uncached.status, uncached.files)
    assert sorted(cached.stderr.split(b"\n")) == sorted(uncached.stderr.split(b"\n"))  # two programs speak at once
