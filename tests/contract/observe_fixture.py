"""What the tests of the preload library need: the library, a record file for a program, a reader of strace.

The reader of records here is deliberately not sccache_py/observation.py: that one interprets, this one shows
what is there.
"""

from __future__ import annotations

import codecs
import errno
import os
import re
import shutil
import struct
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "client" / "native").glob("observe*.c"))
FLAGS = ["-std=c11", "-O2", "-fPIC", "-shared", "-fvisibility=hidden"]
WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Werror"]

HEADER = struct.Struct("<4sIQQI")
HEADER_BYTES = 64
ENTRY = struct.Struct("<IBcHI")
RECORD_BYTES = 16 << 20


class Record(NamedTuple):
    """One record, as docs/protocol.md, section 4 has it."""

    kind: str
    error: int
    pid: int
    text: str
    text2: str

    @property
    def what(self) -> tuple[str, int, str]:
        return self.kind, self.error, self.text


def read_records(data: bytes) -> Iterator[Record]:
    """All complete records of a file that lost none or some at its end."""
    _, _, size, position, _ = HEADER.unpack_from(data)
    at = HEADER_BYTES
    while at + ENTRY.size <= min(position, size):
        length, done, kind, error, pid = ENTRY.unpack_from(data, at)
        if length == 0:
            return  # a claim that did not fit
        assert done == 1, f"incomplete record at {at}"
        assert length % 8 == 0
        texts = data[at + ENTRY.size : at + length].split(b"\0")
        assert len(texts) >= 3, "each text ends with NUL"
        assert not any(texts[2:]), "padding is zero"
        yield Record(kind.decode(), error, pid, os.fsdecode(texts[0]), os.fsdecode(texts[1]))
        at += length


_LIBRARY = re.compile(r"^(/usr)?/lib.*\.so|libsccache-observe\.so$|/rustlib/|librustc_driver|libLLVM")


def without_startup(records: Iterable[Record]) -> Iterator[Record]:
    """Less the libraries that a program starts with, which stand right behind its own record: they depend on the machine."""
    starting: set[int] = set()
    for record in records:
        if record.kind == "P":
            starting.add(record.pid)
        elif record.kind == "I" and record.pid in starting and record.error == 0 and _LIBRARY.search(record.text):
            continue
        else:
            starting.discard(record.pid)
        yield record


def compile_library(compiler: str, into: Path) -> Path:
    """The library, by the one command that its first comment gives, and without a warning."""
    subprocess.run([compiler, *FLAGS, *WARNINGS, *SOURCES, "-o", into, "-ldl"], check=True)
    return into


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_library("cc", tmp_path_factory.mktemp("observe") / "libsccache-observe.so")


@pytest.fixture(scope="session")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program that observe_probe.c is."""
    program = tmp_path_factory.mktemp("probe") / "probe"
    source = Path(__file__).parent / "observe_probe.c"
    subprocess.run(["cc", "-std=c11", "-O1", source, "-o", program, "-ldl", "-lpthread"], check=True)
    return program


class Observer:
    """Runs programs observed, each with a record of its own, in `directory`."""

    def __init__(self, library: Path, directory: Path) -> None:
        self.library = library
        # Physical, as getcwd has it: /tmp may be a link.
        self.directory = Path(os.path.realpath(directory))
        self.file = self.directory.parent / f"{directory.name}.record"

    def prepare(self, size: int = RECORD_BYTES, magic: bytes = b"SCOB", version: int = 1) -> None:
        """An empty record of `size` bytes, all of them allocated."""
        with open(self.file, "wb") as f:
            os.posix_fallocate(f.fileno(), 0, size)
            f.write(HEADER.pack(magic, version, size, HEADER_BYTES, 0))

    def variables(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self.library), "SCCACHE_PY_OBSERVE": str(self.file)}

    def run(self, *command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        """The command, observed; the record must have been prepared."""
        env = {**options.pop("env", os.environ), **self.variables()}
        return plain_run(*command, env=env, cwd=self.directory, **options)

    def observe(self, *command: str | Path, **options: Any) -> list[Record]:
        """Prepare, run with success, and read a record that lost nothing."""
        self.prepare()
        self.run(*command, **{"check": True, **options})
        return self.records()

    def lost(self) -> int:
        return int(HEADER.unpack_from(self.file.read_bytes())[4])

    def records(self) -> list[Record]:
        assert self.lost() == 0
        return list(without_startup(read_records(self.file.read_bytes())))

    def all_records(self) -> list[Record]:
        """With the libraries that each program starts with."""
        return list(read_records(self.file.read_bytes()))


def plain_run(*command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """The command, with its output as text."""
    defaults = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "check": False}
    return subprocess.run(command, **{**defaults, **options})


@pytest.fixture
def observer(library: Path, tmp_path: Path) -> Observer:
    """An Observer in an empty directory."""
    directory = tmp_path / "work"
    directory.mkdir()
    return Observer(library, directory)


def need(program: str) -> str:
    """The program's path; skips the test where it is not installed."""
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is not installed")
    return path


