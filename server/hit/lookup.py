"""Which remembered compile holds now?  The first variant of which every condition is as it was.

A condition is looked up in *this* call's directories: `$cwd/src/lib.rs` is this checkout's file.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Mapping, Sequence

from sccache_py.conditions import search_path, value_of
from sccache_py.model import MESSAGES, Plan, Request, Variant
from sccache_py.server.filesystem.search import find_libraries, find_program
from sccache_py.server.filesystem.sight import Sight
from sccache_py.server.process import machine

log = logging.getLogger(__name__)


class Pending(enum.Enum):
    """Digests are missing (Sight.unhashed names them): have them computed, then look again."""

    DIGESTS = enum.auto()


def first_holding(variants: Sequence[Variant], plan: Plan, request: Request, sight: Sight) -> Variant | Pending | None:
    env = request.env
    for variant in variants:
        if not _has_as_many_processors(variant, request):
            continue
        held = holds(variant, plan, env, sight)
        if held is None:
            return Pending.DIGESTS
        if held:
            return variant
    if variants and log.isEnabledFor(logging.INFO):
        first = variants[0]
        why = why_not(first, plan, env, sight) if _has_as_many_processors(first, request) else "another number of processors"
        log.info("miss: %s: %s", plan.source, why)
    return None


def _has_as_many_processors(variant: Variant, request: Request) -> bool:
    return not variant.processors or variant.processors == machine.processors_told(request.affinity)


def holds(variant: Variant, plan: Plan, env: Mapping[str, str], sight: Sight) -> bool | None:
    """None: it cannot be said before `sight.unhashed` is computed.  The cheap conditions first."""
    unfold = plan.roles.unfold
    whole, variant = variant, sight.rest_of(variant)
    for name, value in variant.env:
        if name and env.get(name) == value:
            continue  # value_of says the same, and these are dozens
        if value_of(env, name) != value and not (name == "PATH" and _finds_the_same(variant, plan, env)):
            return False
    if any(plan.place_of(env.get(name)) != place for name, place in variant.placed):
        return False
    if variant.libraries and find_libraries([name for name, _ in variant.libraries], env, plan) != variant.libraries:
        return False
    for role, pinned in variant.pins:
        if plan.pin(role) != pinned:
            return False
    files = sight.files_are(variant.files, unfold)
    if files is False:
        return False
    if not sight.states_are(variant.present, unfold, plan.place, plan.resolves_names):
        return False
    for folded, names in variant.absent:
        path = unfold(folded)
        if path is None or not sight.lacks(path, names, path is folded):
            return False
    for folded, digest in variant.listed:
        path = unfold(folded)
        if path is None or sight.listing_digest(path, plan.own) != digest:
            return False
    if files and variant is whole:
        sight.note_that_it_holds(variant)
    return files


def surely_holds(variant: Variant, plan: Plan, env: Mapping[str, str], sight: Sight) -> bool:
    """For a thread: what must be hashed for it is."""
    held = holds(variant, plan, env, sight)
    if held is None:
        sight.hash_all()
        held = holds(variant, plan, env, sight)
    return bool(held)


def _finds_the_same(variant: Variant, plan: Plan, env: Mapping[str, str]) -> bool:
    """Whether another PATH leads to the same programs, where it was used for nothing else."""
    directories = search_path(env.get("PATH"))
    if directories is None or not variant.sought:
        return False
    return all(plan.roles.fold(find_program(name, directories)) == where for name, where in variant.sought)


def why_not(variant: Variant, plan: Plan, env: Mapping[str, str], sight: Sight) -> str:
    """The first condition that does not hold, to read."""
    unfold = plan.roles.unfold
    for name, value in variant.env:
        if value_of(env, name) != value and not (name == "PATH" and _finds_the_same(variant, plan, env)):
            return f"variable {name}" if name.rstrip("=") == name != "" else "other variables are set"
    for name, place in variant.placed:
        if plan.place_of(env.get(name)) != place:
            return f"variable {name}"
    for found, was in zip(find_libraries([name for name, _ in variant.libraries], env, plan), variant.libraries, strict=True):
        if found != was:
            return f"another {was[0]} along LD_LIBRARY_PATH"
    for role, pinned in variant.pins:
        if plan.pin(role) != pinned:
            return "messages look otherwise" if role == MESSAGES else f"an output names {pinned}"
    for folded, digest in variant.files:
        if sight.files_are([(folded, digest)], unfold) is False:
            return f"changed: {unfold(folded)}"
    for folded, state in variant.present:
        path = unfold(folded)
        if path is None or not sight.is_so(path, state, plan.place):
            return f"gone, touched, or something else: {path}"
    for folded, names in variant.absent:
        path = unfold(folded)
        for name in names:
            if path is None or not sight.lacks(path, [name]):
                return f"appeared: {path}/{name}"
    for folded, digest in variant.listed:
        path = unfold(folded)
        if path is None or sight.listing_digest(path, plan.own) != digest:
            return f"names in {path}"
    return "nothing: it holds"
