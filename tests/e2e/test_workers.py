"""Hit workers: processes that answer hits beside the owner, on the same socket."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from typing import Any

import pytest

pytestmark = pytest.mark.slow

LIB = ("--crate-name", "x", "--crate-type", "lib", "--emit=dep-info,metadata,link")
PATIENCE_S = 60


@pytest.fixture
def crowd(make_world) -> Any:
    """A world whose server has two workers."""
    world = make_world(SCCACHE_WORKERS="2")
    world.write("x.rs", "pub fn f() -> u32 { 1 }\n")
    return world


def owner(world: Any) -> int:
    pid: int = world.control("ping")["pid"]
    return pid


def workers(world: Any) -> set[int]:
    with open(f"/proc/{owner(world)}/task/{owner(world)}/children") as f:
        return {int(pid) for pid in f.read().split() if is_alive(pid)}


def is_alive(pid: str) -> bool:
    """A worker that was killed is a child until the owner has reaped it."""
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def descriptors(pid: int) -> list[str]:
    found = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/{pid}/fd/{name}"))
    return found


def wait_until_it_serves(pid: int) -> None:
    """It has an event loop, and has said before that it is to die with its owner."""
    give_up = time.monotonic() + PATIENCE_S
    while "anon_inode:[eventpoll]" not in descriptors(pid):
        assert time.monotonic() < give_up, f"{pid} does not begin"
        time.sleep(0.01)


def wait_for_end(pid: int) -> None:
    """Until a process that is not our child has ended."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([fd], [], [], PATIENCE_S)[0], f"{pid} lives on"
    finally:
        os.close(fd)


def test_a_hit_is_answered_while_the_owner_stands_still(crowd: Any) -> None:
    """The point of workers: a hit needs nothing that only the owner has."""
    args = (*LIB, *crowd.out, "x.rs")
    crowd.cached(*args)
    assert crowd.counts()["cache_misses"] == 1
    pid = owner(crowd)
    os.kill(pid, signal.SIGSTOP)
    try:
        done = crowd.cached(*args)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert done.status == 0
    assert done.names() == {"libx.rlib", "libx.rmeta", "x.d"}
    assert crowd.counts()["cache_hits"] == 1


def test_misses_are_handed_to_the_owner_and_everything_is_counted_once(crowd: Any) -> None:
    """A worker has no tokens: what it cannot answer it passes on with the bytes that it has read."""
    for number in range(12):
        crowd.write("x.rs", f"pub fn f() -> u32 {{ {number} }}\n")
        assert crowd.cached(*LIB, *crowd.out, "x.rs").status == 0
    for number in range(12):
        crowd.write("x.rs", f"pub fn f() -> u32 {{ {number} }}\n")
        assert crowd.cached(*LIB, *crowd.out, "x.rs").status == 0
    counts = crowd.counts()
    assert (counts["compile_requests"], counts["cache_misses"], counts["cache_hits"]) == (24, 12, 12)


def test_workers_go_when_the_owner_is_killed(crowd: Any) -> None:
    """Nothing may stay behind and answer for a server that is gone."""
    crowd.cached(*LIB, *crowd.out, "x.rs")
    pid, helpers = owner(crowd), workers(crowd)
    assert len(helpers) == 2
    os.kill(pid, signal.SIGKILL)
    for helper in helpers:
        wait_for_end(helper)
    crowd.pids.discard(pid)
    assert crowd.cached(*LIB, *crowd.out, "x.rs").status == 0
    crowd.note_server()


def test_workers_that_stand_still_go_with_an_owner_that_does(crowd: Any) -> None:
    """They hold the socket: clients would go on to connect to it, and to wait for them."""
    args = (*LIB, *crowd.out, "x.rs")
    crowd.cached(*args)
    pid, helpers = owner(crowd), workers(crowd)
    for helper in helpers:
        wait_until_it_serves(helper)
    for process in (*helpers, pid):
        os.kill(process, signal.SIGSTOP)
    assert crowd.cached(*args).status == 0
    for process in (*helpers, pid):
        wait_for_end(process)
    crowd.pids.discard(pid)
    assert crowd.cached(*args).status == 0
    crowd.note_server()


def test_a_worker_that_dies_is_replaced_and_nobody_notices(crowd: Any) -> None:
    """A crash costs the hits that were under way, nothing else."""
    args = (*LIB, *crowd.out, "x.rs")
    crowd.cached(*args)
    before = workers(crowd)
    for helper in before:
        os.kill(helper, signal.SIGKILL)
        wait_for_end(helper)
    assert crowd.cached(*args).status == 0
    assert crowd.counts()["cache_hits"] == 1
    after = workers(crowd)
    assert len(after) == 2
    assert not after & before


def test_what_was_stored_anew_is_what_every_worker_hands_out(crowd: Any) -> None:
    """SCCACHE_RECACHE is how one gets rid of a result: who remembers it must not bring it back."""
    crowd.write("a.h", "int a;\n")
    args = ("a.h", "-o", str(crowd.o / "a.gch"))  # gcc makes no two that are alike

    def handed_out_by_workers() -> list[Any]:
        give_up = time.monotonic() + PATIENCE_S
        while crowd.control("ping")["storing"]:
            assert time.monotonic() < give_up
        pid = owner(crowd)
        os.kill(pid, signal.SIGSTOP)
        try:
            return [crowd.cached(*args, rustc="gcc").files for _ in range(8)]
        finally:
            os.kill(pid, signal.SIGCONT)

    first = crowd.cached(*args, rustc="gcc").files
    assert handed_out_by_workers() == [first] * 8
    second = crowd.cached(*args, rustc="gcc", env={"SCCACHE_RECACHE": "1"}).files
    assert second != first
    assert handed_out_by_workers() == [second] * 8


def test_stopping_the_server_stops_its_workers(crowd: Any) -> None:
    """`--stop-server` in a container's last command: what is still running then is killed."""
    crowd.cached(*LIB, *crowd.out, "x.rs")
    helpers = workers(crowd)
    pid = owner(crowd)
    crowd.control("stop")
    for helper in (*helpers, pid):
        wait_for_end(helper)
