"""Macros that a caller defines and nothing says: `-DBUILD_ID=…` for a whole project, of which one file makes use.

What is compiled depends on a macro only where a text says its name, or puts it together with `##`.  So two calls that differ in other
macros alone come to the same: not by preprocessing twice, but by the words of the texts that were read, comments and strings included.
A name counts as said, too, where it can be put together from words and numbers that are said, no more than four of them single letters;
any number may be said (__LINE__).

Left alone are names that a compiler may define itself or look at, values that it may complain of, names that are defined twice or
undefined, and all options under which an output tells macros or a message may.  Nothing is expanded and no compiler asked.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from sccache_py.compilers.c_options import Option, Takes
from sccache_py.model import Plan

# Not what starts with an underscore, has no capital letter (linux, unix, i386: defined beforehand) or has two underscores together.
_NAME = re.compile(r"(?!\w*__)(?=\w*[A-Z])[A-Za-z][0-9A-Za-z_]*", re.ASCII)
_PREDEFINED = frozenset(("AVR", "MIPSEB", "MIPSEL", "PARISC", "PPC", "R3000", "R4000", "WIN32", "WIN64", "WINNT"))
# No `##` (as a digraph, which may not stand at either end), no trigraph, and in a string nothing that only looks like ASCII.
_VALUE = re.compile(r'(?!.*(?:%:|\?\?))(=([\w.+/:@%,-]*|"[ !#-\[\]-~]*"))?', re.ASCII)

# Under these an output may hold macros or the command line, or a message be about macros; or what is read is no text.
_REFUSED = ("--specs", "--traditional", "-B", "-W", "-X", "-d", "-f", "-g", "-i", "-specs", "-traditional", "-wrapper")
_ALLOWED = re.compile(
    r"-W(?!p,|a,|everything|.*unused-macros)[a-z].*"
    r"|-f(?!ms-|.*(?:record|macro|plugin|module|pch|dump|lto|save|preprocessed|directives|debug-info|verbose|embed|diagnostics-[afs])).*"
    r"|-g(?:[012]|gdb[012]?|dwarf(?:-[2345])?|no-.*|z.*|split-dwarf|line-tables-only|column-info|statement-frontiers)?"
    r"|-(?:include|imacros|idirafter|iquote|isystem|isysroot|iprefix|iwithprefix|iwithprefixbefore|imultiarch).*"
)

_SPLICE = re.compile(rb"\\[ \t\f\v]*\r?\n")
_WORD = re.compile(rb"[0-9A-Za-z_]+")  # a $ may end a name, or be part of it

# Big headers say every letter somewhere; nobody puts a name together letter by letter.
_MOST_LETTERS = 4

_PIECE_BYTES = 64 * 1024

# Words in the values of macros that compilers define; the last ones `__UINT64_C(X)` puts behind X.
_TYPES = frozenset(b"int long short unsigned signed char float double void bool const static inline extern volatile L LL U UL ULL".split())

Define = tuple[str, str]  # name; what follows it: "", "=", "=value"


class Split(NamedTuple):
    kept: tuple[str, ...]  # a plan's arguments without
    loose: tuple[Define, ...]  # what decides nothing where no text says its name, in alphabetical order


def split(plan: Plan, options: Mapping[str, Option]) -> Split | None:
    """options: those that the compiler knows.  None: it is another kind of compile, or too odd."""
    words = plan.arguments
    # A script, which may go by any word, has no exact outputs, either.
    if not plan.dialect.startswith(("c [", "c++ [")) or plan.unlisted is not None or not plan.exact_outputs or plan.source is None:
        return None
    if not {"-c", "-S"} & set(words) or plan.writes_times:
        return None
    defined: list[tuple[int, str, str]] = []
    fixed: set[str] = set()
    at = 0
    while at < len(words):
        word = words[at]
        option = options.get(word)
        value = words[at + 1] if option is not None and option.takes in (Takes.NEXT, Takes.EITHER) and at + 1 < len(words) else None
        if word.startswith(_REFUSED) and not _ALLOWED.fullmatch(word):
            return None
        if value is not None and word == "-D":
            name = re.match(r"\w*", value, re.ASCII)
            assert name is not None
            defined.append((at, name[0], value[name.end() :]))
        elif value is not None and word == "-U":
            fixed.add(value)
        at += 1 if value is None else 2
    names = [name for _, name, _ in defined]
    fixed.update(name for name in names if names.count(name) > 1 or name in _PREDEFINED)
    loose = [(i, (name, rest)) for i, name, rest in defined if name not in fixed and _NAME.fullmatch(name) and _VALUE.fullmatch(rest)]
    left_out = {j for i, _ in loose for j in (i, i + 1)}
    kept = tuple(word for i, word in enumerate(words) if i not in left_out)
    return Split(kept, tuple(sorted(define for _, define in loose)))


def told_beside(split: Split, names: frozenset[bytes]) -> bytes:
    """What the command line says but for the definitions of these."""
    values = (f"{rest if name.encode() in names else name + rest}" for name, rest in split.loose)
    return os.fsencode("\n".join((*split.kept, *values)))


def differing(one: Iterable[Define], other: Iterable[Define]) -> frozenset[bytes]:
    """Names that are defined in one of them only, or otherwise."""
    return frozenset(name.encode() for name, _ in set(one) ^ set(other))


def pieces(names: Iterable[bytes]) -> frozenset[bytes]:
    """All that these names could be put together from."""
    return frozenset(name[i:j] for name in names for i in range(len(name)) for j in range(i + 1, len(name) + 1))


def said(text: bytes, wanted: frozenset[bytes]) -> frozenset[bytes] | None:
    """Which of these words a text says; None: it is no text, or one that may be read in several ways."""
    if b"\0" in text or b"??/" in text:
        return None
    if b"\\" in text:
        text = _SPLICE.sub(b"", text)
    found: set[bytes] = set()
    begin = 0
    while begin < len(text):  # in pieces: a search holds the interpreter's lock
        end = text.find(b"\n", begin + _PIECE_BYTES) + 1 or len(text)
        found.update(wanted.intersection(_WORD.findall(text, begin, end)))
        begin = end
    return frozenset(found)


def may_be_said(name: bytes, words: frozenset[bytes]) -> bool:
    """words: of `pieces`, those that are said somewhere."""
    letters: list[float] = [0, *([math.inf] * len(name))]  # how many of the pieces are one letter, at the fewest, up to there
    for end in range(1, len(name) + 1):
        for start in range(end):
            piece = name[start:end]
            if piece in words or piece in _TYPES or piece[:1].isdigit():
                letters[end] = min(letters[end], letters[start] + (len(piece) == 1 and piece.isalpha()))
    return letters[-1] <= _MOST_LETTERS
