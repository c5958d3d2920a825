"""What the server knows of files: digests and directories, remembered by stat; and how files are made.

A digest is remembered with the (device, inode, size, mtime, ctime) that it was computed under, and only if ctime lay below the
coarse clock when hashing began: file timestamps come from that clock, and a file as young as its tick can change again
without showing it.  Where times are rounded down or a ctime is not the kernel's: latest_ns (stamps.py), mounts.py.

One request's look at all this is a `Sight` (sight.py).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import mmap
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import BinaryIO, NamedTuple

from sccache_py.keys import Hasher
from sccache_py.model import Variant
from sccache_py.server.filesystem.mounts import DEVICES
from sccache_py.server.filesystem.stamps import Stamp, latest_ns, stamp_of
from sccache_py.server.filesystem.time_macros import TimeMacros
from sccache_py.server.filesystem.watch import Watcher

# Linux's number of the clock (linux/time.h); Python's time module does not name it.
_CLOCK_REALTIME_COARSE = 5

# Linux's number for ioctl(FICLONE): linux/fs.h, _IOW(0x94, 9, int).
_FICLONE = 0x40049409

_CHUNK_BYTES = 1 << 20

# From this size on a copy from a mapping takes less than copy_file_range, which goes by some pages: 8 MiB 1.4 and 1.9 ms of processor
# time, 28 MiB 4.6 and 6.8, 1.4 MiB the same (ext4, Linux 6.18).
_MAPPED_BYTES = 4 << 20

# Stamps take some 300 bytes each; a big project has some ten thousand files.
_MEMO_LIMIT = 120_000

# Digests of files of this size are kept for the next server, this many at the most.
_LARGE_BYTES = 256 * 1024
_EXPORTED = 4000

# How long to wait for, and how often to look whether, nobody has an executable open for writing any more.
_WRITER_S = 2.0
_WRITER_LOOK_S = 0.0005

# Up to this size a file is written under its own name, by one call: making another name and renaming is as much again.
_AT_ONCE_BYTES = 64 * 1024

_serial = itertools.count()

# No number of what was taken out of what is watched.
NEVER = -1


# (path, the same without links and dots, whether it is a directory) → where it leads, as conditions tell it (Plan.place).
Place = Callable[[str, str, bool], str]


class Watched(NamedTuple):
    """What the kernel says has not changed (watch.py), as of some moment."""

    stamps: Mapping[str, Stamp]  # path → its stat; paths come and go
    dropped: int
    added: int


class Known(NamedTuple):
    stamp: Stamp
    digest: bytes


class State(NamedTuple):
    """What is to be seen of a path without reading it (Sight.state)."""

    stamp: Stamp  # the very one of Watched.stamps if the path was watched: it is another if ever something changed on the way
    kind: bytes
    resolved: str | None  # without links, where that is another path
    watched: bool

    def told(self, path: str, place: Place) -> bytes:
        leads = place(path, self.resolved, self.kind == b"d") if self.resolved is not None else ""
        return self.kind + b">" + os.fsencode(leads) if leads else self.kind


# More than a tick, and more than a clock that is slowed down falls behind in a long compile.
_SET_BACK_NS = 100_000_000


def coarse_ns() -> int:
    """The clock that file timestamps are taken from."""
    return time.clock_gettime_ns(_CLOCK_REALTIME_COARSE)


def by_the_clock_now(began_ns: int, took_ns: int, now_ns: int) -> int:
    """When something began, by the clock as it goes now: what was written since it was set back has times from before the beginning.

    began_ns, now_ns: coarse_ns() then and now; took_ns: the time between by a clock that nobody sets.
    """
    set_back_ns = began_ns + took_ns - now_ns
    return began_ns - set_back_ns if set_back_ns > _SET_BACK_NS else began_ns


def hash_descriptor(fd: int) -> bytes:
    """Digest of an open file from its start to its end."""
    hasher = Hasher()
    offset = 0
    while chunk := os.pread(fd, _CHUNK_BYTES, offset):
        hasher.update(chunk)
        offset += len(chunk)
    return hasher.digest()


def open_regular(path: str) -> BinaryIO:
    """A file to read.  Raises OSError, also for what is no regular file: a FIFO would wait for a writer that never comes."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.ENXIO, "not a regular file", path)
    return os.fdopen(fd, "rb")


