"""What a compile depended on, taken down before its answer goes out.

Once the answer is out the files are the build tool's again: it may rename a whole target directory.  So every condition is looked
at here, while the client still waits; only the digests of large files that are not known yet are left for later, and these files
are held open for that.

An input counts only if it is provably older than the start of the compile, by ctime: mtime survives a rename and is set by
whoever unpacks an archive.  And only if its name still leads to the file that was read: a link that is set anew, or a directory
that takes another's name, brings files that are old.
"""

from __future__ import annotations

import logging
import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from sccache_py.conditions import Draft, search_path, value_of
from sccache_py.keys import digest as digest_of
from sccache_py.model import Plan, Reason, Twins, Variant
from sccache_py.server.filesystem.files import FileMemo, Place, coarse_ns, hash_descriptor, open_regular
from sccache_py.server.filesystem.search import find_libraries, find_program
from sccache_py.server.filesystem.sight import DIRECTORY, TO_NOTHING, Sight
from sccache_py.server.filesystem.stamps import Stamp, latest_ns, stamp_of, which_of
from sccache_py.server.filesystem.time_macros import OUT_DIR, Words, tells_names
from sccache_py.server.miss.precompiled import times_that_count

log = logging.getLogger(__name__)

# Smaller files are hashed at once: that takes less than opening them for later would save.
_AT_ONCE_BYTES = 128 * 1024

_EMPTY = digest_of(b"")

# The directive, however it is spelled.
_IMPORT = re.compile(rb"(?:#|%:|\?\?=)(?:\s|\\\r?\n|/\*.*?\*/)*import", re.DOTALL)


@dataclass(frozen=True, slots=True)
class _Late:
    """A file whose digest is still to be computed."""

    path: str
    fd: int
    stamp: Stamp
    settled: bool  # its ctime lay below the clock: the digest may be remembered


@dataclass(slots=True)
class Inputs:
    """Every condition of a compile, with some digests missing."""

    variant: Variant
    _late: dict[int, _Late] = field(default_factory=dict)  # by position in variant.files
    links: list[str] = field(default_factory=list)  # files that were reached through one that bears their name
    directories: list[str] = field(default_factory=list)  # that were opened as if they were files
    said: set[bytes] = field(default_factory=set)  # __DATE__ and kin and paths of roles, where the plan says that they count
    tells_names: bool = False  # __FILE__ and kin
    placed: list[tuple[str, str]] = field(default_factory=list)  # variables that may be told by a role, and their folded values
    searched: Words | None = None  # what is searched for besides the clock's macros; None: nothing at all is

    def complete(self, memo: FileMemo) -> Reason | None:
        """Compute what is missing; for a thread.  Raises OSError."""
        for position, late in self._late.items():
            digest = hash_descriptor(late.fd)
            now = os.fstat(late.fd)
            # Not its ctime: a rename or a new link to it changes that, and the content stays.
            if (now.st_size, now.st_mtime_ns) != (late.stamp[2], late.stamp[3]):
                return Reason.INPUT_TOO_NEW
            if self.searched is not None:
                used = memo.time_macros.known(digest, self.searched)
                if used is None:
                    used = memo.time_macros.search(os.pread(late.fd, now.st_size, 0), digest, self.searched)
                self.note(late.path, used)
            if late.settled:
                memo.remember(late.path, late.stamp, digest)
            self.variant.files[position] = (self.variant.files[position][0], digest)
        return None

    def place_variables(self) -> list[str]:
        """A variable by which sources did no more than include files is told by its place.  Roles that its value may show in a depfile."""
        if not self.placed or OUT_DIR in self.said:
            return []
        names = [name for name, _ in self.placed]
        self.variant.env = [(name, value) for name, value in self.variant.env if name not in names]
        self.variant.placed = self.placed
        return [place.partition("/")[0][1:] for _, place in self.placed]

    def note(self, path: str, used: Words) -> None:
        if used:
            self.said.update(used)
            self.tells_names = self.tells_names or tells_names(used, path)

    def close(self) -> None:
        for late in self._late.values():
            os.close(late.fd)
        self._late.clear()


