"""What a driver is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from sccache_py.conditions import Draft
from sccache_py.model import Plan, Reason


class Driver(Protocol):
    """One per compiler family; holds no state, touches no file, starts no process."""

    name: str

    def parse(self, argv: Sequence[str], cwd: str) -> Plan | Reason:
        """argv without the compiler, response files already expanded; cwd absolute.  Equal input gives an equal Plan."""
        ...

    def draft_from_lists(self, plan: Plan, dep_info: bytes, env: Mapping[str, str], cwd: str, extra_files: Sequence[str]) -> Draft | Reason:
        """The conditions from the compiler's own list, where nothing could be observed.  Its gaps are refused or documented."""
        ...