def hash_path(path: str) -> tuple[Stamp, bytes, bool] | None:
    """(stamp, digest, whether it may be remembered); None if there is no regular file, or it changed meanwhile."""
    began = coarse_ns()
    try:
        # O_NONBLOCK: a FIFO would wait for its writer.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        before = os.fstat(fd)
        if not stat.S_ISREG(before.st_mode):
            return None
        digest = hash_descriptor(fd)
        stamp = stamp_of(before)
        if stamp_of(os.fstat(fd)) != stamp:
            return None
        return stamp, digest, latest_ns(before.st_ctime_ns) < began
    except OSError:
        return None
    finally:
        os.close(fd)


def _tick_is_fine(directory: str) -> bool:
    path = f"{directory}/.sccache-{os.getpid()}-{next(_serial)}"
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError:
        return False
    try:
        os.unlink(path)
        seen = set()
        for number in range(8):
            os.pwrite(fd, b"%d" % number, 0)
            seen.add(os.fstat(fd).st_ctime_ns)
        return len(seen) == 8
    except OSError:
        return False
    finally:
        os.close(fd)


class Steady(NamedTuple):
    """A variant of which everything held that lies in watched places: as long as nothing changes there only the rest need be looked at."""

    variant: Variant
    dropped: int  # Watcher.dropped at that time
    rest: Variant


class Names(NamedTuple):
    """What a directory says of what is in it, without a look at any of that (readdir(3), d_type)."""

    all: frozenset[str]
    kinds: dict[str, str]  # of those that are no plain files

    @classmethod
    def of(cls, directory: str) -> Names:
        """Raises OSError."""
        with os.scandir(directory) as found:
            kinds = {entry.name: _kind(entry) for entry in found}
        return cls(frozenset(kinds), {name: kind for name, kind in kinds.items() if kind != PLAIN})

    def with_kinds(self) -> Iterator[tuple[str, str]]:
        return ((name, self.kinds.get(name, PLAIN)) for name in self.all)


PLAIN = "file"


def _kind(entry: os.DirEntry[str]) -> str:
    if entry.is_file(follow_symlinks=False):
        return PLAIN
    if entry.is_dir(follow_symlinks=False):
        return "directory"
    return "link" if entry.is_symlink() else "special"


