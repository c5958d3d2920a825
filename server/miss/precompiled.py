"""clang's precompiled headers among what a compile has read: clang looks at the times of what they were made of.

One that is made of others, or of modules, names what is its own alone.  What a map of files (`-ivfsoverlay`) puts in a source's
place has another name than stands there, and a relocatable one's paths begin behind `-isysroot`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection

from sccache_py.compilers.ast_file import MAGIC, names, told_sources
from sccache_py.model import Plan
from sccache_py.server.filesystem.files import open_regular
from sccache_py.server.miss import option_files

_LEAST_BYTES = 4096  # clang 14 makes 19 KB of an empty header

# -gmodules and -fmodule-format=obj wrap it in an object, in a section of this name (clang, ObjectFilePCHContainerOperations.cpp).
_SECTION = b"clangast"
_OBJECTS = (b"\x7fELF", b"\xcf\xfa\xed\xfe", b"\xce\xfa\xed\xfe", b"\x64\x86", b"\x4c\x01", b"\x64\xaa", b"\x00asm")

_RENAMES = re.compile("vfsoverlay|isysroot")


def is_precompiled(path: str) -> bool:
    """Not a module (`x.pcm`), which holds no times."""
    try:
        if path.endswith(".pcm") or os.stat(path).st_size < _LEAST_BYTES:
            return False
        with open_regular(path) as f:
            head = f.read(len(MAGIC))
            return head == MAGIC or (head.startswith(_OBJECTS) and _SECTION in f.read())
    except OSError:
        return False


def times_that_count(plan: Plan, read: Collection[str], present: Collection[str]) -> list[str]:
    """Those of all that was read or looked at whose mtimes decide what a compile by a precompiled header says, or what one holds."""
    paths = list(dict.fromkeys((*read, *present)))
    if plan.writes_times:
        return paths
    precompiled = {path for path in read if is_precompiled(path)} if plan.checks_times else set()
    if len(precompiled) != 1 or any(path.endswith(".pcm") for path in read):
        return paths if precompiled else []
    # That of one alone is in no other and decides nothing: what comes back from the cache is always new.
    others = [path for path in paths if path not in precompiled]
    if any(map(_RENAMES.search, plan.arguments)) or option_files.found_by_driver(plan, read):
        return others
    told = _told_sources(precompiled.pop())
    return others if told is None else [path for path in others if names(told, os.path.basename(path))]


def _told_sources(path: str) -> bytes | None:
    try:
        with open_regular(path) as f:
            return told_sources(os.fstat(f.fileno()).st_size, lambda at, size: os.pread(f.fileno(), size, at))
    except OSError:
        return None
