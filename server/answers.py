"""What the pipeline is asked by, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from sccache_py.model import Reason, Refusal
from sccache_py.server.jobs.builds import Build
from sccache_py.server.running.runner import Audience


class Client(Audience, Protocol):
    """What the pipeline needs of a connection beyond its audience."""

    async def stdin(self) -> bytes | None:
        """What the caller's standard input holds; None if it is more than the protocol carries."""
        ...

    @property
    def pid(self) -> int: ...

    def may_what_we_may(self) -> bool:
        """Whether it may read, and whom its files belong to, is as with us."""
        ...

    @property
    def build(self) -> Build:
        """Whose turn it is in the token pool."""
        ...


@dataclass(frozen=True, slots=True)
class Pass:
    reason: Reason | Refusal


@dataclass(frozen=True, slots=True)
class MakeWay:
    """This server leaves, and the client starts one that is as its own limits are."""


@dataclass(frozen=True, slots=True)
class Replay:
    """A hit: the outputs are written, this is what the compiler said."""

    stdout: bytes
    stderr: bytes
    status: int


@dataclass(frozen=True, slots=True)
class Finished:
    """A miss that ran: everything it said has been relayed."""

    killed_by: int | None
    status: int


Answer = Pass | MakeWay | Replay | Finished
