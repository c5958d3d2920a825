"""What a driver is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from sccache_py.compilers.c_includes import Names
from sccache_py.conditions import Draft
from sccache_py.model import Plan, Reason, Refusal


class Look(Protocol):
    """How a driver without observation sees files."""

    def identity(self, path: str) -> tuple[int, int] | None:
        """Which file this is (device, inode), behind links; None: there is none, or it is a directory."""
        ...

    def is_directory(self, path: str) -> bool: ...

    def names(self, path: str) -> Names | None:
        """What the text of a C source may look for; None: it cannot be read, or it changes at this moment."""
        ...


@dataclass(frozen=True, slots=True)
class Told:
    """The compiler's own list: what it wrote to `Plan.dep_info`, or its answer to `Plan.question`."""

    listed: bytes
    said: bytes = b""  # on stderr


class Driver(Protocol):
    """One per compiler family; holds no state, touches no file, starts no process."""

    name: str
    uses_pwd: bool  # it believes $PWD, where that names the cwd
    expands_response_files: bool  # as gcc does: then parse() never sees one
    escapes_within_quotes: bool  # in these, whatever the quotes and the character (response_files.py)

    def parse(self, argv: Sequence[str], cwd: str, pwd: str) -> Plan | Reason | Refusal:
        """argv without the compiler; cwd absolute, as the kernel and as the compiler names it.  Equal input gives an equal Plan."""
        ...

    def refused_variable(self, env: Mapping[str, str]) -> Refusal | None:
        """A variable under which the compiler does what its command line does not say."""
        ...

    def terminal_arguments(self, plan: Plan, env: Mapping[str, str], columns: int) -> tuple[str, ...]:
        """What the compiler would find out by looking at its stderr, a terminal, where ours is a pipe."""
        ...

    def draft_from_lists(
        self, plan: Plan, told: Told, env: Mapping[str, str], cwd: str, extra_files: Sequence[str], look: Look
    ) -> Draft | Reason:
        """The conditions from the compiler's own list, where nothing could be observed.  Its gaps are refused or documented."""
        ...
