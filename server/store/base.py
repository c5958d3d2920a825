"""What a store is: small values by key, and files by key.  Anything it cannot do is a StoreError; a missing key is None.

The callers know nothing of how it is kept.  Every method may block: they run in the store's own thread (keeper.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Protocol


class Store(Protocol):
    location: str
    limit_bytes: int

    def get(self, key: bytes) -> bytes | None: ...

    def put(self, key: bytes, value: bytes) -> None: ...

    def update(self, key: bytes, change: Change) -> None:
        """Read, change and write one value with no writer between."""
        ...

    def together(self) -> AbstractContextManager[None]:
        """What is written within it is written at once, and with no writer between."""
        ...

    def delete(self, key: bytes) -> None: ...

    def file_path(self, key: bytes) -> str | None:
        """Where a stored file is; it may be culled at any time, so whoever opens it must bear that it is gone."""
        ...

    def has(self, key: bytes) -> bool: ...

    def keys(self, prefix: bytes) -> list[bytes]:
        """Of values and files, the oldest first."""
        ...

    def scratch_path(self) -> str:
        """A new name on the store's file system, for a file that adopt_file will take."""
        ...

    def adopt_file(self, key: bytes, path: str) -> str:
        """Take a file made under scratch_path() as the value of `key`; where it is now."""
        ...

    def mark_used(self, keys: Iterable[bytes]) -> None:
        """Say that these were of use, so that culling takes others first."""
        ...

    def cull(self) -> int:
        """Remove the longest unused until the size is below the limit; how many went."""
        ...

    def sweep_orphans(self) -> int:
        """Remove what a server that died left behind; how many files went."""
        ...

    def size_bytes(self) -> int: ...

    def close(self) -> None: ...


class Change(Protocol):
    def __call__(self, old: bytes | None) -> bytes: ...
