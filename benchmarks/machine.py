"""The machine that measures: what it is, how busy it is, and what processes use of it."""

from __future__ import annotations

import mmap
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

# A server counts as at rest when it used less than this share of a processor.
_REST_SHARE = 0.02

# Linux's number (asm-generic/mman.h); Python's mmap names it from 3.10.1 on, where the C library does.
_MAP_POPULATE = 0x8000


def describe() -> dict[str, object]:
    """Nothing in it names this very machine."""
    model = ""
    memory_kb = 0
    for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal"):
            memory_kb = int(line.split()[1])
    return {
        "processor": model or platform.machine(),
        "processors": processors(),
        "memory_gb": round(memory_kb / 1e6, 1),
        "kernel": platform.release().split("-")[0],
        "file_system": _file_system(Path(__file__).parent),
        "python": platform.python_version(),
    }


def _file_system(path: Path) -> str:
    best, kind = "", "?"
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, fs, *_ = line.split()
        if (path == Path(place) or Path(place) in path.parents) and len(place) >= len(best):
            best, kind = place, fs
    return kind


def processors() -> int:
    return len(os.sched_getaffinity(0))


def load() -> float:
    """Mean number of running processes over the last minute."""
    return os.getloadavg()[0]


def first_line(argv: Sequence[str]) -> str:
    """What a program says of its version; empty if it cannot be asked."""
    if shutil.which(argv[0]) is None:
        return ""
    said = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60, check=False)
    return (said.stdout or said.stderr).strip().partition("\n")[0]


def processes_of(*rooms: Path) -> list[int]:
    """Processes whose command line or first environment names one of these directories, us excepted."""
    marks = [os.fsencode(room) for room in rooms]
    found = []
    for place in Path("/proc").iterdir():
        if not place.name.isdigit() or int(place.name) == os.getpid():
            continue
        try:
            text = (place / "cmdline").read_bytes() + (place / "environ").read_bytes()
            state = (place / "stat").read_text(errors="replace").rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state != "Z" and any(mark in text for mark in marks):
            found.append(int(place.name))
    return found


def cpu_seconds(pids: Iterable[int]) -> float:
    """Processor time of live processes with all their threads.  From schedstat where there is one: stat counts in 10 ms."""
    total = 0.0
    for pid in pids:
        try:
            for task in Path(f"/proc/{pid}/task").iterdir():
                total += int((task / "schedstat").read_text().split()[0]) / 1e9
        except (OSError, ValueError, IndexError):
            continue
    return total


def rss_bytes(pids: Iterable[int]) -> int:
    total = 0
    for pid in pids:
        try:
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("VmRSS"):
                    total += int(line.split()[1]) * 1024
        except OSError:
            continue
    return total


def disk_bytes(directory: Path) -> int:
    """What the files below a directory occupy; hard links once."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for place, _, names in os.walk(directory):
        for name in names:
            try:
                st = os.lstat(os.path.join(place, name))
            except OSError:
                continue
            if (st.st_dev, st.st_ino) not in seen:
                seen.add((st.st_dev, st.st_ino))
                total += st.st_blocks * 512
    return total


def wait_for_rest(pids: Sequence[int], limit_s: float = 30.0) -> None:
    """Until servers have stored what they still had to store."""
    end = time.monotonic() + limit_s
    while pids and time.monotonic() < end:
        before = cpu_seconds(pids)
        time.sleep(0.3)
        if cpu_seconds(pids) - before < 0.3 * _REST_SHARE:
            return


def touch_memory(share: float = 0.15, most: int = 4 << 30) -> None:
    """Have the host back free memory with real pages.

    In a virtual machine the first write to a page that the host has taken back costs ten times as much as the next (seen: 0.4
    against 3.5 GB/s), and which contender meets such pages is chance.  After this nobody does, for some seconds.
    """
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemFree"):
            size = min(int(int(line.split()[1]) * 1024 * share), most)
            mmap.mmap(-1, max(size, mmap.PAGESIZE), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_POPULATE).close()


def pin(pids: Iterable[int], processors: set[int]) -> None:
    """All threads of these processes."""
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), processors)
