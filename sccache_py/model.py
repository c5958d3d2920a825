"""The vocabulary: what is asked, what was planned, seen, remembered and answered.

Values only.  Nothing here touches a file or knows a compiler.  Paths and arguments are `str` decoded with
`surrogateescape`; contents and digests are `bytes` (a digest is 16 bytes of xxh3-128, `keys.digest`).
A *folded* path is a path told by its role: `$out/libx.rlib`, `$cwd/src/lib.rs`, or absolute (roles.py).
"""

from __future__ import annotations

import enum
import os
import re
from dataclasses import dataclass, field

from sccache_py.make_rule import Depfile
from sccache_py.roles import Roles

# Written alike in every text: no space or other character that a depfile has to escape.
_PLAIN_PATH = re.compile(r"(?:/[\w.+@,=-]+)+")


class Reason(enum.Enum):
    """Why an invocation was not cached.  The value is the line in --show-stats; sccache's words where it has some."""

    # Found on the command line: the caller runs the compiler itself.
    NOT_COMPILING = "not a compilation"  # -V, --print, -vV: counted as a non-compilation call
    UNSUPPORTED_COMPILER = "unsupported compiler"
    STDIN = "-"
    MISSING_INPUT = "missing input"
    MANY_INPUTS = "multiple input files"
    MISSING_EMIT = "missing emit"
    CRATE_TYPE = "crate-type"
    INCREMENTAL = "incremental"
    UNKNOWN_OPTION = "unhandled option"
    UNKNOWN_LANGUAGE = "unknown source language"
    REFUSED_OPTION = "option"
    REFUSED_VARIABLE = "variable"
    BAD_ARGUMENTS = "argument parse"
    OUTPUT_IS_STDOUT = "output to stdout"
    OUTPUT_TWICE = "output is the source or another output"
    OUTPUT_OPTION = "-o"
    SAVE_TEMPS = "save-temps"
    SELF_PROFILE = "self-profile"
    RESPONSE_FILE = "@"
    DESCRIPTOR = "names a descriptor of the caller"
    CLOSED_STREAM = "stdout or stderr is closed"
    SYSROOT = "--sysroot"
    FALLBACK_SCRIPT = "script as compiler without observation"
    FALLBACK_OUTPUTS = "outputs that only observation knows"
    FALLBACK_SEARCH = "libraries found by search without observation"
    FALLBACK_NO_DEP_INFO = "no dep-info without observation"
    FALLBACK_C = "C without observation:"  # with the option or language of which no list tells
    FALLBACK_COMPUTED = "computed #include or __has_include without observation"
    FALLBACK_ASSEMBLER = "assembler may read files without observation"
    FALLBACK_FILES = "may read files of which no list tells, without observation"
    FALLBACK_PCH = "precompiled header without observation"
    FALLBACK_LIST = "the compiler's list is not understood, without observation"
    NO_CACHE = "SCCACHE_NO_CACHE"
    READ_ONLY = "read-only cache"
    # Found on connecting.
    OTHER_VIEW = "client sees other files"
    OTHER_LIMITS = "caller may do more than the server"
    # Found by watching the compiler: it ran, and nothing was stored.
    RECORD_LOST = "observation incomplete"
    RECORD_FOREIGN = "a program could not be observed"
    RECORD_UNFOLLOWED = "did what cannot be observed"
    SPECIAL_FILE = "read a special file"
    TELLS_TIME = "__DATE__, __TIME__ or __TIMESTAMP__"
    COMPARES_TIMES = "#pragma GCC dependency"
    PLUGIN_TELLS_TIME = "a macro or plugin asked for the time"
    PLUGIN_UNSEEN = "a macro makes system calls of its own"
    NATIVE_UNSAID = "a configuration file says native"
    WROTE_ELSEWHERE = "wrote outside its output directories"
    INPUT_TOO_NEW = "input changed during the compile"
    INPUT_VANISHED = "input gone after the compile"
    OUTPUT_READ = "an output is an input, too"
    OUTPUT_SHARED = "two compiles wrote the same file"
    OUTPUT_CHANGED = "output changed while it was stored"
    OUTPUT_MISSING = "expected output missing"
    OUTPUT_SPECIAL = "output is not a regular file"
    TOO_LARGE = "outputs too large"
    NO_ROOM = "cache directory cannot be written"
    TOO_TALKATIVE = "too much on stdout or stderr"
    JOBSERVER_WARNING = "jobserver warning on stderr"
    PASSING_TROUBLE = "failed for want of room, memory or a directory"
    NOT_ENGLISH = "failed in another language, in which passing trouble is not known"
    LEFT_RUNNING = "left a process running"


