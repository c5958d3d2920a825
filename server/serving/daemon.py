"""Become the server: a process that depends on nothing of whoever started it, and the socket under its name.

The client that starts us has forked twice, made a session and put 0-2 on /dev/null (docs/protocol.md, section 1).  Here the rest
is dropped: the environment (CVE-2023-1521: a server that keeps its first caller's environment compiles everybody's code with it),
directory, umask, affinity, limits, standing with the kernel.  A hard limit and a nice value stay, and decide who may be
served (permits.py).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import pwd
import resource
import signal
import socket
import stat

from sccache_py.server.filesystem.private import make_directory
from sccache_py.wire import SUN_PATH_BYTES, runtime_directory, state_stem

# What Python, SQLite and the C library of the server itself may look at.  A compile gets its caller's environment, never this.
_KEPT = ("HOME", "LANG", "LC_ALL", "LC_CTYPE", "PATH", "PYTHONUTF8", "TMPDIR", "TZ", "XDG_RUNTIME_DIR")

# A caller's `ulimit -t 60` is for its compiles, which get it in any case; the server would die of it.
_RAISED = (
    resource.RLIMIT_AS,
    resource.RLIMIT_CPU,
    resource.RLIMIT_DATA,
    resource.RLIMIT_FSIZE,
    resource.RLIMIT_NOFILE,
    resource.RLIMIT_NPROC,
)

_BACKLOG = 1024

_PR_SET_PDEATHSIG = 1
_DOMAIN = 0xFF  # PER_MASK, <linux/personality.h>


class AlreadyRunning(Exception):
    """Another server answers on this socket."""


def drop_surroundings() -> dict[str, str]:
    """Returns the environment as it was: settings are read from it, once."""
    environment = dict(os.environ)
    for name in environment:
        if name not in _KEPT:
            with contextlib.suppress(OSError):  # "=x" has no name to be removed by
                del os.environ[name]
    # Where a starter ignores it the kernel reaps our children, and a compiler's exit status is gone.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    _close_descriptors_in_children()
    os.chdir("/")
    os.umask(0)  # every file is made with its exact mode
    with contextlib.suppress(OSError):
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
    for number in _RAISED:
        soft, hard = resource.getrlimit(number)
        if soft != hard:
            with contextlib.suppress(ValueError, OSError):
                resource.setrlimit(number, (hard, hard))
    _become_ordinary()
    return environment


def _close_descriptors_in_children() -> None:
    """What a starter left open (a make's jobserver) is for no compiler; what is opened from now on is closed by an exec in any case.

    Nor may that take the number of a standard stream that a starter had closed.
    """
    with contextlib.suppress(OSError):
        while (null := os.open(os.devnull, os.O_RDWR)) <= 2:
            pass
        os.close(null)
    try:
        numbers = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:
        numbers = list(range(min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 4096)))
    for number in numbers:
        if number > 2:
            with contextlib.suppress(OSError):  # the listing's own is gone
                os.set_inheritable(number, False)


def _become_ordinary() -> None:
    """`chrt -i 0 make`, `setarch -R make` and a container that is to be killed first were meant for that build, not for all that follow."""
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as f:
        f.write("0")
    personality = ctypes.CDLL(None).personality
    # The flags alone: a machine of 32 bits (linux32) is what a whole container is for.
    personality(personality(0xFFFFFFFF) & _DOMAIN)


def users_home() -> str:
    """By the list of users: a service, or `env -i`, has no HOME.  "" for a user who is not listed."""
    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return ""


def detach() -> None:
    """For a server that was not started by a client: leave the caller's session and terminal."""
    if os.fork():
        os._exit(0)
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)


def die_with_parent() -> None:
    """A hit worker that stands still would outlive its killed owner, and clients would go on to wait for it.  prctl(2)."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Claim:
    """The listening socket and its name."""

    def __init__(self, path: str) -> None:
        """`path` as SCCACHE_SERVER_UDS spells it: a leading backslash, x, 0, 0 means abstract.

        Raises AlreadyRunning, OSError.
        """
        self.path = path
        self._inode: int | None = None
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            if path.startswith("\\x00"):
                self._bind_abstract("\0" + path[4:])
            else:
                self._bind_file(path)
        except BaseException:
            self.socket.close()
            raise

    def _bind_abstract(self, name: str) -> None:
        try:
            self.socket.bind(name)
        except OSError as e:
            if e.errno == errno.EADDRINUSE:
                raise AlreadyRunning(self.path) from e
            raise
        self.socket.listen(_BACKLOG)

    def _bind_file(self, path: str) -> None:
        if _answers(path):
            raise AlreadyRunning(path)
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISSOCK(os.stat(path).st_mode):
                raise FileExistsError(errno.EEXIST, "is there, and is no socket", path)  # somebody's file: not to be replaced
        directory = os.path.dirname(path) or "."
        make_directory(directory)
        # Bound and listening before it has its name: whoever finds the name can connect.  A dead server's name is replaced.
        temporary = os.path.join(directory, f".{os.getpid()}")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        if len(os.fsencode(temporary)) < SUN_PATH_BYTES:
            self.socket.bind(temporary)
        else:
            # Longer than a socket's address can be, though `path` is not.
            fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                self.socket.bind(f"/proc/self/fd/{fd}/{os.path.basename(temporary)}")
            finally:
                os.close(fd)
        os.chmod(temporary, 0o600)
        self.socket.listen(_BACKLOG)
        self._inode = os.stat(temporary).st_ino
        os.rename(temporary, path)

    def is_ours(self) -> bool:
        """Whether the name still leads to us; it does not after another server took it, or someone cleaned up."""
        if self._inode is None:
            return True
        try:
            return os.stat(self.path).st_ino == self._inode
        except OSError:
            return False

    def release(self) -> None:
        """Take the name away, so that the next client starts a new server."""
        if self._inode is not None and self.is_ours():
            with contextlib.suppress(OSError):
                os.unlink(self.path)
        self._inode = None


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except BlockingIOError:
            return True  # its queue is full, it is there
        except OSError:
            return False
    return True


def announce(ready_fd: int | None) -> None:
    """Tell the client that waits for us that we listen."""
    if ready_fd is not None:
        with contextlib.suppress(OSError):
            os.write(ready_fd, b"+")
        os.close(ready_fd)


def take_uncounted(socket_path: str) -> int:
    """How many compiles ran without a server since the last one (X.uncounted, one byte each)."""
    try:
        xdg_is_ours = os.stat(os.environ.get("XDG_RUNTIME_DIR", "")).st_uid == os.getuid()
    except OSError:
        xdg_is_ours = False
    runtime = runtime_directory(os.getuid(), os.environb, xdg_is_ours)
    path = os.fsdecode(state_stem(os.fsencode(socket_path), runtime)) + ".uncounted"
    try:
        count = os.path.getsize(path)
        os.unlink(path)
    except OSError:
        return 0
    return count
