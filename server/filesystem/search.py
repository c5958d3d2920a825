"""Which file a name leads to: what execvp(3) would execute, and what ld.so would load, along the caller's paths."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence

from sccache_py.model import Plan

# Where glibc looks first in each directory, if that has the first of these names (ld.so --help).
_VARIANTS = "glibc-hwcaps"
_LEVELS = ("x86-64-v4", "x86-64-v3", "x86-64-v2", "power10", "power9", "z16", "z15", "z14", "z13")


def find_program(name: str, directories: Sequence[str]) -> str:
    """Its path, as composed of a directory and the name; "": there is none."""
    for directory in directories:
        path = f"{directory.rstrip('/')}/{name}"
        if os.access(path, os.X_OK) and not os.path.isdir(path):
            return path
    return ""


def find_libraries(names: Sequence[str], env: Mapping[str, str], plan: Plan) -> list[tuple[str, str]]:
    """Each name, and where it is found first along LD_LIBRARY_PATH, folded; "": nowhere, so ld.so goes on in places of its own."""
    value = env.get("LD_LIBRARY_PATH")
    if not names or not value:
        return [(name, "") for name in names]
    if "$" in value:  # ld.so expands it for each library by itself
        return [(name, value) for name in names]
    cwd = plan.roles.path("cwd")
    directories = []
    for directory in dict.fromkeys(os.path.join(cwd, d) for d in re.split("[:;]", value)):
        if os.path.isdir(os.path.join(directory, _VARIANTS)):
            directories += [os.path.join(directory, _VARIANTS, level) for level in _LEVELS]
        directories.append(directory)
    places = [(name, next((p for d in directories if os.path.isfile(p := os.path.join(d, name))), "")) for name in names]
    return [(name, plan.roles.fold(place) if place else "") for name, place in places]
