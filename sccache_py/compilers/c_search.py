"""Which directories that a C compile searches are one, seen from its cwd: `-I. -isystem ../a` in a directory `a`.

gcc and clang pass over one of them, and clang before version 15 calls what is in them by one of the names.  Elsewhere the same words
name two directories, so this is in the key.  By names alone: where a link leads is a condition.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from sccache_py.compilers import c_options
from sccache_py.model import Plan

VARIABLES = ("CPATH", "CPLUS_INCLUDE_PATH", "C_INCLUDE_PATH", "OBJCPLUS_INCLUDE_PATH", "OBJC_INCLUDE_PATH")

_SEARCHED = (*c_options.SEARCHED, "-stdlib++-isystem")


def named_twice(arguments: Sequence[str], source: str, cwd: str) -> list[str]:
    """Words for the key, of what the command line names; those of files that it reads are searched, too."""
    files = [source, *(value for word, value in pairwise(arguments) if word in c_options.READ_FIRST)]
    return _alike([".", *_searched(arguments), *map(os.path.dirname, files)], cwd, "one directory")


def variables(env: Mapping[str, str]) -> tuple[str, ...]:
    """The values of those that name directories; mostly none is set."""
    return tuple(value for name in VARIABLES if (value := env.get(name)))


def tell(plan: Plan, values: Sequence[str]) -> Plan:
    """The plan with what variables name beside the command line.  Which values these are is a condition."""
    if not values or plan.language == "Rust":
        return plan
    named = [directory or "." for value in values for directory in value.split(":")]
    words = _alike([".", *_searched(plan.arguments), *named], plan.roles.path("cwd"), "one directory with variables")
    return dataclasses.replace(plan, arguments=(*plan.arguments, *words))


def _searched(arguments: Sequence[str]) -> list[str]:
    return [value for word, value in pairwise(arguments) if word in _SEARCHED and not value.startswith("=")]


def _alike(directories: Iterable[str], cwd: str, called: str) -> list[str]:
    """By number, not by name: with a base directory names are told relative to that."""
    found: dict[str, list[int]] = {}
    for number, name in enumerate(dict.fromkeys(map(os.path.normpath, directories))):
        found.setdefault(os.path.normpath(os.path.join(cwd, name)), []).append(number)
    return [f"{called} {numbers}" for numbers in found.values() if len(numbers) > 1]
