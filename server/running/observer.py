"""Where compilers leave their records: files on tmpfs if there is room, made once and used again.

A record file is allocated whole before a compiler maps it: on a full tmpfs the compiler would otherwise die of SIGBUS where we
get ENOSPC.  Where fallocate is refused (a sandbox, musl's C library on some file systems) it is written whole.  After use the part
that was written is zeroed (a record's `done` byte must start as 0).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import functools
import glob
import itertools
import logging
import os
import signal
import sys
from collections.abc import Iterable, Mapping

from sccache_py import observation
from sccache_py.elf import Image, read_image
from sccache_py.errors import FormatError
from sccache_py.keys import digest
from sccache_py.server.filesystem.files import open_regular, write_all
from sccache_py.server.filesystem.private import remove_unless_held

log = logging.getLogger(__name__)

# A rustc leaves some 25 KB, a C++ compile with many include directories a few hundred.
RECORD_BYTES = 4 * 1024 * 1024
# Where one call is about many files: for each source, with which a compiler runs, and for each object or library that a linker reads.
_FOR_A_SOURCE = 256 * 1024
_FOR_A_LINKED_FILE = 1024
_MOST = 64 * 1024 * 1024

# How long something that has left its compiler's process group may take to end.
_RELEASE_STEP_S = 0.005
_RELEASE_STEPS = 40

_LIBRARY = "libsccache-observe.so"
_SANITIZER = "libasan"
_ANY_ORDER = "verify_asan_link_order=0"


def image_of(path: str) -> Image:
    """Raises OSError."""
    with open_regular(path) as f:
        return read_image(functools.partial(os.pread, f.fileno()))


def started_by(image: Image) -> Image:
    """What the kernel starts where that is executed: of a script its interpreter.  Raises OSError."""
    return image_of(image.script) if image.script else image


class Record:
    """One compile's record file."""

    def __init__(self, path: str, size: int = RECORD_BYTES) -> None:
        """Raises OSError."""
        self.path = path
        self.size = size
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            self._lock()
            os.stat(path)  # raises if it was swept just before
            self._allocate()
            self.reset(0)
            self._tells_users = not self._is_in_use()
        except OSError:
            self.discard()
            raise

    def _lock(self) -> None:
        """For as long as we live, so that nobody sweeps it; where there are no locks nobody can."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:
            pass

    def _is_in_use(self) -> bool:
        """Whether another process may write to it: while one has it open or mapped the kernel grants no lease for writing (fcntl(2))."""
        try:
            # Who opens it meanwhile breaks the lease, for which we would be sent SIGIO and end.  SIGURG is nothing to us.
            fcntl.fcntl(self._fd, fcntl.F_SETSIG, signal.SIGURG)
            fcntl.fcntl(self._fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            fcntl.fcntl(self._fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        except OSError:
            return True
        return False

    async def is_released(self) -> bool:
        """Whether all of the compiler's tree has ended, also what left its process group; a moment is granted to those that do just now."""
        for _ in range(_RELEASE_STEPS):
            if not self._tells_users or not self._is_in_use():
                return True
            await asyncio.sleep(_RELEASE_STEP_S)
        return False

    def _allocate(self) -> None:
        try:
            os.posix_fallocate(self._fd, 0, self.size)
        except OSError as e:
            if e.errno == errno.ENOSPC:
                raise
            write_all(self._fd, bytes(self.size))

    def reset(self, used: int) -> None:
        if used > observation.HEADER_BYTES:
            os.pwrite(self._fd, bytes(used - observation.HEADER_BYTES), observation.HEADER_BYTES)
        os.pwrite(self._fd, observation.new_header(self.size), 0)

    def used(self) -> int:
        """Bytes that were written, header included."""
        try:
            return observation.used_bytes(os.pread(self._fd, observation.HEADER_BYTES, 0))
        except FormatError:
            return self.size

    def take(self) -> bytes:
        """What was recorded, header included."""
        return os.pread(self._fd, self.used(), 0)

    def discard(self) -> None:
        os.close(self._fd)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)


