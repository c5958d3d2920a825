"""How much memory a compile will want, and how much there is.

What a compile used at its peak (wait4's ru_maxrss: of its largest process) is the prediction for the next one of the same command and
source file.  What there is: the kernel's MemAvailable, or what the tightest cgroup above us leaves.  sccache_py/tokens.py decides.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import OrderedDict
from collections.abc import Hashable

from sccache_py.tokens import Need

# Commands whose peak is remembered.
_REMEMBERED = 20_000

# A compile below this is never worth waiting for.
_SMALL_KIB = 64 * 1024

_FRESH_S = 0.010


class Peaks:
    """What earlier compiles used, by whatever says that two of them are alike."""

    def __init__(self) -> None:
        self._needs: OrderedDict[Hashable, Need] = OrderedDict()

    def note(self, alike: Hashable, peak_kib: int, took_s: float) -> None:
        self._needs[alike] = Need(peak_kib, took_s) if peak_kib >= _SMALL_KIB else Need()
        self._needs.move_to_end(alike)
        if len(self._needs) > _REMEMBERED:
            self._needs.popitem(last=False)

    def expect(self, alike: Hashable) -> Need | None:
        """None: never seen."""
        return self._needs.get(alike)


class Memory:
    """Reads what is available, at most every 10 ms."""

    def __init__(self, proc: str = "/proc", cgroups: str = "/sys/fs/cgroup") -> None:
        self._proc, self._cgroups = proc, cgroups
        self._levels: list[str] | None = None
        self._seen: tuple[float, int | None] = (float("-inf"), None)

    def available_kib(self) -> int | None:
        """None where the system does not say."""
        now = time.monotonic()
        if now - self._seen[0] >= _FRESH_S:
            limits = [kib for kib in (self._machine(), *map(self._left_in, self._cgroup_levels())) if kib is not None]
            self._seen = (now, min(limits) if limits else None)
        return self._seen[1]

    def _machine(self) -> int | None:
        with contextlib.suppress(OSError, ValueError, IndexError), open(f"{self._proc}/meminfo", "rb", buffering=0) as f:
            return int(f.read(400).partition(b"MemAvailable:")[2].split(None, 1)[0])  # its third line
        return None

    def _cgroup_levels(self) -> list[str]:
        """The cgroups above us that have a limit (cgroup v2), found once."""
        if self._levels is None:
            self._levels = []
            with contextlib.suppress(OSError), open(f"{self._proc}/self/cgroup", encoding="utf-8", errors="replace") as f:
                path = next((line.split("::", 1)[1].strip() for line in f if line.startswith("0::")), "/")
                while True:
                    directory = os.path.join(self._cgroups, path.strip("/"))
                    if self._read(directory, "memory.max") is not None:
                        self._levels.append(directory)
                    if path in ("/", ""):
                        break
                    path = os.path.dirname(path)
        return self._levels

    def _read(self, directory: str, name: str) -> int | None:
        """Bytes; None: no limit, or no such file."""
        with contextlib.suppress(OSError, ValueError), open(os.path.join(directory, name), encoding="ascii") as f:
            return int(f.read())
        return None

    def _left_in(self, directory: str) -> int | None:
        limit, used = self._read(directory, "memory.max"), self._read(directory, "memory.current")
        if limit is None or used is None:
            return None
        reclaimable = 0
        # The page cache counts as used, and goes as soon as it is in the way.
        with contextlib.suppress(OSError, ValueError), open(os.path.join(directory, "memory.stat"), encoding="ascii") as f:
            fields = dict(line.split() for line in f)
            reclaimable = int(fields.get("inactive_file", 0)) + int(fields.get("active_file", 0))
        return max(0, limit - used + reclaimable) // 1024
