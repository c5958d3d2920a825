"""Which store a server has: the directory, what can be read there, or memory.

A directory that cannot be used is no reason to fail: the build goes on, and hits within this server's life are still hits.  One that
gives no answer (another process holds the database's lock, the disk stands still) may do so later, so such a server is one for now.
"""

from __future__ import annotations

import logging
import threading
from typing import NamedTuple

from sccache_py import config
from sccache_py.errors import StoreBusy, StoreError
from sccache_py.server.store.base import Store
from sccache_py.server.store.disk import DiskStore
from sccache_py.server.store.memory import MemoryStore
from sccache_py.server.store.reading import ReadingStore

log = logging.getLogger(__name__)

# Where the cache directory cannot be written, so much is kept in memory.
_IN_MEMORY_BYTES = 1 << 30

# A client waits for 10 s until its server is there.
_PATIENCE_S = 5.0


class Opened(NamedTuple):
    store: Store
    for_now: bool


def open_store(settings: config.Settings) -> Opened:
    found: list[Store | StoreError] = []

    def look() -> None:
        try:
            found.append(open_directory(settings))
        except StoreError as e:
            found.append(e)

    # Not to be waited for when we end: what stands in a call to a frozen file system cannot be interrupted.
    thread = threading.Thread(target=look, name="opening", daemon=True)
    thread.start()
    thread.join(_PATIENCE_S)
    store = found[0] if found else StoreBusy(f"{settings.directory}: the disk stands still")
    if not isinstance(store, StoreError):
        return Opened(store, False)
    log.error("the cache directory cannot be used: %s", store)
    return Opened(MemoryStore(min(settings.size_bytes, _IN_MEMORY_BYTES)), isinstance(store, StoreBusy))


def open_directory(settings: config.Settings) -> Store:
    """Raises StoreError where it cannot be read, either."""
    try:
        return DiskStore(settings.directory, settings.size_bytes)
    except StoreError as e:
        try:
            store = ReadingStore(settings.directory, min(settings.size_bytes, _IN_MEMORY_BYTES))
        except StoreError:
            raise e from None
        log.error("the cache directory can only be read: %s", e)
        return store
