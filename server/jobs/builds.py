"""Which build a call belongs to: the topmost build tool above the client, through the shells and scripts in between.

`make` runs `sh`, which runs `make`, which runs `cargo`, which runs us: all that is one build, and takes turns as one.  An editor
that runs `cargo check` is no build tool: each check is a build of its own, and never waits behind the queue of a big one.  The
way up ends with the session.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

_SHELLS = re.compile(r"(ba|da|k|z|a|mk|fi|tc|c)?sh|busybox|env|nice|time|timeout|ccache|sccache(-py.*)?|libtool")
_TOOLS = re.compile(r"g?make|n(inja|inja-build)?|samu|cargo|cmake|ctest|bazel|buck2?|meson|scons|waf|xmake|tup|redo|just|rustc")

# Nobody nests builds deeper, and a loop in what /proc says must end.
_DEEPEST = 32


class Build(NamedTuple):
    key: str  # the same for all calls of one build
    name: str  # for people: "cargo 4711"


class _Process(NamedTuple):
    name: str
    parent: int
    session: int
    started: str  # numbers of processes are used again; with this they are not


def _look(pid: int) -> _Process | None:
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            front, _, back = os.read(fd, 1024).decode("utf-8", "replace").rpartition(")")
        finally:
            os.close(fd)
        fields = back.split(None, 20)
        return _Process(front.partition("(")[2], int(fields[1]), int(fields[3]), fields[19])
    except (OSError, IndexError, ValueError):
        return None


# What was found for a caller.  Who is above it may change (a shell that goes away), the build that it works for does not.
_found: dict[tuple[int, str], Build] = {}
_MOST_FOUND = 1000


def build_of(client: int) -> Build:
    """`client` is the process that called us.  Costs some 10 µs for each process on the way, for a known caller two of them."""
    first = _look(client)
    if first is None:
        return Build("", "?")
    above = _look(first.parent) if first.parent > 1 else None
    caller = (first.parent, above.started if above is not None else "")
    build = _found.get(caller)
    if build is None:
        if len(_found) >= _MOST_FOUND:
            _found.clear()
        build = _found[caller] = _walk(first.parent)
    return build


def _walk(pid: int) -> Build:
    tool: tuple[int, _Process] | None = None
    other: tuple[int, _Process] | None = None  # where there is no tool: the caller, or the topmost of a chain of shells
    in_shells = True
    session = 0
    for _ in range(_DEEPEST):
        process = _look(pid) if pid > 1 else None
        # A session is begun by whoever wants to stand apart: a terminal, a job of a CI runner, a service.
        if process is None or (session and process.session != session):
            break
        session = process.session
        if _TOOLS.fullmatch(process.name):
            tool = pid, process
        elif tool is None:
            # A tool may run us by way of a script of its own.
            is_shell = _SHELLS.fullmatch(process.name) is not None
            if other is None or (in_shells and is_shell):
                other = pid, process
            in_shells = in_shells and is_shell
        elif not _SHELLS.fullmatch(process.name):
            break
        pid = process.parent
    found = tool or other
    if found is None:
        return Build("", "?")
    pid, process = found
    return Build(f"{pid}:{process.started}", f"{process.name} {pid}")
