"""Compile the two native programs: the client `sccache-py` and the preload library `libsccache-observe.so`.

setup.py, the tests' `native` fixture and `make native` all come here, so that what is tested is what is
installed.  Standard library only.  This folder is not a package (a package named `packaging` would hide the
one that pytest and setuptools import): load this file by its path.

By hand: python packaging/native_build.py DIRECTORY
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

CLIENT = "sccache-py"
OBSERVER = "libsccache-observe.so"

CFLAGS = ("-std=c11", "-O2")
OBSERVER_FLAGS = ("-fPIC", "-shared", "-fvisibility=hidden")

COMPILE_TIMEOUT_S = 300
RUN_TIMEOUT_S = 10


class NativeBuildError(Exception):
    """No C compiler, or none that makes a program that runs.  The text has the compiler's own words."""


@dataclass(frozen=True)
class Native:
    """What was built: two paths, and how the client was linked (`musl-gcc -static`, say)."""

    client: Path
    observe: Path | None  # None: it did not compile; the server then asks compilers for their own lists
    linked_by: str


def version(root: Path) -> str:
    """`sccache_py.__version__`, letter by letter: client and server compare theirs."""
    text = (root / "sccache_py" / "__init__.py").read_text()
    found = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    if found is None:
        raise NativeBuildError("sccache_py/__init__.py has no line __version__ = ...")
    return found[1]


def sources(root: Path) -> tuple[list[Path], list[Path]]:
    """The client's C files and the library's."""
    files = sorted((root / "client" / "native").glob("*.c"))
    observer = [f for f in files if f.name.startswith("observe")]
    return [f for f in files if f not in observer], observer


def build(root: Path, into: Path, environ: Mapping[str, str] = os.environ) -> Native:
    """Compile both programs from `root`'s sources into the directory `into`.

    Raises NativeBuildError if there is no client in the end.  A library that does not compile is only
    reported on stderr: the cache works without it, with less precision.
    """
    client_sources, observer_sources = sources(root)
    client = into / CLIENT
    linked_by = _build_client(client_sources, client, version(root), environ)
    observe: Path | None = into / OBSERVER
    try:
        command = [*_compiler(environ), *CFLAGS, *OBSERVER_FLAGS]
        _compile(command, observer_sources, into / OBSERVER, ["-ldl"], environ)
    except NativeBuildError as e:
        print(f"sccache-py: built without {OBSERVER}: {e}", file=sys.stderr)
        observe = None
    return Native(client, observe, linked_by)


def _build_client(files: list[Path], client: Path, version: str, environ: Mapping[str, str]) -> str:
    complaints = []
    for command in _client_compilers(environ):
        try:
            _compile([*command, *CFLAGS, f'-DSCCACHE_VERSION="{version}"'], files, client, [], environ)
            _run(client, environ)
        except NativeBuildError as e:
            complaints.append(str(e))
        else:
            return shlex.join(command)
    raise NativeBuildError("\n".join(dict.fromkeys(complaints)))  # static or not, a missing compiler says the same


def _compiler(environ: Mapping[str, str]) -> list[str]:
    return shlex.split(environ.get("CC", "")) or ["cc"]


def _client_compilers(environ: Mapping[str, str]) -> Iterator[list[str]]:
    """Fastest program first: a round trip takes 0.3 ms (static, musl), 0.5 (static, glibc), 0.8 (dynamic)."""
    if not environ.get("CC"):  # who names a compiler means that one
        yield ["musl-gcc", "-static"]
    yield [*_compiler(environ), "-static"]
    yield _compiler(environ)


def _compile(command: list[str], files: list[Path], output: Path, libraries: list[str], environ: Mapping[str, str]) -> None:
    if not files:
        raise NativeBuildError(f"no sources for {output.name}")
    line = [*command, *map(str, files), "-o", str(output), *libraries]
    try:
        done = subprocess.run(
            line,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=COMPILE_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as e:
        raise NativeBuildError(f"{command[0]}: {e}") from e
    if done.returncode:
        raise NativeBuildError(f"{shlex.join(line)}:\n{done.stderr}")


def _run(program: Path, environ: Mapping[str, str]) -> None:
    """A program can link and yet not run: another machine's compiler, a C library that is not installed."""
    try:
        done = subprocess.run(
            [program, "--version"],
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=RUN_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as e:
        raise NativeBuildError(f"{program}: {e}") from e
    if done.returncode:
        raise NativeBuildError(f"{program} --version: status {done.returncode}\n{done.stderr!r}")


def main() -> int:
    """Build into the directory named on the command line, and say what came of it."""
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    into = Path(sys.argv[1])
    into.mkdir(parents=True, exist_ok=True)
    try:
        native = build(Path(__file__).resolve().parent.parent, into)
    except NativeBuildError as e:
        print(f"sccache-py: {e}", file=sys.stderr)
        return 1
    print(f"{native.client} ({native.linked_by})")
    if native.observe is not None:
        print(native.observe)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
