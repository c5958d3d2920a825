"""Paths by role, both ways.

A manifest must hold in another checkout and for another target directory, so it never says where a file was, only what
it was to the compile: `$out/libx.rmeta` (in the output directory), `$x3` (what the fourth --extern named), `$cwd/src/lib.rs`.
A path that has no role is told as it is, absolute.  Texts that show such paths (depfiles, cargo's artifact notices)
become templates, in which the directory is replaced by its role.

This module knows neither compilers nor files; it compares strings.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable

# A template is text in which 0x00 'role' 0x01 'encoding' 0x02 stands for a path, and 0x00 0x00 for a 0x00 of the text itself.
_MARK = re.compile(rb"\x00(?:\x00|([a-zA-Z0-9]+)\x01([rjm])\x02)")

# What may follow a directory's name where it is that directory and not another with a longer name.
_BOUNDARY = rb"(?=[/\"'`:;,\s\\)]|$)"


def _make_escape(path: bytes) -> bytes:
    return path.replace(b" ", b"\\ ")


def _json_escape(path: bytes) -> bytes:
    text = path.decode("utf-8", "replace")
    return json.dumps(text, ensure_ascii=False)[1:-1].encode()


def _raw(path: bytes) -> bytes:
    return path


_ENCODINGS: dict[bytes, Callable[[bytes], bytes]] = {b"r": _raw, b"j": _json_escape, b"m": _make_escape}


# How rustc 1.95 writes it (rustc_errors/src/json.rs, ArtifactNotification).
_NOTICE = b'{"$message_type":"artifact",'


def encodings(path: str) -> set[bytes]:
    """How a path may be written in a text."""
    return {encode(os.fsencode(path)) for encode in _ENCODINGS.values()}


def is_below(path: str, directory: str) -> bool:
    """Whether it is in there, at any depth, or the directory itself; by the names alone."""
    return f"{path}/".startswith(directory.rstrip("/") + "/")


class Roles:
    """An ordered set of (role, absolute path, path as the caller spelled it)."""

    __slots__ = ("_by_length", "_exact", "_paths", "_prefixes", "_spelled")

    def __init__(self, entries: Iterable[tuple[str, str, str]]) -> None:
        self._paths: dict[str, str] = {}
        self._spelled: dict[str, str] = {}
        self._exact: dict[str, str] = {}
        for role, path, spelled in entries:
            self._paths[role] = path
            self._spelled[role] = spelled
            self._exact.setdefault(path, role)
        # The longest path first: /t/deps before /t.
        self._by_length = sorted(((p + "/", r) for p, r in self._exact.items()), key=lambda e: -len(e[0]))
        self._prefixes = tuple(prefix for prefix, _ in self._by_length)

    def with_one(self, role: str, path: str) -> Roles:
        """These and one more."""
        return Roles([*((name, self._paths[name], self._spelled[name]) for name in self._paths), (role, path, path)])

    def path(self, role: str) -> str:
        return self._paths[role]

    def pin(self, role: str) -> str:
        """What must be the same where an output shows this role's path: the path, and how the caller spelled it."""
        path, spelled = self._paths[role], self._spelled[role]
        return path if spelled == path else f"{path}\0{spelled}"

    def spelled(self, role: str) -> str:
        return self._spelled[role]

    def has(self, role: str) -> bool:
        return role in self._paths

    def spellings(self) -> list[tuple[str, set[str]]]:
        """Every role with its path, absolute and as the caller wrote it."""
        return [(role, {path, self._spelled[role]}) for role, path in self._paths.items()]

    def fold(self, path: str) -> str:
        """Absolute path → folded path."""
        role = self._exact.get(path)
        if role is not None:
            return "$" + role
        if path.startswith(self._prefixes):
            for prefix, role in self._by_length:
                if path.startswith(prefix):
                    return f"${role}/{path[len(prefix) :]}"
        return path

    def unfold(self, folded: str) -> str | None:
        """Folded path → absolute path of *this* call, or None if this call has no such role."""
        if not folded.startswith("$"):
            return folded
        role, slash, rest = folded[1:].partition("/")
        path = self._paths.get(role)
        if path is None:
            return None
        return f"{path}/{rest}" if slash else path

    def make_template(self, text: bytes, roles: Iterable[str], encoding: bytes) -> bytes:
        """Replace the paths of these roles by marks.

        encoding: how this text writes paths: b"j" (JSON), b"m" (make) or b"r" (as they are; rustc escapes no target of a depfile).
        It must be said: a path with nothing to escape looks the same in all of them, and the next one may not.
        """
        text = text.replace(b"\x00", b"\x00\x00")
        for role in roles:
            path = os.fsencode(self._spelled[role])
            if path in (b"", b".", b"/"):
                continue
            written = _ENCODINGS[encoding](path)
            if written not in text:
                continue
            mark = b"\x00" + role.encode() + b"\x01" + encoding + b"\x02"
            # Only where a path begins: "/t/deps" inside "/src/t/deps" is another directory.
            text = re.sub(rb"(?<![\w./-])" + re.escape(written) + _BOUNDARY, mark.replace(b"\\", b"\\\\"), text)
        return text

    def make_stream_template(self, text: bytes, roles: Iterable[str]) -> bytes:
        """The same for what a compiler said, but only in the notices by which it tells cargo where an output is.

        Anywhere else a path is part of what a source, or a variable, made the compiler say.
        """
        roles = list(roles)
        lines = text.split(b"\n")
        return b"\n".join(self.make_template(line, roles if line.startswith(_NOTICE) else (), b"j") for line in lines)

    def fill_template(self, template: bytes) -> bytes:
        """The inverse, with this call's paths.  Raises KeyError for a role that this call does not have."""
        if b"\x00" not in template:
            return template

        def fill(match: re.Match[bytes]) -> bytes:
            if match[1] is None:
                return b"\x00"
            return _ENCODINGS[match[2]](os.fsencode(self._spelled[match[1].decode()]))

        return _MARK.sub(fill, template)
