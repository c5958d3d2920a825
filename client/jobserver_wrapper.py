"""`sccache-py --jobserver -- CMD…`: a whole build inside the server's pool of job tokens.

The build gets a jobserver whose other end the server holds (docs/protocol.md, section 2, LEASE): a FIFO where its make
understands that, a pair of pipes otherwise.  We hold the connection for as long as the build runs; when we are gone, however,
the server has its tokens back.  If we are killed the build gets SIGTERM, since its tokens are then another's.  If the server is
killed, we play the jobserver for the rest of the build.

Without a server the command runs as it is: the cache is never why a build fails.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import re
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from sccache_py import __version__, makeflags
from sccache_py.client.become import become, cannot_become, die_by
from sccache_py.client.place import Place
from sccache_py.client.silence import Silence
from sccache_py.codec import pack, unpack
from sccache_py.errors import FormatError
from sccache_py.wire import PROTOCOL, Decoder, Kind, ProtocolError, encode_frame

FORWARDED = (signal.SIGTERM, signal.SIGHUP)
# The terminal sends these to the whole group: the build decides what they mean, and we go when it has gone.
LEFT_TO_THE_BUILD = (signal.SIGINT, signal.SIGQUIT)

LOWEST_FD = 11  # descriptors below belong to scripts; make and gcc want them below 1024
PR_SET_PDEATHSIG = 1

MAKES = re.compile(r"(g|gnu)?make")
NINJAS = re.compile(r"ninja(-build)?|samu")


class Lease(NamedTuple):
    """What the server gave."""

    connection: socket.socket
    name: str
    size: int
    fifo: str | None
    child_r: int
    child_w: int
    far_w: int  # of a FIFO, too
    far_r: int  # -1: what is given back lies where it was taken


def style_for(command: Sequence[str], environ: Mapping[str, str], wish: str | None) -> str:
    """`fifo`, `pair` or `pipe` (server/running/channels.py): what all the tools of this build are likely to understand.

    A FIFO's name is fatal to make before 4.4, and a build may run make anywhere; inherited descriptors are understood by
    every make, by cargo, by gcc and by PyPI's ninja.  Plain ninja 1.13 reads FIFOs only, and says so.
    """
    name = os.path.basename(command[0])
    if wish is None:
        make = command[0] if MAKES.fullmatch(name) else "make"
        features = _said_by([make, "-s", "-f", "-", "-n"], environ, "$(info $(.FEATURES))\nall:;\n")
        if "jobserver-fifo" in features.split():
            wish = "fifo"
    if wish == "fifo":
        return wish
    if name == "cmake":
        return "pipe" if any(os.path.exists(os.path.join(word, "build.ninja")) for word in command[1:]) else "pair"
    return "pipe" if NINJAS.fullmatch(name) else "pair"


def _said_by(command: Sequence[str], environ: Mapping[str, str], asked: str = "") -> str:
    env = makeflags.without_jobserver(environ)
    try:
        done = subprocess.run(command, input=asked, capture_output=True, text=True, errors="replace", env=env, timeout=5)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout


def without_jobs(command: Sequence[str]) -> list[str]:
    """A make's or ninja's command without its own `-j`, which would put the pool aside ("resetting jobserver mode")."""
    name = os.path.basename(command[0])
    if not (MAKES.fullmatch(name) or NINJAS.fullmatch(name)):
        return list(command)
    kept, words = [command[0]], iter(command[1:])
    number = None
    for word in words:
        if word == "--":
            return [*kept, word, *words]
        if number is not None and word.isdecimal():
            number = None
            continue
        number = None
        if word in ("-j", "--jobs"):
            number = word  # the number may be the next word
        elif not re.fullmatch(r"-j\d+|--jobs=\d+", word):
            kept.append(word)
    return kept


def ask(place: Place, connection: socket.socket, style: str, command: Sequence[str]) -> Lease | None:
    """Wait for the lease, as long as it takes for a token to be free.  None: a server of another version; it leaves.

    Raises OSError, ProtocolError, FormatError.
    """
    arguments = {"style": style, "command": [os.fsencode(w) for w in command], "cwd": os.fsencode(os.getcwd())}
    connection.setblocking(True)
    connection.sendall(encode_frame(Kind.LEASE, pack([PROTOCOL, __version__, arguments])))
    decoder, descriptors = Decoder(), []
    silence, poll = Silence(place, connection), select.poll()
    poll.register(connection, select.POLLIN)
    while (frame := decoder.next_frame()) is None or frame[0] is Kind.ALIVE:
        if frame is not None:
            continue
        if not poll.poll(silence.wait_s * 1000):
            if not silence.still_hopes():
                raise ProtocolError("it does not answer")
            continue
        silence.heard()
        data, fds, _, _ = socket.recv_fds(connection, 1 << 16, 4)
        descriptors += fds
        if not data:
            raise ProtocolError("it closed the connection")
        decoder.feed(data)
    kind, payload = frame
    if kind is Kind.LEAVING:
        return None
    answer: Any = unpack(payload)
    if kind is not Kind.LEASED or not isinstance(answer, dict) or len(descriptors) not in ((0,) if "fifo" in answer else (3, 4)):
        raise ProtocolError(f"a {kind.name} that makes no sense")
    ends = ([_moved(fd) for fd in descriptors] + [-1] * 4)[:4]
    fifo = os.fsdecode(answer["fifo"]) if "fifo" in answer else None
    if fifo is not None:
        ends[2] = _held(fifo)
    return Lease(connection, str(answer["lease"]), int(answer["size"]), fifo, *ends)


def _held(fifo: str) -> int:
    """Open until we end, and locked, so that no later server sweeps what the build still goes by (server/jobs/leases.py)."""
    fd = os.open(fifo, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    with contextlib.suppress(OSError):  # where there are no locks nobody sweeps
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    return fd


def _moved(fd: int) -> int:
    low = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, LOWEST_FD)
    os.close(fd)
    return low


def environment(lease: Lease, environ: Mapping[str, str]) -> dict[str, str]:
    auth = f"fifo:{lease.fifo}" if lease.fifo is not None else f"{lease.child_r},{lease.child_w}"
    env = makeflags.for_build(environ, lease.size, auth)
    env[makeflags.LEASE_VARIABLE] = lease.name
    return env


def run(lease: Lease, command: Sequence[str], environ: Mapping[str, str]) -> NoReturn:
    """The build, to its end; and ours, which is like it."""
    for number in (*FORWARDED, *LEFT_TO_THE_BUILD):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_: None)  # until there is a child; exec undoes it
    # Where it is ignored the kernel reaps the build, and its exit status is gone.
    on_child = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    libc = ctypes.CDLL(None)
    ourselves = os.getpid()

    def in_the_child() -> None:
        signal.signal(signal.SIGCHLD, on_child)
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != ourselves:
            os._exit(128 + signal.SIGTERM)

    for fd in (lease.child_r, lease.child_w) if lease.fifo is None else ():
        os.set_inheritable(fd, True)
    try:
        # What the caller opened is the build's, too (`exec 3>log`); all that is ours is closed on exec.
        child = subprocess.Popen(command, env=environment(lease, environ), close_fds=False, preexec_fn=in_the_child)
    except OSError as e:
        cannot_become(command[0], e.errno or 0)
    for number in FORWARDED:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda n, _: child.send_signal(n))
    pidfd = os.pidfd_open(child.pid)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(lease.connection, select.POLLIN)
    while all(fd != pidfd for fd, _ in poll.poll()):
        if _has_ended(lease.connection):
            # The server is gone.  What its build holds it may keep, and more it gets from us.
            poll.unregister(lease.connection)
            lease.connection.close()
            _stand_in(lease, pidfd)
            break
    status = child.wait()
    _remove(lease.fifo)  # the server would do it a moment later, if it lives
    if status < 0:
        die_by(-status)
    os._exit(status)


def _has_ended(connection: socket.socket) -> bool:
    try:
        return connection.recv(1 << 12, socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def _stand_in(lease: Lease, pidfd: int) -> None:
    """Play the jobserver until the build ends: what comes back goes out again."""
    tokens = lease.size - 1  # it runs one job without
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    if lease.far_r < 0:
        os.write(lease.far_w, b"+" * tokens)
        poll.poll()
        return
    poll.register(lease.far_r, select.POLLIN)
    while True:
        poll.register(lease.far_w, select.POLLOUT if tokens else 0)
        ready = {fd: event for fd, event in poll.poll() if event & (select.POLLIN | select.POLLOUT)}
        if pidfd in ready:
            return
        try:
            if lease.far_w in ready:
                tokens -= os.write(lease.far_w, b"+" * tokens)
            if lease.far_r in ready:
                tokens += len(os.read(lease.far_r, 4096))
        except BlockingIOError:
            pass


def _remove(fifo: str | None) -> None:
    if fifo is not None:
        for remove, path in ((os.unlink, fifo), (os.rmdir, os.path.dirname(fifo))):
            try:
                remove(path)
            except OSError:
                pass  # swept by the next server


def main(
    words: Sequence[str], style: str | None, connect: Callable[[], tuple[Place, socket.socket] | None], environ: Mapping[bytes, bytes]
) -> NoReturn:
    """words: the command.  style: `fifo`, `pipe`, or None: find out.  connect: a fresh connection to a server at its place, or None."""
    env = {os.fsdecode(name): os.fsdecode(value) for name, value in environ.items()}
    inside = makeflags.LEASE_VARIABLE in env and "--jobserver-auth" in env.get("MAKEFLAGS", "")
    if inside:
        words = without_jobs(words)
    else:
        style = style_for(words, env, style)
        for _ in range(2):
            connection = connect()
            try:
                lease = ask(*connection, style, words) if connection is not None else None
            except (OSError, ProtocolError, FormatError):
                lease = None
                break
            if lease is not None:
                run(lease, without_jobs(words), env)
            time.sleep(0.02)  # another version's server makes room
        os.write(2, b"sccache-py: no server: this build has no shared jobserver\n")
    from shutil import which

    program = words[0] if "/" in words[0] else which(words[0], path=env.get("PATH"))
    if program is None:
        cannot_become(words[0], 2)
    become(program, words, environ)
