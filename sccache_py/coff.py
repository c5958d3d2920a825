"""When an object for Windows says that it was made: for MSVC's incremental linker clang writes the time into it.

Source: Microsoft's "PE Format", section "COFF File Header"; of `/bigobj`, LLVM's BinaryFormat/COFF.h, BigObjHeader.
"""

from __future__ import annotations

import struct

HEAD_BYTES = 12

# i386, ARM, x86-64, ARM64EC, ARM64
_MACHINES = frozenset((0x014C, 0x01C4, 0x8664, 0xA641, 0xAA64))


def made_at(head: bytes) -> int:
    """Seconds since 1970; 0: it does not say, or is no such object.  `head`: the first HEAD_BYTES of a file."""
    if len(head) < HEAD_BYTES:
        return 0
    machine, sections, time_s = struct.unpack_from("<HHI", head)
    if (machine, sections) == (0, 0xFFFF):
        machine, time_s = struct.unpack_from("<HI", head, 6)
    return int(time_s) if machine in _MACHINES else 0
