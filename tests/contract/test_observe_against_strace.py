"""The preload library sees what the kernel sees.

Every compiler that we drive runs once, preloaded and under strace at the same time.  What strace saw and the
record has not would be an input that a hit does not check: each such path is a wrong hit waiting for its day.
strace is the authority here; whatever is excused is in one table, with the reason beside it.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from observe_fixture import Call, Observer, Record, library, need, observer, plain_run, trace

__all__ = ["library", "observer"]  # fixtures

pytestmark = pytest.mark.slow

# Which records can stand for a call.  Opens depend on their flags, see below.
KINDS = {
    "stat S": "stat lstat newfstatat fstatat64 statx access faccessat faccessat2 readlink readlinkat statfs",
    "make K": "mkdir mkdirat",
    "move M": "rename renameat renameat2 link linkat",
    "drop U": "unlink unlinkat rmdir",
    "link L": "symlink symlinkat",
    "edit T": "truncate chmod fchmodat fchmodat2 chown lchown fchownat utime utimes utimensat",
    "exec XYxS": "execve execveat",
}
KIND_OF = {name: kinds.split()[1] for kinds, names in KINDS.items() for name in names.split()}

# What the C library opens for itself, by calls that no preloaded function stands in front of.  None of it is
# compiled; locales show in the output only through variables, and those are recorded.
EXCUSED = (
    (r"/proc/self/(exe|fd/\d+)", "the library itself, for a P and for what is relative to a descriptor"),
    (r"/sys/devices/system/cpu/.*|/proc/(stat|meminfo|cpuinfo)", "sysconf and qsort measure the machine"),
    (r"/proc/self/maps", "pthread_getattr_np looks for the main thread's stack"),
    (r"/usr/(lib|share)/locale/.*|/usr/share/locale-langpack/.*", "setlocale and gettext"),
    (r"(/usr)?/lib(/[^/]+)?/gconv/.*", "iconv"),
    (r"/etc/(nsswitch\.conf|passwd|group|localtime)|/usr/share/zoneinfo/.*", "nss and time zones"),
)


def kinds_for(call: Call) -> str:
    if not call.name.startswith(("open", "creat")):
        return KIND_OF[call.name]
    if "O_PATH" in call.line:
        return "S"
    if call.name == "creat" or re.search(r"O_WRONLY|O_RDWR|O_TRUNC|O_CREAT", call.line):
        return "Bb" if not re.search(r"O_TRUNC|O_EXCL", call.line) else "W"
    return "RD"


def after_start(calls: Iterable[Call], record: Path) -> Iterable[Call]:
    """Leaves out what ld.so does before a program's first instruction.

    Startup libraries belong to the toolchain's identity.  Our library begins by opening the record.
    """
    first, *rest = calls
    assert first.name == "execve", "strace starts the command, unobserved"
    starting = {first.pid}
    for call in rest:
        if call.name.startswith("exec"):
            yield call
            if call.error == 0:
                starting.add(call.pid)
        elif call.pid in starting:
            if str(record) in call.paths:
                starting.discard(call.pid)
        else:
            yield call
    assert not starting, "a program that never attached to the record"


def walked_by_realpath(paths: Iterable[str]) -> set[str]:
    """The paths, all directories above them, and what the links among those name, as far as it goes."""
    found: set[str] = set()
    todo = [os.path.normpath(path) for path in paths]
    while todo:
        path = todo.pop()
        if path in found:
            continue
        found.add(path)
        parent = os.path.dirname(path)
        todo.append(parent)
        if os.path.islink(path):
            todo.append(os.path.normpath(os.path.join(parent, os.readlink(path))))
        todo.append(os.path.join(os.path.realpath(parent), os.path.basename(path)))
    return found


def missing(calls: Iterable[Call], records: list[Record], record: Path) -> list[str]:
    """What strace saw and the record has not, a line for each."""
    noted: dict[tuple[str, int], set[str]] = defaultdict(set)
    for r in records:
        noted[r.text, r.error].add(r.kind)
        if r.kind == "M":
            noted[r.text2, r.error].add("M")
        if r.error == 0:  # whatever was done with it, it was there
            noted[r.text, 0].add("S")
    walked = walked_by_realpath(r.text for r in records if r.kind == "S")
    lines = []
    for call in after_start(calls, record):
        for path in call.paths:
            if path == str(record) or noted[path, call.error] & set(kinds_for(call)):
                continue
            # realpath reads the link that each directory of its argument might be, and asks of what stands
            # before a ".." whether it is there; the argument is recorded.
            by_realpath = call.name.startswith("readlink") or "F_OK, AT_EACCESS" in call.line
            if by_realpath and os.path.normpath(path) in walked:
                continue
            if any(re.fullmatch(pattern, path) for pattern, _ in EXCUSED):
                continue
            # The library's own: is what execvp found a directory?
            if "O_RDONLY|O_CLOEXEC|O_PATH|O_DIRECTORY) = -1 ENOTDIR" in call.line and (path, 0) in noted:
                continue
            lines.append(f"{kinds_for(call)}: {call.line}")
    return lines


# --- the compilers ---


class Compile:
    """A compile, and some of what must be in its record: a strace that saw nothing proves nothing."""

    def __init__(self, *command: str, expect: Iterable[tuple[str, str]], env: dict[str, str] | None = None) -> None:
        self.command = command
        self.expect = expect
        self.env = {**os.environ, **(env or {})}


def write(directory: Path, **files: str) -> None:
    """Files by name, `__` for the dot."""
    for name, text in files.items():
        (directory / name.replace("__", ".")).write_text(text)


def c_file(directory: Path) -> None:
    (directory / "inc").mkdir()
    (directory / "inc" / "deep.h").write_text("#define DEEP 1\n")
    (directory / "empty").mkdir()
    (directory / "blob").write_bytes(b"\1\2\3\4")
    write(
        directory,
        main__c='#include <stdio.h>\n#include "near.h"\n#include <deep.h>\n'
        '__asm__(".section .rodata\\n.incbin \\"blob\\"\\n");\nint main(void) { return puts(NEAR); }\n',
        near__h='#define NEAR "x"\n',
    )


def gcc(directory: Path) -> Compile:
    c_file(directory)
    return Compile(
        "gcc", "-c", "-Iempty", "-Iinc", "-MD", "main.c",
        expect=[("R", "main.c"), ("R", "near.h"), ("R", "inc/deep.h"), ("R", "empty/deep.h"), ("R", "blob"),
                ("W", "main.o"), ("W", "main.d")],
    )  # fmt: skip


def gcc_lto(directory: Path) -> Compile:
    c_file(directory)
    plain_run("gcc", "-c", "-flto", "-Iinc", "main.c", cwd=directory, check=True)
    # -flto=1: with more it asks make to run its parts
    return Compile("gcc", "-flto=1", "main.o", "-o", "main", expect=[("R", "main.o")])


def gxx(directory: Path) -> Compile:
    write(
        directory,
        main__cc="#include <iostream>\n#include <map>\nint main() { std::cout << std::map<int, int>()[0]; }\n",
    )
    return Compile("g++", "-c", "-g", "main.cc", expect=[("R", "main.cc"), ("W", "main.o")])


def clang(directory: Path) -> Compile:
    need("clang")
    c_file(directory)
    # -fno-integrated-as would hide .incbin in an as of its own
    return Compile(
        "clang", "-c", "-Iempty", "-Iinc", "-MD", "main.c",
        expect=[("R", "main.c"), ("R", "near.h"), ("R", "inc/deep.h"), ("R", "blob")],
    )  # fmt: skip


def clang_link(directory: Path) -> Compile:
    need("clang")
    c_file(directory)
    return Compile("clang", "-Iinc", "main.c", "-o", "main", expect=[("R", "main.c"), ("R", "blob")])


def link(directory: Path) -> Compile:
    write(
        directory,
        main__c="int f(void);\nint main(void) { return f(); }\n",
        f__c="int f(void) { return 0; }\n",
    )
    plain_run("gcc", "-c", "main.c", "f.c", cwd=directory, check=True)
    plain_run("ar", "rcs", "libf.a", "f.o", cwd=directory, check=True)
    expect = [("R", "main.o"), ("R", "libf.a"), ("W", "main")]
    return Compile("gcc", "main.o", "-L.", "-lf", "-lm", "-o", "main", expect=expect)


def gold(directory: Path) -> Compile:
    need("ld.gold")
    compile = link(directory)
    compile.command = (*compile.command, "-fuse-ld=gold")
    return compile


def rustc(directory: Path) -> Compile:
    need("rustc")
    write(
        directory,
        lib__rs='mod part;\npub const TEXT: &str = include_str!("text.txt");\n'
        'pub const FROM: Option<&str> = option_env!("ASKED");\npub fn f() -> u8 { part::g() }\n',
        part__rs="pub fn g() -> u8 { 1 }\n",
        text__txt="text\n",
    )
    return Compile(
        "rustc", "--crate-type", "lib", "--emit", "link,metadata,dep-info", "lib.rs",
        expect=[("R", "lib.rs"), ("R", "part.rs"), ("R", "text.txt"), ("E", "ASKED")],
    )  # fmt: skip


MACRO = """
extern crate proc_macro;
#[proc_macro]
pub fn constant(_: proc_macro::TokenStream) -> proc_macro::TokenStream {
    let value = std::env::var("MACRO_VALUE").unwrap();
    let text = std::fs::read_to_string("macro-input").unwrap();
    let _ = std::fs::metadata("macro-absent");
    format!("pub const X: &str = {:?};", value + &text).parse().unwrap()
}
"""


def rustc_macro(directory: Path) -> Compile:
    need("rustc")
    write(directory, mac__rs=MACRO, user__rs="mac::constant!();\n")
    (directory / "macro-input").write_text("input")
    plain_run("rustc", "--crate-type", "proc-macro", "mac.rs", cwd=directory, check=True)
    return Compile(
        "rustc", "--crate-type", "lib", "--extern", "mac=libmac.so", "user.rs",
        env={"MACRO_VALUE": "7"},
        expect=[("R", "user.rs"), ("R", "macro-input"), ("S", "macro-absent"), ("R", "libmac.so"),
                ("E", "MACRO_VALUE")],
    )  # fmt: skip


def rustc_link(directory: Path) -> Compile:
    need("rustc")
    write(directory, main__rs='fn main() { println!("x"); }\n')
    return Compile("rustc", "-Cincremental=inc", "-Cdebuginfo=1", "main.rs", expect=[("R", "main.rs")])


@pytest.mark.parametrize("prepare", [gcc, gcc_lto, gxx, clang, clang_link, link, gold, rustc, rustc_macro, rustc_link])
def test_all_that_strace_sees_is_in_the_record(observer: Observer, prepare: Callable[[Path], Compile]) -> None:
    """A path that is missing here is an input that no hit would check."""
    compile = prepare(observer.directory)
    calls, records = trace(observer, compile.command, compile.env)
    lines = missing(calls, records, observer.file)
    assert not lines, "not recorded:\n" + "\n".join(lines)

    begun = [c for c in calls if c.name.startswith("exec") and c.error == 0]
    assert len([r for r in records if r.kind == "P"]) == len(begun), "each image announces itself once"
    assert not [r for r in records if r.kind == "N"], "and nothing here is beyond following"

    noted = {(r.kind, os.path.normpath(r.text)) for r in records}
    for kind, name in compile.expect:
        path = name if kind == "E" else str(observer.directory / name)
        assert (kind, path) in noted, f"{kind} {path}"
