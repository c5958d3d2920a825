"""Which process group stands still, and when it goes on."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sccache_py.server.running import room
from sccache_py.server.running.room import Room


@pytest.fixture
def groups() -> Iterator[list[int]]:
    sleepers = [subprocess.Popen(["sleep", "1000"], process_group=0) for _ in range(2)]
    yield [sleeper.pid for sleeper in sleepers]
    for sleeper in sleepers:
        sleeper.kill()
        sleeper.wait()


def stopped(groups: list[int]) -> list[bool]:
    """proc(5), stat."""
    return [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T" for pid in groups]


async def becomes(groups: list[int], expected: list[bool]) -> None:
    """A signal is sent at once, and taken when its receiver runs next."""
    async with asyncio.timeout(30):
        while stopped(groups) != expected:
            await asyncio.sleep(0.001)


def made(groups: list[int]) -> Room:
    found = Room()
    for group in groups:
        found.began(group)
    return found


def test_the_last_one_stands_still_for_the_length_of_the_block(groups):
    async def run() -> None:
        with made(groups).made():
            await becomes(groups, [False, True])
        await becomes(groups, [False, False])

    asyncio.run(run())


def test_it_goes_on_when_another_ends(groups, monkeypatch):
    monkeypatch.setattr(room, "_LONGEST_S", 1000.0)

    async def run() -> None:
        one = made(groups)
        with one.made():
            await becomes(groups, [False, True])
            one.ended(groups[0])
            await becomes(groups, [False, False])

    asyncio.run(run())


def test_it_goes_on_after_a_while(groups, monkeypatch):
    monkeypatch.setattr(room, "_LONGEST_S", 1.0)

    async def run() -> None:
        with made(groups).made():
            await becomes(groups, [False, True])
            await becomes(groups, [False, False])

    asyncio.run(run())


def test_a_row_of_checks_takes_turns(groups):
    async def run() -> None:
        one = made(groups)
        with one.made():
            await becomes(groups, [False, True])
            await asyncio.sleep(0.05)
        with one.made():
            await becomes(groups, [True, False])
            await asyncio.sleep(0.5)
        with one.made():
            await becomes(groups, [False, True])

    asyncio.run(run())


def test_what_is_reaped_is_left_alone(groups):
    """Its number may be another's."""

    async def run() -> None:
        one = made(groups)
        one.ended(groups[1])
        with one.made():
            await becomes(groups, [True, False])
        one.ended(groups[0])
        with one.made():
            await asyncio.sleep(0.01)
            assert stopped(groups) == [False, False]

    asyncio.run(run())
