"""What the server knows of files: digests and directories, remembered by stat; and how files are made.

A digest is remembered with the (device, inode, size, mtime, ctime) that it was computed under, and only if ctime lay below the
coarse clock when hashing began: file timestamps come from that clock, and a file as young as its tick can change again
without showing it.

`Sight` is one request's look at the file system: each path is looked at once, so that one answer never mixes two moments.
Digests that are not known and not cheap are not computed there; they are named, for a thread to compute.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
import stat
import time
from collections.abc import Callable, Iterable
from typing import BinaryIO, NamedTuple

from sccache_py.keys import Hasher, names_digest
from sccache_py.server.time_macros import TimeMacros

# Linux's number of the clock (linux/time.h); Python's time module does not name it.
_CLOCK_REALTIME_COARSE = 5

# Linux's number for ioctl(FICLONE): linux/fs.h, _IOW(0x94, 9, int).
_FICLONE = 0x40049409

_CHUNK_BYTES = 1 << 20

# What one look may hash without leaving the event loop: some tens of microseconds each.
_INLINE_FILE_BYTES = 64 * 1024
_INLINE_FILES = 6

# To look for a name costs 2 µs, to list a directory 20 and more: one to which a compiler writes is not listed for a few names.
_FEW_NAMES = 8

_MODIFIED = b"m"  # so begins a state that says when a file was changed last

# Stamps take some 300 bytes each; a big project has some ten thousand files.
_MEMO_LIMIT = 120_000

# Digests of files of this size are kept for the next server, this many at the most.
_LARGE_BYTES = 256 * 1024
_EXPORTED = 4000

_serial = itertools.count()

Stamp = tuple[int, int, int, int, int]


class Known(NamedTuple):
    stamp: Stamp
    digest: bytes


def coarse_ns() -> int:
    """The clock that file timestamps are taken from."""
    return time.clock_gettime_ns(_CLOCK_REALTIME_COARSE)


def stamp_of(st: os.stat_result) -> Stamp:
    return (st.st_dev, st.st_ino, st.st_size, st.st_mtime_ns, st.st_ctime_ns)


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
        return stamp, digest, before.st_ctime_ns < began
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


class FileMemo:
    """path → digest and directory → names, for all requests of this process."""

    def __init__(self) -> None:
        self.digests: dict[str, Known] = {}
        self._fine: dict[int, bool] = {}
        self.time_macros = TimeMacros()
        self.states: dict[str, tuple[Stamp, bytes]] = {}
        self.news = False  # something that export() gives was learned since the last one
        self._names: dict[str, tuple[Stamp, frozenset[str] | None]] = {}

    def export(self) -> list[list[object]]:
        """What was expensive to learn, newest last: toolchains and big libraries, for the next server of this cache."""
        self.news = False
        large = [[path, *known.stamp, known.digest] for path, known in self.digests.items() if known.stamp[2] >= _LARGE_BYTES]
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
        if device not in self._fine:
            self._fine[device] = _tick_is_fine(directory)
        return self._fine[device]

    def remember_state(self, path: str, stamp: Stamp, state: bytes) -> None:
        if len(self.states) >= _MEMO_LIMIT // 10:
            self.states.clear()
        self.states[path] = (stamp, state)

    def known(self, path: str, stamp: Stamp) -> bytes | None:
        entry = self.digests.get(path)
        return entry.digest if entry is not None and entry.stamp == stamp else None

    def remember(self, path: str, stamp: Stamp, digest: bytes) -> None:
        if len(self.digests) >= _MEMO_LIMIT:
            # The oldest half goes; what is still in use comes back by itself.
            for old in list(itertools.islice(self.digests, _MEMO_LIMIT // 2)):
                self.digests.pop(old, None)
        self.digests[path] = Known(stamp, digest)
        self.news = self.news or stamp[2] >= _LARGE_BYTES

    def names(self, path: str, stamp: Stamp) -> frozenset[str] | None:
        entry = self._names.get(path)
        return entry[1] if entry is not None and entry[0] == stamp else None

    def seen_so(self, path: str, stamp: Stamp) -> bool:
        """Whether a directory was as it is when it was looked at the last time: then it is worth listing."""
        entry = self._names.get(path)
        return entry is not None and entry[0] == stamp

    def remember_names(self, path: str, stamp: Stamp, names: frozenset[str] | None) -> None:
        if len(self._names) >= _MEMO_LIMIT // 10:
            self._names.clear()
        self._names[path] = (stamp, names)


class Sight:
    """One request's look.  Digests: bytes, None (no such regular file), or UNHASHED (listed in `unhashed`)."""

    UNHASHED = b""

    def __init__(self, memo: FileMemo) -> None:
        self.memo = memo
        self._seen: dict[str, bytes | None] = {}
        self._budget = _INLINE_FILES
        self._places: dict[str, str] = {}
        self._stamps: dict[str, Stamp] = {}  # of files that are no links and have been looked at
        self.unhashed: dict[str, None] = {}

    def digest(self, path: str) -> bytes | None:
        try:
            return self._seen[path]
        except KeyError:
            pass
        try:
            st = os.stat(path)
        except (OSError, ValueError):
            self._seen[path] = None
            return None
        if not stat.S_ISREG(st.st_mode):
            self._seen[path] = None
            return None
        digest = self.memo.known(path, stamp_of(st))
        if digest is None:
            if st.st_size > _INLINE_FILE_BYTES or self._budget == 0:
                self.unhashed[path] = None
                return self.UNHASHED
            self._budget -= 1
            return self.hash_now(path)
        self._seen[path] = digest
        return digest

    def hash_now(self, path: str) -> bytes | None:
        """The digest at any cost: for threads."""
        if path in self._seen:
            return self._seen[path]
        try:
            known = self.memo.known(path, stamp_of(os.stat(path)))
        except (OSError, ValueError):
            known = None
        if known is not None:
            self._seen[path] = known
            return known
        hashed = hash_path(path)
        if hashed is None:
            self._seen[path] = None
            return None
        stamp, digest, lasting = hashed
        if lasting:
            self.memo.remember(path, stamp, digest)
        self._seen[path] = digest
        return digest

    def hash_all(self) -> None:
        """Compute what was named in `unhashed`: for threads."""
        for path in list(self.unhashed):
            self.hash_now(path)
        self.unhashed.clear()

    def files_are(self, files: Iterable[tuple[str, bytes]], unfold: Callable[[str], str | None]) -> bool | None:
        """Whether each (folded path, digest) is so; None: that cannot be said before `unhashed` is computed.

        The hot loop of a hit, with some hundred headers: stat and memo are spelled out, and cost 1 µs a file.
        """
        # A link's own stamp is that of no digest, so links take the long way.
        seen, known, look, stamps = self._seen, self.memo.digests, os.lstat, self._stamps
        unsure = False
        for folded, digest in files:
            path = folded if folded[0] == "/" else unfold(folded)
            if path is None:
                return False
            found = seen.get(path, self.UNHASHED)
            if found == self.UNHASHED:
                entry = known.get(path)
                try:
                    st = look(path)
                except (OSError, ValueError):
                    return False
                if entry is not None and entry.stamp == (st.st_dev, st.st_ino, st.st_size, st.st_mtime_ns, st.st_ctime_ns):
                    found = seen[path] = entry.digest
                    stamps[path] = entry.stamp
                else:
                    found = self.digest(path)
                    if found == self.UNHASHED:
                        unsure = True
                        continue
            if found != digest:
                return False
        return None if unsure else True

    def states_are(
        self, states: Iterable[tuple[str, bytes]], unfold: Callable[[str], str | None], fold: Callable[[str], str], lasting: bool
    ) -> bool:
        """Whether each (folded path, state) is so.

        gcc asks where every header really is: what files_are has looked at is not looked at again.
        """
        known, stamps = self.memo.states, self._stamps
        for folded, state in states:
            if lasting and folded in stamps:
                entry = known.get(folded)
                if entry is not None and entry[0] == stamps[folded]:
                    if entry[1] == state:
                        continue
                    if not state.startswith(_MODIFIED):
                        return False
            path = folded if folded[0] == "/" else unfold(folded)
            # The toolchain's directories, some dozen: those of the caller's project may well be moved about.
            if path is None or not self.is_so(path, state, fold, lasting and path is folded):
                return False
        return True

    def state(self, path: str, fold: Callable[[str], str], lasting: bool = False) -> bytes | None:
        """What whoever looked at a path, and did not read it, could see: a directory or a file of which size, and behind links where.

        None: it is not there.  lasting: where links lead is asked anew only if another file is there or it changed.  (Not noticed
        then: a directory above it was renamed, and a link that led through it followed.)
        """
        try:
            st = os.lstat(path)
            is_link = stat.S_ISLNK(st.st_mode)
            if is_link:
                st = os.stat(path)
        except (OSError, ValueError):
            return None
        if lasting:
            known = self.memo.states.get(path)
            if known is not None and known[0] == stamp_of(st):
                return known[1]
        mode = st.st_mode
        kind = b"d" if stat.S_ISDIR(mode) else b"special"
        if stat.S_ISREG(mode):
            kind = (b"x%d" if mode & 0o111 else b"f%d") % st.st_size
        resolved = self._resolve(path, is_link)
        state = kind if resolved == path else kind + b">" + os.fsencode(fold(resolved))
        if lasting:
            self.memo.remember_state(path, stamp_of(st), state)
        return state

    def modified(self, path: str) -> bytes | None:
        """When a file was changed last, as a state: clang's precompiled headers hold the mtimes of their sources."""
        try:
            return _MODIFIED + b"%d" % os.stat(path).st_mtime_ns
        except (OSError, ValueError):
            return None

    def is_so(self, path: str, state: bytes, fold: Callable[[str], str], lasting: bool = False) -> bool:
        """Whether what is there still has a state that `state` or `modified` told."""
        return state == (self.modified(path) if state.startswith(_MODIFIED) else self.state(path, fold, lasting))

    def _resolve(self, path: str, is_link: bool) -> str:
        """Without links and dots.  Directories are resolved once a request: many files lie in few of them."""
        directory, _, name = path.rpartition("/")
        if is_link or name in ("", ".", ".."):
            return _physical(path)
        place = self._places.get(directory)
        if place is None:
            place = self._places[directory] = _physical(directory or "/").rstrip("/")
        return f"{place}/{name}"

    def names(self, directory: str, few: bool = False) -> frozenset[str] | None:
        """Names in a directory; None if there is none, or if only a few are of interest and it may be in motion."""
        try:
            st = os.stat(directory)
            stamp = stamp_of(st)
            known = self.memo.names(directory, stamp)
            if known is not None:
                return known
            if not stat.S_ISDIR(st.st_mode):
                return None
            began = coarse_ns()
            names = None if few and not self.memo.seen_so(directory, stamp) else frozenset(os.listdir(directory))
            if st.st_ctime_ns < began and stamp_of(os.stat(directory)) == stamp:
                self.memo.remember_names(directory, stamp, names)
        except (OSError, ValueError):
            return None
        return names

    def lacks(self, directory: str, names: list[str]) -> bool:
        """Whether none of `names` is in `directory`: one stat where nothing changed."""
        few = len(names) <= _FEW_NAMES
        there = self.names(directory, few)
        if there is not None:
            return there.isdisjoint(names)
        # No such directory, or one that may be searched but not listed.
        return not any(os.path.lexists(f"{directory}/{name}") for name in names)

    def listing_digest(self, directory: str, without: tuple[str, ...]) -> bytes | None:
        """Digest of a directory's names, less those whose path begins with one of `without`."""
        names = self.names(directory)
        if names is None:
            return None
        return names_digest(n for n in names if not f"{directory}/{n}".startswith(without))


