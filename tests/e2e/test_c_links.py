"""Links with -flto compile, and so are compiles: what the linker and the compiler behind it read decides.  Others are not ours."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package

from c_world import one_compiler, shared_server  # noqa: F401 - fixtures

pytestmark = pytest.mark.slow


@pytest.fixture
def linked(c):
    """A compiler that links what `compiled` made, and can be followed."""
    if not c.observed:
        pytest.skip("what a linker reads is known by observation alone")
    if not c.is_gcc and shutil.which("ld.lld") is None:
        pytest.skip("no ld.lld")
    c.write("a.c", "int half(int);\nint main(int n, char **v) { return half(n); }\n")
    compiled(c, "b", "int half(int x) { return x / 2; }\n")
    compiled(c, "a")
    return c


def compiled(c, name: str, text: str = "") -> None:
    if text:
        c.write(f"{name}.c", text)
    subprocess.run((c.name, "-O2", "-flto", "-frandom-seed=1", "-c", f"{name}.c"), cwd=c.p, check=True)
    wait_for_the_clock()


def wait_for_the_clock() -> None:
    """What is as young as the clock's tick is waited for."""
    subprocess.run(("sleep", "0.02"), check=True)


def words(c, *more: str, name: str = "prog") -> tuple[str, ...]:
    return (*(() if c.is_gcc else ("-fuse-ld=lld",)), "-O2", "-flto", "-frandom-seed=1", "a.o", *more, "-o", c.object(name))


def test_a_program_comes_back_and_runs(linked):
    linked.compile_twice(*words(linked, "b.o"))
    program = linked.o / "prog"
    assert os.access(program, os.X_OK)
    assert subprocess.run([program, "1", "2", "3"], check=False).returncode == 2


@pytest.mark.parametrize("option", ["-flto=2", "-flto=auto"])
def test_parts_that_are_compiled_at_once_come_back_too(linked, option):
    """gcc has make run them, under our jobserver."""
    if not linked.is_gcc:
        option = "-flto=thin"
    args = words(linked, "b.o", option, *(("-flto-partition=1to1",) if linked.is_gcc else ()))
    linked.compile_twice(*args)
    with tempfile.NamedTemporaryFile():  # make lists the directory of its targets
        linked.expect("hit", *args)


def test_another_object_makes_another_program(linked):
    def other() -> None:
        compiled(linked, "b", "int half(int x) { return x / 3; }\n")

    def before() -> None:
        compiled(linked, "b", "int half(int x) { return x / 2; }\n")

    linked.changes(other, before, *words(linked, "b.o"))


def test_what_is_in_a_library_decides_and_a_library_that_is_found_first(linked):
    def archive(directory: str, text: str) -> None:
        compiled(linked, "b", text)
        (linked.p / directory).mkdir(exist_ok=True)
        subprocess.run(("gcc-ar" if linked.is_gcc else llvm_ar(), "rcs", f"{directory}/libb.a", "b.o"), cwd=linked.p, check=True)
        wait_for_the_clock()

    archive("two", "int half(int x) { return x / 2; }\n")
    args = words(linked, "-Lone", "-Ltwo", "-lb")
    linked.compile_twice(*args)
    archive("two", "int half(int x) { return x / 5; }\n")
    linked.expect("miss", *args)
    archive("one", "int half(int x) { return x / 7; }\n")
    linked.expect("miss", *args)
    shutil.rmtree(linked.p / "one")
    linked.expect("hit", *args)


def llvm_ar() -> str:
    found = shutil.which("llvm-ar") or shutil.which("llvm-ar-14")
    if found is None:
        pytest.skip("no llvm-ar")
    return found


def test_what_else_a_linker_reads_and_writes(linked):
    """A version script, and a map beside the program, in which ld names temporary files."""
    linked.write("v.map", "{ global: half; local: *; };\n")
    more = () if linked.is_gcc else (f"-Wl,-Map={linked.object('prog.map')}",)
    args = words(linked, "b.o", "-shared", "-fPIC", "-Wl,--version-script=v.map", *more)
    assert len(linked.compile_twice(*args).names()) == 1 + len(more)
    linked.write("v.map", "{ global: main; half; local: *; };\n")
    linked.expect("miss", *args)


def test_a_link_that_fails_says_so_again_and_leaves_nothing(linked):
    for _ in range(2):
        done = linked.expect("fail", *words(linked, "c.o"))
        assert done.status != 0
        assert "prog" not in done.names()


def test_other_links_are_no_compiles(linked):
    """Without -flto, with a source, with -r, with what is said by -x."""
    for args in (
        ("a.o", "b.o", "-o", linked.object("prog")),
        words(linked, "b.o", "-fno-lto"),
        words(linked, "b.c"),
        ("-x", "none", *words(linked, "b.o", "-r")) if linked.is_gcc else ("a.o", "b.o", "-o", linked.object("prog")),
    ):
        linked.expect("pass", *args)


@pytest.mark.parametrize(
    "word", ["-Wl,--stats", "-Wl,--as-needed,--time-trace", "-Wl,--thinlto-cache-dir=kept", "-Wl,-plugin-opt,cache-dir=kept"]
)
def test_how_long_this_link_took_and_a_cache_of_the_linkers_own_are_not_kept(linked, word):
    """The one would be told again, the other come back in files that everybody may read."""
    if linked.is_gcc and word != "-Wl,--stats":
        pytest.skip("lld's")
    before = linked.world.counts()
    for _ in range(2):
        assert linked.world.cached(*words(linked, "b.o", word), rustc=linked.name).status in (0, 1)  # not every lld knows it
    assert linked.world.reasons() == {"-Wl,": 2}
    assert linked.world.counts().get("cache_hits", 0) == before.get("cache_hits", 0)
