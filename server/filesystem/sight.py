"""One request's look at the file system: each path is looked at once, so that one answer never mixes two moments.

What is watched (watch.py) is not looked at at all: the kernel would have said if it had changed.  Digests that are not known and not cheap
are not computed here; they are named, for a thread to compute.
"""

from __future__ import annotations

import dataclasses
import os
import stat
from collections.abc import Callable, Iterable

from sccache_py.keys import names_digest
from sccache_py.model import OwnOutputs, Variant
from sccache_py.server.filesystem.files import NEVER, FileMemo, Names, Place, State, Steady, Watched, coarse_ns
from sccache_py.server.filesystem.mounts import DEVICES
from sccache_py.server.filesystem.stamps import Stamp, born_ns, latest_ns, stamp_of

# What one look may hash without leaving the event loop: some tens of microseconds each.
_INLINE_FILE_BYTES = 64 * 1024
_INLINE_FILES = 6

# To look for a name costs 2 µs, to list a directory 20 and more: one to which a compiler writes is not listed for a few names.
_FEW_NAMES = 8

# How a state begins that says when a file was changed last, or which inode it is.
_MODIFIED = b"m"
_INODE = b"i"

# The same of all that a macro which looks at a file may tell of it.
_DATED = b"t"
_BORN = b"b"
_READ = b"r"

# How the state of a link to nothing begins, and that of a directory.
TO_NOTHING = b"l"
DIRECTORY = b"d"