def take_down(
    plan: Plan, draft: Draft, env: Mapping[str, str], memo: FileMemo, began_ns: int, before: Mapping[str, bytes | None]
) -> Inputs | Reason:
    """The conditions of a draft, folded, if nothing in it moved since the compile began (CLOCK_REALTIME_COARSE, ns).

    before: digests of inputs from just before that.
    """
    asked = [(name, value_of(env, name)) for name in draft.asked]
    inputs = Inputs(Variant([], [], [], [], asked, [(role, plan.roles.pin(role)) for role in draft.pins]), searched=_searched(plan, draft))
    places = ((name, plan.place_of(env.get(name))) for name in draft.placed)
    inputs.placed = [(name, place) for name, place in places if place is not None]
    if "PATH" in draft.asked and (directories := search_path(env.get("PATH"))):
        inputs.variant.sought = [(name, plan.roles.fold(find_program(name, directories))) for name in draft.sought]
    inputs.variant.libraries = find_libraries(draft.libraries, env, plan)
    try:
        sight = Sight(memo, watched=False)
        reason = (
            _take_files(plan, draft, sight, began_ns, before, inputs)
            or _take_names(plan, draft, sight, began_ns, inputs)
            or _take_twins(plan, sight, began_ns, inputs)
        )
    except BaseException:
        inputs.close()
        raise
    if reason is not None:
        inputs.close()
        return reason
    _wish(memo, inputs.variant)
    return inputs


def _wish(memo: FileMemo, variant: Variant) -> None:
    """What two compiles have read is watched before the first hit asks for it.  Not what a role tells: each build has its own."""
    for folded in {path for paths in (variant.files, variant.present, variant.absent) for path, _ in paths}.difference(memo.stamps()):
        if folded.startswith("/"):
            memo.wish(folded)


def _take_files(plan: Plan, draft: Draft, sight: Sight, began_ns: int, before: Mapping[str, bytes | None], inputs: Inputs) -> Reason | None:
    files, memo = inputs.variant.files, sight.memo
    for path in dict.fromkeys(draft.read):
        now = coarse_ns()
        try:
            st = sight.look(path)
            if stat.S_ISLNK(st.st_mode):
                inputs.links.append(path)
                st = os.stat(path)
        except OSError:
            log.info("input gone: %s", path)
            return Reason.INPUT_VANISHED
        if draft.which.get(path) not in (None, which_of(st)):
            log.info("another file by that name: %s", path)
            return Reason.INPUT_TOO_NEW
        if stat.S_ISDIR(st.st_mode):
            # Who opened it as a file (gcc a header of that name) went on without: as long as it is a directory.
            if path not in plan.may_write:
                if latest_ns(st.st_ctime_ns) >= began_ns:
                    log.info("input too new: %s", path)
                    return Reason.INPUT_TOO_NEW
                inputs.directories.append(path)
            continue
        if not stat.S_ISREG(st.st_mode):
            return Reason.SPECIAL_FILE
        if latest_ns(st.st_ctime_ns) >= began_ns and not _is_as_before(path, st, began_ns, before.get(path), memo):
            log.info("input too new: %s", path)
            return Reason.INPUT_TOO_NEW
        digest = memo.known(path, stamp_of(st))
        if digest is None and st.st_size <= _AT_ONCE_BYTES:
            hashed = memo.hash(path)
            if hashed is None or hashed[0] != stamp_of(st):
                return Reason.INPUT_TOO_NEW
            digest = hashed[1]
        if digest is None:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            inputs._late[len(files)] = _Late(path, fd, stamp_of(st), latest_ns(st.st_ctime_ns) < now)
            if stamp_of(os.fstat(fd)) != stamp_of(st):
                return Reason.INPUT_TOO_NEW
            digest = b""
        if digest and inputs.searched is not None:
            used = _words(path, digest, memo, inputs.searched)
            if used is None:
                return Reason.INPUT_TOO_NEW
            inputs.note(path, used)
        files.append((plan.roles.fold(path), digest))
    return None


def _is_as_before(path: str, st: os.stat_result, began_ns: int, before: bytes | None, memo: FileMemo) -> bool:
    """Perhaps only its times were set back, as `cargo check` does to a crate while others are compiled that use it.

    Who writes something else and then the same again leaves a new mtime.
    """
    return before is not None and latest_ns(st.st_mtime_ns) < began_ns and Sight(memo, watched=False).hash_now(path) == before


def _searched(plan: Plan, draft: Draft) -> Words | None:
    """Paths by which a source may name a file of its checkout, and another checkout's the same one; and __FILE__, where it matters."""
    if not plan.tells_time and not plan.roots():
        return None
    paths = tuple(os.fsencode(path) for _, paths in plan.roots() for path in sorted(paths))
    return (*paths, *plan.names_base, *((OUT_DIR,) if draft.placed else ()))


