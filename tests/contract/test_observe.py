"""The preload library function by function, and in the situations where a preloaded library goes wrong.

That it sees enough is the matter of test_observe_against_strace.py; here it must write what docs/protocol.md,
section 4 says, and must not be noticed by the program.
"""

from __future__ import annotations

import errno
import os
import platform
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from observe_fixture import (
    HEADER,
    Observer,
    Record,
    compile_library,
    library,
    need,
    observer,
    plain_run,
    probe,
)

__all__ = ["library", "observer", "probe"]  # fixtures

NO = errno.ENOENT
CREATE, EXCLUSIVE, TRUNCATE, APPEND = f"#{os.O_WRONLY | os.O_CREAT}", os.O_EXCL, os.O_TRUNC, os.O_APPEND
NEW = f"#{os.O_RDWR | os.O_CREAT | os.O_EXCL}"
OVER = f"#{os.O_WRONLY | os.O_CREAT | os.O_TRUNC}"
ADD = f"#{os.O_WRONLY | os.O_CREAT | os.O_APPEND}"
BOTH = f"#{os.O_RDWR}"
DIRECTORY = f"#{os.O_DIRECTORY}"
PATH = f"#{os.O_PATH}"
PATH_TOO = f"#{os.O_PATH | os.O_CREAT}"
TMPFILE = f"#{os.O_TMPFILE | os.O_RDWR}"
HERE = "#-100"  # AT_FDCWD

