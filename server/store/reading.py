"""A cache directory that may only be read, a mount in a container or another user's: what is new is kept in memory before it.

SQLite is told that the file does not change (`immutable`, https://www.sqlite.org/uri.html), for it can make no lock there.  So that must
be true: with a write-ahead log beside it another server is at work, and nothing is found; and what was read while the file changed counts
as not found.  A row of another's might be taken for the one that was asked for, and its digest would not show it.
"""

from __future__ import annotations

import os
import sqlite3
import urllib.parse

from sccache_py.errors import StoreError
from sccache_py.server.store.base import Change
from sccache_py.server.store.disk import MODE_BINARY, MODE_RAW, VALUE_FILE, unsealed
from sccache_py.server.store.memory import MemoryStore

_ROW = "SELECT mode, filename, value FROM Cache WHERE key = ? AND raw = 1"

_State = tuple[int, int, int]


class ReadingStore(MemoryStore):
    """Raises StoreError on opening where there is nothing to be read in `directory`.

    `keys`, `cull` and `size_bytes` are of what is in memory: nothing of the rest is packed, removed or counted here.
    """

    def __init__(self, directory: str, limit_bytes: int) -> None:
        self._database = os.path.join(directory, "cache.db")
        self._place = directory
        self._rows: sqlite3.Connection | None = None
        self._opened: _State | None = None
        self._deleted: set[bytes] = set()
        self._open()
        super().__init__(limit_bytes)
        self.location = directory

    def _state(self) -> _State | None:
        """None: somebody writes there, or nothing is there."""
        try:
            if os.path.exists(f"{self._database}-wal") and os.stat(f"{self._database}-wal").st_size:
                return None
            st = os.stat(self._database)
        except OSError:
            return None
        return st.st_ino, st.st_size, st.st_mtime_ns

    def _open(self) -> None:
        self._shut()
        state = self._state()
        if state is None:
            raise StoreError(f"{self._database} is not there, or in use")
        try:
            self._rows = sqlite3.connect(
                f"file:{urllib.parse.quote(self._database)}?mode=ro&immutable=1", uri=True, check_same_thread=False
            )
            self._rows.execute("SELECT key, filename FROM Cache ORDER BY rowid DESC LIMIT 1").fetchall()
        except sqlite3.Error as e:
            self._shut()
            raise StoreError(f"{self._database}: {e}") from e
        self._opened = state

    def _shut(self) -> None:
        if self._rows is not None:
            self._rows.close()
        self._rows = self._opened = None

    def _read(self, key: bytes) -> tuple[int, str | None, bytes | None] | None:
        """mode, filename and value of a row."""
        state = self._state()
        if state is None or key in self._deleted:
            return None
        if state != self._opened:
            self._open()
        assert self._rows is not None
        try:
            found = self._rows.execute(_ROW, (sqlite3.Binary(key),)).fetchone()
        except sqlite3.Error as e:
            raise StoreError(f"{self._database}: {e}") from e
        if self._state() != state:
            self._shut()
            return None
        return None if found is None else (found[0], found[1], found[2])

    def get(self, key: bytes) -> bytes | None:
        value = super().get(key)
        if value is None and (row := self._read(key)) is not None:
            mode, _, stored = row
            if mode != MODE_RAW or not isinstance(stored, bytes):
                raise StoreError("a row that we did not write")
            value = unsealed(stored)
        return value

    def file_path(self, key: bytes) -> str | None:
        path = super().file_path(key)
        if path is None and (row := self._read(key)) is not None:
            mode, name, _ = row
            if mode != MODE_BINARY or not isinstance(name, str) or not VALUE_FILE.fullmatch(name):
                raise StoreError("a row that we did not write")
            path = os.path.join(self._place, name)
        return path if path is None or os.path.exists(path) else None

    def has(self, key: bytes) -> bool:
        return super().has(key) or self._read(key) is not None

    def delete(self, key: bytes) -> None:
        super().delete(key)
        self._deleted.add(key)

    def update(self, key: bytes, change: Change) -> None:
        self.put(key, change(self.get(key)))

    def close(self) -> None:
        self._shut()
        super().close()