class Sight:
    """Digests: bytes, None (no such regular file), or UNHASHED (listed in `unhashed`)."""

    UNHASHED = b""

    def __init__(self, memo: FileMemo, watched: bool = True) -> None:
        """watched: take the kernel's word for what is watched; a compile's conditions are taken down from the files themselves."""
        self.memo = memo
        if not watched:
            DEVICES.look()
        self._since = memo.watched() if watched else Watched({}, NEVER, 0)
        self._watched, self.dropped, self.added = self._since.stamps, self._since.dropped, self._since.added
        self._seen: dict[str, bytes | None] = {}
        self._budget = _INLINE_FILES
        self._places: dict[str, str] = {}
        self._looks: dict[str, os.stat_result] = {}
        self._stamps: dict[str, Stamp] = {}  # of files that are no links and have been looked at
        self.unhashed: dict[str, None] = {}

    # -- what is watched -----------------------------------------------------------------------------------------

    def is_watched(self, path: str) -> bool:
        return path in self._watched

    def can_note(self) -> bool:
        """Whether what was seen of a path that is watched was seen through that: it was not looked at before and watched after."""
        return self.dropped != NEVER and not self.memo.watches_more_than(self._since)

    def rest_of(self, variant: Variant) -> Variant:
        """What of its conditions must be looked at: all, or those that are in no watched place, if the others held."""
        steady = self.memo.steady(variant)
        return steady.rest if steady is not None and steady.dropped == self.dropped != NEVER else variant

    def note_that_it_holds(self, variant: Variant) -> None:
        """All its conditions were looked at just now."""
        watched = self._watched
        if not any(path in watched for path, _ in variant.files) or not self.can_note():
            return
        rest = dataclasses.replace(
            variant,
            files=[(path, digest) for path, digest in variant.files if path not in watched],
            # Where a link leads is told by the caller's roles; that a file was read nobody is told.
            present=[(path, state) for path, state in variant.present if path not in watched or b">" in state or state.startswith(_READ)],
            absent=[(path, names) for path, names in variant.absent if path not in watched],
        )
        self.memo.remember_steady(Steady(variant, self.dropped, rest))

    # -- stats ---------------------------------------------------------------------------------------------------

    def stamp(self, path: str) -> Stamp | None:
        """What a path leads to; None: nothing is there."""
        stamp = self._watched.get(path)
        if stamp is None:
            try:
                stamp = stamp_of(os.stat(path))
            except (OSError, ValueError):
                return None
            self.memo.wish(path)
        return stamp

    def look(self, path: str) -> os.stat_result:
        """lstat, once.  Raises OSError, ValueError."""
        st = self._looks.get(path)
        if st is None:
            st = self._looks[path] = os.lstat(path)
        return st

    def newest_ns(self) -> int:
        """When that was changed which was not as remembered, and so was looked at whole."""
        return max((st.st_ctime_ns for st in self._looks.values()), default=0)

    # -- contents ------------------------------------------------------------------------------------------------

    def digest(self, path: str) -> bytes | None:
        try:
            return self._seen[path]
        except KeyError:
            pass
        stamp = self._watched.get(path)
        digest = self.memo.known(path, stamp) if stamp is not None else None
        if digest is None:
            try:
                st = self.look(path)
                if stat.S_ISLNK(st.st_mode):
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
        hashed = self.memo.hash(path)
        self._seen[path] = hashed[1] if hashed is not None else None
        return self._seen[path]

    def hash_all(self) -> None:
        """Compute what was named in `unhashed`: for threads."""
        for path in list(self.unhashed):
            self.hash_now(path)
        self.unhashed.clear()

    def files_are(self, files: Iterable[tuple[str, bytes]], unfold: Callable[[str], str | None]) -> bool | None:
        """Whether each (folded path, digest) is so; None: that cannot be said before `unhashed` is computed.

        The hot loop of a hit, with some hundred headers: stat and memo are spelled out, and cost 1 µs a file that is not watched.
        """
        # A link's own stamp is that of no digest, so links take the long way.
        seen, known, look, stamps, watched = self._seen, self.memo.digests, os.lstat, self._stamps, self._watched
        devices = DEVICES
        unsure = False
        for folded, digest in files:
            path = folded if folded[0] == "/" else unfold(folded)
            if path is None:
                return False
            found = seen.get(path, self.UNHASHED)
            if found == self.UNHASHED:
                entry = known.get(path)
                stamp = watched.get(path)
                if stamp is None:
                    try:
                        st = look(path)
                    except (OSError, ValueError):
                        return False
                    stamp = (devices[st.st_dev], st.st_ino, st.st_size, st.st_mtime_ns, st.st_ctime_ns)
                    if path is folded:
                        self.memo.wish(path)
                if entry is not None and entry.stamp == stamp:
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

    # -- what is there -------------------------------------------------------------------------------------------

    def states_are(self, states: Iterable[tuple[str, bytes]], unfold: Callable[[str], str | None], place: Place, lasting: bool) -> bool:
        """Whether each (folded path, state) is so.

        lasting: see state(); of paths that are told by no role: those of the caller's project may well be moved about.  gcc asks where
        every header really is: what files_are has looked at is not looked at again.
        """
        known, watched, stamps = self.memo.states, self._watched, self._stamps
        for folded, state in states:
            path = folded if folded[0] == "/" else unfold(folded)
            if path is None:
                return False
            if path is folded:
                stamp = watched.get(path) or (stamps.get(path) if lasting else None)
                entry = known.get(path)
                if entry is not None and entry.stamp == stamp and self._leads_there(path, entry) and state[:1] not in _LOOKS:
                    if (entry.kind if entry.resolved is None else entry.told(path, place)) != state:
                        return False
                    continue
            if not self.is_so(path, state, place, lasting and path is folded):
                return False
            if path is folded:
                self.memo.wish(path)
        return True

    def state(self, path: str, place: Place, lasting: bool = False) -> bytes | None:
        """What whoever looked at a path, and did not read it, could see: a directory or a file of which size, and behind links where.

        None: it is not there; a link to nothing is.  lasting: it may be as it was remembered, if the same file is there, unchanged, in
        the same place.
        """
        try:
            st = self.look(path)
            is_link = stat.S_ISLNK(st.st_mode)
        except (OSError, ValueError):
            return None
        if is_link:
            try:
                st = os.stat(path)
            except OSError as e:
                return _to_nothing(path, e)
        stamp = stamp_of(st)
        if lasting:
            known = self.memo.states.get(path)
            if known is not None and known.stamp == stamp and self._leads_there(path, known, is_link):
                return known.told(path, place)
        mode = st.st_mode
        kind = DIRECTORY if stat.S_ISDIR(mode) else b"special"
        if stat.S_ISREG(mode):
            kind = (b"x%d" if mode & 0o111 else b"f%d") % st.st_size
        watched = self._watched.get(path)  # before it is resolved
        resolved = self._resolve(path, is_link)
        state = State(watched or stamp, kind, None if resolved == path else resolved, watched is not None)
        if self.dropped != NEVER or path not in self.memo.states:  # who takes no notice of watches would make all others look again
            self.memo.remember_state(path, state)
        return state.told(path, place)

    def _leads_there(self, path: str, state: State, is_link: bool = False) -> bool:
        """Whether a path still leads where it led, if the same file is there: a directory above it may have become a link."""
        watched = self._watched.get(path)
        if watched is not None or state.watched:
            return watched is state.stamp
        return self._resolve(path, is_link) == (state.resolved or path)

    def modified(self, path: str) -> bytes | None:
        """When a file was changed last, as a state: clang's precompiled headers hold the mtimes of their sources."""
        try:
            return _MODIFIED + b"%d" % os.stat(path).st_mtime_ns
        except (OSError, ValueError):
            return None

    def inode(self, path: str) -> bytes | None:
        """Which file it is, as a state."""
        try:
            st = os.stat(path)
        except (OSError, ValueError):
            return None
        return _INODE + b"%d %d" % (st.st_dev, st.st_ino)

    def dated(self, path: str) -> bytes | None:
        """When a file was changed last, as a state, with whose it is and what may be done with it; and of a link the same of both."""
        try:
            link, st = os.lstat(path), os.stat(path)
        except (OSError, ValueError):
            return None
        both = (link, st) if stat.S_ISLNK(link.st_mode) else (st,)
        return _DATED + b" ".join(b"%d %o %d %d" % (of.st_mtime_ns, of.st_mode, of.st_uid, of.st_gid) for of in both)

    def born(self, path: str) -> bytes | None:
        """When a file was created, as a state."""
        try:
            return _BORN + b"%d" % born_ns(path)
        except (OSError, ValueError):
            return None

    def read_last(self, path: str) -> bytes | None:
        """When a file was read last, as a state."""
        try:
            return _READ + b"%d" % os.stat(path).st_atime_ns
        except (OSError, ValueError):
            return None

    def is_so(self, path: str, state: bytes, place: Place, lasting: bool = False) -> bool:
        """Whether what is there still has a state that `state` or one of the functions above told."""
        look = _LOOKS.get(state[:1])
        return state == (look(self, path) if look is not None else self.state(path, place, lasting))

    def _resolve(self, path: str, is_link: bool) -> str:
        """Without links and dots.  Directories are resolved once a request: many files lie in few of them."""
        directory, _, name = path.rpartition("/")
        if is_link or name in ("", ".", ".."):
            return _physical(path)
        return f"{self.physical(directory).rstrip('/')}/{name}"

    def physical(self, directory: str) -> str:
        """Without links and dots."""
        place = self._places.get(directory)
        if place is None:
            place = self._places[directory] = _physical(directory or "/")
        return place

    # -- directories ---------------------------------------------------------------------------------------------

    def names(self, directory: str, few: bool = False, lasting: bool = False) -> Names | None:
        """Names in a directory; None if there is none, or if only a few are of interest and it may be in motion.

        lasting: worth watching.
        """
        stamp = self._watched.get(directory)
        if stamp is not None:
            known = self.memo.names(directory, stamp)
            if known is not None:
                return known
        try:
            st = os.stat(directory)
            stamp = stamp_of(st)
            if lasting:
                self.memo.wish(directory)
            known = self.memo.names(directory, stamp)
            if known is not None:
                return known
            if not stat.S_ISDIR(st.st_mode):
                return None
            began = coarse_ns()
            names = None if few and not self.memo.seen_so(directory, stamp) else Names.of(directory)
            if latest_ns(st.st_ctime_ns) < began and stamp_of(os.stat(directory)) == stamp:
                self.memo.remember_names(directory, stamp, names)
        except (OSError, ValueError):
            return None
        return names

    def lacks(self, directory: str, names: list[str], lasting: bool = False) -> bool:
        """Whether none of `names` is in `directory`: one stat where nothing changed."""
        return not self.present(directory, names, lasting)

    def present(self, directory: str, names: list[str], lasting: bool = False) -> list[str]:
        """Those of `names` that are there after all."""
        there = self.names(directory, len(names) <= _FEW_NAMES, lasting)
        if there is not None and ".." not in names:
            return [] if there.all.isdisjoint(names) else [name for name in names if name in there.all]
        if not os.access(directory, os.F_OK):
            return []
        # It may be searched but not listed.
        return [name for name in names if os.path.lexists(os.path.join(directory, name))]

    def listing_digest(self, directory: str, without: OwnOutputs) -> bytes | None:
        """Digest of a directory's names and what kind each is of, less `without`."""
        names = self.names(directory)
        if names is None:
            return None
        return names_digest((name, kind) for name, kind in names.with_kinds() if f"{directory}/{name}" not in without)


# What is looked at each time, by how the state begins.
_LOOKS: dict[bytes, Callable[[Sight, str], bytes | None]] = {
    _MODIFIED: Sight.modified,
    _INODE: Sight.inode,
    _DATED: Sight.dated,
    _BORN: Sight.born,
    _READ: Sight.read_last,
}


def _to_nothing(path: str, why: OSError) -> bytes | None:
    """The state of a link that leads nowhere: what it says, which may be read."""
    try:
        return TO_NOTHING + b"%d " % (why.errno or 0) + os.fsencode(os.readlink(path))
    except OSError:
        return None


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
