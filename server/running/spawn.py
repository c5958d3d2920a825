"""Start one compiler.

It goes through the native program's `--child` mode (docs/protocol.md, section 3), which enters the caller's directory, applies its umask,
limits, niceness, affinity and signal masks and then execs: all that would take a fork of the whole server (4-8 ms).  posix_spawn(3) starts
it in half of subprocess's time (0.16 ms, not 0.30), for it closes nothing: whatever the server has open is closed by an exec, but for what
is lent here.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sccache_py.model import Request
from sccache_py.server.running.held import held


@dataclass(frozen=True, slots=True)
class Command:
    """What is executed, and how."""

    program: str
    argv: Sequence[str]  # argv[0] included
    cwd: str
    env: Mapping[str, str]
    inherit: tuple[int, ...]  # descriptors that the compiler keeps under their numbers
    caller: Request
    stdin: bytes | None = None  # None: /dev/null


class SpawnError(Exception):
    """The process could not be started; nothing ran."""


def spawn(native: str | None, command: Command, out: int, err: int) -> int:
    """The number of a process, and of its new group, that the caller must reap.  For the event loop's thread.

    native: the program with the `--child` mode; without it the caller's umask alone is applied.  Raises SpawnError.
    """
    try:
        source = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC) if command.stdin is None else _input(command.stdin)
    except OSError as e:
        raise SpawnError(str(e)) from e
    try:
        if native is None:
            return _by_subprocess(command.program, command.argv, command, command.caller.umask, (source, out, err))
        try:
            return _by_posix_spawn(native, command, (source, out, err))
        except ValueError:  # a variable without a name
            return _by_subprocess(native, _by_child(native, command), command, -1, (source, out, err))
    except (OSError, ValueError, subprocess.SubprocessError) as e:
        raise SpawnError(str(e)) from e
    finally:
        os.close(source)


def _by_posix_spawn(native: str, command: Command, streams: tuple[int, int, int]) -> int:
    directory = os.open(command.cwd, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if not os.access(command.cwd, os.X_OK):
            raise PermissionError(command.cwd)
        # Not by file actions: before 2.29 glibc left a descriptor that becomes itself closed on exec.
        for fd in (directory, *command.inherit):
            os.set_inheritable(fd, True)
        return os.posix_spawn(
            native,
            _by_child(native, command, f"cwd={directory};"),
            dict(command.env),
            file_actions=[(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(streams)],
            setpgroup=0,
        )
    finally:
        os.close(directory)
        for fd in command.inherit:
            os.set_inheritable(fd, False)


def _by_subprocess(program: str, argv: Sequence[str], command: Command, umask: int, streams: tuple[int, int, int]) -> int:
    source, out, err = streams
    child = subprocess.Popen(
        argv,
        executable=program,
        cwd=command.cwd,
        env=dict(command.env),
        stdin=source,
        stdout=out,
        stderr=err,
        pass_fds=command.inherit,
        process_group=0,
        umask=umask,
    )
    child.returncode = 0  # so that it does not wait for what we reap
    return child.pid


def _by_child(native: str, command: Command, more: str = "") -> list[str]:
    return [native, "--child", more + child_spec(command.caller), command.program, *command.argv]


def child_spec(caller: Request) -> str:
    """The SPEC of `--child` (docs/protocol.md, section 3), less the directory."""
    items = [f"umask={caller.umask:o}", f"nice={caller.nice}"]
    items += [f"limit={resource}:{soft}:{hard}" for resource, soft, hard in caller.limits]
    items += [f"cpus={caller.affinity.hex()}", f"block={caller.blocked:x}", f"ignore={caller.ignored:x}"]
    return ";".join(items)


def _input(data: bytes) -> int:
    """A descriptor from which `data` can be read."""
    fd = held(data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
