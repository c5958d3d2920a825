"""Finding the compiler that was meant, and becoming it; also `--child`, which does so on the server's behalf.

The Python half of client/native/become.c, child.c and input.c.  Here is undone what the interpreter did to
the process at its start: it ignores SIGPIPE and SIGXFSZ and may have set LC_CTYPE (PEP 538).
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import select
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

from sccache_py.client.place import clear_of_stdio
from sccache_py.wire import MAX_STDIN

OWN_NAMES = ("sccache-py", "sccache", "sccache-py.exe", "sccache.exe")


def original_environment() -> dict[bytes, bytes]:
    """The environment as the caller gave it, which os.environ is not once Python has coerced the locale."""
    try:
        with open("/proc/self/environ", "rb") as f:
            entries = f.read().split(b"\0")
    except OSError:
        return dict(os.environb)
    split = (entry.partition(b"=") for entry in entries)
    return {name: value for name, equals, value in split if equals}


class Ourselves:
    """Which files are us, by (device, inode), and the folder that our other programs lie in."""

    def __init__(self, program: str) -> None:
        """`program` is the file that was executed; the native client beside it is us as well."""
        self.directory = os.path.dirname(os.path.realpath(program))
        self._files = set()
        for file in (program, f"{self.directory}/sccache-py"):
            try:
                status = os.stat(file)
            except OSError:
                continue
            self._files.add((status.st_dev, status.st_ino))

    def is_at(self, file: str) -> bool:
        """Whether that path leads to us."""
        try:
            status = os.stat(file)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) in self._files

    def beside(self, name: str, override: str, environ: Mapping[bytes, bytes]) -> bytes:
        """A program that is installed beside us, unless the variable `override` names another."""
        return environ.get(os.fsencode(override), b"") or os.fsencode(f"{self.directory}/{name}")


def _candidates(name: str, environ: Mapping[bytes, bytes]) -> list[str]:
    # An empty element is the current directory (POSIX, XBD 8.3); the default is execvp's.
    path = os.fsdecode(environ.get(b"PATH", b"/bin:/usr/bin"))
    found = (f"{element}/{name}" if element else name for element in path.split(":"))
    return [file for file in found if os.path.isfile(file)]


def leads_to_self(word: str, ourselves: Ourselves, environ: Mapping[bytes, bytes]) -> bool:
    """Whether the word, as a shell would look it up, is us."""
    if "/" in word:
        return ourselves.is_at(word)
    first = next((f for f in _candidates(word, environ) if os.access(f, os.X_OK)), None)
    return first is not None and ourselves.is_at(first)


def _links_to_other_copy(file: str) -> bool:
    """Another copy of us with links of its own would pass over itself and find ours, and so on for ever."""
    try:
        return os.path.basename(os.readlink(file)) == "sccache-py"
    except OSError:
        return False


def find_program(name: str, ourselves: Ourselves, environ: Mapping[bytes, bytes]) -> tuple[str, bool]:
    """The file for a name without slash, and whether ourselves were passed over on the way.

    Raises FileNotFoundError or PermissionError.
    """
    passed, error = False, errno.ENOENT
    for file in _candidates(name, environ) if name else ():
        if ourselves.is_at(file) or _links_to_other_copy(file):
            passed = True
        elif os.access(file, os.X_OK):
            return file, passed
        else:
            error = errno.EACCES
    raise OSError(error, os.strerror(error))


def names_program(word: str, environ: Mapping[bytes, bytes]) -> bool:
    """Whether there is such a program, be it ourselves."""
    found = _candidates(word, environ) if "/" not in word else [word]
    return any(os.path.isfile(file) and os.access(file, os.X_OK) for file in found)


def cannot_become(name: str, error: int) -> NoReturn:
    """Say so as a shell would, and exit with its status: 127 not found, 126 not executable."""
    os.write(2, os.fsencode(f"sccache-py: {name}: {os.strerror(error)}\n"))
    os._exit(127 if error == errno.ENOENT else 126)


def become(program: str, argv: Sequence[str], environ: Mapping[bytes, bytes]) -> NoReturn:
    """Execute the program in this very process."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    execute(program, argv, environ)


def execute(program: str, argv: Sequence[str], environ: Mapping[bytes, bytes]) -> NoReturn:
    """The exec alone, with dispositions as they are."""
    try:
        os.execve(program, list(argv), environ)
    except OSError as e:
        error = e.errno or errno.EIO
        if error == errno.ENOEXEC:
            # A script without "#!": execvp and every shell give it to sh.
            os.execve("/bin/sh", ["sh", program, *argv[1:]], environ)
    cannot_become(program, error)


def run_child(words: Sequence[str]) -> NoReturn:
    """`--child SPEC PROGRAM ARGV0 ARG…` without its first word (docs/protocol.md, section 3)."""
    if len(words) < 3:
        cannot_become("--child", errno.EINVAL)
    spec, program, *argv = words
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    for item in spec.split(";"):
        name, _, value = item.partition("=")
        try:
            _apply(name, value)
        except (ValueError, OSError):
            pass  # passed over: the server has already refused what it cannot grant
    execute(program, argv, original_environment())