# What is called, in a directory with `file`, `dir` and `link` (to file), and what is recorded of it: kind,
# errno, path(s).  A name alone stands there.  Each call leaves behind what the next ones need.
CALLS: list[tuple[str, list[tuple[str, int, str] | tuple[str, int, str, str]]]] = [
    # open
    ("open file #0", [("R", 0, "file")]),
    ("open ./no #0", [("R", NO, "./no")]),
    ("open64 file #0", [("R", 0, "file")]),
    (f"openat {HERE} file #0", [("R", 0, "file")]),
    (f"openat64 {HERE} no #0", [("R", NO, "no")]),
    ("__open file #0", [("R", 0, "file")]),
    ("__open64 file #0", [("R", 0, "file")]),
    ("__open_2 file #0", [("R", 0, "file")]),
    ("__open64_2 file #0", [("R", 0, "file")]),
    (f"__openat_2 {HERE} file #0", [("R", 0, "file")]),
    (f"__openat64_2 {HERE} file #0", [("R", 0, "file")]),
    (f"open new {NEW} #0644", [("W", 0, "new")]),
    (f"open new {NEW} #0644", [("W", errno.EEXIST, "new")]),
    (f"open64 new {OVER} #0644", [("W", 0, "new")]),
    (f"open new {ADD} #0644", [("B", 0, "new")]),
    (f"open new {BOTH}", [("B", 0, "new")]),
    (f"open new {CREATE} #0644", [("b", 0, "new")]),
    (f"open file {CREATE} #0644", [("B", 0, "file")]),
    (f"open fresh {CREATE} #0644", [("S", NO, "fresh"), ("W", 0, "fresh")]),
    (f"open fresh {ADD} #0644", [("B", 0, "fresh")]),
    (f"openat {HERE} fresher {ADD} #0644", [("S", NO, "fresher"), ("W", 0, "fresher")]),
    (f"open dir/no/fresh {CREATE} #0644", [("B", NO, "dir/no/fresh")]),
    (f"open file {PATH_TOO} #0644", [("S", 0, "file")]),
    (f"open dir {DIRECTORY}", [("D", 0, "dir")]),
    (f"open file {DIRECTORY}", [("D", errno.ENOTDIR, "file")]),
    (f"open file {PATH}", [("S", 0, "file")]),
    (f"open dir {TMPFILE} #0600", []),
    ("open ~ #0", []),
    ("open #1 #0", []),
    ("creat new #0644", [("W", 0, "new")]),
    ("creat64 dir/no/new #0644", [("W", NO, "dir/no/new")]),
    ("*fopen file r", [("R", 0, "file")]),
    ("*fopen64 file rbe", [("R", 0, "file")]),
    ("*fopen file r+", [("B", 0, "file")]),
    ("*fopen file r,ccs=UTF-8+", [("R", 0, "file")]),
    ("*fopen no r", [("R", NO, "no")]),
    ("*fopen new a", [("B", 0, "new")]),
    ("*fopen new wb+", [("W", 0, "new")]),
    # look
    ("stat file @", [("S", 0, "file")]),
    ("stat64 no @", [("S", NO, "no")]),
    ("lstat link @", [("S", 0, "link")]),
    ("lstat64 link @", [("S", 0, "link")]),
    (f"fstatat {HERE} no @ #0", [("S", NO, "no")]),
    (f"fstatat64 {HERE} file @ #0", [("S", 0, "file")]),
    ("fstatat #0 ~ @ #0x1000", []),
    ("__xstat #1 file @", [("S", 0, "file")]),
    ("__xstat64 #1 no @", [("S", NO, "no")]),
    ("__lxstat #1 link @", [("S", 0, "link")]),
    ("__lxstat64 #1 link @", [("S", 0, "link")]),
    (f"__fxstatat #1 {HERE} file @ #0", [("S", 0, "file")]),
    (f"__fxstatat64 #1 {HERE} file @ #0", [("S", 0, "file")]),
    (f"statx {HERE} no #0 #0x7ff @", [("S", NO, "no")]),
    ("statx #0 ~ #0 #0 ~", []),
    ("statfs . @", [("S", 0, ".")]),
    ("statvfs64 . @", [("S", 0, ".")]),
    ("access no #0", [("S", NO, "no")]),
    ("eaccess file #4", [("S", 0, "file")]),
    ("euidaccess file #4", [("S", 0, "file")]),
    (f"faccessat {HERE} file #0 #0", [("S", 0, "file")]),
    ("readlink link @ #100", [("S", 0, "link")]),
    ("readlink file @ #100", [("S", errno.EINVAL, "file")]),
    (f"readlinkat {HERE} link @ #100", [("S", 0, "link")]),
    ("__readlink_chk link @ #100 #200", [("S", 0, "link")]),
    (f"__readlinkat_chk {HERE} link @ #100 #200", [("S", 0, "link")]),
    ("*realpath link @", [("S", 0, "link")]),
    ("*realpath no ~", [("S", NO, "no")]),
    ("*__realpath_chk link @ #60000", [("S", 0, "link")]),
    ("*canonicalize_file_name link", [("S", 0, "link")]),
    ("chdir no", [("S", NO, "no")]),
    ("chdir .", [("S", 0, ".")]),
    # list
    ("*opendir dir", [("D", 0, "dir")]),
    ("*opendir no", [("D", NO, "no")]),
    ("scandir dir @ ~ ~", [("D", 0, "dir")]),
    ("scandir64 dir @ ~ ~", [("D", 0, "dir")]),
    (f"scandirat {HERE} dir @ ~ ~", [("D", 0, "dir")]),
    (f"scandirat64 {HERE} dir @ ~ ~", [("D", 0, "dir")]),
    ("ftw dir & #1", [("D", 0, "dir")]),
    ("nftw64 dir & #1 #0", [("D", 0, "dir")]),
    ("glob dir/x* #0 ~ @", [("D", 0, "dir/")]),
    ("glob64 x* #0 ~ @", [("D", 0, ".")]),
    # change
    ("link new hard", [("M", 0, "new", "hard")]),
    (f"linkat {HERE} new {HERE} hard #0", [("M", errno.EEXIST, "new", "hard")]),
    ("rename hard dir/hard", [("M", 0, "hard", "dir/hard")]),
    (f"renameat {HERE} dir/hard {HERE} hard", [("M", 0, "dir/hard", "hard")]),
    (f"renameat2 {HERE} no {HERE} hard #0", [("M", NO, "no", "hard")]),
    ("symlink target soft", [("L", 0, "soft", "target")]),
    (f"symlinkat target {HERE} soft", [("L", errno.EEXIST, "soft")]),
    ("unlink soft", [("U", 0, "soft")]),
    (f"unlinkat {HERE} soft #0", [("U", NO, "soft")]),
    ("remove hard", [("U", 0, "hard")]),
    ("mkdir made #0755", [("K", 0, "made")]),
    (f"mkdirat {HERE} made #0755", [("K", errno.EEXIST, "made")]),
    ("rmdir made", [("U", 0, "made")]),
    ("truncate new #1", [("T", 0, "new")]),
    ("truncate64 no #1", [("T", NO, "no")]),
    ("chmod new #0600", [("T", 0, "new")]),
    (f"fchmodat {HERE} new #0644 #0", [("T", 0, "new")]),
    ("chown new #-1 #-1", [("T", 0, "new")]),
    ("lchown no #-1 #-1", [("T", NO, "no")]),
    (f"fchownat {HERE} new #-1 #-1 #0", [("T", 0, "new")]),
    ("utime new ~", [("T", 0, "new")]),
    ("utimes new ~", [("T", 0, "new")]),
    ("lutimes new ~", [("T", 0, "new")]),
    (f"futimesat {HERE} new ~", [("T", 0, "new")]),
    (f"utimensat {HERE} new ~ #0", [("T", 0, "new")]),
    # beyond following
    ("socket #1 #1 #0", [("N", 0, "socket")]),
    ("connect #-1 @ #0", [("N", 0, "connect")]),
    ("getaddrinfo ~ ~ ~ @", [("N", 0, "getaddrinfo")]),
    ("*gethostbyname 127.0.0.1", [("N", 0, "gethostbyname")]),
    ("getifaddrs @", [("N", 0, "getifaddrs")]),
    ("system :", [("N", 0, "system")]),
    ("*popen : r", [("N", 0, "popen")]),
    ("mkfifo fifo #0600", [("N", 0, "mkfifo")]),
    ("mknod fifo #010600 #0", [("N", 0, "mknod")]),
    ("shm_open /no/no #0 #0", [("N", 0, "shm_open")]),
    # asked by the C library itself
    ("*get_current_dir_name", [("E", 0, "PWD")]),
    ("*localtime @", [("E", NO, "TZ")]),
    ("*iconv_open UTF-8 LATIN1", [("E", NO, "GCONV_PATH")]),
]

