"""Keys: one walk names the fields of a recipe and yields the key, or the explanation of it.

A recipe is what is known of a compile before any header or module is read: the compiler's identity, the canonical
arguments, the digest of the main source, the environment that always counts.  A result key is a recipe and the digests
of all that one compile read.  xxh3-128, over named and length-prefixed fields: without the lengths `-DA B` and `-DAB` would be alike.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Mapping
from typing import Protocol

import xxhash

from sccache_py.codec import pack
from sccache_py.environment import of_all_variables
from sccache_py.model import Plan, Variant

# Part of every key.  Raise it when the meaning of a stored value changes: old entries are then never read again.
KEY_FORMAT = b"14"

# Read by proc-macros through env::vars(), which asks for no name and so is not observed; and what decides the language.
_ALWAYS = ("RUSTC_BOOTSTRAP",)
_ALWAYS_PREFIX = "CARGO_PKG_"

# Without observation nobody knows what a macro asked for, so all of cargo's variables count, less those that change
# from run to run and reach no output: the jobserver, how many jobs, and where crates are fetched from.
_FALLBACK_PREFIXES = ("CARGO_", "OUT_DIR")
_FALLBACK_LEFT_OUT = (
    "CARGO_MAKEFLAGS",
    "CARGO_BUILD_JOBS",
    "CARGO_TERM_",
    "CARGO_NET_",
    "CARGO_HTTP_",
    "CARGO_REGISTR",
    "CARGO_INCREMENTAL",
)
EXTRA_ENV_DEFAULT = "DATABASE_URL,SQLX_*"


# Lists of fields that are kept as they go into keys.
_REMEMBERED = 1000


class Sink(Protocol):
    def field(self, name: str, value: bytes) -> None: ...

    def fields(self, name: str, values: tuple[str, ...]) -> None:
        """One for each value, all of the same name."""


class KeyHash:
    """Fields → 16 bytes."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def field(self, name: str, value: bytes) -> None:
        self._parts.append(b"%s:%d:%s" % (name.encode(), len(value), value))

    def fields(self, name: str, values: tuple[str, ...]) -> None:
        self._parts.append(_framed(name, values))

    def key(self) -> bytes:
        # One call for all: a recipe has some dozens of short fields.
        return xxhash.xxh3_128_digest(self.joined())

    def joined(self) -> bytes:
        return b"".join(self._parts)


@functools.lru_cache(_REMEMBERED)
def _framed(name: str, values: tuple[str, ...]) -> bytes:
    """The arguments of one plan, the variables of one crate: the same in each build."""
    fields = KeyHash()
    for value in values:
        fields.field(name, os.fsencode(value))
    return fields.joined()


class KeyExplanation:
    """The same walk, to read."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def field(self, name: str, value: bytes) -> None:
        shown = value.hex() if name in ("compiler", "source") else os.fsdecode(value)
        self.lines.append(f"{name}: {shown}")

    def fields(self, name: str, values: tuple[str, ...]) -> None:
        for value in values:
            self.field(name, os.fsencode(value))


class Hasher:
    """Incremental digest of contents; releases the GIL on large chunks."""

    def __init__(self) -> None:
        self._hash = xxhash.xxh3_128()
        self.update = self._hash.update
        self.digest = self._hash.digest


def digest(data: bytes) -> bytes:
    return xxhash.xxh3_128_digest(data)


def fallback_environment(env: Mapping[str, str], extra: str) -> list[str]:
    """Names that count when nothing is observed: cargo's, OUT_DIR, and `extra` (comma-separated, `*` at the end allowed)."""
    wanted = [pattern.strip() for pattern in extra.split(",") if pattern.strip()]
    exact = {p for p in wanted if not p.endswith("*")}
    prefixes = _FALLBACK_PREFIXES + tuple(p[:-1] for p in wanted if p.endswith("*"))
    return sorted(n for n in env if n in exact or (n.startswith(prefixes) and not n.startswith(_FALLBACK_LEFT_OUT)))


def _that_begin(env: Mapping[str, str], *beginnings: str) -> tuple[str, ...]:
    return tuple(f"{name}={env[name]}" for name in sorted(env) if name.startswith(beginnings))


@of_all_variables
def _asked_by_questions(env: Mapping[str, str]) -> tuple[str, ...]:
    return _that_begin(env, *_ALWAYS)


@of_all_variables
def _asked_by_macros(env: Mapping[str, str]) -> tuple[str, ...]:
    return _that_begin(env, *_ALWAYS, _ALWAYS_PREFIX)


def describe_recipe(
    plan: Plan, compiler: bytes, source: bytes, env: Mapping[str, str], more: Iterable[tuple[str, bytes]], sink: Sink
) -> None:
    """The one place that says what a recipe is made of.  `more`: further named fields (mode, cache buster…)."""
    sink.field("format", KEY_FORMAT)
    sink.field("language", plan.dialect.encode())
    sink.field("compiler", compiler)
    sink.fields("arg", plan.arguments)
    sink.field("source", source)
    sink.fields("env", _asked_by_questions(env) if plan.asks else _asked_by_macros(env))
    for name, value in more:
        sink.field(name, value)


def result_key(recipe: bytes, variant: Variant) -> bytes:
    """The key of what a compile under exactly these conditions gave."""
    v = variant
    return digest(pack([recipe, v.files, v.present, v.absent, v.listed, v.env, v.placed, v.pins, v.sought, v.libraries, v.processors]))


def names_digest(names: Iterable[tuple[str, str]]) -> bytes:
    """The digest of a directory's (name, kind), whatever their order on disk."""
    hash_ = KeyHash()
    for name, kind in sorted(names):
        hash_.field(kind, os.fsencode(name))
    return hash_.key()