def _words(path: str, digest: bytes, memo: FileMemo, paths: Words) -> Words | None:
    """Macros and paths in a file; None: it is not what it was when it was hashed.  Raises OSError."""
    used = memo.time_macros.known(digest, paths)
    if used is None:
        data = _text(path)
        if digest_of(data) != digest:
            return None
        used = memo.time_macros.search(data, digest, paths)
    return used


def _take_names(plan: Plan, draft: Draft, sight: Sight, began_ns: int, inputs: Inputs) -> Reason | None:
    variant, fold = inputs.variant, plan.roles.fold
    for path in times_that_count(plan, draft.read, draft.present):
        modified = sight.modified(path)
        if modified is None:
            return Reason.INPUT_VANISHED
        if not os.path.isdir(path):  # a directory's changes with each name in it, and is in no output
            variant.present.append((fold(path), modified))
    behind, directories = [], {}
    if plan.resolves_names:
        # Files that are links, and directories of files that are reached through links: where they lead to may show in the output.
        # A directory that becomes a link after this is not noticed, unless what is read through it differs.
        directories = _parents(draft.read)
        behind = [d for d in directories if sight.physical(d) != os.path.normpath(d)] + inputs.links
        directories |= _parents(draft.present)
    for path in (*draft.present, *inputs.directories, *behind):
        state = sight.state(path, plan.place)
        if state is None:
            log.info("input gone: %s", path)
            return Reason.INPUT_VANISHED
        variant.present.append((fold(path), state))
        if state.startswith(DIRECTORY):
            directories[path] = None
    if plan.resolves_names and _is_named_twice(plan, sight, directories, behind):
        variant.pins += [(role, plan.roles.pin(role)) for role, _ in plan.roots()]
    for path in draft.dated:
        reason = _take_date(path, draft, sight, fold, began_ns, variant)
        if reason is not None:
            return reason

    reason = _take_absent(plan, draft, sight, began_ns, variant)
    if reason is not None:
        return reason

    for path in draft.listed:
        try:
            st = os.stat(path)
            if (path not in plan.may_write and latest_ns(st.st_ctime_ns) >= began_ns) or draft.which.get(path) not in (None, which_of(st)):
                log.info("names came or went: %s", path)
                return Reason.INPUT_TOO_NEW
        except OSError:
            return Reason.INPUT_VANISHED
        names = sight.listing_digest(path, plan.own)
        if names is None:
            return Reason.INPUT_VANISHED
        variant.listed.append((fold(path), names))
    return None


def _take_absent(plan: Plan, draft: Draft, sight: Sight, began_ns: int, variant: Variant) -> Reason | None:
    names_in: dict[str, list[str]] = {}
    for path in draft.absent:
        directory, _, name = path.rpartition("/")
        names_in.setdefault(directory or "/", []).append(name)
    absent: dict[str, dict[str, None]] = {}
    for directory, names in names_in.items():
        if not os.path.lexists(directory):
            directory, name = _first_missing(directory)
            absent.setdefault(plan.roles.fold(directory), {})[name] = None
            continue
        present = sight.present(directory, names)
        for name in present:
            path = os.path.join(directory, name)
            state = _link_to_nothing(path, sight, plan.place, began_ns)
            if state is None:
                log.info("appeared meanwhile: %s", path)
                return Reason.INPUT_TOO_NEW
            variant.present.append((plan.roles.fold(path), state))
        lacking = [name for name in names if name not in present] if present else names
        if lacking:
            absent.setdefault(plan.roles.fold(directory), {}).update(dict.fromkeys(lacking))
    for path in draft.lacked:
        directory, name = os.path.split(path)
        absent.setdefault(plan.roles.fold(directory), {})[name] = None
    variant.absent = [(directory, list(names)) for directory, names in absent.items()]
    return None


def _take_twins(plan: Plan, sight: Sight, began_ns: int, inputs: Inputs) -> Reason | None:
    """Files with the same text, of which `#pragma once` and `#import` may pass over the second.

    gcc takes them for one file if both were changed in the same second (libcpp/files.cc, has_unique_contents), clang if they are one
    inode.  What is one file under two names is always taken for one.
    """
    if plan.tells_twins is Twins.NOWHERE:
        return None
    look = sight.modified if plan.tells_twins is Twins.BY_TIME else sight.inode
    try:
        for paths in _of_one_content(plan, inputs):
            if len({os.path.realpath(path) for path in paths}) == 1:
                continue
            for path in paths:
                state = look(path)
                if state is None or latest_ns(os.stat(path).st_ctime_ns) >= began_ns:
                    log.info("input too new: %s", path)
                    return Reason.INPUT_TOO_NEW
                inputs.variant.present.append((plan.roles.fold(path), state))
    except OSError:
        return Reason.INPUT_VANISHED
    return None


