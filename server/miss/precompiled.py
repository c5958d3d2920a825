"""clang's precompiled headers among what a compile has read: clang looks at the times of what they were made of."""

from __future__ import annotations

import os

from sccache_py.server.filesystem.files import open_regular

# How clang's serialized ASTs begin; clang 14 makes 19 KB of an empty header.
_MAGIC = b"CPCH"
_LEAST_BYTES = 4096

# -gmodules and -fmodule-format=obj wrap it in an object, in a section of this name (clang, ObjectFilePCHContainerOperations.cpp).
_SECTION = b"clangast"
_OBJECTS = (b"\x7fELF", b"\xcf\xfa\xed\xfe", b"\xce\xfa\xed\xfe", b"\x64\x86", b"\x4c\x01", b"\x64\xaa", b"\x00asm")


def is_precompiled(path: str) -> bool:
    """Not a module (`x.pcm`), which holds no times."""
    try:
        if path.endswith(".pcm") or os.stat(path).st_size < _LEAST_BYTES:
            return False
        with open_regular(path) as f:
            head = f.read(len(_MAGIC))
            return head == _MAGIC or (head.startswith(_OBJECTS) and _SECTION in f.read())
    except OSError:
        return False
