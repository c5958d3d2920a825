"""The store on disk: diskcache, held to bytes.

diskcache keeps a SQLite table beside files of its own naming.  Two of its habits are refused here.  It unpickles what a row says
is a pickle (CVE-2025-69872), and it opens and deletes whatever path a row names: a planted `../victim` row made a plain `set`
delete that file.  So our Disk writes no pickle, reads none, and knows only file names of its own shape.

Values carry their digest, so that a torn or flipped row is a miss; files are stored under the digest of their content, and who
reads one checks it.

The table is read without a transaction (`eviction_policy="none"`: an LRU get would be a write that waits for any writer); what
was used is marked in batches.  Culling and marks speak SQL to diskcache's table `Cache` (key, size, access_time, filename:
unchanged since 3.0).
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import diskcache
from diskcache.core import MODE_BINARY as MODE_BINARY
from diskcache.core import MODE_RAW as MODE_RAW

from sccache_py.errors import StoreBusy, StoreError
from sccache_py.keys import digest
from sccache_py.roles import is_below
from sccache_py.server.filesystem.private import make_directory
from sccache_py.server.store.base import Change

log = logging.getLogger(__name__)

# How long a statement waits for another process's write before it counts as a miss; and the next ones do not until one succeeds.
_TIMEOUT_S = 0.05

# The same for the statements with which diskcache opens a database: clients wait meanwhile, and diskcache alone would try for a minute.
_OPENING_S = 3.0

# More bytes than any key has behind its prefix.
_LONGEST_KEY = 64

# Culling goes this far below the limit, so that it is not due again at the next store.
_CULL_TO = 0.9

VALUE_FILE = re.compile(r"[0-9a-f]{2}/[0-9a-f]{2}/[0-9a-f]{28}\.val")
_SCRATCH = "scratch"
_DATABASE = ("cache.db", "cache.db-wal", "cache.db-shm")
_ASIDE = re.compile(r"damaged-\d+")

# An abandoned file of another server may be younger than this: it is about to be adopted.
_ORPHAN_AGE_S = 3600.0

# SQLite's write-ahead log needs shared memory, which these cannot give.
_NETWORK_FILE_SYSTEMS = frozenset(
    ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "ceph", "afs", "lustre", "glusterfs", "fuse.glusterfs")
)


def unsealed(value: object) -> bytes:
    """Without the digest that stands before it.  Raises StoreError."""
    if not isinstance(value, bytes) or digest(value[16:]) != value[:16]:
        raise StoreError("a value that does not match its digest")
    return value[16:]


class _Scratch:
    """A file that is about to become a value; then `path` is where it is."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.size = os.path.getsize(path)


class _BytesDisk(diskcache.Disk):  # type: ignore[misc]
    def put(self, key: Any) -> tuple[Any, bool]:
        if not isinstance(key, bytes):
            raise StoreError(f"key of type {type(key).__name__}")
        return sqlite3.Binary(key), True

    def get(self, key: Any, raw: Any) -> Any:
        if not raw:
            raise StoreError("a key that is not bytes")
        return bytes(key)

    def store(self, value: Any, read: bool, key: Any = None) -> tuple[int, int, str | None, Any]:
        if isinstance(value, bytes):
            return len(value), MODE_RAW, None, sqlite3.Binary(value)
        if not isinstance(value, _Scratch):
            raise StoreError(f"value of type {type(value).__name__}")
        name, path = self.filename()
        make_directory(os.path.dirname(path))
        os.rename(value.path, path)
        value.path = path
        return value.size, MODE_BINARY, name, None

    def fetch(self, mode: Any, filename: Any, value: Any, read: bool) -> Any:
        if mode == MODE_RAW and isinstance(value, bytes):
            return value
        if mode == MODE_BINARY and read and self._is_ours(filename):
            return open(os.path.join(self._directory, filename), "rb", opener=_open_file)
        raise StoreError("a row that we did not write")

    def remove(self, file_path: Any) -> None:
        if self._is_ours(file_path):
            super().remove(file_path)

    @staticmethod
    def _is_ours(filename: Any) -> bool:
        return isinstance(filename, str) and VALUE_FILE.fullmatch(filename) is not None


def _open_file(path: str, flags: int) -> int:
    # A FIFO in the place of one of our files would hold the store's only thread.
    return os.open(path, flags | os.O_NONBLOCK)


