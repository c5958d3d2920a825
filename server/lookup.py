"""Which remembered compile holds now?  The first variant of which every condition is as it was.

A condition is looked up in *this* call's directories: `$cwd/src/lib.rs` is this checkout's file.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence

from sccache_py.model import Plan, Variant
from sccache_py.server.files import Sight


class Pending(enum.Enum):
    """Digests are missing (Sight.unhashed names them): have them computed, then look again."""

    DIGESTS = enum.auto()


def first_holding(variants: Sequence[Variant], plan: Plan, env: Mapping[str, str], sight: Sight) -> Variant | Pending | None:
    for variant in variants:
        held = holds(variant, plan, env, sight)
        if held is None:
            return Pending.DIGESTS
        if held:
            return variant
    return None


def holds(variant: Variant, plan: Plan, env: Mapping[str, str], sight: Sight) -> bool | None:
    """None: it cannot be said before `sight.unhashed` is computed.  The cheap conditions first."""
    unfold = plan.roles.unfold
    for name, value in variant.env:
        if env.get(name) != value:
            return False
    for role, pinned in variant.pins:
        if not plan.roles.has(role) or plan.roles.pin(role) != pinned:
            return False
    unsure = False
    for folded, digest in variant.files:
        path = unfold(folded)
        if path is None:
            return False
        found = sight.digest(path)
        if found is Sight.UNHASHED:
            unsure = True
        elif found != digest:
            return False
    for folded in variant.present:
        path = unfold(folded)
        if path is None or not sight.exists(path):
            return False
    for folded, names in variant.absent:
        path = unfold(folded)
        if path is None or not sight.lacks(path, names):
            return False
    for folded, digest in variant.listed:
        path = unfold(folded)
        if path is None or sight.listing_digest(path, plan.own_output_prefixes) != digest:
            return False
    return None if unsure else True