# No role of a path: under it stands how messages look.  Pinned where a compiler said something.
MESSAGES = "messages"

# The role of what a crate with a name by chance leaves (autocfg's), which nobody reads: a hit brings back what another name's left, in
# whose bytes that name's hash is.
PROBE = "probe"


class Twins(enum.Enum):
    """By what a compiler that passes over a file that it has already read takes two with the same text for one."""

    NOWHERE = "it does not"
    BY_TIME = "changed in the same second"
    BY_INODE = "the same inode"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A Reason of which there are many, with the one it is: an option's name."""

    reason: Reason
    detail: str

    @property
    def value(self) -> str:
        """The line in --show-stats."""
        return self.detail if self.reason is Reason.REFUSED_OPTION else f"{self.reason.value} {self.detail}".rstrip()


@dataclass(slots=True)
class Request:
    """One compiler call as the client sent it (docs/protocol.md, section 2)."""

    argv: list[str]
    program: str
    cwd: str
    env: dict[str, str]
    umask: int
    nice: int
    limits: list[tuple[int, int, int]]
    descriptors: int
    columns: int
    root: tuple[int, int]
    here: tuple[int, int]
    affinity: bytes
    blocked: int
    ignored: int
    pid: int = 0  # the client's, under which the compiler would have run

    def has_open(self, fd: int) -> bool:
        return bool(self.descriptors & (1 << fd))

    def is_terminal(self, fd: int) -> bool:
        return bool(self.descriptors & (16 << fd))


