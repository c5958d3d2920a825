"""Stored values ↔ bytes: manifests (the variants of a recipe) and results.

A value that does not decode is a FormatError, which its reader takes as a miss.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from sccache_py.codec import pack, unpack
from sccache_py.errors import FormatError
from sccache_py.model import Output, Result, Variant

# Variants of one recipe that are remembered, last used first: an edit-and-undo loop or a handful of branches.
MAX_VARIANTS = 32

# Conditions that Shared knows; 100,000 files of several projects.
_SHARED_LIMIT = 200_000

# Outputs up to this size live in the entry; larger ones are files of their own, which restore without passing through us.
INLINE_LIMIT_BYTES = 32 * 1024


def pack_manifest(variants: list[Variant]) -> bytes:
    """Paths repeat from variant to variant, so they stand once, in a table."""
    table: dict[str, int] = {}

    def index(path: str) -> int:
        return table.setdefault(path, len(table))

    rows = [
        [
            [[index(p), d] for p, d in v.files],
            [[index(p), s] for p, s in v.present],
            [[index(p), names] for p, names in v.absent],
            [[index(p), d] for p, d in v.listed],
            v.env,
            v.pins,
            v.result,
            v.sought,
            v.libraries,
            v.placed,
            v.processors,
        ]
        for v in variants
    ]
    return pack([list(table), rows])


def unpack_manifest(data: bytes) -> list[Variant]:
    """Raises FormatError."""
    try:
        table, rows = unpack(data)
        return [_variant(table, row) for row in rows]
    except (TypeError, ValueError, IndexError) as e:
        raise FormatError(f"not a manifest: {e}") from e


def _variant(table: list[str], row: list[Any]) -> Variant:
    files, present, absent, listed, env, pins, result, sought, libraries, placed, processors = row
    return Variant(
        files=[(table[i], d) for i, d in files],
        present=[(table[i], s) for i, s in present],
        absent=[(table[i], names) for i, names in absent],
        listed=[(table[i], d) for i, d in listed],
        env=[(name, value) for name, value in env],
        pins=[(role, path) for role, path in pins],
        result=result,
        sought=[(name, where) for name, where in sought],
        libraries=[(name, where) for name, where in libraries],
        placed=[(name, where) for name, where in placed],
        processors=processors,
    )


class Shared:
    """Makes conditions that are equal one object: system headers are in every manifest, and an edit leaves most of a variant as it was.

    A variant of a C file with 230 headers takes 68 KB of memory by itself, and 6 beside others (busybox, 863 variants).
    """

    def __init__(self) -> None:
        self._known: dict[Any, Any] = {}

    def share(self, variants: list[Variant]) -> list[Variant]:
        """The same objects, changed in place; from any thread."""
        if len(self._known) >= _SHARED_LIMIT:
            self._known = {}
        put = self._known.setdefault
        for v in variants:
            lists: tuple[list[Any], ...] = (v.files, v.present, v.listed, v.env, v.pins, v.sought, v.libraries, v.placed)
            for conditions in lists:
                conditions[:] = [put(c, c) for c in conditions]
            v.absent[:] = [put((path, tuple(names)), (path, names)) for path, names in v.absent]
        return variants


class Kin(NamedTuple):
    """A recipe with which another shares what decides, perhaps: it differs in macros only (compilers/c_defines.py)."""

    recipe: bytes
    defines: tuple[tuple[str, str], ...]


def pack_kin(kin: list[Kin]) -> bytes:
    return pack([[k.recipe, [list(define) for define in k.defines]] for k in kin])


def unpack_kin(data: bytes) -> list[Kin]:
    """Raises FormatError."""
    try:
        return [Kin(bytes(recipe), tuple((str(name), str(rest)) for name, rest in defines)) for recipe, defines in unpack(data)]
    except (TypeError, ValueError) as e:
        raise FormatError(f"not a list of kin: {e}") from e


def pack_result(result: Result) -> bytes:
    outputs = [[o.path, o.mode, o.size, o.digest, o.inline, o.template, o.mtime_ns] for o in result.outputs]
    return pack([outputs, result.stdout, result.stderr, result.took_ns, result.peak_rss_kib, result.status])


def unpack_result(data: bytes) -> Result:
    """Raises FormatError."""
    try:
        outputs, stdout, stderr, took_ns, peak_rss_kib, status = unpack(data)
        return Result(tuple(Output(*fields) for fields in outputs), stdout, stderr, took_ns, peak_rss_kib, status)
    except (TypeError, ValueError) as e:
        raise FormatError(f"not a result: {e}") from e
