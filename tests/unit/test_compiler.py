"""Is it still that compiler?"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from sccache_py.compilers.rustc import Rustc
from sccache_py.elf import Image
from sccache_py.model import Request
from sccache_py.server.filesystem.files import FileMemo
from sccache_py.server.filesystem.sight import Sight
from sccache_py.server.filesystem.watch import Watcher
from sccache_py.server.toolchains import c_toolchain, compiler
from sccache_py.server.toolchains.compiler import Compiler, stamp, startup_libraries


def a_compiler(files: list[str]) -> Compiler:
    stamps = [(file, stamp(file)) for file in files]
    return Compiler("rustc", Rustc(), b"", (), Image(0, "", ""), False, False, stamps=stamps)


def a_request(program: str, cwd: Path) -> Request:
    env = {"PATH": os.environ["PATH"]}
    return Request([program, "-c", "x.c"], program, str(cwd), env, 0o022, 0, [], 7, 0, (0, 0), (0, 0), b"", 0, 0)


def test_what_is_watched_by_now_is_not_looked_at_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only what was when the first request came."""
    files = [str(tmp_path / f"lib{i}.so") for i in range(30)]
    for file in files:
        Path(file).write_text("a library")
    time.sleep(0.05)
    watcher = Watcher()
    memo = FileMemo(watcher)
    subject = a_compiler(files)
    assert subject.still_is(Sight(memo))
    for _ in range(3):
        for file in files:
            watcher.wish(file)
        watcher.watch_all()
    time.sleep(compiler._RECHECK_S)
    assert subject.still_is(Sight(memo))
    asked: list[str] = []
    with_stamp = Sight.stamp
    monkeypatch.setattr(Sight, "stamp", lambda sight, path: asked.append(path) or with_stamp(sight, path))
    assert subject.still_is(Sight(memo))
    assert not asked
    monkeypatch.undo()
    Path(files[20]).write_text("another library")
    time.sleep(compiler._RECHECK_S)
    assert not subject.still_is(Sight(memo))
    watcher.close()


# Real ones, but for one answer.
KILLED = """#!/bin/sh
case "$*" in *{asked}*) if mkdir {once} 2>/dev/null; then kill -9 $$; fi;; esac
exec {real} "$@"
"""


@pytest.mark.parametrize("asked", ["-print-prog-name=cc1", "-print-prog-name=as", "-dM"])
def test_a_compiler_whose_answer_was_killed_is_not_known_by_less(tmp_path: Path, asked: str) -> None:
    """Where memory ran out, its cc1 was in no identity: another one in its place was the same compiler."""
    real = shutil.which("gcc")
    if real is None:
        pytest.skip("no gcc")
    program = tmp_path / "gcc"
    program.write_text(KILLED.format(asked=asked, once=tmp_path / "once", real=real))
    program.chmod(0o755)
    request = a_request(str(program), tmp_path)
    with pytest.raises(subprocess.CalledProcessError):
        c_toolchain.identify(request, lambda: Sight(FileMemo()))
    found = c_toolchain.identify(request, lambda: Sight(FileMemo()))
    assert isinstance(found, Compiler)
    assert any(os.path.basename(path) == "cc1" for path, _ in found.stamps)


def test_where_no_descriptor_is_left_the_libraries_of_a_compiler_are_not_none(tmp_path: Path) -> None:
    """They are half of its identity, and it would be remembered without."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    request = a_request("/bin/sh", tmp_path)
    lowest = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 1, limit[1]))
        with pytest.raises(OSError, match="Too many open files"):
            startup_libraries(request, "/bin/sh")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    assert startup_libraries(request, "/bin/sh")
