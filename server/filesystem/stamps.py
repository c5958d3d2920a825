"""What the kernel says of a file, as far as a change shows in it."""

from __future__ import annotations

import ctypes
import os
import struct

from sccache_py.server.filesystem.mounts import DEVICES

Stamp = tuple[int, int, int, int, int]  # device (a mark of mounts.py), inode, size, mtime, ctime (both in ns)

# linux/fcntl.h, linux/stat.h: what statx is asked for, and where in its 256 bytes the answer stands.
_AT_FDCWD = -100
_STATX_BTIME = 0x800
_STATX_BYTES = 256
_BORN_AT = 80
_TIME = struct.Struct("=qI")

_libc = ctypes.CDLL(None, use_errno=True)


def stamp_of(st: os.stat_result) -> Stamp:
    return (DEVICES[st.st_dev], st.st_ino, st.st_size, st.st_mtime_ns, st.st_ctime_ns)


def latest_ns(time_ns: int) -> int:
    """Until when a file that has this time may have been changed: file systems round down.

    To the second ext4 with inodes of 128 bytes, to two FAT, to a hundredth exFAT; what is finer is finer than the clock's tick.
    """
    if time_ns % 1_000_000_000 == 0:
        return time_ns + 2_000_000_000 - 1
    return time_ns + 10_000_000 - 1 if time_ns % 10_000_000 == 0 else time_ns


def which_of(st: os.stat_result) -> str:
    """Which file it is, as the record of a compile says it."""
    return f"{st.st_ino}:{os.major(st.st_dev)}:{os.minor(st.st_dev)}"


def leads_to(path: str, which: tuple[int, int]) -> bool:
    """Whether a path names the directory of this device and inode."""
    try:
        st = os.stat(path)
    except (OSError, ValueError):
        return False
    return which == (st.st_dev, st.st_ino)


def born_ns(path: str) -> int:
    """When a file was created, which os.stat does not say; 0 where the file system does not know.  Raises OSError, ValueError."""
    name, answer = os.fsencode(path), ctypes.create_string_buffer(_STATX_BYTES)
    if b"\0" in name:
        raise ValueError("embedded null byte")
    try:
        failed = _libc.statx(_AT_FDCWD, name, 0, _STATX_BTIME, answer)
    except AttributeError as e:
        raise OSError("no statx in this C library") from e
    if failed:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)
    seconds, ns = _TIME.unpack_from(answer, _BORN_AT)
    return int(seconds) * 1_000_000_000 + int(ns)
