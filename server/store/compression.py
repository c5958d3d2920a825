"""zstd for stored files: smaller on disk, at the price of a pass through the processor on every hit.

All files of a result make one frame, one after the other, without anything between: who wrote it knows their sizes.  Much of an
`.rlib` stands in its `.rmeta` word for word, and a window over both of them finds that.  The frame carries no checksum; whoever
unpacks compares the digest of each file.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from types import TracebackType

import zstandard

from sccache_py.keys import Hasher
from sccache_py.server.filesystem.files import FileShrank, open_regular, write_all

_CHUNK_BYTES = 1 << 18

# What is written in pieces of this size lies in large folios (ext4, Linux ≥ 6.16), which takes a third less than pieces of 256 KiB.
_PIECE_BYTES = 1 << 20

# Windows of 2^10 to 2^24 bytes.  A larger one packs 170 crates no better (92.5 MB, and 92.6 with this; 96.0 with half of it), and both
# sides hold the window in memory.  What is read may have the largest that a decoder takes unasked.
_WINDOW_LOGS = (10, 24)
_LARGEST_READ = 1 << 27


class CompressionError(Exception):
    """Not a zstd frame, or one that is damaged."""


def pack_files(plain: Sequence[str], packed: str, level: int) -> list[bytes]:
    """Make the file `packed` of the files `plain`; level 1 to 19.  Returns the digests of what was read.

    Raises OSError, also if a file changes its size meanwhile.
    """
    sizes = [os.stat(path).st_size for path in plain]
    smallest, largest = _WINDOW_LOGS
    window_log = min(largest, max(smallest, (sum(sizes) - 1).bit_length()))
    how = {"window_log": window_log, "enable_ldm": True} if len(plain) > 1 else {}
    parameters = zstandard.ZstdCompressionParameters.from_level(level, source_size=sum(sizes), write_checksum=False, **how)
    digests = []
    try:
        frame = zstandard.ZstdCompressor(compression_params=parameters).compressobj(size=sum(sizes))
        with open(os.open(packed, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as write:
            for path, size in zip(plain, sizes, strict=True):
                hasher = Hasher()
                with open_regular(path) as read:
                    while chunk := read.read(_CHUNK_BYTES):
                        hasher.update(chunk)
                        write.write(frame.compress(chunk))
                    if read.tell() != size:
                        raise FileShrank(f"{path} changed while it was packed")
                digests.append(hasher.digest())
            write.write(frame.flush())
    except zstandard.ZstdError as e:
        raise OSError(f"zstd: {e}") from e
    return digests


class _Buffers(threading.local):
    """Each thread's own, kept: the pages of a new one would have to be found first."""

    def __init__(self) -> None:
        self.piece = memoryview(bytearray(_PIECE_BYTES))


_buffers = _Buffers()


class Unpacking:
    """The files of one pack, in their order, by one thread.  The descriptor stays the caller's."""

    def __init__(self, descriptor: int) -> None:
        self._file = os.fdopen(os.dup(descriptor), "rb", buffering=0)
        self._frame = zstandard.ZstdDecompressor(max_window_size=_LARGEST_READ).stream_reader(self._file, read_across_frames=True)
        self._buffer = _buffers.piece

    def __enter__(self) -> Unpacking:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    def next_file(self, target: int, size: int) -> bytes:
        """Write `size` bytes to a descriptor; their digest.  Raises CompressionError, OSError."""
        hasher = Hasher()
        while size:
            try:
                got = self._frame.readinto(self._buffer[: min(size, _PIECE_BYTES)])
            except zstandard.ZstdError as e:
                raise CompressionError(str(e)) from e
            if not got:
                raise CompressionError(f"ends {size} bytes too early")
            hasher.update(self._buffer[:got])
            write_all(target, self._buffer[:got])
            size -= got
        return hasher.digest()

    def end(self) -> None:
        """Raises CompressionError if anything follows, OSError."""
        try:
            if self._frame.readinto(self._buffer[:1]):
                raise CompressionError("something follows the last file")
        except zstandard.ZstdError as e:
            raise CompressionError(str(e)) from e
