"""What is watched, and whatever can be done to a tree: a stat that is vouched for is what os.stat says."""

from __future__ import annotations

import ctypes
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sccache_py.server.filesystem.stamps import stamp_of
from sccache_py.server.filesystem.watch import Watcher


def exchange(path: str, other: str) -> None:
    """Both are there all the time: renameat2(2), RENAME_EXCHANGE."""
    if ctypes.CDLL(None, use_errno=True).renameat2(-100, os.fsencode(path), -100, os.fsencode(other), 2) < 0:
        raise OSError(ctypes.get_errno(), "renameat2")


FILES = ("f0", "f1", "l0/f0", "../f0", "e0", "..", "l0/..", ".", "/f0", "/l0", "l1//f1")


class World:
    """A small tree to which random things are done."""

    def __init__(self, top: Path, seed: int) -> None:
        self.top = str(top)
        self.random = random.Random(seed)
        self.directories = [f"{self.top}/{d}" for d in ("d0", "d1", "d0/e0", "d0/e1", "l0", "l1")]
        self.paths = [f"{d}/{f}" for d in self.directories for f in FILES]
        self.paths += self.directories
        for directory in self.directories[:4]:
            os.mkdir(directory)

    def step(self) -> str:
        """Returns what was tried; most of it may fail."""
        path, other = (self.random.choice(self.paths) for _ in range(2))
        directory, other_directory = (self.random.choice(self.directories) for _ in range(2))
        done: dict[str, Callable[[], object]] = {
            "mkdir": lambda: os.mkdir(directory),
            "write": lambda: self._write(path, "w"),
            "append": lambda: self._write(path, "a"),
            "rename": lambda: os.rename(path, other),
            "rename directory": lambda: os.rename(directory, other_directory),
            "unlink": lambda: os.unlink(self.random.choice((path, directory))),
            "exchange": lambda: exchange(path, other),
            "exchange directories": lambda: exchange(directory, other_directory),
            "rmtree": lambda: shutil.rmtree(directory),
            "link": lambda: os.link(path, other),
            "symlink": lambda: os.symlink(self.random.choice((directory, path, "../d1", "f0", "..", "e0")), other),
            "symlink directory": lambda: os.symlink(self.random.choice(("d0", "d1", f"{self.top}/d0/e0", "l1")), directory),
            "chmod": lambda: os.chmod(path, self.random.choice((0o644, 0o600))),
            "utime": lambda: os.utime(path, ns=(self.random.randrange(9), self.random.randrange(9))),
            "nothing": lambda: None,
        }
        what = self.random.choices(list(done), (9, 9, 5, 5, 3, 3, 3, 3, 1, 4, 4, 4, 2, 2, 5))[0]
        try:
            done[what]()
        except (OSError, shutil.Error) as e:
            return f"{what} {path} {other} {directory} {other_directory}: {e}"
        return f"{what} {path} {other} {directory} {other_directory}"

    def _write(self, path: str, mode: str) -> None:
        with open(path, mode) as f:
            f.write(self.random.choice("xyz"))


@pytest.mark.parametrize("seed", range(6))
def test_whatever_is_done_a_vouched_stat_is_the_true_one(tmp_path, seed):
    """At any moment, for any spelling of a path; a wrong one would be a wrong hit."""
    world, watcher, vouched_for, log = World(tmp_path, seed), Watcher(), 0, []
    try:
        for number in range(700):
            for path in world.random.choices(world.paths, k=4):
                for _ in range(2):
                    watcher.wish(path)
            if number % 3 == 0:
                watcher.watch_all()
            log.append(world.step())
            watcher.look()
            for path, stamp in list(watcher.stamps.items()):  # its own thread may add some
                try:
                    now = stamp_of(os.stat(path))
                except OSError as e:
                    pytest.fail(f"seed {seed}, step {number}: {path} is gone ({e}); {log[-8:]}")
                assert stamp == now, f"seed {seed}, step {number}: {path}; {log[-8:]}"
            vouched_for += len(watcher.stamps)
    finally:
        watcher.close()
    assert vouched_for > 100, "the test must have seen something"
