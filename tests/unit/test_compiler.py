"""Is it still that compiler?"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from sccache_py.compilers.rustc import Rustc
from sccache_py.elf import Image
from sccache_py.server.filesystem.files import FileMemo
from sccache_py.server.filesystem.sight import Sight
from sccache_py.server.filesystem.watch import Watcher
from sccache_py.server.toolchains import compiler
from sccache_py.server.toolchains.compiler import Compiler, stamp


def a_compiler(files: list[str]) -> Compiler:
    stamps = [(file, stamp(file)) for file in files]
    return Compiler("rustc", Rustc(), b"", (), Image(0, "", ""), False, False, stamps=stamps)


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