@dataclass(frozen=True, slots=True)
class OwnOutputs:
    """The files that a unit leaves, and those that it makes on the way: what lies there already decides nothing.

    Whole names, for what merely begins like them may be a source: beside `m` and `m.d` lie `macros.rs`, `m.rs` and `m.d/mod.rs`.
    """

    exact: frozenset[str] = frozenset()  # absolute
    stems: tuple[str, ...] = ()  # absolute, with the dot: `/out/libx-1234.`
    endings: frozenset[str] = frozenset()  # what may come behind the last dot

    def __contains__(self, path: str) -> bool:
        if path in self.exact:
            return True
        if not path.startswith(self.stems) or path.rpartition(".")[2] not in self.endings:
            return False
        return any(path.startswith(stem) and "/" not in path[len(stem) :] for stem in self.stems)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a driver understood of a command line.  The same for equal (argv, cwd): it is memoised."""

    language: str  # "Rust", "C/C++", "Assembler": how sccache counts
    dialect: str  # "rust", "c [gcc]": how sccache counts in detail
    source: str | None  # the main source, absolute; None: it is /dev/null, or stdin, or there is none
    arguments: tuple[str, ...]  # canonical: every path told by its role
    roles: Roles
    known_inputs: tuple[str, ...]  # absolute; what will surely be read (externs)
    must_write: tuple[str, ...]  # absolute; outputs that have to be there after a success
    may_write: tuple[str, ...]  # directories that outputs may be left in
    templates: tuple[str, ...]  # outputs (absolute) that are text with paths in it: depfiles
    own: OwnOutputs  # what is never an input
    list_free: tuple[str, ...]  # directories whose listing decides nothing (rustc looks up exact names)
    builds: tuple[str, ...] = ()  # directories (ending in "/") of what build scripts make: macros add files to their `*/out/`
    more_sources: tuple[str, ...] = ()  # beside `source`, where one call is about several
    droppable: frozenset[str] = frozenset()  # of `must_write`: left out with a warning where the target has no such thing
    in_place: tuple[str, ...] = ()  # outputs (absolute) that the compiler writes over: a file that is there keeps its mode and links
    fills_empty: tuple[str, ...] = ()  # the same, where the file that is there is empty
    overwrites: tuple[str, ...] = ()  # the same, of outputs that are not in must_write, by how their names end
    lists_own: bool = False  # directories in which it makes files are listed for these alone (by the make of gcc's -flto)
    wants_jobserver: bool = False
    checks: bool = False  # makes no code: metadata alone, or nothing at all
    dep_info: str | None = None  # where the compiler writes its own list (absolute), if it does
    json_diagnostics: bool = False
    cwd_in_key: bool = True  # the output may show the cwd, and no prefix map covers it
    reads_stdin: bool = False
    asks: bool = False  # a question (`--print`, `-vV`): its answer may be a failure, and no file is written
    incremental: str | None = None  # the compiler's own cache (absolute): neither input nor output
    target: str | None = None  # for which it compiles, if it is told: of that one's libraries no list tells
    native_cpu: bool = False  # the result depends on this machine's processor
    linked: bool = False  # other units' objects go into the output: the compiler's own list does not name them
    relates_places: bool = False  # an output says where one directory lies from another, of roles (`$ORIGIN/../../lib`)
    leaves_more: bool = False  # other outputs than `must_write`: only observation knows which
    question: tuple[str, ...] = ()  # words by which the compiler, asked apart, lists what it would read
    unlisted: Refusal | None = None  # why no list can tell what this depends on or leaves
    searches: bool = False  # libraries are found by search: the compiler's own list does not name them
    chooses_color: bool = False  # the compiler would look whether stderr is a terminal
    chooses_width: bool = False
    chooses_links: bool = False  # the compiler would look whether its messages may have links in them
    colors: tuple[str, ...] = ()  # words that say how messages look and change no output: not in the key
    message_variables: frozenset[str] = frozenset()  # asked for, but deciding nothing where nothing is said
    terminal: tuple[str, ...] = ()  # words like `colors`, added by us: what the compiler would have found out by looking at its stderr
    depfile: Depfile | None = None  # gcc's and clang's, which is one of `templates`
    exact_outputs: bool = False  # nothing but `must_write` may be left: the key does not tell how other outputs are called
    follows_links: bool = True  # a link where an output goes is written through; else it is the compiler's to say
    moves_text: bool = True  # what the compiler said is replayed with this call's paths; else only where the paths are the same
    maps_below: tuple[str, ...] = ()  # roles: whatever lies below is mapped as the directory itself is
    sources_by: tuple[str, ...] = ()  # of these, by which a depfile tells the sources with their whole paths
    mapped_roles: tuple[str, ...] = ()  # directories that a prefix map covers, other than the cwd: not in the key
    told_variables: tuple[str, ...] = ()  # asked for, but told in the key by another way
    types_name_files: bool = False  # the text of a type without a name says where it stands (clang's __PRETTY_FUNCTION__)
    names_base: tuple[bytes, ...] = ()  # by which texts may name the base directory, so that no output shows it
    mapped_prefixes: tuple[str, ...] = ()  # told relative to the cwd: nothing else that was read may begin so
    resolves_names: bool = False  # outputs may say where a file really is, not where it was found (gcc's system headers)
    tells_time: bool = False  # __DATE__ and kin may be in what is read
    writes_times: bool = False  # the output holds the mtime of all that was read (a precompiled header of clang's)
    checks_times: bool = False  # a precompiled header of clang's that is read is compared with its sources' mtimes
    tells_twins: Twins = Twins.NOWHERE
    inode_marks: tuple[bytes, ...] = ()  # an output with one of these names the inode of something that was read

    def pin(self, role: str) -> str | None:
        """What must be the same where a result depends on this role; None: there is no such role."""
        if role == MESSAGES:
            return " ".join((*self.colors, *self.terminal))
        return self.roles.pin(role) if self.roles.has(role) else None

    def adds_to_a_build(self, path: str) -> bool:
        """Whether a file is one that only a macro can have left, where a build script leaves what it generates (tauri, sailfish)."""
        return any(path.startswith(place) and path[len(place) :].partition("/")[2].startswith("out/") for place in self.builds)

    def tells_looks(self) -> bool:
        """Whether the same recipe may be of messages that look otherwise."""
        return bool(self.colors) or self.chooses_color or self.chooses_width or self.chooses_links

    def overwrites_itself(self) -> bool:
        """Whether an output is the source or another output, by name: in the key, where names are roles, that does not show."""
        outputs = set(self.must_write)
        return len(outputs) != len(self.must_write) or not outputs.isdisjoint((self.source, *self.more_sources))

    def place(self, path: str, resolved: str, is_directory: bool) -> str:
        """Where a path that was looked at leads, told by role; "" where its own name says that, less its dots.

        Of directories and of their source C's compilers write what the command line says, so `../src/x.c` is the same in any checkout.
        Of headers gcc may write where they are.
        """
        if self.resolves_names and (is_directory or path == self.source) and resolved == os.path.normpath(path):
            return ""
        return self.roles.fold(resolved)

    def place_of(self, value: str | None) -> str | None:
        """A directory that a variable names, told by a role, if a prefix map covers it; None where it must be that very directory."""
        if value is None or not _PLAIN_PATH.fullmatch(value):
            return None
        folded = self.roles.fold(value)
        return folded if folded.partition("/")[0][1:] in self.maps_below and "/../" not in f"{folded}/" else None

    def roots(self) -> list[tuple[str, set[str]]]:
        """Directories that files are told relative to and that are not in the key: (role, its spellings)."""
        roles = {"base", *self.mapped_roles, *(() if self.cwd_in_key else ("cwd",))}
        return [(role, paths) for role, paths in self.roles.spellings() if role in roles]


@dataclass(slots=True)
class Observation:
    """What a compiler's process tree did (observation.py makes it from the record)."""

    read: list[str] = field(default_factory=list)  # existed before the tree wrote it, was opened for reading
    present: list[str] = field(default_factory=list)  # asked for and found
    absent: list[str] = field(default_factory=list)  # looked for in vain
    listed: list[str] = field(default_factory=list)  # directories
    lacked: list[str] = field(default_factory=list)  # was looked for, was not there, and was made by the tree itself later
    wanted: list[str] = field(default_factory=list)  # would have been read, was not there, and was made by the tree itself later
    asked: list[str] = field(default_factory=list)  # environment variables, sorted
    plugins_asked: set[str] = field(default_factory=set)  # those of them that a library opened by the program asked for
    linked: set[str] = field(default_factory=set)  # libraries that its images were started with
    plugin_clock: bool = False  # such a library asked for the time of day
    machine: set[str] = field(default_factory=set)  # the kernel's files that such a library read, or asked for what is in them
    dated: dict[str, set[str]] = field(default_factory=dict)  # by image, "plugin" or its calls: of which it may know when they changed
    sized: list[str] = field(default_factory=list)  # open files that a plugin asked for their size, or for their time as well
    which: dict[str, str] = field(default_factory=dict)  # what was opened for reading or listing → "inode:major:minor" of its device
    path_asked_by: set[str] = field(default_factory=set)  # names of images that asked for PATH themselves; "": not known which
    zone_asked_by: set[str] = field(default_factory=set)  # names of images that asked for TZ
    shining: list[str] = field(default_factory=list)  # written without truncation: what was there may show through what is left
    written: list[str] = field(default_factory=list)  # wrote; what is still there was left behind
    removed: list[str] = field(default_factory=list)  # was there before and was removed
    spared: list[str] = field(default_factory=list)  # would have been removed, and was not there
    made: set[str] = field(default_factory=set)  # every path that the tree created, wrote, renamed or removed
    directories: list[str] = field(default_factory=list)  # that it made and left
    images: list[str] = field(default_factory=list)  # executables that ran


