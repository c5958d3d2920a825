"""Which file systems tell by a file's stat that it is another one, and which only for as long as they stay mounted.

A ctime comes from the kernel's clock where the kernel writes the file system, so no two contents ever have the same (device, inode,
size, mtime, ctime).  In an image that was written whole (squashfs, erofs, iso9660, what lies below an overlay, ext4 on a loop device) it is
what the image's maker chose, often one time for all files, and what a server of a file system (FUSE) says is its own affair.  Mount the
next release of an SDK where the last one was: device and inode numbers are given out again, and files of the same size look the same.

So the device of such a file is told by a mark of our own, which is another after any change of the mounts.  Marks are negative,
and mean nothing to another process.

Where another machine or process may change files (NFS, FUSE, virtiofs), the kernel answers a stat from what it was told some seconds
ago, while who opens the file reads what it is now (nfs(5), "close-to-open").  So there no digest is known by a stat: whoever looks at
a file reads it.

Where there is no /proc nothing is known of mounts: every device is told as it is.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import select
import threading
from collections.abc import Iterator
from typing import NamedTuple

# Those whose ctime is always the kernel's.  Not overlay: its files have the times of the layer below.
_OWN_TIMES = frozenset((b"bcachefs", b"btrfs", b"ext2", b"ext3", b"ext4", b"f2fs", b"jfs", b"tmpfs", b"xfs", b"zfs"))

# Further ones that only this kernel changes; what is in neither may be changed elsewhere.
_OURS_ALONE = _OWN_TIMES | frozenset(
    b"aufs autofs cgroup cgroup2 configfs cramfs debugfs devpts devtmpfs ecryptfs erofs exfat fuseblk hfs hfsplus hugetlbfs iso9660"
    b" jffs2 minix mqueue msdos nilfs2 ntfs ntfs3 overlay proc ramfs reiserfs rootfs romfs securityfs squashfs sysfs tracefs ubifs udf"
    b" vfat".split()
)

_LOOP_MAJOR = 7  # Documentation/admin-guide/devices.txt


class Mount(NamedTuple):
    number: bytes
    point: bytes
    kind: bytes
    options: list[bytes]  # the file system's, not the mount's
    listed: int  # the device as the table says it, which for btrfs is not what stat tells

    def device(self) -> int | None:
        """As stat tells it; None: another one lies over it, perhaps a server's."""
        try:
            fd = os.open(self.point, os.O_PATH | os.O_CLOEXEC)
            try:
                with open(f"/proc/self/fdinfo/{fd}", "rb") as f:
                    return os.fstat(fd).st_dev if b"mnt_id:\t%s\n" % self.number in f.read() else None
            finally:
                os.close(fd)
        except OSError:
            return None


def open_table() -> int:
    """A descriptor; it has POLLPRI after a change (proc(5)).  Raises OSError."""
    return os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)


def read_table(fd: int) -> Iterator[Mount]:
    os.lseek(fd, 0, os.SEEK_SET)
    text = b""
    while chunk := os.read(fd, 1 << 16):
        text += chunk
    for line in text.splitlines():
        fields, _, rest = line.partition(b" - ")
        number, _, device, _, point, *_ = fields.split(b" ")
        kind, _, options = rest.partition(b" ")
        point = re.sub(rb"\\([0-7]{3})", lambda m: bytes((int(m[1], 8),)), point)
        major, _, minor = device.partition(b":")
        yield Mount(number, point, kind, options.split(b" ")[-1].split(b","), os.makedev(int(major), int(minor)))


class Devices(dict[int, int]):
    """st_dev → the number that stands for it in a stamp.  Safe in threads."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.RLock()
        self._marks = itertools.count(1)
        self._begun = False
        self._table = -1
        self._lasting: set[int] = set()
        self._elsewhere: set[int] = set()
        self._late: set[int] = set()

    def __missing__(self, device: int) -> int:
        with self._lock:
            self.look()
            mark = device if self._table < 0 or device in self._lasting else -next(self._marks)
            if device in self._elsewhere:
                self._late.add(mark)  # before anybody has it
            self[device] = mark
            return mark

    def are_late(self, mark: int) -> bool:
        """Whether a stat may say less than whoever opens the file sees."""
        return mark in self._late

    def look(self) -> None:
        """Hear whether something was mounted or unmounted."""
        with self._lock:
            if not self._begun:
                self._begun = True
                with contextlib.suppress(OSError):
                    self._table = open_table()
                    self._poll = select.poll()
                    self._poll.register(self._table, select.POLLPRI)
                    self._learn()
            elif self._table >= 0 and self._poll.poll(0):
                self._learn()

    def _learn(self) -> None:
        self._lasting.clear()
        self._elsewhere.clear()
        self.clear()
        for mount in read_table(self._table):
            if mount.kind not in _OURS_ALONE:
                self._elsewhere.add(mount.listed)  # without a look at it: a server that is gone would hold us up
            if mount.kind in _OWN_TIMES and b"rw" in mount.options:
                device = mount.device()
                if device is not None and os.major(device) != _LOOP_MAJOR:
                    self._lasting.add(device)


DEVICES = Devices()
