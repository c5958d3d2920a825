"""Bytes in a descriptor, for another process to read: in memory, or where that is forbidden in a file without a name."""

from __future__ import annotations

import os
import tempfile

from sccache_py.server.filesystem.files import write_all

# linux/memfd.h.  With vm.memfd_noexec=2 some kernels give nothing without it; before Linux 6.3 it is an invalid argument.
_MFD_NOEXEC_SEAL = 8


def held(data: bytes) -> int:
    """Stands at the end; close it.  Raises OSError."""
    fd = _unnamed()
    try:
        write_all(fd, data)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _unnamed() -> int:
    for flags in (_MFD_NOEXEC_SEAL, 0):
        try:
            return os.memfd_create("held", os.MFD_CLOEXEC | flags)
        except OSError:
            pass
    with tempfile.TemporaryFile(buffering=0) as file:
        return os.dup(file.fileno())
