"""From a compile that just ran to an entry in the store, in two steps.

`examine` comes before the answer: it takes the conditions down (inputs.py) and opens the outputs, since a moment later they are
the build tool's to move and overwrite.  `make_entry` comes after the answer, in a thread: it copies the outputs from the open
descriptors into the store's scratch space and hashes the copies.
"""

from __future__ import annotations

import logging
import mmap
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from sccache_py import entry, make_rule
from sccache_py.coff import HEAD_BYTES, made_at
from sccache_py.compilers.driver import Driver, Told
from sccache_py.conditions import WHICH_VARIABLES, Draft, asked_by_macros, judge
from sccache_py.depfile import parse_dep_info, replace_targets
from sccache_py.elf import (
    ACCESSED,
    ARGUMENTS,
    ARGUMENTS_PANIC,
    CREATED,
    LOCAL_FILE,
    OWN_CALLS,
    PROGRAM,
    hides_text,
    links_in,
    may_walk,
    needed,
    takes_environment,
    tells_age,
    walk_shows,
    whether_functions,
)
from sccache_py.errors import StoreError
from sccache_py.keys import Hasher, result_key
from sccache_py.model import MESSAGES, PROBE, Observation, Output, Plan, Reason, Result, Variant
from sccache_py.observation import observe, plain
from sccache_py.profiles import ProfileNames
from sccache_py.roles import encodings
from sccache_py.server.filesystem.files import FileMemo, FileShrank, coarse_ns, existing, open_regular
from sccache_py.server.filesystem.scan import copy_and_search, shows_any
from sccache_py.server.filesystem.stamps import Stamp, latest_ns, stamp_of
from sccache_py.server.filesystem.time_macros import DEPENDENCY, result_tells_time
from sccache_py.server.miss import option_files
from sccache_py.server.miss.candidates import passed_over
from sccache_py.server.miss.inputs import Inputs, take_down, take_inodes
from sccache_py.server.miss.look import FileLook
from sccache_py.server.miss.opened import Opened
from sccache_py.server.running.runner import Ran
from sccache_py.server.store.base import Store

log = logging.getLogger(__name__)

# No role: under it outputs are searched for what names an inode.
_INODE = "inode"

# How gcc calls sections with code for another device, which are compressed and do not say so (lto-section-names.h): the cwd is in there.
_HIDES = b".gnu.offload_lto_"

# Where debug information for Windows stands (CodeView), which names the object, maybe by a word without a slash (-fdebug-compilation-dir).
_CODEVIEW = b".debug$S"

# A relative path this short in an output may be chance.  So may be `/io`, but it can be a container's one directory for sources.
_SHORTEST_NEEDLE = 4


@dataclass(slots=True)
class Examined:
    inputs: Inputs
    outputs: list[Opened]

    def close(self) -> None:
        self.inputs.close()
        for output in self.outputs:
            os.close(output.fd)
        self.outputs.clear()


@dataclass(slots=True)
class Entry:
    variant: Variant
    result: Result
    files: dict[bytes, str]  # digest → a file in the store's scratch space


