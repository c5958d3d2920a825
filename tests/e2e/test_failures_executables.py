"""A program that a hit brings back is executed a moment later: cargo does so with every build script."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package

from stage import World, rustc, world

from sccache_py.server.filesystem.files import publish, write_all

__all__ = ["world"]  # fixtures

pytestmark = pytest.mark.slow


def test_a_program_that_is_written_while_others_start_can_be_executed_at_once(tmp_path: Path) -> None:
    """One of twenty could not: a process that was being started still had our descriptor, for some milliseconds, and it was ETXTBSY."""
    program = Path("/bin/true").read_bytes() + bytes(4 << 20)
    ended = threading.Event()

    def start_others() -> None:
        while not ended.is_set():
            subprocess.run(["/bin/true"], check=True)

    others = threading.Thread(target=start_others)
    others.start()
    try:
        for i in range(150):
            path = tmp_path / f"program{i % 2}"
            publish(str(path), 0o755, lambda fd: write_all(fd, program), len(program))
            subprocess.run([path], check=True)
    finally:
        ended.set()
        others.join()


def test_a_build_script_from_the_cache_runs_while_others_compile(world: World) -> None:
    """Two builds at once from an empty cache: of one the build failed, "Text file busy"."""
    (world.cwd / "script.rs").write_text("fn main() {}\n")
    (world.cwd / "unit.c").write_text("int answer;\n")

    def link(number: int) -> list[str]:
        return [rustc(), "--crate-name=script", "--crate-type=bin", "--out-dir", f"{world.out}/{number}", "script.rs"]

    (world.out / "0").mkdir()
    assert world.run(*link(0)).returncode == 0
    world.settle()
    ended = threading.Event()
    broken: list[Exception] = []

    def compile_others(number: int) -> None:
        compiled = 0
        while not ended.is_set():
            compiled += 1
            world.run("gcc", "-c", f"-DN={number}{compiled}", "unit.c", "-o", f"{world.out}/unit{number}.o")

    def build(number: int) -> None:
        for _ in range(25):
            shutil.rmtree(world.out / str(number), ignore_errors=True)
            (world.out / str(number)).mkdir()
            try:
                assert world.run(*link(number)).returncode == 0
                subprocess.run([world.out / str(number) / "script"], check=True)
            except (OSError, AssertionError) as e:
                broken.append(e)

    others = [threading.Thread(target=compile_others, args=(n,)) for n in range(4)]
    builders = [threading.Thread(target=build, args=(n,)) for n in range(1, 3)]
    for thread in (*others, *builders):
        thread.start()
    for thread in builders:
        thread.join()
    ended.set()
    for thread in others:
        thread.join()
    assert broken == []
    assert world.counts().total("cache_hits") >= 50
