"""How compilers are started: with what is theirs, and nothing of the server's."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from pathlib import Path

import pytest

from sccache_py.model import Request
from sccache_py.server.running.spawn import Command, SpawnError, spawn

CALLER = Request(
    argv=["cc"], program="/bin/sh", cwd="/", env={}, umask=0o027, nice=0, limits=[], descriptors=7, columns=0, root=(0, 0), here=(0, 0),
    affinity=b"", blocked=0, ignored=0,
)  # fmt: skip


@dataclasses.dataclass
class Started:
    status: int
    out: str
    err: str
    group: int
    pid: int


def start(
    native: Path | None, script: str, cwd: Path, env: dict[str, str], inherit: tuple[int, ...] = (), stdin: bytes | None = None
) -> Started:
    """A shell with this script."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        command = Command("/bin/sh", ["cc", "-c", script], str(cwd), env, inherit, CALLER, stdin)
        pid = spawn(str(native) if native else None, command, out.fileno(), err.fileno())
        group = os.getpgid(pid)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        said = [os.pread(file.fileno(), 1 << 16, 0).decode() for file in (out, err)]
    return Started(status, *said, group, pid)


@pytest.fixture(params=["native", "subprocess"])
def native(request: pytest.FixtureRequest, native_client: Path) -> Path | None:
    return native_client if request.param == "native" else None


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """A name in which the words of a SPEC are."""
    directory = tmp_path / "a;umask=0;cwd=1 \n b"
    directory.mkdir()
    return directory


def test_a_compiler_starts_where_and_as_its_caller_is(native: Path | None, there: Path) -> None:
    done = start(native, 'pwd -P; umask; echo "$0 $X"; cat', there, {"X": "a\nb", "PATH": os.environ["PATH"]}, stdin=b"told")
    assert done.out == f"{there}\n0027\ncc a\nb\ntold"
    assert (done.status, done.err, done.group) == (0, "", done.pid)


def test_a_compiler_without_stdin_reads_nothing(native: Path | None, there: Path) -> None:
    assert start(native, "cat; echo end", there, dict(os.environ)).out == "end\n"


def test_nothing_that_the_server_has_open_is_open_in_a_compiler(native: Path | None, there: Path) -> None:
    """But for the jobserver, whose numbers stay as they were told, and which is no next compiler's."""
    kept = os.pipe2(os.O_CLOEXEC)
    other = os.open("/dev/null", os.O_RDONLY)
    numbers = lambda inherit: set(map(int, start(native, "ls /proc/self/fd", there, dict(os.environ), inherit).out.split()))  # noqa: E731
    assert {*kept, other} & numbers(kept) == set(kept)
    assert {*kept, other} & numbers(()) == set()
    for fd in (*kept, other):
        os.close(fd)


def test_a_variable_without_a_name_reaches_a_compiler(native: Path | None, there: Path) -> None:
    """Some shells and Cygwin's tools make such; posix_spawn takes none in Python."""
    done = start(native, "tr '\\0' '\\n' < /proc/self/environ", there, {"": "nameless", "X": "1", "PATH": os.environ["PATH"]})
    assert "=nameless" in done.out.splitlines()


@pytest.mark.parametrize("trouble", ["no directory", "a zero in a word", "no client"])
def test_what_cannot_be_started_is_told_before_anything_ran(native_client: Path, there: Path, trouble: str) -> None:
    open_before = len(os.listdir("/proc/self/fd"))
    where = there / "missing" if trouble == "no directory" else there
    client = there / "missing" if trouble == "no client" else native_client
    with pytest.raises(SpawnError):
        start(client, "echo \0" if trouble == "a zero in a word" else "echo", where, dict(os.environ))
    assert len(os.listdir("/proc/self/fd")) == open_before