def draft_observed(
    plan: Plan, covered: tuple[str, ...], ours: tuple[str, ...], record: bytes, env: Mapping[str, str], ran: Ran, names: ProfileNames | None
) -> Draft | Reason:
    """What must hold and what was left, by the record.  names: how profiles of its macros are called."""
    places = [(os.path.realpath(d), d) for d in plan.may_write]
    seen: Observation | Reason = observe(record, [(physical, d) for physical, d in places if physical != d])
    if isinstance(seen, Reason):
        return seen
    seen.dated = {who: paths for who, paths in seen.dated.items() if not _asks_whether(who)}
    left = _left(plan, seen, ran.began_ns)
    profiles = {path: told for path in left if names is not None and (told := names.told(path, ran.pid)) is not None}
    for paths in (left, seen.read, seen.present, seen.absent, seen.sized, seen.shining) if profiles else ():
        paths[:] = [path for path in paths if path not in profiles]
    draft = judge(plan, seen, covered, ours, left, env, ran.status == 0, _named_variables(plan))
    if isinstance(draft, Draft):
        draft.profiles = profiles
        draft.outputs += profiles
        rejected = _passed_over(plan, [*draft.read, *draft.present])
        draft.read = [path for path in draft.read if path not in rejected]
        draft.present = [path for path in draft.present if path not in rejected]
        macros = [_macro(path) for path in draft.read if path.endswith(".so") and path not in seen.linked]
        if any(m.makes_own_calls for m in macros):
            return Reason.PLUGIN_UNSEEN
        if any(m.tells_age for m in macros):
            draft.dated += draft.sized
        draft.birth_counts = any(m.tells_birth for m in macros)
        draft.reading_counts = any(m.tells_reading for m in macros)
        options = option_files.found_by_driver(plan, draft.read)
        if not plan.native_cpu and any(map(option_files.says_native, options)):
            return Reason.NATIVE_UNSAID
        if options or plan.relates_places or any(m.sees_arguments for m in macros):  # in which every directory stands
            draft.pins = [role for role, _ in plan.roles.spellings()]
        elif plan.roles.has("toolchain") and any(m.sees_program for m in macros):
            draft.pins.append("toolchain")
        if any(m.sees_files for m in macros):
            draft.pins += plan.sources_by
        takers = [m for m in macros if m.takes_environment]
        walks_unseen = bool(macros) and _bring_a_walker(macros, [path for path in draft.read if path not in seen.linked])
        if takers or walks_unseen or WHICH_VARIABLES in seen.plugins_asked:
            draft.asked = asked_by_macros(seen, draft.asked, env, not walks_unseen and all(m.walk_shows for m in takers))
    return draft


def _left(plan: Plan, seen: Observation, began_ns: int) -> list[str]:
    """What was written and is there; not what was opened for writing elsewhere, a database or a lock, and is as it was."""
    places = tuple(f"{directory}/" for directory in plan.may_write)
    there_before = {path for path in seen.read if not path.startswith(places)}
    return [path for path in existing(seen.written) if path not in there_before or not _is_older(path, began_ns)]


def _is_older(path: str, began_ns: int) -> bool:
    try:
        return latest_ns(os.stat(path).st_ctime_ns) < began_ns
    except OSError:
        return False


def _passed_over(plan: Plan, seen: list[str]) -> set[str]:
    try:
        return passed_over(seen, plan.known_inputs, plan.list_free) if plan.language == "Rust" else set()
    except (OSError, ValueError):  # gone, or empty
        return set()


class _Macro(NamedTuple):
    """What the code of a proc-macro can do unobserved, or by calls that do not say what for; what is no crate has hardly any of it."""

    takes_environment: bool
    makes_own_calls: bool
    tells_age: bool
    walk_shows: bool = False
    tells_birth: bool = False
    tells_reading: bool = False
    sees_arguments: bool = False
    sees_program: bool = False
    may_walk: bool = False  # this of what is no crate
    sees_files: bool = False
    needs: tuple[str, ...] = ()  # names of libraries
    whether: tuple[tuple[int, int], ...] = ()  # where functions lie that only tell whether a path is there


def _bring_a_walker(macros: Iterable[_Macro], read: Iterable[str]) -> bool:
    """Whether with a macro a library was loaded that is no crate and may walk the environment.  Others that were read were only linked."""
    there = {os.path.basename(path): path for path in read}
    names = [name for macro in macros for name in macro.needs]
    while names:
        path = there.pop(names.pop(), None)
        if path is not None:
            library = _macro(path)
            if library.may_walk:
                return True
            names += library.needs
    return False


def _macro(path: str) -> _Macro:
    try:
        return _macro_of(path, stamp_of(os.stat(path)))
    except OSError:
        return _Macro(False, False, False)


@lru_cache(maxsize=512)
def _macro_of(path: str, stamp: Stamp) -> _Macro:
    """stamp: so that each state of the file is read once.  Raises OSError."""
    with open_regular(path) as f:
        try:
            library = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:  # empty
            return _Macro(False, False, False)
        with library, memoryview(library) as view:
            takes, arguments = takes_environment(view), links_in(view, *ARGUMENTS)
            return _Macro(
                takes,
                shows_any(f.fileno(), OWN_CALLS),
                tells_age(view),
                takes and walk_shows(view),
                links_in(view, CREATED) is not False,
                # Where there are no symbols this is taken for unlikely: builds with `strip` would lose each day's first hit, or all in
                # another target directory.
                links_in(view, *ACCESSED) is True,
                shows_any(f.fileno(), (ARGUMENTS_PANIC,)) if arguments is None else arguments,
                links_in(view, PROGRAM) is not False,
                may_walk(view),
                links_in(view, LOCAL_FILE) is not False,
                needed(view),
                whether_functions(view),
            )