if platform.machine() == "x86_64":  # system calls made by hand, by their numbers
    CALLS += [
        ("syscall #41 #1 #1 #0", [("N", 0, "syscall")]),
        ("syscall #2 file #0 #0", [("R", 0, "file")]),
        (f"syscall #257 {HERE} no #0", [("R", NO, "no")]),
        ("syscall #4 no @", [("S", NO, "no")]),
        (f"syscall #332 {HERE} file #0 #0x7ff @", [("S", 0, "file")]),
        ("syscall #82 new moved", [("M", 0, "new", "moved")]),
        ("syscall #87 moved", [("U", 0, "moved")]),
        ("syscall #39", []),
    ]


def furnish(directory: Path) -> None:
    (directory / "file").write_text("text\n")
    (directory / "dir").mkdir()
    (directory / "link").symlink_to("file")


def plain_environment() -> dict[str, str]:
    """Few enough variables to know which are set."""
    return {"PATH": os.environ["PATH"], "PWD": "/"}


def by_mark(records: list[Record]) -> Iterator[list[Record]]:
    """The records of each call of `probe call`, which stand between two marks."""
    part: list[Record] | None = None
    for r in records:
        if r.pid != records[0].pid:
            continue  # the shell that system starts
        if r.kind == "E" and r.text.startswith("mark-"):
            if part is not None:
                yield part
            part = []
        elif part is not None:
            part.append(r)


