"""Where the server is, how to reach it, and how to start one when nobody is there.

The Python half of client/native/place.c and start.c; both follow docs/protocol.md, section 1.  Used by the
fallback client and by the control program.  Knows nothing of compiles.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import select
import signal
import socket
import stat
import struct
import time
from collections.abc import Mapping
from typing import NoReturn

from sccache_py import wire

Environment = Mapping[bytes, bytes]

DIAL_S = 1.0
FAILED_S = 10.0  # nobody tries again for so long
READY_S = 10.0
OTHERS_S = 3.0  # to wait for a start that someone else has in hand
OTHERS_STEP_S = 0.003
_READY_FD = 3

# What connect says when no server is there, as opposed to one that cannot be reached.
NOBODY = (errno.ENOENT, errno.ECONNREFUSED)


# No dataclasses here and in what else a compile needs: their import would be a fifth of the fallback's time.
class Place:
    """A socket's name as --socket takes it, the X of X.lock, and the directory that has to be safe."""

    def __init__(self, name: bytes, stem: bytes, runtime: bytes | None) -> None:
        """`runtime` is None where the user chose the place: it is for him to guard."""
        self.name, self.stem, self.runtime = name, stem, runtime

    @property
    def address(self) -> bytes:
        """The name as the kernel takes it; an abstract one begins with NUL."""
        return b"\0" + self.name[4:] if self.name.startswith(rb"\x00") else self.name

    def beside(self, suffix: bytes) -> bytes:
        """`suffix` is .lock, .failed or .uncounted."""
        return self.stem + suffix

    def is_safe(self, create: bool = False) -> bool:
        """Whether the runtime directory is a directory of ours that nobody else can write to.

        A missing one is made if `create` says so; otherwise it is as unsafe as anything else.
        """
        if self.runtime is None:
            return True
        try:
            if create:
                try:
                    os.mkdir(self.runtime, 0o700)
                except FileExistsError:
                    pass  # that is what is looked at next
            status = os.lstat(self.runtime)
        except OSError:
            return False
        return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022


def _is_ours_to_use(directory: bytes) -> bool:
    try:
        status = os.stat(directory)
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()


def find_place(environ: Environment) -> Place | None:
    """The server's place for this environment, or None if its name is too long for a socket's address."""
    given = environ.get(b"SCCACHE_SERVER_UDS", b"")
    runtime = wire.runtime_directory(os.geteuid(), environ, _is_ours_to_use(environ.get(b"XDG_RUNTIME_DIR", b"")))
    if given:
        abstract = given.startswith(rb"\x00")
        place = Place(given, wire.state_stem(given, runtime), runtime if abstract else None)
    else:
        root = os.stat("/")
        view = (_inode("/proc/self/ns/mnt"), _inode("/proc/self/ns/pid"))
        identity = wire.socket_identity(os.geteuid(), environ, (root.st_dev, root.st_ino), *view)
        name = runtime + b"/" + wire.socket_name(identity)
        place = Place(name, wire.state_stem(name, runtime), runtime)
    # A path needs its closing NUL, an abstract name has its own at the front.
    longest = wire.SUN_PATH_BYTES if place.address.startswith(b"\0") else wire.SUN_PATH_BYTES - 1
    return place if len(place.address) <= longest else None


def _inode(path: str) -> int:
    try:
        return os.stat(path).st_ino
    except OSError:
        return 0


def clear_of_stdio(fd: int) -> int:
    """The descriptor, moved to 3 or above: what the caller left closed stays closed for the compiler."""
    if fd > 2:
        return fd
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    os.close(fd)
    return moved


def dial(place: Place) -> socket.socket:
    """A connected, nonblocking socket.

    Raises OSError; an errno in NOBODY means that no server is there.
    """
    fresh = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection = socket.socket(fileno=clear_of_stdio(fresh.detach()))
    try:
        connection.setblocking(False)
        give_up = time.monotonic() + DIAL_S
        # EAGAIN: the backlog is full; a blocking connect would wait without end.
        while (error := connection.connect_ex(place.address)) == errno.EAGAIN and time.monotonic() < give_up:
            time.sleep(0.005)
        if error:
            raise OSError(error, os.strerror(error))
        # We send our whole environment: only to a server of our own user.
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        if struct.unpack("3i", credentials)[1] != os.geteuid():
            raise PermissionError(errno.EPERM, "another user's server")
    except OSError:
        connection.close()
        raise
    return connection


def _failed_lately(place: Place) -> bool:
    try:
        age = time.time() - os.stat(place.beside(b".failed")).st_mtime
    except OSError:
        return False
    return -1 <= age < FAILED_S  # a stamp from the future says nothing


