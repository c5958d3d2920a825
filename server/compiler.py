"""A compiler as the server knows it: what is executed, which driver reads its command lines, and what its identity stands for."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from sccache_py.compilers.driver import Driver
from sccache_py.elf import Image
from sccache_py.model import Request
from sccache_py.server.files import Stamp, stamp_of
from sccache_py.server.observer import image_of

_PROBE_TIMEOUT_S = 20.0

# `libLLVM.so.14 => /lib/libLLVM.so.14 (0x…)`, as ld.so lists it.
_LIBRARY = re.compile(r"=> (/\S+)")

# Stats of a whole toolchain take some 100 µs; in a burst of requests they are good for this long.  Which toolchain it is, a link or a
# setting away, is looked at every time.
_RECHECK_S = 0.010

Stamps = list[tuple[str, Stamp | None]]


@dataclass(slots=True)
class Compiler:
    program: str  # what is executed
    driver: Driver
    identity: bytes
    covered: tuple[str, ...]  # what the identity stands for: directories (ending in /) and files
    image: Image
    is_script: bool
    cwd_matters: bool
    stamps: Stamps = field(default_factory=list)
    choosing: int = 1  # so many of the stamps, the first, say which toolchain is meant
    checked_at: float = 0.0

    def still_is(self) -> bool:
        now = time.monotonic()
        if now - self.checked_at < _RECHECK_S:
            return all_are(self.stamps[: self.choosing])
        if not all_are(self.stamps):
            return False
        self.checked_at = now
        return True


def stamp(path: str) -> Stamp | None:
    """A path that ends in "/" stands for which directory that is, not for what is in it."""
    try:
        st = os.stat(path)
        return (st.st_dev, st.st_ino, 0, 0, 0) if path.endswith("/") else stamp_of(st)
    except OSError:
        return None


def all_are(stamps: Stamps) -> bool:
    return all(stamp(path) == then for path, then in stamps)


def ask(request: Request, program: str, words: list[str], env: Mapping[str, str] | None = None) -> str:
    """What a program prints in the caller's environment and directory; nothing if it fails."""
    answer = subprocess.run(
        [request.argv[0] if program == os.path.join(request.cwd, request.program) else program, *words],
        executable=program,
        cwd=request.cwd,
        env=request.env if env is None else env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_PROBE_TIMEOUT_S,
        check=False,
    )
    return os.fsdecode(answer.stdout).strip() if answer.returncode == 0 else ""


def startup_libraries(request: Request, program: str) -> list[str]:
    """What ld.so would load for a program here (its `--list`), itself included, as it names them; none for a script or a static program."""
    image = image_of(program)
    if not image.interpreter:
        return []
    try:
        listed = ask(request, image.interpreter, ["--list", program])
    except (OSError, subprocess.SubprocessError):
        return []
    return [image.interpreter, *_LIBRARY.findall(listed)] if listed else []