def says_which(r: Record) -> bool:
    """Whether an opened file's inode and device stand where other records have nothing."""
    return r.kind in "RD" and not r.error and re.fullmatch(r"\d+:\d+:\d+", r.text2) is not None


def test_what_is_opened_is_told_by_its_inode_and_device(observer: Observer, probe: Path) -> None:
    """The name may lead elsewhere when the compiler has ended."""
    furnish(observer.directory)
    calls = [f"{call} {flags}" for call, flags in (("open file", "#0"), (f"openat {HERE} file", "#0"), ("*fopen file", "r"))]
    for call, name in [*((call, "file") for call in calls), ("*opendir dir", "dir"), (f"open dir {DIRECTORY}", "dir")]:
        (found,) = next(by_mark(observer.observe(probe, "call", call, "mark", env=plain_environment())))
        st = (observer.directory / name).stat()
        assert found.text2 == f"{st.st_ino}:{os.major(st.st_dev)}:{os.minor(st.st_dev)}", call


def test_each_function_records_what_the_protocol_says(observer: Observer, probe: Path) -> None:
    """Each variant needs an interposer of its own: the C library's functions do not come by one another's."""
    furnish(observer.directory)
    records = observer.observe(probe, "call", *[spec for spec, _ in CALLS], env=plain_environment())
    for (spec, expected), found in zip(CALLS, by_mark(records), strict=True):
        here = str(observer.directory)
        paths = {"N": 0, "E": 0, "L": 1}  # how many of the texts; else both
        full = [
            (kind, error, *(os.path.join(here, text) if i < paths.get(kind, 2) else text for i, text in enumerate(texts)))
            for kind, error, *texts in expected
        ]
        full = [(*words, "") if len(words) == 3 else words for words in full]
        assert [(r.kind, r.error, r.text, "" if says_which(r) else r.text2) for r in found] == full, spec


def test_each_function_answers_the_program_as_before(observer: Observer, probe: Path, tmp_path: Path) -> None:
    """Result and errno; a configure probe that goes another way under the cache is a different build."""
    furnish(observer.directory)
    plain = tmp_path / "plain"
    plain.mkdir()
    furnish(plain)
    specs = [spec for spec, _ in CALLS]
    observer.prepare()
    seen = observer.run(probe, "call", *specs, env=plain_environment())
    unseen = plain_run(probe, "call", *specs, env=plain_environment(), cwd=plain)
    assert (seen.returncode, seen.stdout, seen.stderr) == (0, unseen.stdout, "")
    assert ": absent" not in seen.stdout, "the C library has all that is listed"


@pytest.mark.parametrize(
    ("call", "kind", "pattern"),
    [
        *((f"{name} tXXXXXX", "W", "t.{6}") for name in ("mkstemp", "mkstemp64")),
        *((f"{name} tXXXXXX #0", "W", "t.{6}") for name in ("mkostemp", "mkostemp64")),
        *((f"{name} tXXXXXX.s #2", "W", r"t.{6}\.s") for name in ("mkstemps", "mkstemps64")),
        *((f"{name} tXXXXXX.s #2 #0", "W", r"t.{6}\.s") for name in ("mkostemps", "mkostemps64")),
        ("*mkdtemp tXXXXXX", "K", "t.{6}"),
    ],
)
def test_a_temporary_is_recorded_by_the_name_it_got(observer: Observer, probe: Path, call: str, kind: str, pattern: str) -> None:
    """The XXXXXX is nobody's file; the server must see that gcc's /tmp/cc….s came and went."""
    (found,) = by_mark(observer.observe(probe, "call", call))
    (made,) = observer.directory.iterdir()
    assert [r.what for r in found] == [(kind, 0, str(made))]
    assert re.fullmatch(pattern, made.name)
    assert "X" * 6 not in made.name