def stamp_failure(place: Place) -> None:
    """Keep everybody from starting a server for the next FAILED_S seconds."""
    _write_beside(place, b".failed", b"")


def _write_beside(place: Place, suffix: bytes, data: bytes) -> None:
    """Append to a file of ours beside the socket and renew its time; a failure is not worth a word."""
    if not place.is_safe():
        return
    try:
        fd = _open_ours(place.beside(suffix), os.O_WRONLY | os.O_APPEND)
        try:
            os.write(fd, data)
            os.utime(fd)
        finally:
            os.close(fd)
    except OSError:
        pass


def _open_ours(file: bytes, mode: int) -> int:
    # Nonblocking: what lies there might be a FIFO.
    flags = os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    return clear_of_stdio(os.open(file, mode | flags, 0o600))


def note_uncounted(place: Place) -> None:
    """Leave a mark that a compile went by without a server."""
    _write_beside(place, b".uncounted", b"+")


def _without_callers_code(environ: Environment) -> dict[bytes, bytes]:
    """For the server: not the libraries and Python modules of whoever comes first (CVE-2023-1521).

    LD_LIBRARY_PATH stays, for some Pythons need it to start; the server forgets it then.
    """
    clean = {n: v for n, v in environ.items() if n not in (b"LD_PRELOAD", b"LD_AUDIT") and not n.startswith(b"PYTHON")}
    # Paths are bytes, whatever the first caller's locale makes of them.
    return {**clean, b"PYTHONUTF8": b"1"}


def _exec_server(program: bytes, place: Place, native: bytes, ready: int, environ: Environment) -> NoReturn:
    """In the new process: nothing of the caller's may live on in a daemon."""
    try:
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_DFL)
        null = os.open("/dev/null", os.O_RDWR)
        # `ready` may be 3 itself, which dup2 would leave close-on-exec.
        high = fcntl.fcntl(ready, fcntl.F_DUPFD_CLOEXEC, _READY_FD + 1)
        for fd in range(3):
            os.dup2(null, fd)
            os.set_inheritable(fd, True)  # dup2 of 0 to 0 does nothing
        os.dup2(high, _READY_FD, inheritable=True)
        os.closerange(_READY_FD + 1, min(resource.getrlimit(resource.RLIMIT_NOFILE)[0] % (1 << 64), 1 << 20))
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        argv = [program, b"--socket", place.name, b"--native", native, b"--ready-fd", b"%d" % _READY_FD]
        os.execve(program, argv, _without_callers_code(environ))
    finally:
        os._exit(127)


def _start(program: bytes, place: Place, native: bytes, environ: Environment) -> bool:
    """Whether the server said that it listens."""
    if not os.access(program, os.X_OK):
        return False
    ready, announce = (clear_of_stdio(fd) for fd in os.pipe())
    child = os.fork()
    if child == 0:
        # Not ours to wait for, and in no session of the caller's.
        os.setsid()
        if os.fork() == 0:
            _exec_server(program, place, native, announce, environ)
        os._exit(0)
    os.close(announce)
    try:
        os.waitpid(child, 0)
    except ChildProcessError:
        pass  # the caller ignores SIGCHLD
    try:
        poll = select.poll()  # select() knows no descriptors of 1024 and above, and a caller may have many open
        poll.register(ready, select.POLLIN)
        return bool(poll.poll(READY_S * 1000) and os.read(ready, 1))
    finally:
        os.close(ready)


def start_and_dial(place: Place, program: bytes, native: bytes, environ: Environment) -> socket.socket | None:
    """Start a server, or wait for the one that another client is starting, and connect to it.

    `program` is the server's, `native` the folder with the program that it calls for --child.  None: do
    without; a start failed within the last FAILED_S seconds, fails now, or takes others longer than OTHERS_S.
    """
    if not place.is_safe(create=True) or _failed_lately(place):
        return None
    try:
        lock = _open_ours(place.beside(b".lock"), os.O_RDWR)
    except OSError:
        return None
    try:
        give_up = time.monotonic() + OTHERS_S
        while not _is_ours(lock):
            # Someone else holds it: that ends in a server, in a stamp, or (killed) in a free lock.
            time.sleep(OTHERS_STEP_S)
            if (connection := _dial_or_none(place)) is not None:
                return connection
            if time.monotonic() > give_up or _failed_lately(place):
                return None
        try:
            return dial(place)
        except OSError as e:
            if e.errno not in NOBODY or _failed_lately(place):
                return None
        if _start(program, place, native, environ):
            return _dial_or_none(place)
        stamp_failure(place)
        return None
    finally:
        os.close(lock)


def _is_ours(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass  # no locks here: of two servers the one that took the name last stays
    return True


def _dial_or_none(place: Place) -> socket.socket | None:
    try:
        return dial(place)
    except OSError:
        return None
