"""A caller's variables, and what follows from them alone.

All compiles of a make have the same ones, and cargo's have those that they had in the build before: they are read once, and so is
what each request asks of all of them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TypeVar, cast

# Blocks of variables that are remembered: some kilobytes each.  More crates than a workspace of middle size has.
_BLOCKS = 256

T = TypeVar("T")


class Environment(dict[str, str]):
    """Name → value; not changed once it is made: requests share it."""

    def __init__(self) -> None:
        super().__init__()
        self.worked_out: dict[object, object] = {}


@functools.lru_cache(_BLOCKS)
def environment_of(block: bytes) -> Environment:
    """block: `NAME=value`, each but the last with a NUL behind it, in the order of environ(7)."""
    env = Environment()
    # All decoded at once: a NUL is in none of them.
    for item in block.decode("utf-8", "surrogateescape").split("\0"):
        name, equals, value = item.partition("=")
        # The first of two equal names is what getenv finds.
        if equals and name not in env:
            env[name] = value
    return env


def of_all_variables(work: Callable[[Mapping[str, str]], T]) -> Callable[[Mapping[str, str]], T]:
    """`work`, done once for each Environment."""

    @functools.wraps(work)
    def remembered(env: Mapping[str, str]) -> T:
        if not isinstance(env, Environment):
            return work(env)
        if work not in env.worked_out:
            env.worked_out[work] = work(env)
        return cast(T, env.worked_out[work])

    return remembered
