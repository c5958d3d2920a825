"""The process that packs stored files, with few imports: it is small, and starts while others build.

It reads lines of JSON, [paths of the plain files, path to make], and answers each with the digests of what it packed, in hex, or with
an empty line.  It ends with its standard input.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys

from sccache_py.server.store.compression import pack_files


def main() -> int:
    """argv: --pack LEVEL."""
    level = int(sys.argv[-1])
    os.nice(19)
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    for line in sys.stdin.buffer:
        plain, scratch = json.loads(line)
        told = ""
        with contextlib.suppress(OSError):
            told = " ".join(digest.hex() for digest in pack_files(plain, scratch, level))
        sys.stdout.write(told + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
