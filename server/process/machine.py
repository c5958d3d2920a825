"""What is true of this machine, or of the container that we are in, and not of others."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Collection
from pathlib import Path

from sccache_py.keys import KeyHash

# Fields of /proc/cpuinfo that say which instructions there are, by architecture (x86, arm, s390, riscv).
_FEATURE_FIELDS = ("vendor_id", "cpu family", "model", "flags", "Features", "CPU implementer", "CPU part", "features", "isa")


# What gcc's -march=native says of caches in its --param options, which debug information repeats.
_CACHE_FIELDS = ("level", "type", "size", "coherency_line_size")


# The inode of the PID namespace in which the machine's own init runs, <linux/proc_ns.h>.
_FIRST_PID_NAMESPACE = 0xEFFFFFFC


def nobody_else_lives(children: Collection[int]) -> bool:
    """Whether this PID namespace has no processes but its init and us with our children, so far as /proc says: nobody can call us then.

    bubblewrap's init stays as long as we do, and so does who reads what was said in there: `bwrap --unshare-all make | tee log`.
    """
    try:
        if os.stat("/proc/self/ns/pid").st_ino == _FIRST_PID_NAMESPACE or os.readlink("/proc/self") != str(os.getpid()):
            return False
        return {int(name) for name in os.listdir("/proc") if name.isdigit()} <= {1, os.getpid(), *children}
    except OSError:
        return False


def is_traced() -> bool:
    """Whether somebody traces us.  Who traces a whole tree (`strace -f make`, proot) waits for its daemons, too.  proc_pid_status(5)."""
    with contextlib.suppress(OSError, ValueError), open("/proc/self/status", encoding="utf-8", errors="replace") as f:
        return any(int(line.split()[1]) for line in f if line.startswith("TracerPid:"))
    return False


@functools.cache
def processor_features(cpuinfo: str = "/proc/cpuinfo", caches: str = "/sys/devices/system/cpu/cpu0/cache") -> bytes:
    """A digest of the processor's features, for compiles with target-cpu=native or -march=native.

    caches: a directory with a directory `index…` for each (Documentation/ABI/testing/sysfs-devices-system-cpu, `cpuX/cache`).
    """
    found = KeyHash()
    with contextlib.suppress(OSError), open(cpuinfo, encoding="utf-8", errors="replace") as f:
        seen = set()
        for line in f:
            name, _, value = line.partition(":")
            if name.strip() in _FEATURE_FIELDS and (name, value) not in seen:
                seen.add((name, value))
                found.field(name.strip(), value.strip().encode())
    for path in sorted(Path(caches).glob("index*")):
        for name in _CACHE_FIELDS:
            with contextlib.suppress(OSError):
                found.field(name, (path / name).read_bytes().strip())
    return found.key()


def processors() -> int:
    """How many processors this process may use, by affinity and by the cgroup's quota (cgroup v2: cpu.max)."""
    count = len(os.sched_getaffinity(0))
    try:
        with open("/proc/self/cgroup", encoding="ascii", errors="replace") as f:
            path = next((line.split("::", 1)[1].strip() for line in f if line.startswith("0::")), "/")
        while True:
            with contextlib.suppress(FileNotFoundError), open(f"/sys/fs/cgroup{path}/cpu.max", encoding="ascii") as f:
                quota, period = f.read().split()
                if quota != "max":
                    count = min(count, max(1, -(-int(quota) // int(period))))
            if path in ("/", ""):
                break
            path = os.path.dirname(path)
    except (OSError, ValueError, IndexError):
        pass
    return max(1, count)


def processors_told(affinity: bytes) -> str:
    """What a macro is told that asks how many processors there are: the machine's, those of its caller (the bytes of a cpu_set_t), and
    what the cgroup leaves of them, which compilers share with the server.
    """
    return f"{os.cpu_count()} {int.from_bytes(affinity, 'little').bit_count()} {processors()}"
