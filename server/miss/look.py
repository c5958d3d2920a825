"""How a driver that has only lists sees files (compilers/driver.py, `Look`).

Each path is looked at once.  What is as young as the question is not looked at: whether the compiler saw it nobody knows.
"""

from __future__ import annotations

import os
import stat

from sccache_py.compilers.c_includes import Names, names_in
from sccache_py.keys import digest as digest_of
from sccache_py.server.filesystem.files import FileMemo, open_regular
from sccache_py.server.filesystem.sight import Sight
from sccache_py.server.filesystem.stamps import latest_ns, which_of

_MEMO_LIMIT = 50_000


class TextMemo:
    """Digest of a C source → what it may look for."""

    def __init__(self) -> None:
        self._names: dict[bytes, Names] = {}

    def names(self, path: str, digest: bytes) -> Names | None:
        """None: the file is not what it was when it was hashed.  Raises OSError."""
        known = self._names.get(digest)
        if known is None:
            with open_regular(path) as f:
                text = f.read()
            if digest_of(text) != digest:
                return None
            if len(self._names) >= _MEMO_LIMIT:
                self._names.clear()
            known = self._names[digest] = names_in(text)
        return known


class FileLook:
    def __init__(self, memo: FileMemo, texts: TextMemo, asked_ns: int) -> None:
        """asked_ns: when the compiler was asked for its list (CLOCK_REALTIME_COARSE)."""
        self._sight = Sight(memo)
        self._texts = texts
        self._asked_ns = asked_ns
        self._seen: dict[str, os.stat_result | None] = {}
        self.saw_too_new = False

    def _stat(self, path: str) -> os.stat_result | None:
        if path not in self._seen:
            try:
                self._seen[path] = os.stat(path)
            except (OSError, ValueError):
                self._seen[path] = None
        return self._seen[path]

    def identity(self, path: str) -> tuple[int, int] | None:
        st = self._stat(path)
        if st is None or stat.S_ISDIR(st.st_mode):
            return None
        self.saw_too_new = self.saw_too_new or latest_ns(st.st_ctime_ns) >= self._asked_ns
        return st.st_dev, st.st_ino

    def which(self) -> dict[str, str]:
        """Which file each path was, when it was looked at."""
        return {path: which_of(st) for path, st in self._seen.items() if st is not None}

    def is_directory(self, path: str) -> bool:
        st = self._stat(path)
        return st is not None and stat.S_ISDIR(st.st_mode)

    def names(self, path: str) -> Names | None:
        digest = self._sight.hash_now(path)
        try:
            return self._texts.names(path, digest) if digest is not None else None
        except OSError:
            return None