def take_inodes(plan: Plan, variant: Variant, memo: FileMemo) -> Reason | None:
    """For an output that names one of them: which file each is that was read, or that `#line` said, so that the compiler looked at it."""
    sight = Sight(memo, watched=False)
    for folded in dict.fromkeys(folded for folded, _ in (*variant.files, *variant.present)):
        path = plan.roles.unfold(folded)
        state = sight.inode(path) if path is not None else None
        if path is None or state is None:
            return Reason.INPUT_VANISHED
        if not os.path.isdir(path):
            variant.present.append((folded, state))
    return None


def _of_one_content(plan: Plan, inputs: Inputs) -> list[list[str]]:
    """Paths of files with the same text, and of those whose text is not known yet and may be the same, if one of them may be passed over.

    An empty one matters to nobody.
    """
    unknown = {late.stamp[2] for late in inputs._late.values()}  # sizes
    paths = [(path, digest) for folded, digest in inputs.variant.files if (path := plan.roles.unfold(folded)) is not None]
    found: dict[bytes | int, list[str]] = {}
    for path, digest in paths:
        if digest != _EMPTY:
            size = os.stat(path).st_size if unknown else 0
            found.setdefault(size if size in unknown else digest, []).append(path)
    groups = [group for group in found.values() if len(group) > 1]
    if groups and not any(_IMPORT.search(_text(path)) for path, _ in paths):
        groups = [group for group in groups if any(b"once" in _text(path) for path in group)]
    return groups


def _text(path: str) -> bytes:
    """Raises OSError."""
    with open_regular(path) as f:
        return f.read()


def _take_date(path: str, draft: Draft, sight: Sight, fold: Callable[[str], str], began_ns: int, variant: Variant) -> Reason | None:
    """When a file was changed last, and what stat says beside.

    A directory changes with every name in it: those that count are conditions of their own.
    """
    try:
        st = os.stat(path)
    except OSError:
        return Reason.INPUT_VANISHED
    if not stat.S_ISREG(st.st_mode):
        return None
    if latest_ns(st.st_ctime_ns) >= began_ns:
        log.info("input too new: %s", path)
        return Reason.INPUT_TOO_NEW
    if draft.reading_counts and st.st_atime_ns >= began_ns:  # perhaps after the macro asked
        log.info("input was read just now: %s", path)
        return Reason.INPUT_TOO_NEW
    states = [sight.dated(path)]
    states += [sight.born(path)] if draft.birth_counts else []
    states += [sight.read_last(path)] if draft.reading_counts else []
    variant.present += [(fold(path), state or b"") for state in states]
    return None


def _link_to_nothing(path: str, sight: Sight, place: Place, began_ns: int) -> bytes | None:
    """The state of a name that is there and nothing to who opens it; None: it is something, or may be younger than the compile."""
    state = sight.state(path, place)
    if state is None or not state.startswith(TO_NOTHING) or latest_ns(os.lstat(path).st_ctime_ns) >= began_ns:
        return None
    return state


def _parents(paths: Iterable[str]) -> dict[str, None]:
    return dict.fromkeys(path[: path.rfind("/")] or "/" for path in paths)


def _is_named_twice(plan: Plan, sight: Sight, directories: Iterable[str], behind: list[str]) -> bool:
    """Whether a directory is reached by its whole path, and by one that is told by role: called from another cwd these are two.

    Compilers search one directory once, whatever its names.
    """
    named = [(path, path) for path in directories] + [(path, os.path.dirname(sight.physical(path))) for path in behind]
    places: tuple[set[tuple[int, int]], set[tuple[int, int]]] = set(), set()
    for name, directory in named:
        try:
            st = sight.look(directory)
            if stat.S_ISLNK(st.st_mode):
                st = os.stat(directory)
        except OSError:
            continue
        if stat.S_ISDIR(st.st_mode):
            places[plan.roles.fold(name).startswith("/")].add((st.st_dev, st.st_ino))
    return not places[0].isdisjoint(places[1])


def _first_missing(path: str) -> tuple[str, str]:
    """(a directory that is there, the name in it that is not) on the way to a directory that is not there.

    What stands in the place of a directory may be a file or a link to nothing: no name is in it then.
    """
    while True:
        directory, name = os.path.split(path)
        if not name or os.path.lexists(directory):
            return directory, name
        path = directory
