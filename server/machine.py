"""What is true of this machine and not of others."""

from __future__ import annotations

import functools
import os

from sccache_py.keys import KeyHash
from sccache_py.server import jobserver

# Fields of /proc/cpuinfo that say which instructions there are, by architecture (x86, arm, s390, riscv).
_FEATURE_FIELDS = ("vendor_id", "cpu family", "model", "flags", "Features", "CPU implementer", "CPU part", "features", "isa")


@functools.cache
def processor_features() -> bytes:
    """A digest of the processor's features, for compiles with target-cpu=native or -march=native."""
    found = KeyHash()
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as f:
            seen = set()
            for line in f:
                name, _, value = line.partition(":")
                if name.strip() in _FEATURE_FIELDS and (name, value) not in seen:
                    seen.add((name, value))
                    found.field(name.strip(), value.strip().encode())
    except OSError:
        pass
    return found.key()


def processors(affinity: bytes) -> str:
    """What a macro is told that asks how many processors there are: the machine's, those of its caller (the bytes of a cpu_set_t), and
    what the cgroup leaves of them, which compilers share with the server.
    """
    return f"{os.cpu_count()} {int.from_bytes(affinity, 'little').bit_count()} {jobserver.processors()}"
