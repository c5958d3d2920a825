"""What a C compile leaves beside its object comes back, under the names that it has for this call."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package

from c_world import one_compiler, shared_server  # noqa: F401 - fixtures

pytestmark = pytest.mark.slow

ONE = "int f(int x) { return x + 1; }\n"


def test_coverage_for_fuzzers_names_no_object(c):
    """Linux built for syzkaller says it in every compile."""
    for place in ("one", "two"):
        c.write(f"{place}/x.c", ONE)
    args = ("-fsanitize-coverage=trace-pc,trace-cmp", "-c", "x.c", "-o")
    reason = "C without observation: -fsanitize-coverage" if c.is_gcc else "C without observation: -fsanitize"
    if c.left_out(reason, *args, c.object(), cwd=c.p / "one"):
        return
    c.expect("miss", *args, c.object(), cwd=c.p / "one")
    c.expect("hit", *args, c.object("y.o"), cwd=c.p / "two")


@pytest.mark.parametrize("source", [ONE, "int data;\n"], ids=["with a function", "without"])
def test_stack_usage_goes_beside_another_object(c, source):
    """Firmware builds ask for it in every compile; clang leaves no file where no function is."""
    for place in ("one", "two"):
        c.write(f"{place}/x.c", source)
    args = ("-fstack-usage", "-c", "x.c", "-o")
    if c.left_out("C without observation: -fstack-usage", *args, c.object(), cwd=c.p / "one"):
        return
    c.expect("miss", *args, c.object(), cwd=c.p / "one")
    done = c.expect("hit", *args, c.object("y.o"), cwd=c.p / "two")
    assert ("y.su" in done.names()) == (c.is_gcc or source == ONE)
    c.expect("miss", *args, c.object("y"), cwd=c.p / "two")


def test_files_that_are_called_after_an_output_that_is_not_written_keep_its_name(c):
    """gcc calls dumps by -o where it only checks the syntax, too."""
    if not c.is_gcc:
        pytest.skip("gcc's")
    c.write("x.c", ONE)
    args = ("-fsyntax-only", "-fstack-usage", "-c", "x.c", "-o")
    if c.left_out("C without observation: -fstack-usage", *args, "a.o"):
        return
    for name in ("a", "b"):
        c.expect("miss", *args, f"{name}.o")
        (c.p / f"{name}.su").unlink()
        c.expect("hit", *args, f"{name}.o")
        assert (c.p / f"{name}.su").exists()


def test_files_beside_the_object_come_back(c):
    """They are seen, not guessed: split dwarf, coverage notes, stack usage."""
    c.write("x.c", ONE)
    args = ("-g", "-gsplit-dwarf", "--coverage", "-fstack-usage", "-frandom-seed=1", "-c", "x.c", "-o", c.object())
    if c.left_out("C without observation: -gsplit-dwarf", *args):
        return
    done = c.compile_twice(*args)
    assert {"x.o", "x.dwo", "x.gcno", "x.su"} <= done.names()


@pytest.mark.parametrize(
    ("name", "words", "made"),
    [
        ("gcc", ("-O2", "-fdump-tree-optimized", "-fdump-tree-original=asked.txt"), "asked.txt"),
        ("gcc", ("-fdump-rtl-expand", "-dA"), None),
        ("gcc", ("-aux-info", "sub/x.proto"), "sub/x.proto"),
        ("clang", ("-Wall", "--serialize-diagnostics", "x.dia"), "x.dia"),
        ("clang", ("-O2", "-foptimization-record-file=sub/x.yaml"), "sub/x.yaml"),
        ("clang", ("-O2", "-foptimization-record-passes=inline"), None),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_files_of_other_names_come_back(c, name, words, made):
    """What dumps, records and diagnostics are for is to be read by another program, which does not ask where they come from."""
    if c.name != name:
        pytest.skip(f"{name}'s")
    c.write("x.c", "int f(int x) { int unused; return x * 2; }\n")
    c.write("sub/there", "")
    names = ("-fdump", "-aux-info", "--serialize-diagnostics", "-foptimization-record-file=", "-foptimization-record-passes=")
    option = next(name for name in names if name in " ".join(words))
    args = (*words, "-c", "x.c", "-o", c.object())
    if c.left_out(f"C without observation: {option}", *args):
        return
    c.expect("miss", *args)
    plain = (c.p / made).read_bytes() if made else b""
    if made:
        (c.p / made).unlink()
    c.expect("hit", *args)
    assert made is None or (c.p / made).read_bytes() == plain
    c.expect("miss", *args[:-1], c.object("y.o"))
