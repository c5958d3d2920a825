"""What os.stat says of a file, as far as a change shows in it."""

from __future__ import annotations

import os

Stamp = tuple[int, int, int, int, int]  # device, inode, size, mtime, ctime (both in ns)


def stamp_of(st: os.stat_result) -> Stamp:
    return (st.st_dev, st.st_ino, st.st_size, st.st_mtime_ns, st.st_ctime_ns)
