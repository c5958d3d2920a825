"""One pass over a file, piece by piece in a buffer that is kept: its digest, what stands in it, and a copy.

The search is the C library's, memmem(3): twice as fast as bytes.find, and other threads go on meanwhile.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import threading
from collections.abc import Callable, Collection, Iterator

from sccache_py.keys import Hasher
from sccache_py.server.filesystem.files import FileShrank, clone, write_all

_PIECE_BYTES = 1 << 20  # so large that a copy gets large folios
_LONGEST_NEEDLE = 16 * 1024  # of usual ones

Roles = list[tuple[str, list[bytes]]]  # name, needles

# Whether a needle stands in a piece, or across it and the one before.
_Has = Callable[[bytes], bool]


_memmem = ctypes.CDLL(None).memmem
_memmem.restype = ctypes.c_void_p
_memmem.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t)


class _Text:
    """A buffer to be searched; it cannot be resized any more.  Who searches in a thread sees that nobody writes there meanwhile."""

    def __init__(self, buffer: bytearray) -> None:
        self._held = (ctypes.c_char * len(buffer)).from_buffer(buffer)
        self._address = ctypes.addressof(self._held)
        self._length = len(buffer)

    def has(self, needle: bytes, end: int) -> bool:
        """Whether it stands in the first `end` bytes."""
        return _memmem(self._address, min(end, self._length), needle, len(needle)) is not None


class _Buffer(threading.local):
    """Each thread's own, kept: the pages of a new one would have to be found first."""

    def __init__(self) -> None:
        self.bytes = bytearray(_PIECE_BYTES + _LONGEST_NEEDLE)
        self.text = _Text(self.bytes)


_buffer = _Buffer()


def copy_and_search(source: int, target: int, size: int, movable: Roles) -> tuple[bytes, set[str]]:
    """Copy a whole file; its digest, and the roles of which a needle stands in it.  Raises OSError, FileShrank."""
    cloned = clone(source, target)
    hasher = Hasher()
    shown: set[str] = set()
    needles = [(role, n) for role, all_ in movable for n in all_]
    # One search where one directory holds all the others: rustc's externs lie in -L, which is the out-dir.
    shortest = {n for _, n in needles if not any(m != n and n.startswith(m) for _, m in needles)}
    for piece, has in _pieces(source, size, [n for _, n in needles]):
        hasher.update(piece)
        if any(has(n) for n in shortest):
            shown.update(role for role, n in needles if has(n))
        if not cloned:
            write_all(target, piece)
    return hasher.digest(), shown


def shows_any(fd: int, needles: Collection[bytes]) -> bool:
    """Whether one of them stands in a file.  Raises OSError."""
    return any(has(n) for _, has in _pieces(fd, os.fstat(fd).st_size, needles) for n in needles)


def _pieces(fd: int, size: int, needles: Collection[bytes]) -> Iterator[tuple[memoryview, _Has]]:
    overlap = max((len(n) for n in needles), default=1) - 1
    if overlap <= _LONGEST_NEEDLE:
        buffer, text = _buffer.bytes, _buffer.text
    else:
        buffer = bytearray(_PIECE_BYTES + overlap)
        text = _Text(buffer)
    offset = kept = 0  # the end of one piece stands before the next, for what lies across them
    with memoryview(buffer) as view:
        while offset < size:
            got = os.preadv(fd, [view[kept : kept + min(_PIECE_BYTES, size - offset)]], offset)
            if got == 0:
                raise FileShrank(errno.EIO, "file shrank while it was read")
            offset, end = offset + got, kept + got
            yield view[kept:end], functools.partial(text.has, end=end)
            kept = min(overlap, end)
            view[:kept] = view[end - kept : end]
