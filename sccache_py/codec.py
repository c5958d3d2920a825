"""msgpack as we use it: bytes stay bytes, text is UTF-8 with surrogates allowed, nothing is ever an object."""

from __future__ import annotations

from typing import Any

import msgpack

from sccache_py.errors import FormatError


def pack(value: Any) -> bytes:
    """Lists, maps, int, bytes, str and None → bytes."""
    packed = msgpack.packb(value, use_bin_type=True, unicode_errors="surrogateescape")
    assert isinstance(packed, bytes)
    return packed


def unpack(data: bytes) -> Any:
    """The inverse.  Raises FormatError for whatever is not exactly one msgpack value."""
    try:
        return msgpack.unpackb(data, raw=False, strict_map_key=False, unicode_errors="surrogateescape")
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError) as e:  # TypeError: a map as a map's key
        raise FormatError(f"not msgpack: {e}") from e