def test_a_path_beside_a_descriptor_is_made_absolute(observer: Observer, probe: Path) -> None:
    """rustc removes its directories by unlinkat; `x` relative to descriptor 3 means nothing afterwards."""
    (observer.directory / "dir" / "sub").mkdir(parents=True)
    here = str(observer.directory)
    (observer.directory / "dir" / "x").write_text("")
    fd = os.open(observer.directory / "dir", os.O_RDONLY)
    calls = [
        f"openat #{fd} x #0", f"fstatat #{fd} no @ #0", f"unlinkat #{fd} x #0",
        f"renameat #{fd} no {HERE} new", f"*fdopendir #{fd}", "openat #999 x #0", "*fdopendir #999",
        f"getdents64 #{fd} @ #1000", "getdents64 #999 @ #1000", *([f"syscall #217 #{fd} @ #1000"] * (platform.machine() == "x86_64")),
    ]  # fmt: skip
    try:
        found = list(by_mark(observer.observe(probe, "call", *calls, pass_fds=[fd])))
    finally:
        os.close(fd)
    assert [[(r.kind, r.error, r.text, "" if says_which(r) else r.text2) for r in part] for part in found] == [
        [("R", 0, f"{here}/dir/x", "")],
        [("S", NO, f"{here}/dir/no", "")],
        [("U", 0, f"{here}/dir/x", "")],
        [("M", NO, f"{here}/dir/no", f"{here}/new")],
        [("D", 0, f"{here}/dir", "")],
        [],
        [],
        [("D", 0, f"{here}/dir", "")],
        [],
        *([[("D", 0, f"{here}/dir", "")]] if platform.machine() == "x86_64" else []),
    ]


def test_a_long_path_is_recorded_whole(observer: Observer, probe: Path) -> None:
    """A path cut short would be another file's."""
    long = "/" + "/".join(["x" * 200] * 20)
    calls = [f"access {long[:4095]} #0", f"access {'y' * 5000} #0"]
    found = list(by_mark(observer.observe(probe, "call", *calls)))
    assert [[r.what for r in part] for part in found] == [[("S", NO, long[:4095])], []]


def test_the_record_file_itself_is_no_input(observer: Observer, probe: Path) -> None:
    """No compile depends on its own record, not even one that opens all there is in /dev/shm."""
    (found,) = by_mark(observer.observe(probe, "call", f"open {observer.file} #0"))
    assert found == []


# --- variables ---


def test_each_answer_to_getenv_is_recorded_once(observer: Observer, probe: Path) -> None:
    """rustc asks thousands of times for the same few; unset and later set are two answers."""
    records = observer.observe(probe, "ask", "SOME_NAME", "1000", env={})
    assert [r.what for r in records if r.kind == "E"] == [("E", NO, "SOME_NAME"), ("E", 0, "SOME_NAME")]


def test_a_locale_from_the_environment_is_asked_for_by_name(observer: Observer, probe: Path) -> None:
    """It decides the language of the messages that a hit replays; libc does not ask by getenv."""
    records = observer.observe(probe, "call", "*setlocale #6 C", "*setlocale #6 @")  # @: "", the environment
    by_name, by_environment = by_mark(records)
    assert by_name == []
    assert {"LC_ALL", "LC_MESSAGES", "LANG", "LANGUAGE"} <= {r.text for r in by_environment}


# --- libraries ---


def test_the_libraries_that_a_program_starts_with_are_read(observer: Observer, probe: Path) -> None:
    """ld.so opens them before anyone can look; another libbfd below the same `as` is another assembler."""
    observer.observe(probe)
    read = {os.path.basename(r.text) for r in observer.all_records() if r.kind == "I"}
    listed = plain_run(probe, env={"LD_TRACE_LOADED_OBJECTS": "1"}).stdout
    started_with = {os.path.basename(name) for name in re.findall(r"=> (/\S+)", listed)}
    assert started_with
    assert started_with <= read