@dataclass(slots=True)
class Variant:
    """The record of one earlier compile: under which conditions its result may be used again."""

    files: list[tuple[str, bytes]]  # folded path, digest
    present: list[tuple[str, bytes]]  # folded path, what was found there (files.Sight.state)
    absent: list[tuple[str, list[str]]]  # folded directory, names that are not in it
    listed: list[tuple[str, bytes]]  # folded directory, digest of its names
    env: list[tuple[str, str | None]]
    pins: list[tuple[str, str]]  # role, the path that it must have: an output shows that path
    result: bytes = b""
    sought: list[tuple[str, str]] = field(default_factory=list)  # programs looked for along PATH, folded path found or ""
    libraries: list[tuple[str, str]] = field(default_factory=list)  # looked for along LD_LIBRARY_PATH, folded path found or ""
    placed: list[tuple[str, str]] = field(default_factory=list)  # variables that name a directory, its folded path (Plan.place_of)
    processors: str = ""  # how many a macro was told that there are (server/process/machine.py); "": none asked


@dataclass(frozen=True, slots=True)
class Output:
    """One file that a compile left behind.  `inline` is None where the store keeps it as a file of its own."""

    path: str  # folded
    mode: int
    size: int
    digest: bytes
    inline: bytes | None
    template: bool
    mtime_ns: int | None = None  # to which a macro set it; None: that of the moment


@dataclass(frozen=True, slots=True)
class Result:
    """What a hit replays."""

    outputs: tuple[Output, ...]
    stdout: bytes  # templates (roles.Roles.make_template)
    stderr: bytes
    took_ns: int
    peak_rss_kib: int
    status: int = 0  # not 0 only for probes, which may fail by design

    def is_silent(self) -> bool:
        """Whether it says nothing that may be about what another compile has otherwise."""
        return not (self.stdout or self.stderr or self.status)


# A result and under which conditions it is one.
Stored = tuple[Variant, Result]
