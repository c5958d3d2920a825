"""Memory that a build needed goes back.  In a process of its own each: the heap of this one is everybody's."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="what it does is glibc's")

RESIDENT = """
import os
from sccache_py.server.process import heap
def resident_mb():
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20
"""


def run(program: str) -> str:
    return subprocess.run([sys.executable, "-c", RESIDENT + program], stdout=subprocess.PIPE, text=True, check=True).stdout


def test_free_memory_between_what_is_still_used_goes_back() -> None:
    program = """
large = bytearray(16 << 20)  # from now on blocks up to this size come from the heap
del large
before = resident_mb()
blocks = [bytearray(1 << 20) for _ in range(65)]
last = blocks.pop()  # above all others
del blocks
held = resident_mb() - before
heap.give_back()
print(held, resident_mb() - before)
"""
    held, left = map(int, run(program).split())
    assert held >= 60, "this tests nothing: the C library gave it back by itself"
    assert left <= 8


@pytest.mark.parametrize("shared", [False, True])
def test_threads_share_one_arena(shared: bool) -> None:
    program = f"""
import ctypes, threading
{"heap.share_arena()" if shared else ""}
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
meet = threading.Barrier(4)
def work():
    meet.wait()
    places.append(libc.malloc(100_000) >> 26)  # an arena of a thread's own is 64 MiB, aligned
    meet.wait()
places = [libc.malloc(100_000) >> 26]
threads = [threading.Thread(target=work) for _ in range(4)]
for t in threads: t.start()
for t in threads: t.join()
spread = [p for p in places if abs(p - places[0]) > 2]
print(len(spread))
"""
    assert (run(program).strip() == "0") == shared
