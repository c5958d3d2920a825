"""What a caller tells ld.so that no record shows.

A library that was preloaded to open other files than it is asked for (fakechroot): a record of names would be one of others.
What it does that way cannot be observed from outside; that it can shows, for it stands in the C library's place.  And variables by
which ld.so itself speaks, or loads what nobody sees.
"""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Mapping
from functools import lru_cache

from sccache_py.elf import exports_any
from sccache_py.server.filesystem.files import open_regular
from sccache_py.server.filesystem.stamps import Stamp, stamp_of

_OPENING = frozenset((b"open", b"open64", b"openat", b"openat64", b"fopen", b"fopen64"))

# These look on, pretend to be root, or leave out fsync.
_KNOWN = re.compile(r"lib([a-z]*san|clang_rt\.[a-z_]*san.*|eatmydata|fakeroot.*)\.so.*")

_USUAL = ("/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib/aarch64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib")


# ld.so(8): it says more on stdout or stderr, with addresses and process ids, or has a library look on at all that it loads.  It asks
# for none of them by getenv.
_LOADERS = ("LD_AUDIT", "LD_DEBUG", "LD_PROFILE", "LD_SHOW_AUXV", "LD_TRACE_LOADED_OBJECTS")


def refused_variable(env: Mapping[str, str]) -> str | None:
    """The name of one under which nothing is cached."""
    for name in _LOADERS:
        if name in env:
            return name
    return "LD_PRELOAD" if "LD_PRELOAD" in env and redirects(env) else None


def redirects(env: Mapping[str, str]) -> bool:
    """Whether a library of the caller's LD_PRELOAD opens files in the C library's place, and is none that is known not to choose others."""
    names = [name for name in re.split("[ :]", env.get("LD_PRELOAD", "")) if name]
    return any(not _KNOWN.fullmatch(os.path.basename(name)) and _opens(name, env) for name in names)


def _opens(name: str, env: Mapping[str, str]) -> bool:
    places = [name] if "/" in name else [os.path.join(d, name) for d in (*env.get("LD_LIBRARY_PATH", "").split(":"), *_USUAL) if d]
    for path in places:
        try:
            return _opens_files(path, stamp_of(os.stat(path)))
        except (OSError, ValueError):
            continue
    return False  # ld.so does without it, too


@lru_cache(maxsize=64)
def _opens_files(path: str, stamp: Stamp) -> bool:
    """stamp: so that each state of the file is read once.  Raises OSError; ValueError for an empty one."""
    with open_regular(path) as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as view:
        return exports_any(view, _OPENING)
