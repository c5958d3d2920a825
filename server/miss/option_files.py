"""Options that no command line says: a driver of C's found a file of them by itself.

clang (from version 16 on without being asked) reads `clang.cfg` and kin beside itself and in directories that it was built with; gcc
reads `specs` along `-B` and where it is installed.  That such a file is there is known when it has been read, and then the key is made.
So what it may add is thought of where the result is stored: a result that may name anything is for the same names alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from sccache_py.model import Plan
from sccache_py.server.filesystem.files import open_regular

_CONFIGURATION = ".cfg"
_SPECS = "specs"


def found_by_driver(plan: Plan, read: Iterable[str]) -> list[str]:
    """Those among the files that were read.  A source that includes one of such a name is held to the same: that is rare."""
    return [] if plan.language == "Rust" else [p for p in read if p.endswith(_CONFIGURATION) or os.path.basename(p) == _SPECS]


def says_native(path: str) -> bool:
    """Whether it may say -march=native, for which the processor would be in the key.  Every gcc's specs do; gcc takes that apart itself."""
    if not path.endswith(_CONFIGURATION):
        return False
    try:
        with open_regular(path) as f:
            return b"=native" in f.read()
    except OSError:
        return False  # it is gone, which take_down says
