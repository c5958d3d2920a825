"""From what was seen to what must hold for the result to be used again.

An observation names every path that a compiler's tree touched.  Some decide nothing (the kernel's own files, the terminal), some
are covered by the compiler's identity (its toolchain), some were the tree's own; the rest are the inputs.  Each name that is
left out here is a promise that it changes no byte of any output, so each has its reason beside it.

Strings only; whoever calls has the files looked at (server/miss/deposit.py).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sccache_py.model import Observation, Plan, Reason
from sccache_py.roles import is_below

# Paths that are no inputs, with why.  A name that ends in "/" stands for all below it.
IGNORED_PATHS = {
    "/dev/full": "a device: same for everyone",
    "/dev/null": "a device: same for everyone",
    "/dev/random": "randomness is for names of temporary files",
    "/dev/tty": "the terminal: rustc's tempfile crate looks whether it may speak",
    "/dev/urandom": "randomness is for names of temporary files",
    "/dev/zero": "a device: same for everyone",
    "/etc/ld.so.cache": "where libraries are; which ones were loaded is recorded",
    "/etc/ld.so.preload": "the loader's; which libraries were loaded is recorded",
    "/proc/cpuinfo": "how many processors: decides threads, not bytes (-march=native is hashed apart)",
    "/proc/filesystems": "libselinux asks at start",
    "/proc/meminfo": "sizes of heaps (gcc's ggc-min-heapsize), not bytes",
    "/proc/mounts": "libselinux asks at start",
    "/proc/self/auxv": "features of the processor for the C library",
    "/proc/self/cgroup": "how many threads Rust's standard library may use",
    "/proc/self/exe": "the image itself, recorded as such",
    "/proc/self/maps": "where the stack is",
    "/proc/self/mountinfo": "how many threads Rust's standard library may use",
    "/proc/self/stat": "start time, for a profile",
    "/proc/self/statm": "memory used, for statistics",
    "/proc/self/status": "memory used, for statistics",
    "/proc/stat": "how many processors",
    "/proc/sys/vm/": "the kernel's settings for memory",
    "/sys/devices/system/cpu/": "how many processors",
    "/sys/devices/system/node": "how many processors",
    "/sys/fs/cgroup/": "how many threads",
    "/sys/kernel/mm/": "the allocator asks for huge pages",
}
_IGNORED_EXACT = frozenset(IGNORED_PATHS)
_IGNORED_BELOW = tuple(p for p in IGNORED_PATHS if p.endswith("/"))
_SPECIAL_BELOW = ("/proc/", "/sys/", "/dev/")

# Of these the reason does not hold for a proc-macro or a plugin: what it reads there may go into the output.
_TOLD_OF_THE_MACHINE = frozenset(
    f"/proc/{name}" for name in ("cpuinfo", "filesystems", "meminfo", "mounts", "self/stat", "self/statm", "self/status", "stat")
)
# The same, of how many processors there are: that can be asked again (server/process/machine.py).
_TOLD_OF_PROCESSORS = ("/proc/self/cgroup", "/proc/self/mountinfo", "/sys/devices/system/", "/sys/fs/cgroup/")

# Variables whose value changes no output, with why.
IGNORED_VARIABLES = {
    "CARGO_MAKEFLAGS": "the jobserver; the compiler is given ours",
    "COLUMNS": "the terminal's width reaches the compiler as an argument, which is in the key",
    "FAKEROOTKEY": "where fakeroot keeps the owners that it pretends; each session has another",
    "GNUMAKEFLAGS": "the jobserver",
    "LD_LIBRARY_PATH": "where libraries are; which ones were loaded is recorded, and where they are found along it (Variant.libraries)",
    "LD_PRELOAD": "ours; the caller's own is in the key",
    "MAKEFLAGS": "the jobserver; the compiler is given ours",
    "MAKELEVEL": "the jobserver",
    "MFLAGS": "the jobserver",
    "RUST_BACKTRACE": "what a panic prints, and a panic is not stored",
    "RUST_LIB_BACKTRACE": "what a panic prints, and a panic is not stored",
    "RUST_MIN_STACK": "the size of threads' stacks",
    "SCCACHE_BASEDIRS": "what is told by its place below one of them is in the key",
    "SCCACHE_DIR": "the server's, not the compiler's",
    "SCCACHE_ERROR_LOG": "the server's, not the compiler's",
    "SCCACHE_IDLE_TIMEOUT": "the server's, not the compiler's",
    "SCCACHE_INCREMENTAL": "what the caller wishes of us; what is stored is the same",
    "SCCACHE_JOBS": "the server's, not the compiler's",
    "SCCACHE_LOG": "the server's, not the compiler's",
    "SCCACHE_NO_CACHE": "what the caller wishes of us; what is stored is the same",
    "SCCACHE_PY_LEASE": "ours: the job token that it runs under",
    "SCCACHE_PY_OBSERVE": "ours",
    "SCCACHE_RECACHE": "what the caller wishes of us; what is stored is the same",
    "SCCACHE_SERVER_PORT": "the server's, not the compiler's",
    "SCCACHE_SERVER_UDS": "the server's, not the compiler's",
    "SCCACHE_TRACE": "the server's, not the compiler's",
    "SCCACHE_VERIFY": "what the caller wishes of us; what is stored is the same",
    "SCCACHE_WORKERS": "the server's, not the compiler's",
    "TEMP": "where temporary files go",
    "TERM": "whether colours are wanted reaches the compiler as an argument, which is in the key",
    "TMP": "where temporary files go",
    "TMPDIR": "where temporary files go",
}

# Of these the reason does not hold for a proc-macro or a plugin: what it asks for may go into the output.
_FOR_THE_COMPILER_ALONE = {
    *("COLUMNS", "FAKEROOTKEY", "LD_LIBRARY_PATH", "RUST_BACKTRACE", "RUST_LIB_BACKTRACE", "TEMP", "TERM", "TMP", "TMPDIR"),
    *(name for name in IGNORED_VARIABLES if name.startswith("SCCACHE_")),
}

# What says nothing where only compilers and linkers ran: rustc asks whether a crash of LLVM may open a dialog.
_ASKED_BY_RUSTC = frozenset(("CI",))

# A macro that starts one of these asks for the time; others look at the clock without telling it (git).
_CLOCKS = frozenset(("date",))

# One that starts one of these asks which machine it runs on, or how large that is; and one that has such a file read by a program.
_DESCRIBERS = frozenset(("arch", "hostid", "hostname", "hostnamectl", "lscpu", "nproc", "uname"))
_DESCRIPTIONS = ("/proc/cpuinfo", "/proc/meminfo")

# A script that links looks by these what the system is called, and how many threads it may take.
_ASKED_BY_LINKERS_SCRIPTS = frozenset(("arch", "nproc", "uname"))

# Those of which the compiler never sees the caller's value.
_REPLACED_VARIABLES = frozenset(
    ("CARGO_MAKEFLAGS", "GNUMAKEFLAGS", "LD_PRELOAD", "MAKEFLAGS", "MAKELEVEL", "MFLAGS", "SCCACHE_PY_LEASE", "SCCACHE_PY_OBSERVE")
)


_INTERPRETER = re.compile(r"(ba|da|k|z|a|mk|tc|c)?sh|busybox|env|(python|perl|ruby|tclsh|lua)[0-9.]*")

# The kernel's name for the working directory: a macro that was told the one has looked at the other (docs/protocol.md, section 4).
_PLACE = "/proc/self/cwd"

# clang's .gcno goes there with a PWD that says so; another process would look in its own.
_OWN_CWD = ("/proc/self/cwd/", "/proc/thread-self/cwd/")

# Who asks for PATH only to look for programs along it: compilers, and what links for them.
_SEARCHERS = re.compile(
    r"rustc|clippy-driver|(.*-)?(gcc|g\+\+|cc|c\+\+|clang|clang\+\+)(-[0-9.]+)?|collect2|lto-wrapper|(.*-|.*\.)?(ld|lld)(\..*)?"
)

# Whose output tells of no file when it was changed, though they look at files and are told.
_TIMELESS = re.compile(rf"{_SEARCHERS.pattern}|rustup(-init)?|(.*-)?(as|ar|nm|ranlib|strip|objcopy|dwp|mold|cc1|cc1plus|lto1)(-[0-9.]+)?")

# What asks for the time zone only to write a time down: a macro that the source need not spell out, a listing's head, bash's printf.
_WRITERS = re.compile(r"bash|(.*-)?(as|cc1|cc1plus|cc1obj|cc1objplus|clang|clang\+\+)(-[0-9.]+)?")

# What a shell sets anew for whatever it starts.
_SHELLS_OWN = {"_", "OLDPWD", "PWD", "SHLVL"}

_LIBRARY = re.compile(r"\.so(\.|$)")

# What no compiler or linker asks for unless a source does.
_OUT_DIR = "OUT_DIR"

# What a macro may start that takes its environment in whole, but looks only at what it asks for by name and at names that begin so.
_LOOKS_AT = {"cargo": ("CARGO", "RUST"), "git": (), "rustup": ("CARGO", "RUST")}

# No variable's name: under it stands which variables there are.  Who takes in the whole environment sees also a new one.
WHICH_VARIABLES = ""


@dataclass(slots=True)
class Draft:
    """The conditions of one compile in absolute paths, before anything was hashed; and what it left."""

    read: list[str]
    present: list[str]
    absent: list[str]
    listed: list[str]
    asked: list[str]
    outputs: list[str]
    lacked: list[str] = field(default_factory=list)  # absent until the compile made it: an output that would not be written over
    dated: list[str] = field(default_factory=list)  # of which also counts when they were changed last
    sized: list[str] = field(default_factory=list)  # the same, if one of the macros can tell the time of an open file
    birth_counts: bool = False  # of those that are dated also when they were created,
    reading_counts: bool = False  # and when they were read last
    processors_count: bool = False  # a macro asked how many there are
    pins: list[str] = field(default_factory=list)  # roles whose path counts, whatever the outputs show
    sought: list[str] = field(default_factory=list)  # names looked for along PATH, whose value decides nothing else
    libraries: list[str] = field(default_factory=list)  # names that ld.so looked for along LD_LIBRARY_PATH, perhaps
    placed: list[str] = field(default_factory=list)  # of `asked`: only the source itself asked, which may have named files by it
    which: dict[str, str] = field(default_factory=dict)  # of `read` and `listed`: which file or directory that was (Observation)
    messages_unlisted: bool = False  # what the compiler says may quote files that are on no list
    profiles: dict[str, str] = field(default_factory=dict)  # outputs named after the process id → told so (profiles.py)


def _is_special(path: str) -> bool:
    """A file that is not the same file for the next process that names it."""
    return path.startswith(_SPECIAL_BELOW) and not path.startswith("/dev/shm/")


def asks_for_all(images: Iterable[str]) -> bool:
    """Whether one of these programs takes its whole environment in at start: shells and script languages make variables of it."""
    return any(_INTERPRETER.fullmatch(os.path.basename(image)) for image in images)


def asked_by_all(asked: Iterable[str], env: Iterable[str]) -> list[str]:
    """The variables that count where something may have looked at all of them."""
    return sorted({*asked, WHICH_VARIABLES, *(n for n in env if n not in IGNORED_VARIABLES and n not in ("_", "OLDPWD", "SHLVL"))})


def _has_the_machine_told(plan: Plan, seen: Observation, aliens: set[str]) -> bool:
    """Whether a macro may have started a program to be told which machine this is, or how large."""
    if plan.language != "Rust" or plan.asks:
        return False
    describers = _DESCRIBERS - _ASKED_BY_LINKERS_SCRIPTS if plan.linked and asks_for_all(seen.images) else _DESCRIBERS
    return not describers.isdisjoint(aliens) or (bool(aliens) and any(path in seen.read for path in _DESCRIPTIONS))


def _aliens(seen: Observation) -> set[str]:
    """Programs beside compilers, linkers and what they start."""
    return {name for image in seen.images if not _TIMELESS.fullmatch(name := os.path.basename(image))}


def asked_by_macros(seen: Observation, asked: Iterable[str], env: Iterable[str], walk_shows: bool) -> list[str]:
    """The variables that count where a macro may have looked at all of them, or handed them on to what it started.

    walk_shows: it cannot look unobserved (elf.walk_shows).  Most that could have std::process::Command linked in, and never walk.
    """
    if not walk_shows or WHICH_VARIABLES in seen.plugins_asked or _aliens(seen) - _LOOKS_AT.keys():
        return asked_by_all(asked, env)
    programs = {os.path.basename(image) for image in seen.images}
    begin = tuple({text for name in programs for text in _LOOKS_AT.get(name, ())})
    return sorted({*asked, *(f"{text}=" for text in begin), *(n for n in env if n.startswith(begin) and n not in IGNORED_VARIABLES)})


def value_of(env: Mapping[str, str], name: str) -> str | None:
    """What a condition on a variable compares; None: it is not set.  `X=`, which none is called: which begin with X."""
    if name.endswith("="):
        return "=".join(sorted(n for n in env if n.startswith(name[:-1]) and n not in IGNORED_VARIABLES))
    if name != WHICH_VARIABLES:
        return env.get(name)
    return "=".join(sorted(n for n in env if n not in IGNORED_VARIABLES and n not in _SHELLS_OWN))


def judge(
    plan: Plan,
    seen: Observation,
    covered: tuple[str, ...],
    ours: Iterable[str],
    left: list[str],
    env: Iterable[str],
    succeeded: bool = True,
    named: frozenset[str] | None = frozenset(),
) -> Draft | Reason:
    """What must hold for `seen` to be replayed, or why it must not be.

    covered: directories (ending in "/") and files that the compiler's identity stands for.
    ours: paths that we gave the compiler (its jobserver's descriptors).
    left: those of `seen.written` that exist now.
    env: names in the caller's environment.
    succeeded: a probe that failed need not have left anything.
    named: variables that the source asked for (env!), which count whatever they are; None: it may have asked for any.
    """
    if seen.plugin_clock or any(os.path.basename(image) in _CLOCKS for image in seen.images):
        return Reason.PLUGIN_TELLS_TIME
    if any(_WRITERS.fullmatch(image) for image in seen.zone_asked_by):
        return Reason.TELLS_TIME
    # What the toolchain's own sources are called is in no file that was read; a map of their directory is of that directory alone.
    pins = [role for role in plan.mapped_roles if any(path.startswith(plan.roles.path(role) + "/") for path in covered)]
    # A macro that was told the working directory, or started a program, which works there: dotenvy and git look in all directories above
    # it, and that need not show in an output.
    aliens = _aliens(seen)
    if plan.language == "Rust" and not plan.asks and (aliens or _PLACE in seen.present):
        pins.append("cwd")
    if plan.incremental is not None:
        covered = (*covered, plan.incremental, plan.incremental + "/")
    skip = _IGNORED_EXACT.union(ours, covered)
    skip_below = (*_IGNORED_BELOW, *(path for path in covered if path.endswith("/")))

    def deciding(paths: Iterable[str]) -> list[str]:
        return [p for p in paths if p not in skip and not p.startswith(skip_below)]

    # lld opens what lies where its output goes, and removes it, so that the kernel frees it while it links.
    replaced = {p for p in seen.removed if p in plan.must_write or p in plan.own} if not plan.tells_time else set()
    shining = [p for p in seen.shining if p in left]
    read = [p for p in deciding((*seen.read, *shining)) if p not in replaced]
    if any(map(_is_special, read)):
        return Reason.SPECIAL_FILE
    told = seen.machine if plan.language == "Rust" else ()  # not what LLVMgold.so counts, for the threads of an LTO link
    others = [p for p in deciding(told) if not p.startswith((*_TOLD_OF_PROCESSORS, "/dev/shm/"))]
    if others or not _TOLD_OF_THE_MACHINE.isdisjoint(told) or _has_the_machine_told(plan, seen, aliens):
        return Reason.SPECIAL_FILE
    # `__has_include("x.o")`: the next compile would find what this one made.
    if plan.tells_time and not set(plan.must_write).isdisjoint((*read, *seen.wanted)):
        return Reason.OUTPUT_READ

    outputs = deciding(left)
    allowed = () if plan.exact_outputs else tuple(d + "/" for d in plan.may_write)
    if any(path.startswith(_OWN_CWD) for path in seen.written):
        return Reason.WROTE_ELSEWHERE
    for path in outputs:
        if path in plan.must_write or path.startswith(allowed):
            continue
        if not plan.adds_to_a_build(path):
            return Reason.WROTE_ELSEWHERE
        pins = [role for role, _ in plan.roles.spellings()]  # whoever wrote it may have made its name of any of them
    if plan.language == "Rust":
        # A hit makes no directory but for what lies in it.
        known = (*seen.written, *plan.may_write, *plan.must_write, plan.incremental or "")
        if not all(any(is_below(path, directory) for path in known) for directory in deciding(seen.directories)):
            return Reason.WROTE_ELSEWHERE
    # What was there before and is gone now would not go on a hit.  rustc tidies up what is its own; gcc takes away the counts of
    # earlier runs (.gcda) of an object that it cannot stamp (--coverage -frandom-seed=…), which are the user's.
    tidies_up = plan.language == "Rust"
    gone = [p for p in deciding(seen.removed) if p not in outputs and p not in plan.must_write]
    if any(not (tidies_up and p.startswith(allowed)) for p in gone):
        return Reason.WROTE_ELSEWHERE
    spared = [] if tidies_up else [p for p in seen.spared if p.startswith(allowed)]
    left_too_little = not set(plan.must_write).difference(plan.droppable).issubset(outputs) or not (outputs or plan.exact_outputs)
    if succeeded and not plan.asks and left_too_little:
        return Reason.OUTPUT_MISSING

    asked = {*seen.asked, *env, WHICH_VARIABLES} - _SHELLS_OWN if asks_for_all(seen.images) else seen.asked
    ignored = _REPLACED_VARIABLES if named is None else IGNORED_VARIABLES.keys() - named - (seen.plugins_asked & _FOR_THE_COMPILER_ALONE)
    if named is not None and plan.language == "Rust" and not aliens:
        ignored |= _ASKED_BY_RUSTC - named - seen.plugins_asked
    variables = env if isinstance(env, Mapping) else {}

    def condition(paths: list[str]) -> list[str]:
        return [p for p in deciding(paths) if not (p in plan.own or p in plan.must_write or _is_special(p))]

    # Who looks for a crate that is nowhere tells no name that would be absent.
    searched = plan.list_free if succeeded else ()
    list_free = {*searched, *(os.path.dirname(p) for p in seen.made if plan.lists_own)}
    # A macro may ask where a directory really is; C's compilers only see that it is there.
    implied = set() if plan.language == "Rust" else _ancestors(read)
    # That the output directory was there decides nothing: a hit that cannot write into it is none.
    present = [p for p in condition(seen.present) if p not in plan.may_write and p not in implied]
    return Draft(
        read=read,
        present=present,
        dated=_dated(seen, present) if plan.language == "Rust" else [],
        sized=condition(seen.sized) if plan.language == "Rust" else [],
        which=seen.which,
        absent=condition([*seen.absent, *spared]),
        lacked=[p for p in seen.lacked if plan.adds_to_a_build(p)],
        listed=[p for p in condition(seen.listed) if p not in list_free],
        asked=sorted(n for n in asked if n not in ignored and n not in plan.told_variables),
        outputs=outputs,
        pins=pins,
        sought=_sought(seen, plan, variables),
        libraries=_libraries(read, seen, plan, variables),
        processors_count=any(path.startswith(_TOLD_OF_PROCESSORS) for path in told),
        placed=[_OUT_DIR] if named is not None and _OUT_DIR in named - seen.plugins_asked and not aliens else [],
    )


def _dated(seen: Observation, present: Iterable[str]) -> list[str]:
    """What a macro, or a program that a macro started, may tell the age of: rust-embed does, and `git describe --dirty` goes by it.

    That it only looked whether the file is there cannot be seen.  What a program asked of an open file is not recorded.
    """
    told = set().union(*(paths for who, paths in seen.dated.items() if not _TIMELESS.fullmatch(who)))
    return [p for p in present if p in told]


def search_path(value: str | None) -> list[str] | None:
    """The directories of a PATH; None if it is not the same wherever it is used, or not set."""
    directories = (value or "").split(":")
    return directories if all(d.startswith("/") for d in directories) else None


def _sought(seen: Observation, plan: Plan, env: Mapping[str, str]) -> list[str]:
    """Names that were looked for along PATH; none if somebody may have used its text, too.

    Where each of them is found decides, and not in which directories beside.
    """
    directories = search_path(env.get("PATH"))
    alien = any(not _SEARCHERS.fullmatch(image) for image in seen.path_asked_by)
    if directories is None or alien or "PATH" in seen.plugins_asked or asks_for_all(seen.images) or "PATH" in plan.told_variables:
        return []
    among = {d.rstrip("/") or "/" for d in directories}
    places = (os.path.split(path) for path in (*seen.absent, *seen.present, *seen.read, *seen.images))
    return sorted({name for directory, name in places if directory in among})


def _libraries(read: Iterable[str], seen: Observation, plan: Plan, env: Mapping[str, str]) -> list[str]:
    """What a macro or plugin needs beside itself, and what linkers read, may have been found by name: along another LD_LIBRARY_PATH, or
    earlier along this one, lies perhaps another.

    Not a macro, which is opened by its path; nor what programs start with, unless it was found there.
    """
    along = {d.rstrip("/") for d in re.split("[:;]", env.get("LD_LIBRARY_PATH", "")) if d}
    named = {*plan.known_inputs, *plan.must_write}
    found = set()
    for path in read:
        directory, name = os.path.split(path)
        if not _LIBRARY.search(name) or path in named or directory in plan.list_free:
            continue
        if path not in seen.linked or directory in along:
            found.add(name)
    return sorted(found)


def _ancestors(paths: Iterable[str]) -> set[str]:
    """Directories that are there if these (absolute) paths are."""
    found = {""}
    for path in paths:
        while (path := path[: path.rfind("/")]) not in found:
            found.add(path)
    return found - {""}
