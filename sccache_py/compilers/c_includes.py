"""Which files a C source may look for: every name in its `#include`s and `__has_include`s, whether or not they are reached.

Needed only where the compiler cannot be observed: a list of headers does not tell which directories were passed over, nor that a
name was asked for.  So the names are taken from the texts, too many rather than too few: those in comments and in branches that
are not compiled count too.  What cannot be read off a text (a name made by a macro, files that the assembler reads) is a Reason.

Not understood, and no accident: `__has_include` or `.incbin` put together from pieces inside string escapes or by pastes other
than between `__has_` and `include`.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from sccache_py.model import Reason

# A line goes on after a backslash, even with white space behind it (gcc warns, and joins); `??/` is a trigraph for one.
_CONTINUATION = re.compile(rb"(?:\\|\?\?/)[ \t\f\v]*\r?\n")

_HASH = rb"(?:#|%:|\?\?=)"
_SPACE = rb"(?:[ \t\f\v\r]|/\*.*?\*/)*+"
_NAME = rb'(?:<([^>\n]*)>|"([^"\n]*)")'

_INCLUDE = re.compile(_HASH + _SPACE + rb"(?:include(_next)?|import|__include_macros)\b" + _SPACE + _NAME, re.DOTALL)
_ASKED = re.compile(rb"__has_include(_next)?(?:__)?" + _SPACE + rb"\(" + _SPACE + _NAME, re.DOTALL)

_LINES = re.compile(_HASH + _SPACE + rb"(?:line\b|[0-9])", re.DOTALL)

# Strings are kept, comments are not.  A character's quotes end with their line: `#error don't` has one.
_TOKEN = re.compile(
    rb'(?s:(R"([^()\\\s]{0,16})\(.*?\)\2"|"(?:[^"\\\n]|\\.)*"|\'(?:[^\'\\\n]|\\.)*\')|(/\*.*?\*/|//[^\n]*))',
)

_COMPUTED = re.compile(rb"^[ \t\f\v]*" + _HASH + rb"[ \t\f\v]*(?:include(?:_next)?|import)\b[ \t\f\v\r]*[^<\"\s]", re.MULTILINE)

# The second alternative is the one that counts; the first takes the harmless ones out of its way.
_ASKED_OTHERWISE = re.compile(
    rb"(?:defined\s*\(?\s*|#\s*(?:el)?ifn?def\s+|#\s*undef\s+|#\s*define\s+(?=__has_include(?:_next)?\(\w+\)\s*[01]\b))__has_include\w*"
    rb"|(__has_include(?:_next)?(?:__)?\b(?!\s*\(\s*[<\"])|\b__has_i(?:n(?:c(?:l(?:ud?)?)?)?)?\b)"
)
_PASTES_HAS = re.compile(rb"\b__has_\b|\b__has_\s*##")
_BARE_INCLUDE = re.compile(_HASH + rb"[ \t]*(?:include(?:_next)?\b|(?:error|warning)\b[^\n]*)|(\binclude(?:_next)?\b)")

# Files that the compiler reads, or looks at the time of, and that are on no list; and what newer compilers embed.
_OTHER_FILES = re.compile(
    rb"\b(?:GCC|clang)\s+(?:dependency|pch_preprocess|module)\b|\binclude_alias\b|__has_embed|" + _HASH + rb"[ \t]*embed\b"
    rb"|^\s*(?:export\s+)?import\s*[<\"]|@import\b",
    re.MULTILINE,
)

# No text without one of them is found by the pattern above, or by the one below.
_OTHER_FILES_WORDS = (b"dependency", b"pch_preprocess", b"module", b"include_alias", b"embed", b"import")
_ASSEMBLER_WORDS = re.compile(rb"incbin|\.\s*i")

_ADJACENT = re.compile(rb'"\s*"')
# The directives, and what may be the first piece of one: `".inc" "bin"`, `STRING(.inc) "bin"`; not a member's name.
_ASSEMBLER = re.compile(
    rb'incbin|\.\s*include\b|\.i(?:n(?:c(?:l(?:ud?)?|bi?)?)?)?(?:["\\]|\s*##)'
    rb"|(?<![\w)\].])\.i(?:n(?:c(?:l(?:ud?)?|bi?)?)?)?\b(?!\s*(?:=|\[|\{|\.))"
)


@dataclass(frozen=True, slots=True)
class Names:
    """What one text may look for.  The `_next` ones are those that go on behind the directory where the text itself was found."""

    quoted: frozenset[str]
    asked: frozenset[str]  # those of __has_include("…"), which a macro may carry to any other text
    angled: frozenset[str]
    quoted_next: frozenset[str]
    angled_next: frozenset[str]
    trouble: Reason | None
    pastes_has: bool  # `__has_ ## x` …
    bare_include: bool  # … and `include` as a word by itself, in this text or another: together a name that nobody can read
    says_lines: bool  # by #line, of another file perhaps, which gcc reads to quote them in a message


def names_in(text: bytes) -> Names:
    """Every name that a source, a header or a macro of the command line may look for."""
    text = _CONTINUATION.sub(b"", text)
    included, asked = set[str](), set[str]()
    angled, quoted_next, angled_next = set[str](), set[str](), set[str]()
    for pattern, quoted in ((_INCLUDE, included), (_ASKED, asked)):
        for onwards, in_angles, in_quotes in pattern.findall(text):
            if in_angles:
                (angled_next if onwards else angled).add(os.fsdecode(in_angles))
            elif in_quotes:
                quoted.add(os.fsdecode(in_quotes))
                quoted_next.update((os.fsdecode(in_quotes),) if onwards else ())
    code = _TOKEN.sub(lambda m: m[1] if m[1] is not None else b" ", text)
    bare = _TOKEN.sub(b" ", text)
    return Names(
        frozenset(included),
        frozenset(asked),
        frozenset(angled),
        frozenset(quoted_next),
        frozenset(angled_next),
        trouble=_trouble(code),
        pastes_has=_PASTES_HAS.search(bare) is not None,
        bare_include=any(m[1] for m in _BARE_INCLUDE.finditer(bare)),
        says_lines=_LINES.search(text) is not None,
    )


def reads_other_files(text: bytes) -> bool:
    """Whether the compiler or the assembler may read a file that this text, taken as one in a source, names, and not as a text of C."""
    code = _CONTINUATION.sub(b"", text)
    if any(word in code for word in _OTHER_FILES_WORDS) or _ASSEMBLER_WORDS.search(_ADJACENT.sub(b"", code)):
        return _reads_other_files(code) is not None
    return False


def _trouble(code: bytes) -> Reason | None:
    if _COMPUTED.search(code) or any(m[1] for m in _ASKED_OTHERWISE.finditer(code)):
        return Reason.FALLBACK_COMPUTED
    return _reads_other_files(code)


def _reads_other_files(code: bytes) -> Reason | None:
    if _OTHER_FILES.search(code):
        return Reason.FALLBACK_FILES
    if _ASSEMBLER.search(_ADJACENT.sub(b"", code)):
        return Reason.FALLBACK_ASSEMBLER
    return None
