"""The nouns of the job token policy: who holds or wants tokens, and what the policy (tokens.py) says is to be done.

Values only: nobody here decides anything.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field


class Role(enum.Enum):
    COMPILE = "compile"
    BUILD = "build"


@dataclass(frozen=True, slots=True)
class Need:
    """What an earlier compile of the same recipe used; 0: unknown."""

    peak_kib: int = 0
    took_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Admit:
    """It may start."""

    holder: int


@dataclass(frozen=True, slots=True)
class Offer:
    """Put one token into its channel, or call `refused`."""

    holder: int


@dataclass(frozen=True, slots=True)
class Revoke:
    """Read back what lies unread in its channel, all but `keep`, and call `counted` or `parted`."""

    holder: int
    keep: int = 0


@dataclass(frozen=True, slots=True)
class Excess:
    """It returned what it had not taken; said once for each holder."""

    holder: int
    count: int


Action = Admit | Offer | Revoke | Excess


@dataclass(slots=True, eq=False)
class Holder:
    id: int
    build: str
    role: Role
    lender: Holder | None
    need: Need
    running: bool = False
    base: bool = False  # has a token of its own, whoever pays for it
    payer: Holder | None = None  # who lends it; None: the pool
    borrowers: list[Holder] = field(default_factory=list)
    began: float = 0.0
    blocked_since: float | None = None  # waits for memory
    # Its channel:
    joined: bool = False
    offered: int = 0
    back: int = 0
    unread: int = 0
    offered_at: float = 0.0
    taken_at: float = -1.0
    bursts: int = 0
    paused_until: float = 0.0
    granted: bool = False  # of what lies unread, one was offered to it (a build gives back to where offers lie)
    hungry: bool = True  # a build that took its last offer
    probe_at: float = 0.0
    excess: int = 0

    @property
    def out(self) -> int:
        return self.offered - self.back

    @property
    def held(self) -> int:
        return self.out - self.unread

    @property
    def spare(self) -> int:
        """Tokens that it could lend to a compile of its own."""
        return self.base + self.held - len(self.borrowers)
