"""What is under way, for `--show-jobs`: who compiles what for whom, since when, with how many tokens, and what the others wait for.

Kept by those who do it (pipeline.py, misses.py, leases.py); only read here.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from sccache_py.server.jobserver import TokenPool

LOOKING = "looks up"
WAITING_FOR_RESULT = "waits for a result"
WAITING_FOR_TOKEN = "waits for a job token"
WAITING_FOR_MEMORY = "waits for memory"
COMPILING = "compiles"
BUILDING = "builds"
FINISHING = "finishes"


@dataclass(slots=True, eq=False)
class Seen:
    """One call, or one build under the wrapper."""

    pid: int  # of the client
    build: Callable[[], str]  # told only when somebody asks
    compiler: str
    source: str
    cwd: str
    state: str = LOOKING
    holder: int | None = None  # in the token pool
    leader: Seen | None = None  # whose result it waits for
    since: float = field(default_factory=time.monotonic)

    def waits_as(self, holder: int) -> None:
        """It waits under this number in the token pool."""
        self.turns_to(WAITING_FOR_TOKEN, holder)

    def turns_to(self, state: str, holder: int | None = None, leader: Seen | None = None) -> None:
        self.state, self.holder, self.leader, self.since = state, holder, leader, time.monotonic()


def unseen() -> Seen:
    """For a call that nobody watches (a hit worker's)."""
    return Seen(0, str, "", "", "")


class Jobs:
    def __init__(self) -> None:
        self._seen: dict[Seen, None] = {}

    @contextlib.contextmanager
    def watch(self, seen: Seen) -> Iterator[Seen]:
        """It is under way for the length of the block."""
        self._seen[seen] = None
        try:
            yield seen
        finally:
            del self._seen[seen]

    def answer(self, pool: TokenPool) -> dict[str, Any]:
        """The answer to the CONTROL `jobs` (docs/protocol.md, section 2)."""
        now = time.monotonic()
        return {
            "size": pool.size,
            "in_use": pool.in_use,
            "waiting": pool.waiting,
            "jobs": [_row(seen, pool, now) for seen in self._seen],
        }

    def standing_still(self, pool: TokenPool) -> int:
        """How many tokens builds hold that are stopped (Ctrl-Z).  A compile of ours goes on when its client is."""
        return sum(_tokens(seen, pool) for seen in self._seen if seen.state == BUILDING and _is_stopped(seen.pid))


def _is_stopped(pid: int) -> bool:
    """proc(5), stat."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
            return f.read().rpartition(")")[2].split()[0] in "Tt"
    except (OSError, IndexError):
        return False


def _tokens(seen: Seen, pool: TokenPool) -> int:
    holder = pool.policy.holders.get(seen.holder) if seen.holder is not None else None
    return holder.base + holder.held if holder is not None and holder.running else 0


def _row(seen: Seen, pool: TokenPool, now: float) -> dict[str, Any]:
    row: dict[str, Any] = {
        "state": seen.state,
        "seconds": now - seen.since,
        "waits": seen.state.startswith("waits"),
        "tokens": 0,
        "pid": seen.pid,
        "build": seen.build(),
        "compiler": seen.compiler,
        "source": seen.source,
        "cwd": seen.cwd,
    }
    holder = pool.policy.holders.get(seen.holder) if seen.holder is not None else None
    if holder is not None and holder.running:
        row["tokens"] = _tokens(seen, pool)
        row["lent"] = holder.payer is not None
    elif holder is not None and holder.blocked_since is not None:
        row["state"] = WAITING_FOR_MEMORY
    if seen.leader is not None:
        row["state"] = f"waits for the result of process {seen.leader.pid}"
    return row
