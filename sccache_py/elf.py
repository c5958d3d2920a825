"""What a program file is, from its first bytes: can our library be preloaded into it?

ld.so complains on stderr about a library of another class or C library, and the user would read it; so this is decided beforehand, from
the image and not from its name.  Source: System V ABI, "Object Files" and "Program Loading"; elf(5).
"""

from __future__ import annotations

import struct
from typing import NamedTuple

HEAD_BYTES = 8192
_PT_INTERP = 3


class Image(NamedTuple):
    elf_class: int  # 32 or 64; 0: not ELF
    interpreter: str  # ld.so's path; "" for a static program
    script: str  # what follows #!, first word; "" if it is none


def read_image(head: bytes) -> Image:
    """`head`: the first HEAD_BYTES of a file."""
    if head.startswith(b"#!"):
        words = head[2:].split(b"\n", 1)[0].split()
        return Image(0, "", words[0].decode("utf-8", "surrogateescape") if words else "")
    if not head.startswith(b"\x7fELF") or len(head) < 64:
        return Image(0, "", "")
    is_64 = head[4] == 2
    order = "<" if head[5] == 1 else ">"
    try:
        if is_64:
            (table,) = struct.unpack_from(order + "Q", head, 32)
            size, count = struct.unpack_from(order + "HH", head, 54)
        else:
            (table,) = struct.unpack_from(order + "I", head, 28)
            size, count = struct.unpack_from(order + "HH", head, 42)
        for index in range(count):
            at = table + index * size
            (kind,) = struct.unpack_from(order + "I", head, at)
            if kind == _PT_INTERP:
                offset, length = (
                    (*struct.unpack_from(order + "Q", head, at + 8), *struct.unpack_from(order + "Q", head, at + 32))
                    if is_64
                    else (*struct.unpack_from(order + "I", head, at + 4), *struct.unpack_from(order + "I", head, at + 16))
                )
                name = head[offset : offset + length].rstrip(b"\0")
                return Image(64 if is_64 else 32, name.decode("utf-8", "surrogateescape"), "")
    except struct.error:
        pass
    return Image(64 if is_64 else 32, "", "")