def _physical(path: str) -> str:
    """Of something that is there: without links and dots.  The kernel says it in three calls, however deep it lies."""
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            return os.readlink(f"/proc/self/fd/{fd}")
        finally:
            os.close(fd)
    except (OSError, ValueError):
        return os.path.realpath(path)


class FileShrank(OSError):
    """What is copied has become shorter meanwhile."""


def copy_descriptor(source: int, target: int, size: int) -> None:
    """Copy a whole file: by reference where the file system can, else inside the kernel, else through us."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
        return
    except OSError:
        pass
    offset = 0
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


def write_all(fd: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def publish(path: str, mode: int, fill: Callable[[int], None]) -> os.stat_result | None:
    """Write a file by `fill(descriptor)`, so that it appears under its name when all is written, or not at all.

    mode: permission bits, exactly (the server's own umask is 0).  A device of that name is written through.  Returns what fstat
    said before the file got its name; None for what is not a regular file.  Raises OSError (also for what a compiler would refuse
    to overwrite, or wait for), and whatever `fill` raises.
    """
    there = True
    try:
        st = os.lstat(path)
        if stat.S_ISLNK(st.st_mode):
            path = os.path.realpath(path)
            st = os.stat(path)
        if not stat.S_ISREG(st.st_mode):
            _write_through(path, st, fill)
            return None
        if not st.st_mode & 0o222 or not os.access(path, os.W_OK):
            # We could rename over it; others must open it, and rustc refuses beforehand, even for root.
            raise PermissionError(errno.EACCES, "output is read-only", path)
    except FileNotFoundError:
        there = False
    if not mode & 0o222:
        raise PermissionError(errno.EACCES, "output would be read-only", path)
    # Beside the target, not in /tmp: rename must not cross a file system.
    temporary = f"{os.path.dirname(path)}/.sccache-{os.getpid()}-{next(_serial)}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        try:
            fill(fd)
            written = os.fstat(fd)
        finally:
            os.close(fd)
        if there:
            # ext4 writes a file to disk that is renamed over another (auto_da_alloc): some 100 µs for nothing.
            os.unlink(path)
        os.rename(temporary, path)
        return written
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _write_through(path: str, st: os.stat_result, fill: Callable[[int], None]) -> None:
    if not stat.S_ISCHR(st.st_mode):
        # A FIFO's reader may never come: that is for the compiler to wait for.
        raise OSError(errno.ENXIO, "output is neither a file nor a character device", path)
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        fill(fd)
    finally:
        os.close(fd)


def existing(paths: Iterable[str]) -> list[str]:
    return [p for p in paths if os.path.lexists(p)]
