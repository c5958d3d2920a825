"""Process groups: each compiler is one, and what it starts belongs to it."""

from __future__ import annotations

import contextlib
import os


def send_signal(group: int, number: int) -> None:
    with contextlib.suppress(OSError):  # it is gone, or there is no such signal
        os.killpg(group, number)


def group_lives(group: int) -> bool:
    """Whether something of it runs."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return any(_is_alive_in(group, entry.name) for entry in os.scandir("/proc") if entry.name.isdigit())


def _is_alive_in(group: int, pid: str) -> bool:
    """Zombies count for killpg, and an init that does not reap (a container's, say) keeps them for ever.  proc(5), stat."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
            state, _, process_group = f.read().rpartition(")")[2].split()[:3]
    except (OSError, ValueError):
        return False
    return process_group == str(group) and state not in "ZX"