class Call(NamedTuple):
    """A system call as strace saw it: `paths` absolute, `error` a number, 0 for success."""

    pid: int
    name: str
    paths: tuple[str, ...]
    error: int
    line: str


# A path, and the directory that it is relative to where the call has one.  `-y` shows what a descriptor is.
_PLACE = re.compile(r'(?:(?:AT_FDCWD|\d+)(?:<([^>]*)>)?, )?"((?:[^"\\]|\\.)*)"')
_LINE = re.compile(r"^(\d+) +(.*)$")
_CALL = re.compile(r"^(\w+)\((.*)\) += (-?\d+|\?)(?:<[^>]*>)?(?: (E\w+) .*)?")
_RESUMED = re.compile(r"^<\.\.\. (\w+) resumed>(.*)$")
_TWO_PATHS = ("rename", "renameat", "renameat2", "link", "linkat")
_SECOND_PATH = ("symlink", "symlinkat")


def read_strace(text: str, cwd: str) -> Iterator[Call]:
    """The calls in the output of `strace -f -y -o`, those that name no path included.

    Nobody may change directory: calls without a directory argument are taken relative to `cwd`.
    """
    unfinished: dict[int, str] = {}
    for line in text.splitlines():
        found = _LINE.match(line)
        assert found, line
        pid, rest = int(found[1]), found[2]
        if rest.endswith("<unfinished ...>"):
            unfinished[pid] = rest.removesuffix("<unfinished ...>")
            continue
        if resumed := _RESUMED.match(rest):
            rest = unfinished.pop(pid) + resumed[2]
        call = _CALL.match(rest)
        if not call or call[3] == "?":
            continue  # a signal, an exit
        name, arguments = call[1], call[2]
        if name == "getcwd":
            continue  # its path is an answer
        assert name not in ("chdir", "fchdir"), f"no compiler changes directory: {line}"
        places = [
            os.path.join(directory or cwd, codecs.decode(path, "unicode_escape"))
            for directory, path in _PLACE.findall(arguments)
            if path  # AT_EMPTY_PATH: of a descriptor
        ]
        if name in _TWO_PATHS:
            places = places[:2]
        elif name in _SECOND_PATH:
            places = places[1:2]
        elif not _PLACE.match(arguments) or not _PLACE.match(arguments)[2]:  # type: ignore[index]
            places = []
        else:
            places = places[:1]
        failure = getattr(errno, call[4]) if call[4] else 0
        yield Call(pid, name, tuple(places), failure, f"{pid} {rest}")


def trace(observer: Observer, command: Sequence[str | Path], env: dict[str, str]) -> tuple[list[Call], list[Record]]:
    """The command under strace and observed, in the same run."""
    strace = need("strace")
    observer.prepare()
    output = observer.directory.parent / "strace"
    preload = [x for name, value in observer.variables().items() for x in ("-E", f"{name}={value}")]
    done = plain_run(
        strace, "-f", "-y", "-e", "trace=file,process", "-o", output, *preload, *command,
        env=env, cwd=observer.directory,
    )  # fmt: skip
    if "ptrace" in done.stderr and done.returncode:
        pytest.skip(f"strace may not trace here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return list(read_strace(output.read_text(), str(observer.directory))), observer.records()
