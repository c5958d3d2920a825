"""A store in memory and a temporary directory: for tests, and behind a server whose cache directory cannot be used."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterable

from sccache_py.errors import StoreError
from sccache_py.server.store.base import Change


class MemoryStore:
    location = "memory"

    def __init__(self, limit_bytes: int = 1 << 30) -> None:
        self.limit_bytes = limit_bytes
        self._values: dict[bytes, bytes] = {}
        self._files: dict[bytes, str] = {}
        self._directory = tempfile.mkdtemp(prefix="sccache-py-")
        self._serial = itertools.count()

    def get(self, key: bytes) -> bytes | None:
        return self._values.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        self._values[key] = value

    def update(self, key: bytes, change: Change) -> None:
        self._values[key] = change(self._values.get(key))

    def together(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def delete(self, key: bytes) -> None:
        self._values.pop(key, None)
        path = self._files.pop(key, None)
        if path is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def file_path(self, key: bytes) -> str | None:
        return self._files.get(key)

    def has(self, key: bytes) -> bool:
        return key in self._values or key in self._files

    def keys(self, prefix: bytes) -> list[bytes]:
        return [key for key in (*self._values, *self._files) if key.startswith(prefix)]

    def scratch_path(self) -> str:
        return f"{self._directory}/{next(self._serial)}"

    def adopt_file(self, key: bytes, path: str) -> str:
        if not os.path.isfile(path):
            raise StoreError(f"no file {path}")
        self.delete(key)
        self._files[key] = path
        return path

    def mark_used(self, keys: Iterable[bytes]) -> None:
        for key in keys:
            if key in self._values:
                self._values[key] = self._values.pop(key)
            if key in self._files:
                self._files[key] = self._files.pop(key)

    def cull(self) -> int:
        gone = 0
        while self.size_bytes() > self.limit_bytes and (self._files or self._values):
            self.delete(next(iter(self._files or self._values)))
            gone += 1
        return gone

    def sweep_orphans(self) -> int:
        return 0

    def size_bytes(self) -> int:
        return sum(len(v) for v in self._values.values()) + sum(os.path.getsize(p) for p in self._files.values())

    def close(self) -> None:
        shutil.rmtree(self._directory, ignore_errors=True)