class Observer:
    def __init__(self, library_directory: str | None, runtime_directory: str) -> None:
        """library_directory: where the preload library is; None: nothing can be observed here."""
        self.library: str | None = None
        self.identity = b""  # of the library; part of every key: what another one did not see is no condition of what it stored
        self._free: list[Record] = []
        self._serial = itertools.count()
        # A container's /dev/shm has 64 MB: where that is not enough a file system on disk has to do.
        self._directories = [d for d in ("/dev/shm", runtime_directory) if os.access(d, os.W_OK)]
        self._sweep()
        self._ours = Image(0, "", "")
        if library_directory is None:
            return
        path = os.path.join(library_directory, _LIBRARY)
        if not os.path.isfile(path):
            return
        with open_regular(path) as f:
            self.identity = digest(f.read())
        # LD_PRELOAD is split at spaces and colons.
        if any(c in path for c in " :"):
            link = os.path.join(runtime_directory, f"{os.getpid()}-{_LIBRARY}")
            with contextlib.suppress(FileExistsError):
                os.symlink(path, link)
            path = link
        self.library = path
        with contextlib.suppress(OSError):
            self._ours = image_of(os.path.realpath(sys.executable if not getattr(sys, "frozen", False) else "/bin/sh"))

    def _sweep(self) -> None:
        """Remove the records of servers that were killed: nobody else will, and they are memory."""
        names = f"sccache-py-{os.getuid()}-*"
        for path in (path for d in self._directories for path in glob.glob(f"{glob.escape(d)}/{names}")):
            with contextlib.suppress(OSError):
                remove_unless_held(path)

    def can_preload(self, image: Image) -> bool:
        """Whether a program of this image loads our library: same class and same C library as we were built for."""
        return (
            self.library is not None
            and image.interpreter != ""
            and (image.elf_class, image.interpreter) == (self._ours.elf_class, self._ours.interpreter)
        )

    def begin(self, sources: int = 1, linked: int = 0) -> Record | None:
        """A record file to give to a compiler for so many sources and linked files; None where there is no room for one."""
        size = min(max(RECORD_BYTES, sources * _FOR_A_SOURCE + linked * _FOR_A_LINKED_FILE), _MOST)
        if self._free and size == RECORD_BYTES:
            return self._free.pop()
        name = f"sccache-py-{os.getuid()}-{os.getpid()}-{next(self._serial)}"
        for directory in self._directories:
            try:
                return Record(f"{directory}/{name}", size)
            except OSError as e:
                log.warning("no room for an observation record in %s: %s", directory, e)
        return None

    def end(self, record: Record, used: int, reusable: bool) -> None:
        """`reusable` only if the whole process tree is gone: a straggler would write into another compile's record."""
        if not reusable or record.size != RECORD_BYTES:
            record.discard()
            return
        try:
            record.reset(used)
        except OSError:
            record.discard()
            return
        self._free.append(record)

    def environment(self, env: Mapping[str, str], record: Record, libraries: Iterable[str]) -> dict[str, str]:
        """`env` for an observed compiler, which starts with these libraries.  The caller's own LD_PRELOAD stays, behind ours."""
        assert self.library is not None
        child = dict(env)
        theirs = env.get("LD_PRELOAD")
        child["LD_PRELOAD"] = f"{self.library}:{theirs}" if theirs else self.library
        child["SCCACHE_PY_OBSERVE"] = record.path
        # A program made by gcc -fsanitize=address, or under a preloaded libasan.so, ends if another library comes first.
        if any(_SANITIZER in path for path in (*libraries, theirs or "")):
            options = env.get("ASAN_OPTIONS")
            child["ASAN_OPTIONS"] = f"{_ANY_ORDER}:{options}" if options else _ANY_ORDER
        return child

    def close(self) -> None:
        for record in self._free:
            record.discard()
        self._free.clear()
