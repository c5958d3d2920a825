"""What a precompiled header of clang's was made of, as far as names are told in bytes.

Source: LLVM's "Bitcode File Format" (blocks), clang's ASTBitCodes.h (BlockIDs, INPUT_FILE) and ASTWriter.cpp, WriteInputFiles.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable

MAGIC = b"CPCH"

_CONTROL_BLOCK = 15  # has INPUT_FILES_BLOCK in it, where each name is a blob
_ENTER_SUBBLOCK = 1
_HEAD = struct.Struct("<II")


def told_sources(size: int, read: Callable[[int, int], bytes]) -> bytes | None:
    """The part of a file in which the names of all sources stand, among others; None: it is not built like this.

    size: of the file; read: so many bytes of it from an offset.  At the top level there is nothing but blocks, each with its length in
    words of four bytes, so the syntax trees, which are nearly all of a file, are passed over.
    """
    found: list[bytes] = []
    at = len(MAGIC)
    if read(0, at) != MAGIC:
        return None
    while at < size:
        head = read(at, _HEAD.size)
        if len(head) < _HEAD.size:
            return None
        what, words = _HEAD.unpack(head)
        # Two bits that say what follows, eight of the block's number; the last of these says that it is a longer one.
        if what & 3 != _ENTER_SUBBLOCK or what & 0x200:
            return None
        if what >> 2 & 0xFF == _CONTROL_BLOCK:
            found.append(read(at + _HEAD.size, words * 4))
        at += _HEAD.size + words * 4
    return found[0] if at == size and len(found) == 1 else None


def names(told: bytes, name: str) -> bool:
    """Whether a source may be called so, in whatever directory; `told`: what told_sources returns.

    Paths are made absolute but in a header that is relocatable.  What follows a name may be anything.
    """
    return b"/" + os.fsencode(name) in told
