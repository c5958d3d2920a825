"""A compiler as the server knows it: what is executed, which driver reads its command lines, and what its identity stands for."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from sccache_py.compilers.driver import Driver
from sccache_py.elf import Image
from sccache_py.model import Request
from sccache_py.server.filesystem.files import NEVER
from sccache_py.server.filesystem.mounts import DEVICES
from sccache_py.server.filesystem.sight import Sight
from sccache_py.server.filesystem.stamps import Stamp, stamp_of
from sccache_py.server.running.held import held
from sccache_py.server.running.observer import image_of

_PROBE_TIMEOUT_S = 20.0

# Of an identity nothing may be missing because memory, processes or descriptors were short when it was asked for.
_FOR_THE_MOMENT = (errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM)

# `libLLVM.so.14 => /lib/libLLVM.so.14 (0x…)`, as ld.so lists it.
_LIBRARY = re.compile(r"=> (/\S+)")

# Stats of a whole toolchain, where it cannot be watched, take some 100 µs; in a burst of requests they are good for this long.  Which
# toolchain it is, a link or a setting away, is looked at every time.
_RECHECK_S = 0.010

# What ldconfig(8) writes: which library of a name a program is given.
LOADERS_CACHE = "/etc/ld.so.cache"

Stamps = list[tuple[str, Stamp | None]]
Absent = list[tuple[str, list[str]]]  # directory, names that are not in it


class Steady(NamedTuple):
    """All was as it should be; what lies in watched places is as long as none of them changes."""

    dropped: int  # Watcher.dropped and Watcher.added at that time
    added: int
    stamps: Stamps  # of what is not watched
    absent: Absent


@dataclass(slots=True)
class Compiler:
    program: str  # what is executed
    driver: Driver
    identity: bytes
    covered: tuple[str, ...]  # what the identity stands for: directories (ending in /) and files
    image: Image
    is_script: bool  # or another wrapper, of which only observation knows what it reads
    cwd_matters: bool
    place: str = ""  # of what it reads and the identity does not stand for, if its copies elsewhere share results: told by role
    stamps: Stamps = field(default_factory=list)
    absent: Absent = field(default_factory=list)  # programs that would be found first
    choosing: int = 1  # so many of the stamps, the first, say which toolchain is meant
    checked_at: float = 0.0
    _steady: Steady | None = None

    def still_is(self, sight: Sight) -> bool:
        steady = self._steady
        if steady is not None and steady.dropped == sight.dropped != NEVER and (steady.added == sight.added or not steady.stamps):
            return _are(steady.stamps, steady.absent, sight)
        now = time.monotonic()
        if now - self.checked_at < _RECHECK_S:
            return _are(self.stamps[: self.choosing], [], sight)
        if not _are(self.stamps, self.absent, sight):
            return False
        self.checked_at = now
        if sight.can_note():
            stamps = [(path, then) for path, then in self.stamps if not sight.is_watched(path)]
            absent = [(directory, names) for directory, names in self.absent if not sight.is_watched(directory)]
            self._steady = Steady(sight.dropped, sight.added, stamps, absent)
        return True

    def is_unchanged(self) -> bool:
        """By the files themselves, each of them."""
        first = (os.path.join(directory, name) for directory, names in self.absent for name in names)
        return all_are(self.stamps) and not any(map(os.path.lexists, first))


def stamp(path: str) -> Stamp | None:
    """A path that ends in "/" stands for which directory that is, not for what is in it."""
    try:
        st = os.stat(path)
        return (DEVICES[st.st_dev], st.st_ino, 0, 0, 0) if path.endswith("/") else stamp_of(st)
    except OSError:
        return None


def _are(stamps: Stamps, absent: Absent, sight: Sight) -> bool:
    """By what is watched, and stats of the rest."""
    found = all((stamp(path) if path.endswith("/") else sight.stamp(path)) == then for path, then in stamps)
    return found and all(sight.lacks(directory, names, True) for directory, names in absent)


def all_are(stamps: Stamps) -> bool:
    return all(stamp(path) == then for path, then in stamps)


def ask(request: Request, program: str, words: list[str], env: Mapping[str, str] | None = None) -> str:
    """What a program prints in the caller's environment and directory; nothing if it fails.

    Raises OSError, subprocess.SubprocessError: it was not answered, or was killed; what it would have said is not known.
    """
    said = held(b"")  # the end of a pipe would be that of whatever the program leaves running, too
    try:
        answer = subprocess.run(
            [request.argv[0] if program == os.path.join(request.cwd, request.program) else program, *words],
            executable=program,
            cwd=request.cwd,
            env=request.env if env is None else env,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.DEVNULL,
            timeout=_PROBE_TIMEOUT_S,
            umask=request.umask,  # a wrapper may keep a log; ours is 0
            check=False,
        )
        if -answer.returncode in _FROM_OUTSIDE:
            answer.check_returncode()
        return os.fsdecode(os.pread(said, os.fstat(said).st_size, 0)).strip() if answer.returncode == 0 else ""
    finally:
        os.close(said)


def startup_libraries(request: Request, program: str) -> list[str]:
    """What ld.so would load for a program here (its `--list`), itself included, as it names them; none for a script or a static program.

    Raises OSError, subprocess.SubprocessError where that cannot be said now.
    """
    image = image_of(program)
    if not image.interpreter:
        return []
    try:
        listed = ask(request, image.interpreter, ["--list", program])
    except OSError as e:
        if e.errno in _FOR_THE_MOMENT:
            raise
        return []  # another machine's
    return [image.interpreter, *_LIBRARY.findall(listed)] if listed else []