def test_a_library_that_is_loaded_is_read_and_so_is_what_it_needs(observer: Observer, probe: Path) -> None:
    """A gcc plugin or a proc macro runs in the compiler; ld.so opens it by calls of its own."""
    here = observer.directory
    (here / "inner.c").write_text('const char *inner(void) { return "from inner"; }\n')
    (here / "outer.c").write_text("const char *inner(void);\nconst char *load(void) { return inner(); }\n")
    shared = ("gcc", "-shared", "-fPIC", "-o")
    plain_run(*shared, "libinner.so", "inner.c", cwd=here, check=True)
    plain_run(*shared, "libouter.so", "outer.c", "./libinner.so", cwd=here, check=True)
    observer.prepare()
    done = observer.run(probe, "dlopen", str(here / "libouter.so"))
    assert done.stdout == "from inner\n"
    found = {r.what for r in observer.records()}
    assert {("R", 0, f"{here}/libouter.so"), ("R", 0, f"{here}/./libinner.so")} <= found


@pytest.mark.parametrize("tag", ["--enable-new-dtags", "--disable-new-dtags"])
@pytest.mark.parametrize("name", ["libinner.so", "$ORIGIN/hidden/libinner.so"])
def test_a_library_still_finds_its_own_by_its_run_path(observer: Observer, probe: Path, tag: str, name: str) -> None:
    """dlopen searches the run path of its caller, known by the return address: that must not be us."""
    here = observer.directory
    (here / "hidden").mkdir()
    (here / "inner.c").write_text('const char *load(void) { return "from inner"; }\n')
    (here / "outer.c").write_text(
        "#include <dlfcn.h>\n"
        "const char *load(void)\n{\n"
        f'\tvoid *handle = dlopen("{name}", RTLD_NOW);\n'
        '\tconst char *(*inner)(void) = handle ? (const char *(*)(void))dlsym(handle, "load") : 0;\n'
        "\treturn inner ? inner() : dlerror();\n}\n"
    )
    shared = ("gcc", "-shared", "-fPIC", "-o")
    plain_run(*shared, "hidden/libinner.so", "inner.c", cwd=here, check=True)
    plain_run(*shared, "libouter.so", "outer.c", f"-Wl,{tag},-rpath,$ORIGIN/hidden", cwd=here, check=True)
    observer.prepare()
    done = observer.run(probe, "dlopen", str(here / "libouter.so"))
    assert done.stdout == "from inner\n"
    # Where it was found cannot be told without being in between: the compile is refused.
    assert [r.what for r in observer.records() if r.kind == "N"] == [("N", 0, "dlopen")]


def test_the_message_of_a_failed_load_is_kept(observer: Observer, probe: Path) -> None:
    """The library needs dlsym, which forgets it; the program calls access before it asks for the message."""
    observer.prepare()
    done = observer.run(probe, "dlopen", "/absent/lib.so")
    assert done.stdout == "/absent/lib.so: cannot open shared object file: No such file or directory\n"
    assert ("R", NO, "/absent/lib.so") in [r.what for r in observer.records()]


def test_only_what_stands_in_front_of_something_is_exported(library: Path) -> None:
    """Another name of ours would stand in front of a program's own function of that name."""
    table = plain_run("nm", "-D", "--defined-only", library, check=True).stdout
    ours = {line.split()[-1].split("@")[0] for line in table.splitlines()}
    libc = plain_run("gcc", "-print-file-name=libc.so.6", check=True).stdout.strip()
    theirs = plain_run("nm", "-D", "--defined-only", libc, check=True).stdout
    assert len(ours) > 100
    ours -= {"__start_observe_next", "__stop_observe_next"}  # GNU ld exports what it makes
    assert ours <= {line.split()[-1].split("@")[0] for line in theirs.splitlines()}


# --- where nothing can be recorded ---