def _asks_whether(who: str) -> bool:
    """Whether who looked at a path was not told when it was changed: a macro by Path::exists."""
    kind, _, way = who.partition(":")
    calls, _, library = way.partition(":")
    if kind != "plugin" or not library.startswith("/"):
        return False
    places = _macro(library).whether
    return any(first <= int(call, 16) < end for call in calls.split(",") for first, end in places)


def _named_variables(plan: Plan) -> frozenset[str] | None:
    """Those that env! and option_env! of a Rust crate asked for; None where the compiler was not told to list them."""
    if plan.language != "Rust" or plan.asks:
        return frozenset()
    if plan.dep_info is None:
        return None
    try:
        with open_regular(plan.dep_info) as f:
            return frozenset(os.fsdecode(name) for name in parse_dep_info(f.read())[1])
    except OSError:
        return None


def draft_listed(
    plan: Plan, driver: Driver, told: Told | None, env: Mapping[str, str], cwd: str, extra_files: tuple[str, ...], look: FileLook
) -> Draft | Reason:
    """The same from the compiler's own list, where nothing was observed.  told: its answer, if it was asked; else it wrote a file."""
    try:
        if told is None:
            if plan.dep_info is None:
                return Reason.FALLBACK_NO_DEP_INFO
            with open_regular(plan.dep_info) as f:
                told = Told(f.read())
    except OSError:
        return Reason.OUTPUT_MISSING
    draft = driver.draft_from_lists(plan, told, env, cwd, extra_files, look)
    if isinstance(draft, Draft):
        draft.which = look.which()
        # What compilers read for themselves is on no list.
        if any(path.startswith(("/proc/", "/sys/")) for path in draft.read):
            return Reason.SPECIAL_FILE
    return Reason.INPUT_TOO_NEW if look.saw_too_new else draft


def examine(
    plan: Plan, draft: Draft, env: Mapping[str, str], memo: FileMemo, began_ns: int, before: Mapping[str, bytes | None]
) -> Examined | Reason:
    """Take the conditions down and hold the outputs open.  before: digests of inputs from just before the compile began."""
    inputs = take_down(plan, draft, env, memo, began_ns, before)
    if isinstance(inputs, Reason):
        return inputs
    opened: list[Opened] = []
    examined = Examined(inputs, opened)
    for path in draft.outputs:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            examined.close()
            return Reason.OUTPUT_SPECIAL
        opened.append(Opened(path, draft.profiles.get(path, path), fd, os.fstat(fd), began_ns))
        if not stat.S_ISREG(opened[-1].st.st_mode):
            examined.close()
            return Reason.OUTPUT_SPECIAL
        # OpenSSL's makefile touches its depfiles, Linux's reads and removes them, and its objtool writes into every object.
        if plan.language != "Rust" or path in plan.templates:
            opened[-1].take()
        # Where a table says what is written, this may be what an earlier compile left.
        if plan.question and opened[-1].st.st_ctime_ns < began_ns:
            examined.close()
            return Reason.OUTPUT_MISSING
    if len({(o.st.st_dev, o.st.st_ino) for o in opened}) != len(opened):
        examined.close()
        return Reason.OUTPUT_SPECIAL
    return examined


def discard(entry: Entry | Reason) -> None:
    """Nobody wants it any more."""
    for path in entry.files.values() if isinstance(entry, Entry) else ():
        _unlink(path)


