"""Files that rustc opened to see whether they are a crate that it looks for, and passed over.

What stands behind a crate's dependencies is looked up in `-L dependency` by name and hash.  For a proc-macro rustc 1.95 then tries every
file that begins like it (rustc_metadata/src/locator.rs, find_library_crate: it first asks for no macro, which no file is, and then leaves
the hash out).  So what builds with other flags have left in a target directory is opened, too, and what `cargo check --all-targets`
writes at that very moment.

The right file is told by the metadata of the direct dependencies: each lists all crates behind it with the end of their file names,
as plain text.  A dynamic library's metadata may be compressed: then nothing is said to be passed over.
"""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Collection, Iterable

from sccache_py.server.filesystem.files import open_regular

# As cargo names them: `-C extra-filename` is a dash and the 16 digits of a hash.
_NAME = re.compile(r"lib(\w+)(-[0-9a-f]{16})\.(?:rlib|rmeta|so)")

# Every proc-macro library exports a symbol with this in its name (rustc_session/src/session.rs, generate_proc_macro_decls_symbol).
_MACRO = b"rustc_proc_macro_decls_"


def passed_over(seen: Collection[str], externs: Iterable[str], places: Collection[str]) -> set[str]:
    """Those of `seen` in `places` to which another file of the same crate was preferred.  Raises OSError, and ValueError for an empty file.

    externs: files that the command line names.  places: directories in which rustc knows whole names.
    """
    named = set(externs)
    crates: dict[str, dict[str, set[str]]] = {}  # by name and end of the file name
    for path in named.union(p for p in seen if os.path.dirname(p) in places):
        name = _NAME.fullmatch(os.path.basename(path))
        if name is not None:
            crates.setdefault(name[1], {}).setdefault(name[2], set()).add(path)
    macros = [ends for ends in crates.values() if len(ends) > 1 and any(p.endswith(".so") for paths in ends.values() for p in paths)]
    unsure = {end for ends in macros for end, paths in ends.items() if named.isdisjoint(paths)}
    if not unsure:
        return set()
    stems = {os.path.splitext(path)[0] for path in named}
    told = _told(unsure, named.union(path for path in seen if os.path.splitext(path)[0] in stems))
    found: set[str] = set()
    for ends in macros:
        others = unsure.intersection(ends) - told
        if len(others) < len(ends):  # else rustc took one by its hash alone
            found.update(path for end in others for path in ends[end])
    return found


def _told(ends: set[str], externs: Iterable[str]) -> set[str]:
    """Those that are named in the metadata of a direct dependency, or may be.  Raises OSError, ValueError."""
    missing = set(ends)
    for path in externs:
        if not missing:
            break
        with open_regular(path) as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as data:
            if not path.endswith(".so"):
                missing -= {end for end in missing if data.find(end.encode()) >= 0}
            elif data.find(_MACRO) < 0:
                return ends
    return ends - missing
