"""zstd for stored files: smaller on disk, at the price of a copy through the processor on every hit.

Frames carry their content's checksum, so that a damaged file is noticed before its output appears under its name.
"""

from __future__ import annotations

import os

import zstandard


class CompressionError(Exception):
    """Not a zstd frame, or one that is damaged."""


def compress(source: int, target: int, level: int) -> None:
    """Descriptors; level 1 to 19.  Raises OSError."""
    os.lseek(source, 0, os.SEEK_SET)
    with os.fdopen(os.dup(source), "rb") as read, os.fdopen(os.dup(target), "wb") as write:
        zstandard.ZstdCompressor(level=level, write_checksum=True).copy_stream(read, write)


def decompress(source: int, target: int, size: int) -> None:
    """Descriptors.  Raises OSError, and CompressionError if what comes out is not `size` bytes under their checksum."""
    os.lseek(source, 0, os.SEEK_SET)
    try:
        with os.fdopen(os.dup(source), "rb") as read, os.fdopen(os.dup(target), "wb") as write:
            _, written = zstandard.ZstdDecompressor().copy_stream(read, write)
    except zstandard.ZstdError as e:
        raise CompressionError(str(e)) from e
    if written != size:
        raise CompressionError(f"{written} bytes instead of {size}")
