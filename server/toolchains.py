"""Which compiler is this, really?  From the program that the caller named to an identity that goes into every key.

For rustc the real binary is the one in the sysroot that the program would use *here*: a rustup proxy chooses by RUSTUP_TOOLCHAIN, by
rust-toolchain files above the cwd and by its settings.  The identity is the digest of that binary and of every file below the
sysroot's lib/: the driver library, LLVM, the
standard library, the linker.  It is remembered with the stat of each of these, so that a request costs stats and no process.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass, field

from sccache_py.compilers.driver import Driver
from sccache_py.compilers.rustc import Rustc
from sccache_py.elf import Image
from sccache_py.keys import KeyHash
from sccache_py.model import Reason, Request
from sccache_py.server.files import FileMemo, Sight, Stamp, stamp_of
from sccache_py.server.observer import image_of

log = logging.getLogger(__name__)

_PROBE_TIMEOUT_S = 20.0

# Stats of a whole toolchain take some 100 µs; in a burst of requests they are good for this long.
_RECHECK_S = 0.010

_RUST_NAMES = re.compile(r"rustc|clippy-driver")
_TOOLCHAIN_FILES = ("rust-toolchain", "rust-toolchain.toml")


@dataclass(slots=True)
class Compiler:
    program: str  # what is executed
    driver: Driver
    identity: bytes
    covered: tuple[str, ...]  # what the identity stands for: directories (ending in /) and files
    image: Image
    is_script: bool
    cwd_matters: bool
    stamps: list[tuple[str, Stamp | None]] = field(default_factory=list)
    checked_at: float = 0.0

    def still_is(self) -> bool:
        now = time.monotonic()
        if now - self.checked_at < _RECHECK_S:
            return True
        if any(_stamp(path) != stamp for path, stamp in self.stamps):
            return False
        self.checked_at = now
        return True


def _stamp(path: str) -> Stamp | None:
    try:
        return stamp_of(os.stat(path))
    except OSError:
        return None


class Toolchains:
    def __init__(self, memo: FileMemo, threads: Executor) -> None:
        self._memo = memo
        self._threads = threads
        self._known: dict[tuple[str | None, ...], Compiler | Reason] = {}
        self._under_way: dict[tuple[str | None, ...], asyncio.Future[Compiler | Reason]] = {}

    def find_now(self, request: Request) -> Compiler | Reason | None:
        """What is known already; None: identify() must be awaited."""
        if not _RUST_NAMES.search(os.path.basename(request.program)):
            return Reason.UNSUPPORTED_COMPILER
        found = self._known.get(_key(request)) or self._known.get(_key_here(request))
        if isinstance(found, Compiler) and not found.still_is():
            return None
        return found

    async def identify(self, request: Request) -> Compiler | Reason:
        """Ask the compiler itself; equal questions at the same time are asked once."""
        key = _key_here(request)
        under_way = self._under_way.get(key)
        if under_way is None:
            under_way = asyncio.ensure_future(asyncio.get_running_loop().run_in_executor(self._threads, self._identify, request))
            self._under_way[key] = under_way
            under_way.add_done_callback(lambda _: self._under_way.pop(key, None))
        found = await asyncio.shield(under_way)
        if isinstance(found, Compiler):
            self._known[_key_here(request) if found.cwd_matters else _key(request)] = found
        return found

    def _identify(self, request: Request) -> Compiler | Reason:
        try:
            return _identify_rust(request, lambda: Sight(self._memo))
        except (OSError, subprocess.SubprocessError, ValueError) as e:
            log.warning("%s: not understood as a compiler: %s", request.program, e)
            return Reason.UNSUPPORTED_COMPILER


def _key(request: Request) -> tuple[str | None, ...]:
    """What the choice of a toolchain may depend on, wherever the caller stands."""
    env = request.env
    return (request.program, env.get("RUSTUP_TOOLCHAIN"), env.get("RUSTUP_HOME"), env.get("HOME"), env.get("LD_LIBRARY_PATH"))


def _key_here(request: Request) -> tuple[str | None, ...]:
    """The same for a program that looks around in the cwd: a rustup proxy without RUSTUP_TOOLCHAIN, a script, a relative path."""
    return (*_key(request), request.cwd)


def _identify_rust(request: Request, look: Callable[[], Sight]) -> Compiler | Reason:
    program = os.path.join(request.cwd, request.program)
    image = image_of(program)
    name = os.path.basename(program)
    sysroot = _ask(request, program, ["--rustc"] if "clippy" in name else [], "--print=sysroot")
    if not sysroot or not os.path.isdir(sysroot):
        return Reason.UNSUPPORTED_COMPILER

    real = program
    stamps: list[tuple[str, Stamp | None]] = [(program, _stamp(program))]
    if _is_rustup(program):
        real = os.path.join(sysroot, "bin", name)
        image = image_of(real)
        stamps += [(path, _stamp(path)) for path in _rustup_files(request)]
    interpreter = image_of(image.script) if image.script else image

    files = [real, *_files_below(os.path.join(sysroot, "lib"))]
    stamps += [(path, _stamp(path)) for path in files if path != program]
    stamps += [(path, _stamp(path)) for path in sorted({os.path.dirname(f) for f in files})]

    identity = KeyHash()
    sight = look()
    for path in files:
        digest = sight.hash_now(path)
        if digest is None:
            return Reason.UNSUPPORTED_COMPILER
        identity.field(os.path.relpath(path, sysroot) if path != real else name, digest)
    if any(_stamp(path) != stamp for path, stamp in stamps):
        return Reason.UNSUPPORTED_COMPILER  # it is being installed at this moment
    return Compiler(
        program=real,
        driver=Rustc(),
        identity=identity.key(),
        covered=(os.path.realpath(sysroot) + "/", sysroot + "/", os.path.realpath(real)),
        image=interpreter,
        is_script=bool(image.script),
        cwd_matters=bool(image.script)
        or not os.path.isabs(request.program)
        or (real != program and not request.env.get("RUSTUP_TOOLCHAIN")),
        stamps=stamps,
        checked_at=time.monotonic(),
    )


def _ask(request: Request, program: str, before: list[str], question: str) -> str:
    """What the compiler prints, in the caller's environment and directory."""
    answer = subprocess.run(
        [program, *before, question],
        cwd=request.cwd,
        env=request.env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_PROBE_TIMEOUT_S,
        check=False,
    )
    return os.fsdecode(answer.stdout).strip() if answer.returncode == 0 else ""


def _is_rustup(program: str) -> bool:
    """rustup's proxies are links, hard or symbolic, to the program that stands beside them as `rustup`."""
    if os.path.basename(os.path.realpath(program)).startswith("rustup"):
        return True
    try:
        return os.path.samefile(program, os.path.join(os.path.dirname(program), "rustup"))
    except OSError:
        return False


def _rustup_files(request: Request) -> Iterable[str]:
    """What a proxy's choice depends on, there or not (rustup's book, "Overrides")."""
    home = request.env.get("RUSTUP_HOME") or os.path.join(request.env.get("HOME", "/"), ".rustup")
    yield os.path.join(home, "settings.toml")
    directory = request.cwd
    while True:
        for name in _TOOLCHAIN_FILES:
            yield os.path.join(directory, name)
        parent = os.path.dirname(directory)
        if parent == directory:
            return
        directory = parent


def _files_below(directory: str) -> list[str]:
    found = []
    for place, _, names in os.walk(directory):
        found += [
            os.path.join(place, name) for name in names if name != "multirust-channel-manifest.toml" and not name.startswith("manifest-")
        ]
    return sorted(found)
