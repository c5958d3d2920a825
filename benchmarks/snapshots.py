"""What a build left and said, and where two builds differ.

A file that two plain builds give alike must come out of the cache with the same bytes.  Where they differ only in what belongs to
one run (names of temporary files, the order of lines of parallel jobs, durations), it is compared without that.  What is left
is not reproducible by building plain: it is named and excepted.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# Larger texts than any log; what is larger is compared as bytes only.
_TEXT_BYTES = 8 << 20

# What belongs to one run of a build: gcc's and meson's temporary names, ninja's and cmake's counts, times of day and durations.
# And by which of its names gcc was called, as `gcc -v` says: through a link to us it is its path.  That counts in logs only.
_OF_ONE_RUN = re.compile(
    rb"^COLLECT_GCC=.*|\bcc[A-Za-z0-9]{6}\b|\b(x|s)-[0-9a-f]{6}\b|tmp[a-z0-9_]{8}\b|TryCompile-\w{6}|cmTC_[0-9a-f]{5}|scratch-\w{6}"
    rb"|\[ *\d+(/\d+\]|%\])|\d+:\d\d:\d\d(\.\d+)?|\d+\.\d+ ?s(ec\w*)?\b",
    re.MULTILINE,
)

# What is always compared so: logs, and what a build printed, which comes in the order in which parallel jobs end.
_LOG = re.compile(r"(config|configure|CMakeOutput|CMakeError|meson-log)\.(log|txt)$|>$")


@dataclass(frozen=True, slots=True)
class Content:
    """mode: with the kind of file; exact, loose: digests as it is, and without what belongs to one run (empty: binary)."""

    mode: int
    exact: bytes
    loose: bytes


Snapshot = dict[str, Content]


def content_of(data: bytes, mode: int = 0) -> Content:
    is_text = len(data) <= _TEXT_BYTES and b"\0" not in data
    lines = sorted(_OF_ONE_RUN.sub(b"#", data).splitlines()) if is_text else []
    return Content(mode, _digest(data), _digest(b"\n".join(lines)) if is_text else b"")


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def take(place: Path) -> Snapshot:
    """Every file and link below a directory."""
    found: Snapshot = {}
    for directory, _, names in os.walk(place):
        for name in names:
            path = os.path.join(directory, name)
            mode = os.lstat(path).st_mode
            if stat.S_ISLNK(mode):
                found[os.path.relpath(path, place)] = content_of(os.fsencode(os.readlink(path)), stat.S_IFLNK)
            elif stat.S_ISREG(mode):
                with open(path, "rb") as f:
                    found[os.path.relpath(path, place)] = content_of(f.read(), mode)
    return found


@dataclass(slots=True)
class Comparison:
    """Of one build with two plain ones."""

    compared: int  # files
    different: list[str]
    excepted: list[str]  # two plain builds differ there, too


def compare(plain: Sequence[Snapshot], other: Snapshot) -> Comparison:
    first, second = plain
    different, excepted = [], []
    names = first.keys() | second.keys() | other.keys()
    for name in sorted(names):
        a, b, c = first.get(name), second.get(name), other.get(name)
        if a == b and not (a is not None and a.loose and _LOG.search(name)):
            if a != c:
                different.append(name)
        elif a is not None and b is not None and (a.mode, a.loose) == (b.mode, b.loose) and a.loose:
            if c is None or (c.mode, c.loose) != (a.mode, a.loose):
                different.append(name)
        else:
            excepted.append(name)
    return Comparison(len(names), different, excepted)
