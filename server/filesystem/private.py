"""Directories and files of ours that nobody else may write to, or look into.

The server's umask is 0 (daemon.py), and os.makedirs gives its mode to the last directory alone: a `~/.cache` that it makes on the way
would be open to everybody, who could then put another cache in the place of ours.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TextIO


def make_directory(path: str, mode: int = 0o700) -> None:
    """Make it and whatever is missing above it, if not said otherwise for us alone; what is there stays as it is.  Raises OSError."""
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        if not os.path.isdir(path):
            raise
    except FileNotFoundError:
        above = os.path.dirname(path.rstrip("/"))
        if above in ("", path):
            raise
        make_directory(above, mode)
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, mode)


def remove_unless_held(path: str) -> None:
    """A file that an earlier server left; as long as somebody goes by it he holds a lock (flock).  Raises OSError: it stays, or is gone.

    A process id in its name says nothing: sandboxes share such a directory, and each has numbers of its own.
    """
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(path)
    finally:
        os.close(fd)


def open_log(path: str) -> TextIO:
    """To append to.  Raises OSError."""
    return open(path, "a", encoding="utf-8", errors="backslashreplace", opener=lambda p, flags: os.open(p, flags, 0o600))
