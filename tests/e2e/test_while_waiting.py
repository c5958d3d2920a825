"""What changes while a compile waits for its token is not what it was planned with: the result belongs to neither."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package

from stage import Gate, World, finish, gate, wait_until, world

__all__ = ["gate", "world"]  # fixtures

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def one_token(world: World) -> None:
    world.env["SCCACHE_JOBS"] = "1"


def meanwhile(world: World, gate: Gate, change: Callable[[], object], *argv: str) -> None:
    """The change is made while this compile waits for the only token."""
    first = world.start(*world.gated(gate))
    gate.arrived()
    waiting = world.start(*argv)
    wait_until(lambda: world.ask("stats")["surroundings"]["jobserver"]["waiting"] == 1)
    change()
    gate.let_pass()
    assert [finish(client).returncode for client in (first, waiting)] == [0, 0]
    world.settle()


def hits(world: World) -> int:
    return int(world.counts().total("cache_hits"))


def test_a_response_file_that_is_written_anew_is_another_command_line(world: World, gate: Gate) -> None:
    """A build tool that keeps one file for the words of all its calls."""
    words, source = world.cwd / "words", world.cwd / "x.c"
    source.write_text("int f(void) { return N; }\n")
    words.write_text("-DN=1")
    line = ["gcc", "-c", "x.c", "-o", "x.o", "@words"]
    meanwhile(world, gate, lambda: words.write_text("-DN=2"), *line)
    written = (world.cwd / "x.o").read_bytes()
    words.write_text("-DN=1")
    assert world.run(*line).returncode == 0
    assert (world.cwd / "x.o").read_bytes() != written
    world.settle()
    before = hits(world)
    assert world.run(*line).returncode == 0
    assert hits(world) == before + 1


def copy_of_gcc(world: World) -> tuple[Path, Path]:
    """A gcc of the test's own, and its cc1."""
    gcc = Path(os.path.realpath(shutil.which("gcc") or pytest.skip("no gcc")))
    asked = subprocess.run([gcc, "-print-prog-name=cc1"], stdout=subprocess.PIPE, text=True, check=True)
    place = Path(asked.stdout.strip()).parent
    mine = world.directory / "toolchain" / "lib" / "gcc" / place.parent.name / place.name
    mine.mkdir(parents=True)
    for part in place.iterdir():
        (mine / part.name).symlink_to(part)
    (mine / "cc1").unlink()
    shutil.copy(place / "cc1", mine / "cc1")
    (world.directory / "toolchain" / "bin").mkdir()
    return Path(shutil.copy(gcc, world.directory / "toolchain" / "bin" / "gcc")), mine / "cc1"


def test_a_compiler_that_is_replaced_is_another_compiler(world: World, gate: Gate) -> None:
    """An upgrade during a build: what the new one made is not the old one's, which may come back or be another machine's."""
    gcc, cc1 = copy_of_gcc(world)
    old, new = cc1.with_name("old"), cc1.with_name("new")
    shutil.copy(cc1, old)
    new.write_bytes(cc1.read_bytes() + b"\n")
    new.chmod(0o755)
    (world.cwd / "x.c").write_text("int f(void) { return 1; }\n")
    line = [str(gcc), "-c", "x.c", "-o", "x.o"]
    meanwhile(world, gate, lambda: os.rename(new, cc1), *line)
    os.rename(old, cc1)
    before = hits(world)
    assert world.run(*line).returncode == 0
    assert hits(world) == before
    world.settle()
    assert world.run(*line).returncode == 0
    assert hits(world) == before + 1


def test_a_working_directory_that_is_replaced_is_not_where_the_compile_was(world: World) -> None:
    """`mv tree old; mv new tree` while something compiles: what it read from then on has the old tree's new name."""
    tree, new = world.cwd / "tree", world.cwd / "new"
    for directory, value in ((tree, 1), (new, 2)):
        directory.mkdir()
        (directory / "x.c").write_text('#include "x.h"\n')
        (directory / "x.h").write_text(f"int version = {value};\n")
    script = world.directory / "stops-first-gcc"
    script.write_text('#!/bin/sh\n[ "$1" != -c ] || kill -STOP $$\nexec gcc "$@"\n')
    script.chmod(0o755)
    line = [str(script), "-c", "x.c", "-o", str(world.cwd / "x.o")]

    def replace() -> None:
        os.rename(tree, world.cwd / "old")
        os.rename(new, tree)

    first = object_with_a_change_meanwhile(world, script, replace, *line, cwd=tree)
    second = object_with_a_change_meanwhile(world, script, lambda: None, *line, cwd=tree)
    assert hits(world) == 0
    assert first != second


def stopped(program: Path) -> int | None:
    """The process of a script that has stopped itself."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words, state = (Path("/proc", pid, name).read_bytes() for name in ("cmdline", "stat"))
        except OSError:
            continue
        if os.fsencode(program) in words.split(b"\0") and state.rpartition(b")")[2].split()[0] == b"T":
            return int(pid)
    return None


def object_with_a_change_meanwhile(world: World, script: Path, change: Callable[[], object], *line: str, cwd: Path | None = None) -> bytes:
    """What a compile by a script that stops itself leaves in x.o."""
    client = world.start(*line, cwd=cwd or world.cwd)
    wait_until(lambda: stopped(script))
    change()
    os.kill(stopped(script) or 0, signal.SIGCONT)
    assert finish(client).returncode == 0
    left = (world.cwd / "x.o").read_bytes()
    world.settle()
    return left


@pytest.mark.parametrize("place", ["", "sub/"])
@pytest.mark.parametrize("is_link", [True, False])
def test_an_input_whose_name_leads_elsewhere_meanwhile_is_not_what_was_read(world: World, is_link: bool, place: str) -> None:
    """Both files are old: a release is switched by its link, a tree is replaced by a rename, while something compiles."""
    now, new = world.cwd / "now", world.cwd / "new"
    for version in ("1", "2"):
        (world.cwd / version / place).mkdir(parents=True)
        (world.cwd / version / place / "x.h").write_text(f"int version = {version};\n")

    def switch(version: str) -> None:
        if is_link:
            new.symlink_to(version)
        else:
            os.rename(world.cwd / version, new)
            if now.exists():
                os.rename(now, world.cwd / "old")
        os.rename(new, now)

    switch("1")
    script = world.directory / "stops-gcc"
    script.write_text('#!/bin/sh\ngcc "$@" && [ "$1" != -c ] || kill -STOP $$\n')
    script.chmod(0o755)
    (world.cwd / "x.c").write_text(f'#include "now/{place}x.h"\n')
    line = [str(script), "-c", "x.c", "-o", "x.o"]
    first = object_with_a_change_meanwhile(world, script, lambda: switch("2"), *line)
    second = object_with_a_change_meanwhile(world, script, lambda: None, *line)
    assert hits(world) == 0
    assert first != second
    assert world.run(*line).returncode == 0
    assert hits(world) == 1
