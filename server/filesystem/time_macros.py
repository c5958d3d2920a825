"""What a source says that no observation of files shows: the time, its own name, and paths spelled out.

`__DATE__` and kin: whoever expands one calls localtime, which asks for TZ (gcc's libcpp/macro.cc, clang's PPMacroExpansion.cpp). If
SOURCE_DATE_EPOCH is set, __DATE__ and __TIME__ are what it says: gcc asks for it when it expands one of them, and only then, clang
from version 16 on, always and for __TIMESTAMP__ too, which gcc takes from the file's mtime whatever the variable says.

`__FILE__` and kin: where a path is told by a role, an object may depend on the path's length or hash, and not show it.

A path of a role that stands in a text is that very path for every checkout, not each one's own.

What a file says is remembered by its digest, so each content is searched once (300 headers of C++: 13 ms for three words), and for
each set of paths.  A word in a comment counts: to tell it apart would take a preprocessor.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from sccache_py.compilers.basedirs import NAMES

_TIMES = (b"__DATE__", b"__TIME__", b"__TIMESTAMP__")
# It says which of two files was changed last; told as one of the macros.
DEPENDENCY = b"#pragma GCC dependency"
_DEPENDENCY = re.compile(rb"(?:GCC|clang)(?:\s|\\\r?\n|/\*.*?\*/)+dependency\b", re.DOTALL)

# What names a file of a build script's, and says no more than which: `include!(concat!(env!("OUT_DIR"), "/x.rs"))`.  Else it may be in a
# result in any form.
OUT_DIR = b"OUT_DIR"
_INCLUDES = re.compile(
    rb"(?<![\w:])(?:(?:::)?(?:std|core)::)?include(?:_str|_bytes)?\s*!\s*[(\[{]\s*concat\s*!\s*[(\[{]\s*"
    rb"env\s*!\s*[(\[{]\s*\"OUT_DIR\"\s*,?\s*[)\]}]\s*,"
)
_REDEFINES = re.compile(
    rb"macro_rules!\s*(?:concat|env|include)|\bas\s+(?:concat|env|include)"
    rb"|\buse\s+(?!(?:::)?(?:std|core)\b)[^;]*\b(?:concat|env|include(?:_str|_bytes)?)\s*[;,}]"
)
# env! of what is put together: env!(concat!("OUT_", "DIR")).
_PUT_TOGETHER = re.compile(rb"env\s*!\s*[(\[{]\s*[^\s\"]")

# Precompiled headers name every macro there is, used or not.
_PRECOMPILED = (b"gpch", b"CPCH")
_PROGRAM = b"\x7fELF"

# Headers that hand __FILE__ to a function or print it, as a string, which an object or a message that depends on it then shows.  All C++17
# reads the last.
_HANDS_ON = ("/assert.h", "/bits/c++config.h", "/debug/macros.h", "/debug/string", "/pstl/pstl_config.h")

_MEMO_LIMIT = 200_000

Words = tuple[bytes, ...]


class TimeMacros:
    def __init__(self) -> None:
        self._used: dict[tuple[bytes, Words], Words] = {}
        self._only_include: set[bytes] = set()

    def known(self, digest: bytes, others: Words = ()) -> Words | None:
        """Which macros of the clock and which other words the content of this digest names; None: search() was not called for it."""
        times, found = self._used.get((digest, _TIMES)), self._used.get((digest, others))
        return None if times is None or found is None else times + self._less(found, digest)

    def note_that_they_only_include(self, digests: Iterable[bytes]) -> None:
        """Outputs of a crate whose sources say OUT_DIR to include files alone: a macro in them says nothing else."""
        if len(self._only_include) >= _MEMO_LIMIT:
            self._only_include.clear()
        self._only_include.update(digests)

    def _less(self, words: Words, digest: bytes) -> Words:
        return tuple(word for word in words if word != OUT_DIR) if digest in self._only_include else words

    def search(self, data: bytes, digest: bytes, others: Words = ()) -> Words:
        if len(self._used) >= _MEMO_LIMIT:
            self._used.clear()
        for words in (_TIMES, others):
            if (digest, words) not in self._used:
                passed = data.startswith(_PROGRAM) or (words is _TIMES and data.startswith(_PRECOMPILED))
                wanted = (word for word in words if not passed or word == OUT_DIR)
                found = tuple(word for word in wanted if (word in data if word != OUT_DIR else _says_out_dir(data)))
                if words is _TIMES and not passed and _DEPENDENCY.search(data):
                    found += (DEPENDENCY,)
                self._used[digest, words] = found
        return self._used[digest, _TIMES] + self._less(self._used[digest, others], digest)


def _says_out_dir(data: bytes) -> bool:
    """Otherwise than to include a file."""
    if data.startswith(_PROGRAM) or OUT_DIR not in data:
        return OUT_DIR in data or _PUT_TOGETHER.search(data) is not None
    return OUT_DIR in _INCLUDES.sub(b"", data) or any(p.search(data) for p in (_REDEFINES, _PUT_TOGETHER))


def tells_names(used: Iterable[bytes], path: str) -> bool:
    """Whether an object may depend on how this file, or one that includes it, is called, without showing it."""
    return not path.endswith(_HANDS_ON) and any(word in NAMES for word in used)


def result_tells_time(used: Iterable[bytes], arguments: Iterable[str], asked: Mapping[str, str | None]) -> bool:
    """Whether a result depends on the clock.

    used: macros in what was read.  asked: variables that the compiler asked for, with their values; if it was not watched, TZ is one.
    """
    words = list(arguments)
    in_words = {m for m in _TIMES if any(m.decode() in w for w in words)}
    defined = {m for m in _TIMES if any(w.startswith(m.decode() + "=") for w in words)}
    named = {*(m for m in used if m in _TIMES), *in_words} - defined
    if "TZ" not in asked:
        return False
    if asked.get("SOURCE_DATE_EPOCH"):
        return b"__TIMESTAMP__" in named
    return bool(named) or "SOURCE_DATE_EPOCH" in asked