@pytest.mark.parametrize("trouble", ["magic", "version", "size", "short", "empty", "absent", "directory", "no variable"])
def test_a_file_that_is_no_record_is_passed_over_in_silence(observer: Observer, probe: Path, trouble: str) -> None:
    """A word on stderr fails configure; the server sees that nothing announced itself, and that is enough."""
    observer.prepare(size=65536, magic=b"XXXX" if trouble == "magic" else b"SCOB", version=2 if trouble == "version" else 1)
    if trouble == "size":
        os.truncate(observer.file, 32768)
    elif trouble == "short":
        os.truncate(observer.file, 63)
    elif trouble == "empty":
        os.truncate(observer.file, 0)
    elif trouble in ("absent", "directory"):
        observer.file.unlink()
    if trouble == "directory":
        observer.file.mkdir()
    before = observer.file.read_bytes() if observer.file.is_file() else None

    env = {**os.environ, "LD_PRELOAD": str(observer.library), "SCCACHE_PY_OBSERVE": str(observer.file)}
    if trouble == "no variable":
        del env["SCCACHE_PY_OBSERVE"]
    done = plain_run(probe, "ask", "X", "3", env=env)
    assert (done.returncode, done.stdout, done.stderr) == (0, "now set\n", "")
    assert (observer.file.read_bytes() if observer.file.is_file() else None) == before


# --- the programs that a compile is made of ---


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        "gcc -v", "gcc -c no.c", "g++ -print-search-dirs", "as --version", "ld --version",
        "ld.gold --version",
        "ar t no.a", "mold --version", "clang --version", "clang -c no.c", "ld.lld --version", "rustc -vV",
        "rustc no.rs", "cargo --version", "make -f no.mk", "bash -c 'echo $((1+1)); exit 3'",
        "sh -c 'cat no'",
        "python3 -c 'import sys, sqlite3; print(1); sys.exit(2)'", "perl -e 'print 1'", "cmake --version",
        "git --version", "env -i true", "ls -la /usr",
    ],
)  # fmt: skip
def test_programs_say_and_end_as_before(observer: Observer, command: str) -> None:
    """Nothing may differ: neither output nor status."""
    need(command.split()[0])
    observer.prepare()
    shell = need("sh")
    seen = observer.run(shell, "-c", command)
    unseen = plain_run(shell, "-c", command, cwd=observer.directory)
    assert (seen.returncode, seen.stdout, seen.stderr) == (unseen.returncode, unseen.stdout, unseen.stderr)
    assert observer.lost() == 0


@pytest.mark.slow
@pytest.mark.parametrize("compiler", ["clang", "musl-gcc"])
def test_other_compilers_take_the_sources_without_a_warning(tmp_path: Path, compiler: str) -> None:
    """On Alpine the C library is musl, and half of what glibc exports is macros there."""
    need(compiler)
    compile_library(compiler, tmp_path / "library.so")


@pytest.mark.slow
def test_programs_of_musl_are_recorded_by_a_library_for_musl(tmp_path: Path) -> None:
    """musl calls constructors without arguments, and its open64 is a name that only ld.so knows."""
    need("musl-gcc")
    library = compile_library("musl-gcc", tmp_path / "library.so")
    program = tmp_path / "probe"
    source = Path(__file__).parent / "observe_probe.c"
    plain_run("musl-gcc", "-O1", source, "-o", program, check=True)
    (tmp_path / "work").mkdir()
    observer = Observer(library, tmp_path / "work")
    calls = ["open no #0", "stat no @", "open64 no #0", "*fopen64 no r", f"openat64 {HERE} no #0"]
    records = observer.observe(program, "call", *calls)
    assert (records[0].kind, records[0].text2) == ("P", str(program))
    here = str(observer.directory)
    assert [[r.what for r in part] for part in by_mark(records)] == [[(kind, NO, f"{here}/no")] for kind in ("R", "S", "R", "R", "R")]
    assert len([r for r in observer.observe(program, "crowd", "100") if r.kind == "S"]) == 400


def test_the_header_is_as_the_protocol_says(observer: Observer, probe: Path) -> None:
    """The server reads `position` while compilers may still add to it; the offsets are the contract."""
    observer.observe(probe)
    magic, version, size, position, lost = HEADER.unpack_from(observer.file.read_bytes())
    assert (magic, version, size, lost) == (b"SCOB", 1, observer.file.stat().st_size, 0)
    assert position > 64
    assert position % 8 == 0
