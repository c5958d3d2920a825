"""The depfile that gcc and clang write, taken apart and put together again for another target.

Two calls that differ only in what they call the object get the same object, but not the same depfile: the target is another, and
since lines are broken by width, all lines may be.  So a depfile is kept as its list of prerequisites and written anew.  One that
does not come out as it went in is not taken apart (fold says None).

Sources: gcc 12, `libcpp/mkdeps.cc` (munge, make_write_name, make_write); clang 14, `Frontend/DependencyFile.cpp` (outputDependencyFile).
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

_SEPARATOR = re.compile(rb"(?<!\\)(?:\s|\\\n)+")

_GCC_COLUMNS = 72
_CLANG_COLUMNS = 75


class Style(enum.Enum):
    GCC = enum.auto()
    CLANG = enum.auto()


@dataclass(frozen=True, slots=True)
class Depfile:
    """Where this call's depfile goes, and what it names as targets, as make reads them."""

    path: str  # absolute
    targets: tuple[bytes, ...]
    style: Style


def quote(target: bytes) -> bytes:
    """A file name as make reads it: what -MQ does and -MT does not."""
    quoted = re.sub(rb"(\\*)([ \t])", rb"\1\1\\\2", target)
    return quoted.replace(b"$", b"$$").replace(b"#", b"\\#")


def fold(text: bytes, depfile: Depfile) -> bytes | None:
    """What a depfile says without its targets; None if these targets are not what it begins with."""
    rule, newline, rest = _first_rule(text)
    _, colon, prerequisites = rule.partition(depfile.targets[-1] + b":")
    if not newline or not colon:
        return None
    folded = b"\n".join(word for word in _SEPARATOR.split(prerequisites) if word) + b"\n\n" + rest
    return folded if unfold(folded, depfile) == text else None


def unfold(folded: bytes, depfile: Depfile) -> bytes:
    """The depfile for this call's targets."""
    names, _, rest = folded.partition(b"\n\n") if not folded.startswith(b"\n\n") else (b"", b"", folded[2:])
    prerequisites = names.split(b"\n") if names else []
    write = _write_gcc if depfile.style is Style.GCC else _write_clang
    return write(list(depfile.targets), prerequisites) + b"\n" + rest


def _first_rule(text: bytes) -> tuple[bytes, bytes, bytes]:
    end = re.search(rb"(?<!\\)\n", text)
    return (text[: end.start()], b"\n", text[end.end() :]) if end else (text, b"", b"")


def _write_gcc(targets: list[bytes], prerequisites: list[bytes]) -> bytes:
    out: list[bytes] = []
    column = 0

    def name(word: bytes) -> None:
        nonlocal column
        if column:
            if column + len(word) > _GCC_COLUMNS:
                out.append(b" \\\n")
                column = 0
            out.append(b" ")
            column += 1
        column += len(word)
        out.append(word)

    for word in targets:
        name(word)
    out.append(b":")
    column += 1
    for word in prerequisites:
        name(word)
    return b"".join(out)


def _write_clang(targets: list[bytes], prerequisites: list[bytes]) -> bytes:
    out: list[bytes] = []
    column = 0
    for word in targets:
        size = len(word)
        if column == 0:
            column = size
        elif column + size + 2 > _CLANG_COLUMNS:
            column = size + 2
            out.append(b" \\\n  ")
        else:
            column += size + 1
            out.append(b" ")
        out.append(word)
    out.append(b":")
    column += 1
    for word in prerequisites:
        # It counts the name, not what quoting makes of it.
        size = len(word.replace(b"\\ ", b" ").replace(b"$$", b"$").replace(b"\\#", b"#"))
        if column + size + 3 > _CLANG_COLUMNS:
            out.append(b" \\\n ")
            column = 2
        out += (b" ", word)
        column += size + 1
    return b"".join(out)
