"""What a build stored is looked up behind it: the next build's first look is then like all later ones."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import pytest

from sccache_py.compilers.rustc import Rustc
from sccache_py.keys import digest
from sccache_py.model import Plan, Variant
from sccache_py.server.filesystem.files import FileMemo
from sccache_py.server.filesystem.watch import Watcher
from sccache_py.server.hit import rehearsal
from sccache_py.server.hit.rehearsal import Rehearsal
from sccache_py.server.process import quiet


def stored(tmp_path: Path) -> tuple[Plan, Variant]:
    """Of a compile that read one header."""
    header = tmp_path / "a.h"
    header.write_text("a")
    plan = Rustc().parse(["--crate-name", "x", "--out-dir", "/o", "x.rs"], str(tmp_path), str(tmp_path))
    assert isinstance(plan, Plan)
    return plan, Variant([(str(header), digest(b"a"))], [], [], [], [("SET", "1"), ("UNSET", None)], [], result=b"r")


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0.002)


def test_what_was_stored_is_looked_up_when_nobody_builds(tmp_path, monkeypatch):
    monkeypatch.setattr(rehearsal, "QUIET_S", 0.001)
    monkeypatch.setattr(quiet, "_LOOK_EVERY_S", 0.001)
    plan, variant = stored(tmp_path)
    watcher = Watcher()
    memo = FileMemo(watcher)
    for _ in range(2):
        watcher.wish(variant.files[0][0])
    watcher.watch_all()
    builds = True

    async def build() -> None:
        nonlocal builds
        rehearsed = Rehearsal(memo, quiet.Quiet(lambda: builds))
        rehearsed.note(plan, variant)
        await turns(10)
        assert memo.steady(variant) is None
        builds = False
        await turns(20)
        found = memo.steady(variant)
        assert found is not None
        assert found.rest.files == []
        other = dataclasses.replace(variant, result=b"other")
        rehearsed.note(plan, other)  # a second build
        await turns(20)
        assert memo.steady(other) is not None

    try:
        if not watcher.stamps:
            pytest.skip("nothing can be watched here")
        asyncio.run(build())
    finally:
        watcher.close()


def test_what_waits_is_bounded(tmp_path, monkeypatch):
    """The oldest is left to the build that asks for it."""
    monkeypatch.setattr(rehearsal, "_MOST", 2)
    plan, variant = stored(tmp_path)

    async def build() -> None:
        rehearsed = Rehearsal(FileMemo(), quiet.Quiet(lambda: True))
        for name in (b"1", b"2", b"3"):
            rehearsed.note(plan, dataclasses.replace(variant, result=name))
        assert list(rehearsed._waiting) == [b"2", b"3"]

    asyncio.run(build())