def _apply(name: str, value: str) -> None:
    match name:
        case "umask" if value:
            os.umask(int(value, 8))
        case "nice":
            os.setpriority(os.PRIO_PROCESS, 0, int(value))
        case "cpus":
            cpus = _numbers_in(int.from_bytes(bytes.fromhex(value), "little"), first=0)
            os.sched_setaffinity(0, cpus)
        case "block":
            signal.pthread_sigmask(signal.SIG_SETMASK, _numbers_in(int(value, 16)))
        case "ignore":
            ignored = _numbers_in(int(value, 16))
            for number in set(range(1, 32)) - {signal.SIGKILL, signal.SIGSTOP}:
                signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)
        case "limit":
            number, soft, hard = (int(part) for part in value.split(":"))
            infinity = 2**64 - 1
            resource.setrlimit(number, (-1 if soft == infinity else soft, -1 if hard == infinity else hard))


def _numbers_in(mask: int, first: int = 1) -> set[int]:
    return {n + first for n in range(mask.bit_length()) if mask >> n & 1}


class KeptInput:
    """What was read of our standard input for the server, in case that we become the compiler after all."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.taken = False
        self.ended = False
        self._offset: int | None = None
        self._unreadable = False

    def read_some(self) -> bool:
        """One read, up to MAX_STDIN + 1 bytes in all.  False: at the end, or above MAX_STDIN (see `ended`).

        Raises BlockingIOError if nothing is there yet.
        """
        if not self.taken:
            self.taken = True
            try:
                self._offset = os.lseek(0, 0, os.SEEK_CUR)
            except OSError:
                pass  # a pipe, or closed
        try:
            part = os.read(0, MAX_STDIN + 1 - len(self.data))
        except BlockingIOError:
            raise
        except OSError:
            self._unreadable = not self.data  # closed, a directory: the compiler shall meet that, too
            part = b""
        self.data += part
        self.ended = not part
        return bool(part) and len(self.data) <= MAX_STDIN

    def give_back(self) -> None:
        """Make descriptor 0 deliver again all that was read, then the rest."""
        if not self.taken or self._unreadable:
            return
        if self._offset is not None:
            os.lseek(0, self._offset, os.SEEK_SET)
            return
        out, into = (clear_of_stdio(fd) for fd in os.pipe())
        # What fits into the pipe needs nobody to feed it.
        room = fcntl.fcntl(into, fcntl.F_GETPIPE_SZ)
        if self.ended and len(self.data) > room:
            try:
                room = fcntl.fcntl(into, fcntl.F_SETPIPE_SZ, MAX_STDIN)
            except OSError:
                pass  # the user's pipes hold too much already
        if self.ended and len(self.data) <= room:
            os.write(into, self.data)
        # Twice, so that the compiler is not its parent and never waits for it.
        elif (child := os.fork()) == 0:
            if os.fork() == 0:
                self._feed(into)
            os._exit(0)
        else:
            try:
                os.waitpid(child, 0)
            except ChildProcessError:
                pass  # the caller ignores SIGCHLD
        os.dup2(out, 0, inheritable=True)
        os.close(out)
        os.close(into)

    def _feed(self, into: int) -> NoReturn:
        """The remembered bytes, then whatever is still to come; SIGPIPE is ignored, as always in Python."""
        try:
            # Somebody may be waiting for the end of our caller's pipes: keep none open.
            os.dup2(into, 1)
            os.closerange(2, 1 << 16)
            rest: bytes | memoryview = memoryview(self.data)
            while rest or not self.ended:
                poll = select.poll()
                poll.register(1, select.POLLOUT if rest else 0)
                if not rest:
                    poll.register(0, select.POLLIN)
                for fd, event in poll.poll():
                    if fd == 1 and event & select.POLLERR:
                        os._exit(0)  # nobody reads
                if rest:
                    rest = rest[os.write(1, rest[:4096]) :]
                    continue
                try:
                    rest = os.read(0, 1 << 16)
                except BlockingIOError:
                    continue
                self.ended = not rest
        except OSError:
            pass  # the reader left
        finally:
            os._exit(0)


def die_by(number: int) -> NoReturn:
    """End this process by a signal, as the compiler ended; without a core, which was the compiler's."""
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        import ctypes

        ctypes.CDLL(None).prctl(4, 0)  # PR_SET_DUMPABLE: a core_pattern with a pipe ignores the limit
    except (OSError, ValueError, ImportError, AttributeError):
        pass
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
    os._exit(128 + number)


def executed_program() -> str:
    """The file that was executed to run us: a frozen program's own, else the script."""
    return sys.executable if getattr(sys, "frozen", False) else sys.argv[0]
