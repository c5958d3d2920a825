"""__DATE__ and kin: the one input that no observation of files shows.

What a file says is remembered by its digest, so each content is searched once.  A word in a comment counts: to tell it apart
would take a preprocessor.  gcc asks for SOURCE_DATE_EPOCH when it expands __DATE__ or __TIME__, and only then; clang does so from
version 16 on, and for __TIMESTAMP__ too, which gcc takes from the file's mtime whatever the variable says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

_MACROS = (b"__DATE__", b"__TIME__", b"__TIMESTAMP__")

# Precompiled headers and compilers name every macro there is, used or not.
_NO_SOURCES = (b"gpch", b"CPCH", b"\x7fELF")

_MEMO_LIMIT = 200_000


class TimeMacros:
    def __init__(self) -> None:
        self._used: dict[bytes, tuple[bytes, ...]] = {}

    def known(self, digest: bytes) -> tuple[bytes, ...] | None:
        """Which of the macros the content of this digest names; None: search() was not called for it."""
        return self._used.get(digest)

    def search(self, data: bytes, digest: bytes) -> tuple[bytes, ...]:
        used = () if data.startswith(_NO_SOURCES) else tuple(m for m in _MACROS if m in data)
        if len(self._used) >= _MEMO_LIMIT:
            self._used.clear()
        self._used[digest] = used
        return used


def result_tells_time(used: Iterable[bytes], arguments: Iterable[str], asked: Mapping[str, str | None]) -> bool:
    """Whether a result depends on the clock.

    used: macros in what was read.  asked: variables that the compiler asked for, with their values.
    """
    words = list(arguments)
    in_words = {m for m in _MACROS if any(m.decode() in w for w in words)}
    defined = {m for m in _MACROS if any(w.startswith(m.decode() + "=") for w in words)}
    named = {*used, *in_words} - defined
    if "SOURCE_DATE_EPOCH" not in asked:
        return bool(named)
    return b"__TIMESTAMP__" in named or not asked["SOURCE_DATE_EPOCH"]
