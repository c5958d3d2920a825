"""What execvp(3) would execute: the first along PATH that may be executed."""

from __future__ import annotations

import os
from collections.abc import Sequence


def find_program(name: str, directories: Sequence[str]) -> str:
    """Its path, as composed of a directory and the name; "": there is none."""
    for directory in directories:
        path = f"{directory.rstrip('/')}/{name}"
        if os.access(path, os.X_OK) and not os.path.isdir(path):
            return path
    return ""