def _code(error: Exception) -> int:
    """SQLite's primary result code; 0 for what it did not say."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


class _Table(diskcache.Cache):  # type: ignore[misc]
    @property
    def _sql_retry(self) -> Callable[..., Any]:
        """What diskcache 5.6 says when it opens a database, outside any transaction."""

        def execute(*statement: Any) -> Any:
            give_up = time.monotonic() + _OPENING_S
            while True:
                try:
                    return self._sql(*statement)
                except sqlite3.OperationalError as e:
                    if _code(e) != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                        raise
                    time.sleep(0.001)

        return execute


class DiskStore:
    """Raises StoreError on opening where there is no way to keep anything in `directory`."""

    def __init__(self, directory: str, limit_bytes: int) -> None:
        self.location = directory
        self.limit_bytes = limit_bytes
        self._database = os.path.join(directory, "cache.db")
        self._serial = itertools.count()
        self._damaged = False
        self._waits = True
        kind = file_system_kind(directory)
        if kind in _NETWORK_FILE_SYSTEMS:
            raise StoreError(f"{directory} is on a network file system ({kind}); set SCCACHE_DIR to a local directory")
        with self._translated():
            self._make_directories()
            # `access` lies to root and to read-only mounts alike; making a file does not.
            probe = self.scratch_path()
            os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            os.unlink(probe)
        try:
            self._cache = self._open()
        except sqlite3.OperationalError as e:
            raise (StoreBusy if _code(e) == sqlite3.SQLITE_BUSY else StoreError)(f"{directory}: {e}") from e
        except StoreBusy:
            raise
        except (sqlite3.DatabaseError, StoreError, ValueError, KeyError, TypeError, AttributeError) as e:
            log.warning("the cache's database in %s is damaged (%s): moved aside, starting anew", directory, e)
            with self._translated():
                self._move_aside()
                self._cache = self._open()

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except diskcache.Timeout as e:
            self._wait_for_locks(False)  # whoever comes next would wait as long, for nothing
            raise StoreBusy("the database was busy") from e
        except (sqlite3.Error, OSError) as e:
            # A page in the middle, which nobody reads on opening: of an index, and nothing could be stored any more; of the table, and
            # nothing would be culled.
            self._damaged = self._damaged or _code(e) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
            raise StoreError(f"{type(e).__name__}: {e}") from e

    def _make_directories(self) -> None:
        make_directory(self.location)
        make_directory(os.path.join(self.location, _SCRATCH))

    def _return_if_removed(self) -> None:
        """`rm -rf` of the directory, or another server that moved a damaged database aside: SQLite would go on with the deleted file.

        One that was found damaged since is moved aside here.
        """
        try:
            is_there = os.stat(self._database).st_ino == self._inode
        except FileNotFoundError:
            is_there = False
        if is_there and not self._damaged:
            return
        log.warning("the cache in %s was %s: starting anew", self.location, "damaged" if is_there else "removed")
        with contextlib.suppress(sqlite3.Error):
            self._cache.close()
        self._make_directories()
        if is_there:
            self._move_aside()
        self._cache = self._open()
        self._damaged = False

    def _open(self) -> Any:
        try:
            cache = _Table(
                self.location,
                timeout=_TIMEOUT_S,
                disk=_BytesDisk,
                eviction_policy="none",
                cull_limit=0,
                size_limit=self.limit_bytes,
                sqlite_cache_size=1024,
                statistics=0,
                tag_index=0,
                disk_min_file_size=0,
                disk_pickle_protocol=0,
            )
        except diskcache.Timeout as e:
            raise StoreBusy("the database was busy") from e
        # Reads a page of the table: a header that is whole does not say that the rest is.
        cache._sql("SELECT key, filename FROM Cache ORDER BY rowid DESC LIMIT 1").fetchall()
        self._inode = os.stat(self._database).st_ino
        return cache

    def _move_aside(self) -> None:
        """For somebody to look at.  Only the last one is kept: else a sick disk would fill up with them, beyond any limit."""
        for earlier in filter(_ASIDE.fullmatch, os.listdir(self.location)):
            for name in _DATABASE:
                with contextlib.suppress(OSError):
                    os.unlink(os.path.join(self.location, earlier, name))
            with contextlib.suppress(OSError):  # something else is in it
                os.rmdir(os.path.join(self.location, earlier))
        aside = os.path.join(self.location, f"damaged-{int(time.time())}")
        make_directory(aside)
        for name in _DATABASE:
            with contextlib.suppress(FileNotFoundError):
                os.rename(os.path.join(self.location, name), os.path.join(aside, name))

    def get(self, key: bytes) -> bytes | None:
        with self._translated():
            value = self._cache.get(key)
        if value is None:
            return None
        return unsealed(value)

    def put(self, key: bytes, value: bytes) -> None:
        with self._translated():
            self._return_if_removed()
            self._cache.set(key, digest(value) + value)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        with self._translated():
            self._return_if_removed()
        with self._translated(), self._cache.transact():
            yield
        if not self._waits:
            self._wait_for_locks(True)

    def _wait_for_locks(self, wait: bool) -> None:
        self._waits = wait
        with contextlib.suppress(sqlite3.Error):
            self._cache._sql(f"PRAGMA busy_timeout = {round(_TIMEOUT_S * 1000) if wait else 0}").fetchall()

    def update(self, key: bytes, change: Change) -> None:
        with self.together():
            try:
                old = self.get(key)
            except StoreError:
                if self._damaged:
                    raise  # not only this value
                old = None
            self.put(key, change(old))

    def delete(self, key: bytes) -> None:
        with self._translated():
            self._cache.delete(key)

    def file_path(self, key: bytes) -> str | None:
        with self._translated():
            self._return_if_removed()
            handle = self._cache.get(key, read=True)
            if handle is None:
                return None
            if isinstance(handle, bytes):
                raise StoreError("a value where a file was expected")
            handle.close()
            return str(handle.name)

    def has(self, key: bytes) -> bool:
        with self._translated():
            self._return_if_removed()  # each compile is stored by asking this first
            return key in self._cache

    def keys(self, prefix: bytes) -> list[bytes]:
        with self._translated():
            found = "SELECT key FROM Cache WHERE raw = 1 AND key >= ? AND key < ? ORDER BY rowid"
            rows = self._cache._sql(found, (sqlite3.Binary(prefix), sqlite3.Binary(prefix + b"\xff" * _LONGEST_KEY))).fetchall()
        return [bytes(key) for (key,) in rows if isinstance(key, bytes) and key.startswith(prefix)]

    def scratch_path(self) -> str:
        with self._translated():
            self._make_directories()
        return os.path.join(self.location, _SCRATCH, f"{os.getpid()}-{next(self._serial)}")

    def adopt_file(self, key: bytes, path: str) -> str:
        with self._translated():
            self._return_if_removed()
            adopted = _Scratch(path)
            self._cache.set(key, adopted, read=True)
            return str(adopted.path)

    def mark_used(self, keys: Iterable[bytes]) -> None:
        now = time.time()
        with self._translated(), self._cache.transact():
            for key in keys:
                self._cache._sql("UPDATE Cache SET access_time = ? WHERE key = ? AND raw = 1", (now, sqlite3.Binary(key)))

    def cull(self) -> int:
        size = self.size_bytes()
        if size <= self.limit_bytes:
            return 0
        with self._translated():
            rows = self._cache._sql("SELECT key, size FROM Cache WHERE raw = 1 ORDER BY max(access_time, store_time)").fetchall()
            gone = 0
            for key, row_size in rows:
                if size <= self.limit_bytes * _CULL_TO:
                    break
                # What counts for us outlives what it counts: statistics are small and have no copy.
                if bytes(key).startswith(b"stats"):
                    continue
                self._cache.delete(bytes(key))
                size -= row_size
                gone += 1
        return gone

    def size_bytes(self) -> int:
        with self._translated():
            # Kept by diskcache's triggers: the sum of `size`, which our Disk gives for values and files alike.
            ((size,),) = self._cache._sql("SELECT value FROM Settings WHERE key = 'size'").fetchall()
            return int(size)

    def sweep_orphans(self) -> int:
        """Remove files that no row names; how many went.  For a quiet moment: it walks the directory."""
        gone = 0
        with self._translated():
            known = {name for (name,) in self._cache._sql("SELECT filename FROM Cache WHERE filename IS NOT NULL").fetchall()}
            for directory, names in self._value_directories():
                for name in names:
                    path = os.path.join(self.location, directory, name)
                    if f"{directory}/{name}" in known:
                        continue
                    with contextlib.suppress(OSError):
                        if time.time() - os.stat(path).st_mtime > _ORPHAN_AGE_S:
                            os.unlink(path)
                            gone += 1
        return gone

    def _value_directories(self) -> Iterator[tuple[str, list[str]]]:
        for first in os.listdir(self.location):
            if first == _SCRATCH:
                yield first, os.listdir(os.path.join(self.location, first))
            elif re.fullmatch("[0-9a-f]{2}", first):
                for second in os.listdir(os.path.join(self.location, first)):
                    directory = f"{first}/{second}"
                    with contextlib.suppress(OSError):
                        yield directory, os.listdir(os.path.join(self.location, directory))

    def close(self) -> None:
        with self._translated():
            self._cache._sql("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            self._cache.close()


def file_system_kind(path: str) -> str:
    """The type of the file system that `path` is or would be on; "" where that cannot be told."""
    path = os.path.realpath(path)
    best, kind = "", ""
    try:
        with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as mounts:
            for line in mounts:
                fields = line.split(" ")
                point = fields[1].replace("\\040", " ")
                if is_below(path, point) and len(point) >= len(best):
                    best, kind = point, fields[2]
    except (OSError, IndexError):
        return ""
    return kind