class FileMemo:
    """path → digest and directory → names, for all requests of this process."""

    def __init__(self, watcher: Watcher | None = None) -> None:
        self._watcher = watcher
        self.digests: dict[str, Known] = {}
        self._fine: dict[int, bool] = {}
        self.time_macros = TimeMacros()
        self.states: dict[str, State] = {}
        self._steady: dict[bytes, Steady] = {}
        self.news = False  # something that export() gives was learned since the last one
        self._names: dict[str, tuple[Stamp, Names | None]] = {}

    def watched(self) -> Watched:
        """As of now; also whether something was mounted has been heard then (mounts.py)."""
        if self._watcher is None:
            DEVICES.look()
            return Watched({}, NEVER, 0)
        self._watcher.look()
        return Watched(self._watcher.stamps, self._watcher.dropped, self._watcher.added)

    def watches_more_than(self, watched: Watched) -> bool:
        """Whether a path was put among the watched ones since."""
        return self._watcher is not None and self._watcher.added != watched.added

    def stamps(self) -> Mapping[str, Stamp]:
        """Of what is watched, perhaps no longer true: paths come and go."""
        return self._watcher.stamps if self._watcher is not None else {}

    def wish(self, path: str) -> None:
        """It was looked at, and may be looked at often: worth watching."""
        if self._watcher is not None:
            self._watcher.wish(path)

    def export(self) -> list[list[object]]:
        """What was expensive to learn, newest last: toolchains and big libraries, for the next server of this cache."""
        self.news = False
        large = [
            [path, *known.stamp, known.digest]
            for path, known in self.digests.items()
            if known.stamp[2] >= _LARGE_BYTES and known.stamp[0] > 0
        ]
        return large[-_EXPORTED:]

    def learn(self, exported: object) -> None:
        """The inverse; rows of another shape are passed over."""
        for row in exported if isinstance(exported, list) else ():
            if isinstance(row, list) and len(row) == 7 and isinstance(row[0], str) and isinstance(row[6], bytes):
                device, inode, size, mtime, ctime = row[1:6]
                self.digests[row[0]] = Known((device, inode, size, mtime, ctime), row[6])

    def shows_every_change(self, device: int, directory: str) -> bool:
        """Whether a file of this device that changes after its stat was taken always shows it, even within a tick of the clock.

        Linux ≥ 6.13 gives such a change a timestamp of the fine clock ("multigrain timestamps") on ext4, XFS, btrfs and tmpfs.  Tried out
        once for each device, in `directory`.
        """
        mark = DEVICES[device]
        if mark not in self._fine:
            self._fine[mark] = _tick_is_fine(directory)
        return self._fine[mark]

    def remember_state(self, path: str, state: State) -> None:
        if len(self.states) >= _MEMO_LIMIT // 10:
            self.states.clear()
        self.states[path] = state

    def steady(self, variant: Variant) -> Steady | None:
        known = self._steady.get(variant.result)
        return known if known is not None and known.variant is variant else None

    def remember_steady(self, steady: Steady) -> None:
        if len(self._steady) >= _MEMO_LIMIT // 20:
            self._steady.clear()
        self._steady[steady.variant.result] = steady

    def known(self, path: str, stamp: Stamp) -> bytes | None:
        entry = self.digests.get(path)
        return entry.digest if entry is not None and entry.stamp == stamp else None

    def remember(self, path: str, stamp: Stamp, digest: bytes) -> None:
        if DEVICES.are_late(stamp[0]):
            return
        if len(self.digests) >= _MEMO_LIMIT:
            # The oldest half goes; what is still in use comes back by itself.
            for old in list(itertools.islice(self.digests, _MEMO_LIMIT // 2)):
                self.digests.pop(old, None)
        self.digests[path] = Known(stamp, digest)
        self.news = self.news or stamp[2] >= _LARGE_BYTES

    def hash(self, path: str) -> tuple[Stamp, bytes] | None:
        """A file's stamp and digest, which is remembered if it lasts; None if there is no regular file, or it changed meanwhile."""
        hashed = hash_path(path)
        if hashed is None:
            return None
        stamp, digest, lasting = hashed
        if lasting:
            self.remember(path, stamp, digest)
        return stamp, digest

    def names(self, path: str, stamp: Stamp) -> Names | None:
        entry = self._names.get(path)
        return entry[1] if entry is not None and entry[0] == stamp else None

    def seen_so(self, path: str, stamp: Stamp) -> bool:
        """Whether a directory was as it is when it was looked at the last time: then it is worth listing."""
        entry = self._names.get(path)
        return entry is not None and entry[0] == stamp

    def remember_names(self, path: str, stamp: Stamp, names: Names | None) -> None:
        if len(self._names) >= _MEMO_LIMIT // 10:
            self._names.clear()
        self._names[path] = (stamp, names)


# Where an output goes, behind links, and what is there.
Target = tuple[str, os.stat_result | None]


class FileShrank(OSError):
    """What is copied has become shorter meanwhile."""


def clone(source: int, target: int) -> bool:
    """Copy a whole file by reference; whether the file system can."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        return False
    return True


def copy_descriptor(source: int, target: int, size: int) -> None:
    """Copy a whole file: by reference where the file system can, else inside the kernel, else through us."""
    if clone(source, target):
        return
    offset = _copy_mapped(source, target, size) if size >= _MAPPED_BYTES else 0
    try:
        while offset < size:
            copied = os.copy_file_range(source, target, size - offset, offset, offset)
            if copied == 0:
                raise FileShrank(errno.EIO, "file shrank while it was copied")
            offset += copied
        return
    except OSError as e:
        # EXDEV: across file systems on older kernels; EINVAL, EOPNOTSUPP, ENOSYS: the file system cannot.
        if e.errno not in (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
    os.lseek(target, offset, os.SEEK_SET)
    while offset < size:
        chunk = os.pread(source, min(_CHUNK_BYTES, size - offset), offset)
        if not chunk:
            raise FileShrank(errno.EIO, "file shrank while it was copied")
        write_all(target, chunk)
        offset += len(chunk)


def _copy_mapped(source: int, target: int, size: int) -> int:
    """Copy in one call of the kernel's, which then gives the target large folios; how far it came.

    Nothing is read here, so a file that shrinks meanwhile is an error of that call's, no SIGBUS.
    """
    try:
        with mmap.mmap(source, size, mmap.MAP_SHARED | mmap.MAP_POPULATE, mmap.PROT_READ) as mapped:
            return os.write(target, mapped)
    except (OSError, ValueError):
        return 0


def write_all(fd: int, data: bytes | memoryview) -> None:
    written = os.write(fd, data)
    while written < len(data):  # bytes of all, in memoryviews of bytes, too
        written += os.write(fd, memoryview(data)[written:])


def publish(
    path: str,
    mode: int,
    fill: Callable[[int], None],
    size: int,
    in_place: bool = False,
    fills_empty: bool = False,
    found: Target | None = None,
) -> os.stat_result | None:
    """Write a file by `fill(descriptor)`, so that it appears under its name when all is written, or not at all; a small one, which a
    compiler would write there, too, in the moment that it is written.

    mode: permission bits, exactly (the server's own umask is 0).  size: in bytes, about.  in_place: a file that is there is written over,
    and keeps its mode and its other names; fills_empty: so is an empty one.  A device of that name is written through.  found: what
    find_target said.  Returns what fstat said before the file got its name; None for what was there.  Raises OSError (also for what a
    compiler would refuse to overwrite, or wait for), and whatever `fill` raises.
    """
    path, there = find_target(path) if found is None else found
    if there is not None:
        if not stat.S_ISREG(there.st_mode):
            _write_into(path, os.O_NOCTTY | os.O_NONBLOCK, fill)
            return None
        if in_place or (fills_empty and there.st_size == 0):
            _write_into(path, os.O_TRUNC | os.O_NOFOLLOW, fill)
            return None
    if not mode & 0o222:
        raise PermissionError(errno.EACCES, "output would be read-only", path)
    if size <= _AT_ONCE_BYTES and not mode & 0o111:
        if there is not None:
            _remove_if_there(path)
        with contextlib.suppress(FileExistsError):  # somebody else writes it, too
            return _make(path, mode, fill)
    # Beside the target, not in /tmp: rename must not cross a file system.
    temporary = f"{os.path.dirname(path)}/.sccache-{os.getpid()}-{next(_serial)}"
    written = _make(temporary, mode, fill)
    try:
        if mode & 0o111:
            _await_last_writer(temporary)
        if there is not None:
            # ext4 writes a file to disk that is renamed over another (auto_da_alloc): some 100 µs for nothing.
            _remove_if_there(path)
        os.rename(temporary, path)
        return written
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _remove_if_there(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):  # somebody else writes it, too, and was first
        os.unlink(path)


def _make(path: str, mode: int, fill: Callable[[int], None]) -> os.stat_result:
    """A new file, or none.  Raises FileExistsError, other OSErrors, and whatever `fill` raises."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        try:
            fill(fd)
            return os.fstat(fd)
        finally:
            os.close(fd)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise


def _await_last_writer(path: str) -> None:
    """Until nobody has a file that we have closed open for writing: a compiler that another thread was starting has a copy of all our
    descriptors until it execs, some milliseconds, and who executed the file before then would get ETXTBSY, as cargo did with build
    scripts.  The kernel grants a lease for reading when there is no writer (fcntl(2)).  Before it has its name: nobody breaks the lease,
    for which we would get SIGIO.
    """
    give_up = time.monotonic() + _WRITER_S
    with contextlib.suppress(OSError):  # no leases here
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            while time.monotonic() < give_up:
                try:
                    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
                    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
                    return
                except BlockingIOError:
                    time.sleep(_WRITER_LOOK_S)
        finally:
            os.close(fd)


def find_target(path: str) -> Target:
    """Where an output goes, behind links, and what is there; None: nothing.  Raises OSError where it is not ours to write over."""
    try:
        st = os.lstat(path)
        if stat.S_ISLNK(st.st_mode):
            path = os.path.realpath(path)
            st = os.stat(path)
    except FileNotFoundError:
        return path, None
    if stat.S_ISREG(st.st_mode):
        if not st.st_mode & 0o222 or not os.access(path, os.W_OK):
            # We could rename over it; others must open it, and rustc refuses beforehand, even for root.
            raise PermissionError(errno.EACCES, "output is read-only", path)
    elif not stat.S_ISCHR(st.st_mode):
        # A FIFO's reader may never come: that is for the compiler to wait for.
        raise OSError(errno.ENXIO, "output is neither a file nor a character device", path)
    return path, st


def _write_into(path: str, flags: int, fill: Callable[[int], None]) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | flags)
    try:
        fill(fd)
    finally:
        os.close(fd)


def existing(paths: Iterable[str]) -> list[str]:
    return [p for p in paths if os.path.lexists(p)]
