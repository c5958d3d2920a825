"""Files of which the kernel says that they have not changed, so that a hit need not ask for each of them.

A compile reads the same headers again and again: a C++ hit with 300 headers would ask the kernel 700 times for what has been so for months,
and that was half of its time.  A path that was looked at more than once is therefore *watched* by inotify(7); as long as nothing was
reported, `stamps` has what os.stat would say of it.

What a path's stat depends on, and what watches it:

- the names on its way, from `/` and through every link, each in the directory in which it is looked up: that directory is watched;
- the file itself: watched by its inode, so a change through another hard link is reported too;
- for a directory, the names in it: it is watched.

The kernel queues an event before the call that made the change returns, so `look`, which reads them, comes before the stamps are used,
once in each request.  A watch is set before what it guards is looked at, and a path counts only after a look that found no event for it:
a change at any moment in between shows.  Mounts are no events; /proc/self/mountinfo tells of them, and then everything begins anew.

Only on file systems of this machine (_LOCAL): elsewhere others may change what is here without this kernel's knowledge.  overlayfs keeps
the inode of a directory and of a file with one link for its watchers when it is copied up (Linux ≥ 4.19, fs/overlayfs/inode.c,
ovl_hash_bylower), so there a file with more links is not watched.  One that was mounted in a user namespace (rootless containers) cannot
find what a file was copied up from (ovl_can_decode_fh): once the kernel has forgotten the name the file is another inode, so there no file
is watched, only directories.

Not reported before its end: writing through a shared mapping or by io_submit(2), which shows when the file is closed (a stat shows such a
write when a page is touched first, and what is written to it then no better).  Not at all: chattr(1), which changes a ctime and no content,
and that a directory was removed of which a bind mount remains, with as many names in it as before: none.

Watches are a user's common good: at most a sixteenth of what the kernel grants is taken, and a place where much happens is left alone.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import os
import select
import stat
import threading
import time
from dataclasses import dataclass, field

from sccache_py.server.filesystem import inotify, mounts
from sccache_py.server.filesystem.inotify import Inotify
from sccache_py.server.filesystem.stamps import Stamp, stamp_of

log = logging.getLogger(__name__)

_LOCAL = frozenset(("btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "tmpfs", "xfs"))

_OF_NAMES = inotify.IN_CREATE | inotify.IN_DELETE | inotify.IN_MOVED_FROM | inotify.IN_MOVED_TO
_OF_SELF = inotify.IN_ATTRIB | inotify.IN_DELETE_SELF | inotify.IN_MOVE_SELF
_DIRECTORY = _OF_NAMES | _OF_SELF | inotify.IN_ONLYDIR | inotify.IN_DONT_FOLLOW
_FILE = _OF_SELF | inotify.IN_MODIFY | inotify.IN_CLOSE_WRITE | inotify.IN_DONT_FOLLOW
_LOST = inotify.IN_DELETE_SELF | inotify.IN_MOVE_SELF | inotify.IN_IGNORED

_MOST_WATCHES = 8192
_SHARE = 16
# A directory whose names changed so often (/tmp) is not watched for them; ways through it are.
_MOST_LISTINGS = 8
# After so many events an inode is not worth its watch, and after so many new beginnings none is.
_RESTLESS = 2000
_MOST_BEGINNINGS = 100
_MOST_LINKS = 20

# What is wished for is watched so much later, and a few paths at a time: a hit is not held up by the one before it, for which this
# thread would hold the interpreter's lock.
_BATCH_S = 0.02
_BATCH = 10
_REST_S = 0.004


@dataclass(eq=False, slots=True)
class _Inode:
    """A watched file or directory."""

    place: str  # a path without links that led there
    wd: int
    paths: set[str] = field(default_factory=set)  # whose stat is this inode's
    ways: list[_Way] = field(default_factory=list)  # of a directory: those that end here
    steps: dict[str, set[_Way]] = field(default_factory=dict)  # of a directory: names in it that ways go through
    links: dict[str, set[str]] = field(default_factory=dict)  # of a directory: names in it through which paths lead as their last step
    stirred: int = 0
    relisted: int = 0  # how often its names changed while they were watched


@dataclass(eq=False, slots=True)
class _Way:
    """How a directory, as it is spelled, is reached."""

    spelled: str
    place: str  # without links
    end: _Inode
    steps: list[tuple[_Inode, str]]
    paths: set[str] = field(default_factory=set)  # those that lead along it


class _Unwatchable(Exception):
    """What a path leads through or to is no file or directory of this machine, or has no watch."""


class Watcher:
    """`stamps`: path → what os.stat said, true as of the last `look`; `dropped`, `added`: how often one was taken out of it and put in.

    Safe in threads; without inotify `stamps` stays empty.
    """

    def __init__(self) -> None:
        self.stamps: dict[str, Stamp] = {}
        self.dropped = 0
        self.added = 0
        self._lock = threading.RLock()
        self._inotify: Inotify | None = None
        self._mounts = -1
        self._beginnings = 0
        self._closed = False
        self._once: set[str] = set()
        self._wished: dict[str, None] = {}
        self._refused: set[str] = set()
        self._wishes = threading.Event()
        self._thread: threading.Thread | None = None
        self._restless: set[str] = set()
        self._limit = _limit()
        self._begin()

    # -- in every request ----------------------------------------------------------------------------------------

    def look(self) -> None:
        """Hear what was reported up to now: what changed is not among the stamps after this."""
        if self._inotify is None:
            mounts.DEVICES.look()  # else _begin does, where the poll below tells of mounts
            return  # there are no stamps then, see _end
        with self._lock:
            if self._inotify is None:
                return  # since this moment
            ready = [fd for fd, _ in self._poll.poll(0)]
            if self._mounts in ready:
                log.info("mounts changed: what was watched is looked at anew")
                self._begin()
            elif ready:
                self._hear()

    def wish(self, path: str) -> None:
        """This path was looked at: the second time it is worth watching."""
        if path in self.stamps:
            return
        if path not in self._once:
            if len(self._once) > 10 * _MOST_WATCHES:
                self._once.clear()
                self._refused.clear()
            self._once.add(path)
        elif self._inotify is not None and path not in self._wished and path not in self._refused:
            self._wished[path] = None
            self._wishes.set()
            if self._thread is None:
                thread = threading.Thread(target=self._fulfil, name="watch", daemon=True)
                with contextlib.suppress(RuntimeError):  # one too many for the limit on processes: at the next wish
                    thread.start()
                    self._thread = thread

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._end()
        self._wishes.set()

    # -- events --------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Watch nothing, from now on."""
        mounts.DEVICES.look()  # what is watched next has the marks of now
        self._end()
        if self._beginnings == _MOST_BEGINNINGS:
            return
        self._beginnings += 1
        try:
            self._mounts = mounts.open_table()
            self._inotify = Inotify()
            self._devices = _local_devices(self._mounts)
            root = self._add("/", _DIRECTORY)
        except (OSError, _Unwatchable) as e:
            log.info("nothing is watched: %s", e)
            self._end()
            return
        self._poll = select.poll()
        self._poll.register(self._inotify.fd, select.POLLIN)
        self._poll.register(self._mounts, select.POLLPRI)
        self._ways["/"] = _Way("/", "/", root, [])
        root.ways.append(self._ways["/"])

    def _end(self) -> None:
        # First: who finds no inotify in another thread does not wait for this one, and must find nothing vouched for either.
        self.stamps.clear()
        self.dropped += 1
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None
        if self._mounts >= 0:
            os.close(self._mounts)
            self._mounts = -1
        self._pending: dict[str, Stamp | None] = {}
        self._inodes: dict[int, _Inode] = {}
        self._ways: dict[str, _Way] = {}

    def _hear(self) -> None:
        assert self._inotify is not None
        for wd, mask, name in self._inotify.events():
            if mask & (inotify.IN_Q_OVERFLOW | inotify.IN_UNMOUNT):
                self._begin()
                return
            inode = self._inodes.get(wd)
            if inode is None:
                continue
            inode.stirred += 1
            if inode.stirred > _RESTLESS:
                self._restless.add(inode.place)
                self._lose(inode)
                self._inotify.remove(wd)
            elif mask & _LOST or not name:
                self._lose(inode)
            elif mask & _OF_NAMES:  # else it is a child's own affair
                self._renamed(inode, name)
            if mask & inotify.IN_IGNORED:
                self._inodes.pop(wd, None)
        if not self._ways:
            self._begin()  # the root itself was touched

    def _renamed(self, directory: _Inode, name: str) -> None:
        """Another thing has this name now, or none."""
        for way in directory.ways:
            self._drop(way.spelled.rstrip("/") + "/" + name)
        for way in list(directory.steps.get(name, ())):
            self._forget(way)
        for path in list(directory.links.pop(name, ())):
            self._drop(path)
        if directory.paths:
            directory.relisted += 1
            if directory.relisted > _MOST_LISTINGS:
                self._refused.update(directory.paths)
            for path in list(directory.paths):
                self._drop(path)

    def _lose(self, inode: _Inode) -> None:
        for path in list(inode.paths):
            self._drop(path)
        for way in {*inode.ways, *(way for ways in inode.steps.values() for way in ways)}:
            self._forget(way)

    def _drop(self, path: str) -> None:
        if self.stamps.pop(path, None) is not None:
            self.dropped += 1
        self._pending.pop(path, None)

    def _forget(self, way: _Way) -> None:
        self._ways.pop(way.spelled, None)
        for path in list(way.paths):
            self._drop(path)
        way.paths.clear()
        if way in way.end.ways:
            way.end.ways.remove(way)
        for inode, name in way.steps:
            inode.steps.get(name, set()).discard(way)

    # -- new paths -----------------------------------------------------------------------------------------------

    def _fulfil(self) -> None:
        while not self._closed:  # it may begin anew at any moment
            self._wishes.wait()
            time.sleep(_BATCH_S)
            self._wishes.clear()
            self.watch_all(_REST_S)

    def watch_all(self, rest_s: float = 0.0) -> None:
        """Watch what was wished for."""
        while self._wished and not self._closed:
            time.sleep(rest_s)
            paths = [self._wished.popitem()[0] for _ in range(min(_BATCH, len(self._wished)))]
            for path in paths:
                with self._lock:
                    try:
                        if self._inotify is not None:
                            self._watch(path)
                    except (FileNotFoundError, NotADirectoryError):
                        pass  # it went meanwhile
                    except (OSError, ValueError, RecursionError, _Unwatchable):
                        self._refused.add(path)
            with self._lock:
                self.look()
                for path in paths:
                    stamp = self._pending.pop(path, None)
                    if stamp is not None:
                        self.added += 1  # first: who sees the path sees that, too
                        self.stamps[path] = stamp

    def _watch(self, path: str) -> None:
        """Everything that the path's stat depends on.  Raises OSError, ValueError (a path with NUL), _Unwatchable."""
        if path in self.stamps or path in self._pending or not path.startswith("/") or path == "/":
            return
        self._pending[path] = None  # until its stat is known; gone as soon as something on the way is reported
        spelled = path
        for _ in range(_MOST_LINKS):
            directory, name = os.path.split(spelled)
            if name in ("", ".", ".."):
                directory, name = spelled, ""
            way = self._way(directory)
            way.paths.add(path)
            if name and path != f"{way.spelled.rstrip('/')}/{name}":  # that one `_renamed` finds by itself; not `a//b`
                way.end.links.setdefault(name, set()).add(path)
            place = f"{way.place.rstrip('/')}/{name}" if name else way.place
            mode = self._mode(place)
            if not stat.S_ISLNK(mode):
                break
            spelled = os.path.join(way.place, os.readlink(place))
        else:
            raise OSError(errno.ELOOP, "too many links", path)
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise _Unwatchable
        self._add(place, _DIRECTORY if stat.S_ISDIR(mode) else _FILE).paths.add(path)
        self._pending[path] = stamp_of(os.stat(path))

    def _way(self, spelled: str, links: int = _MOST_LINKS) -> _Way:
        known = self._ways.get(spelled if spelled.strip("/") else "/")
        if known is not None:
            return known
        head, name = os.path.split(spelled)
        before = self._way(head, links)
        steps = list(before.steps)
        if name in ("", "."):
            place, end = before.place, before.end
        elif name == "..":
            above = self._way(os.path.dirname(before.place), links)
            steps += above.steps
            place, end = above.place, above.end
        else:
            place = f"{before.place.rstrip('/')}/{name}"
            steps.append((before.end, name))
            mode = self._mode(place)
            if stat.S_ISLNK(mode):
                if not links:
                    raise OSError(errno.ELOOP, "too many links", spelled)
                through = self._way(os.path.join(before.place, os.readlink(place)), links - 1)
                steps += through.steps
                place, end = through.place, through.end
            elif stat.S_ISDIR(mode):
                end = self._add(place, _DIRECTORY)
            else:
                raise NotADirectoryError(errno.ENOTDIR, "not a directory", spelled)
        way = _Way(spelled, place, end, steps)
        self._ways[spelled] = way
        end.ways.append(way)
        for inode, step in steps:
            inode.steps.setdefault(step, set()).add(way)
        return way

    def _mode(self, place: str) -> int:
        st = os.lstat(place)
        most_links = self._devices.get(st.st_dev)
        if most_links is None or (stat.S_ISREG(st.st_mode) and st.st_nlink > most_links):
            raise _Unwatchable
        return st.st_mode

    def _add(self, place: str, mask: int) -> _Inode:
        assert self._inotify is not None
        if place in self._restless or len(self._inodes) >= self._limit:
            raise _Unwatchable
        # Added to what is watched of it already: since its mode was looked at another inode may have come here, a watched directory, whose
        # names must not be given up for what is watched of a file.
        wd = self._inotify.add(place, mask | inotify.IN_MASK_ADD)
        inode = self._inodes.get(wd)
        if inode is None:
            inode = self._inodes[wd] = _Inode(place, wd)
        return inode


def _limit() -> int:
    try:
        with open("/proc/sys/fs/inotify/max_user_watches", encoding="ascii") as f:
            return min(_MOST_WATCHES, int(f.read()) // _SHARE)
    except (OSError, ValueError):
        return 0


def _local_devices(table: int) -> dict[int, float]:
    """Device numbers of file systems that only this kernel changes, and how many links a file may have."""
    devices: dict[int, float] = {}
    ours = _in_first_user_namespace()
    for mount in mounts.read_table(table):
        if mount.kind.decode() in _LOCAL:
            device = mount.device()
            if device is not None:
                follows = ours and b"userxattr" not in mount.options
                devices[device] = math.inf if mount.kind != b"overlay" else 1 if follows else 0
    return devices


def _in_first_user_namespace() -> bool:
    try:
        with open("/proc/self/uid_map", encoding="ascii") as f:
            return f.read().split() == ["0", "0", "4294967295"]
    except OSError:
        return False