class Depositor:
    def __init__(self, store: Store, memo: FileMemo) -> None:
        self._store = store
        self._memo = memo

    def make_entry(self, plan: Plan, recipe: bytes, examined: Examined, ran: Ran) -> Entry | Reason:
        """For a thread.  On a Reason nothing is left in the scratch space."""
        files: dict[bytes, str] = {}
        try:
            made = self._make(plan, recipe, examined, ran, files)
        except (OSError, StoreError) as e:
            log.warning("%s: not stored: %s", plan.source, e)
            made = Reason.OUTPUT_CHANGED if isinstance(e, FileShrank) else Reason.NO_ROOM
        if isinstance(made, Reason):
            for path in files.values():
                _unlink(path)
        return made

    def _make(self, plan: Plan, recipe: bytes, examined: Examined, ran: Ran, files: dict[bytes, str]) -> Entry | Reason:
        if sum(o.st.st_size for o in examined.outputs) > self._store.limit_bytes // 4:
            return Reason.TOO_LARGE
        reason = examined.inputs.complete(self._memo)
        if reason is not None:
            return reason
        variant = examined.inputs.variant
        if plan.tells_time and result_tells_time(examined.inputs.said, plan.arguments, dict(variant.env)):
            return Reason.TELLS_TIME
        if DEPENDENCY in examined.inputs.said:
            return Reason.COMPARES_TIMES
        if plan.tells_time and any(_says_when(opened) for opened in examined.outputs):
            return Reason.TELLS_TIME

        movable, places = movable_roles(plan), examined.inputs.place_variables()
        pinned = {role for role, _ in variant.pins}
        # A file that a variable, a word or a source names is that very file for all calls, not what lies there in each one's own directory.
        values = [value for _, value in variant.env if value]
        for role, paths in plan.roles.spellings():
            if any(path in value for path in paths if path.startswith("/") for value in values):
                pinned.add(role)
        words = [plain(word) for word in plan.arguments]
        for role, paths in plan.roots():
            if any(os.fsencode(path) in examined.inputs.said or any(path in word for word in words) for path in paths):
                pinned.add(role)
        if plan.mapped_prefixes and any(path.startswith(plan.mapped_prefixes) for path, _ in variant.files):
            pinned.update(role for role, _ in plan.roots())
        if plan.roles.has("base"):
            in_words = any(os.fsdecode(name) in word for word in words for name in plan.names_base)  # -DHERE=__FILE__
            pinned.update(_shows_base(plan, variant, in_words or examined.inputs.tells_names))
        outputs = []
        # Depfiles last: where the object cannot be written, the compiler would have left none.
        for opened in sorted(examined.outputs, key=lambda o: o.path in plan.templates):
            output = self._copy(plan, opened, movable, pinned, files, places)
            if isinstance(output, Reason):
                return output
            outputs.append(output)
        if places:
            self._memo.time_macros.note_that_they_only_include(output.digest for output in outputs)

        roles = [role for role, _ in movable] if plan.moves_text else []
        stdout, stderr = (plan.roles.make_stream_template(stream, roles) for stream in (ran.stdout, ran.stderr))
        for text in (stdout, stderr):
            pinned.update(role for role, needles in movable if any(n in text for n in needles))
            if plan.roles.has("program") and os.fsencode(f"{plan.roles.path('program')}: ") in text:
                pinned.add("program")  # gcc: warning: …
        if _INODE in pinned:
            reason = take_inodes(plan, variant, self._memo)
            if reason is not None:
                return reason
            pinned.remove(_INODE)
        result = Result(tuple(outputs), stdout, stderr, ran.took_ns, ran.peak_rss_kib, ran.status)
        variant.pins = sorted((role, plan.roles.pin(role)) for role in pinned)
        if result.is_silent() and plan.exact_outputs:
            if all(name != WHICH_VARIABLES for name, _ in variant.env):  # no script ran, which may look at any
                variant.env = [(name, value) for name, value in variant.env if name not in plan.message_variables]
        elif plan.tells_looks():
            variant.pins.append((MESSAGES, plan.pin(MESSAGES) or ""))
        variant.result = result_key(recipe, variant)
        return Entry(variant, result, files)

    def _copy(
        self,
        plan: Plan,
        opened: Opened,
        movable: list[tuple[str, list[bytes]]],
        pinned: set[str],
        files: dict[bytes, str],
        places: list[str],
    ) -> Output | Reason:
        """pinned and files grow.  places: roles that a depfile tells with this call's path."""
        size, mode = opened.st.st_size, stat.S_IMODE(opened.st.st_mode)
        folded = plan.roles.fold(opened.told)
        if folded == f"${PROBE}":
            movable = [(role, needles) for role, needles in movable if role != PROBE]
        settled = opened.settled if opened.taken else latest_ns(opened.st.st_ctime_ns) < coarse_ns()
        # A macro sets it back, lest cargo take what it made during the compile for a change behind it.
        was_set = plan.adds_to_a_build(opened.path) and opened.st.st_mtime_ns < opened.began_ns
        mtime_ns = opened.st.st_mtime_ns if was_set else None
        if opened.path in plan.templates or size <= entry.INLINE_LIMIT_BYTES:
            data = opened.data if opened.data is not None else os.pread(opened.fd, size + 1, 0)
            if len(data) != size or not opened.is_unchanged():
                return Reason.OUTPUT_CHANGED
            hasher = Hasher()
            hasher.update(data)
            is_template = opened.path in plan.templates
            if plan.depfile is not None and is_template:
                taken_apart = make_rule.fold(data, plan.depfile)
                if taken_apart is None:
                    is_template = False
                    pinned.update(role for role, _ in plan.roles.spellings() if role not in ("cwd", "program"))
                if taken_apart is not None:
                    data = plan.roles.make_template(taken_apart, ["base"] if plan.roles.has("base") else [], b"r")
            elif is_template:
                told = plan.roles.make_template
                told_by = [*places, *plan.sources_by]
                data = replace_targets(data, lambda text: told(text, ["out"], b"r"), lambda text: told(text, told_by, b"m"))
            pinned.update(role for role, needles in movable if any(n in data for n in needles))
            if hides_text(memoryview(data)):
                pinned.update(_all_roles(plan))
            if settled:
                self._memo.remember(opened.path, stamp_of(opened.st), hasher.digest())
            return Output(folded, mode, size, hasher.digest(), data, is_template, mtime_ns)

        scratch = self._store.scratch_path()
        fd = os.open(scratch, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            digest, shown = copy_and_search(opened.fd, fd, size, movable)
            with mmap.mmap(fd, size, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as file:
                if hides_text(file):
                    shown.update(_all_roles(plan))
        except BaseException:
            _unlink(scratch)
            raise
        finally:
            os.close(fd)
        pinned.update(shown)
        if digest in files:
            _unlink(scratch)
        else:
            files[digest] = scratch
        if not opened.is_unchanged():
            return Reason.OUTPUT_CHANGED
        if settled:
            self._memo.remember(opened.path, stamp_of(opened.st), digest)
        return Output(folded, mode, size, digest, None, False, mtime_ns)


def _says_when(opened: Opened) -> bool:
    """An object for Windows that says it was made during this compile."""
    made_s = made_at(os.pread(opened.fd, HEAD_BYTES, 0))
    return opened.began_ns // 1_000_000_000 <= made_s + 1 and made_s <= coarse_ns() // 1_000_000_000 + 1


def _all_roles(plan: Plan) -> list[str]:
    roles = [role for role, _ in plan.roles.spellings() if role != "program" and not (role == "cwd" and plan.cwd_in_key)]
    return [*roles, _INODE] if plan.inode_marks else roles


def _shows_base(plan: Plan, variant: Variant, tells_names: bool) -> set[str]:
    """Whether an output may depend on the base directory and not show it: by __FILE__, or by a link that leads out of it or into it.

    gcc writes where a system header really is, if that is shorter.
    """
    crosses = any(
        path.startswith("$base") != state.partition(b">")[2].startswith(b"$base") for path, state in variant.present if b">" in state
    )
    return {"base"} if crosses or tells_names else set()


def movable_roles(plan: Plan) -> list[tuple[str, list[bytes]]]:
    """Roles whose path is not in the key, and _INODE, with the bytes by which an output would show that it depends on them."""
    found = []
    hides = set() if plan.language == "Rust" else {_HIDES}
    for role, spellings in plan.roles.spellings():
        if role == "cwd" and plan.cwd_in_key:
            continue
        if role == "toolchain":
            spellings = {*spellings, *(os.path.dirname(os.path.dirname(s)) for s in spellings)}  # the sysroot: `--print sysroot`
        needles = [encodings(s) for s in spellings if s[:1] == "/" or (len(s) >= _SHORTEST_NEEDLE and (plan.moves_text or "/" in s))]
        if role == "o":
            needles.append({_CODEVIEW})
        if needles:
            found.append((role, sorted(hides.union(*needles))))
    return [*found, (_INODE, list(plan.inode_marks))] if plan.inode_marks else found


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
