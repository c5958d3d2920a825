"""inotify(7) as far as it is needed here: the kernel says what became of a file or of the names in a directory.

The C library's functions, by ctypes; the layout of an event is that of <sys/inotify.h>.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from collections.abc import Iterator

IN_ACCESS = 0x1
IN_MODIFY = 0x2
IN_ATTRIB = 0x4
IN_CLOSE_WRITE = 0x8
IN_MOVED_FROM = 0x40
IN_MOVED_TO = 0x80
IN_CREATE = 0x100
IN_DELETE = 0x200
IN_DELETE_SELF = 0x400
IN_MOVE_SELF = 0x800
IN_UNMOUNT = 0x2000
IN_Q_OVERFLOW = 0x4000
IN_IGNORED = 0x8000
IN_ONLYDIR = 0x0100_0000
IN_DONT_FOLLOW = 0x0200_0000
IN_MASK_ADD = 0x2000_0000

_HEADER = struct.Struct("iIII")  # wd, mask, cookie, length of the name that follows
_READ_BYTES = 64 * 1024

Event = tuple[int, int, str]  # watch descriptor, mask, the name in a watched directory ("": the watched thing itself)


class Inotify:
    """One instance and its watches; `fd` is readable when there are events.  Raises OSError where there can be none."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd = self._checked(self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))

    @staticmethod
    def _checked(result: int) -> int:
        if result < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return result

    def add(self, path: str, mask: int) -> int:
        """The watch descriptor: the same one for whatever leads to the same inode.  Raises OSError (ENOSPC: there are too many)."""
        return self._checked(self._libc.inotify_add_watch(self.fd, os.fsencode(path), mask))

    def remove(self, wd: int) -> None:
        self._libc.inotify_rm_watch(self.fd, wd)  # one that is gone by itself is no trouble

    def events(self) -> Iterator[Event]:
        """What has happened up to now."""
        while True:
            try:
                data = os.read(self.fd, _READ_BYTES)
            except BlockingIOError:
                return
            offset = 0
            while offset < len(data):
                wd, mask, _, length = _HEADER.unpack_from(data, offset)
                offset += _HEADER.size
                yield wd, mask, os.fsdecode(data[offset : offset + length].rstrip(b"\0"))
                offset += length

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self.fd)
