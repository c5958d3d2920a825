"""Write what a hit brings back: each output whole or not at all, with this call's names and the caller's umask.

Contents that are files in the store are copied inside the kernel; never a hard link, for rustc and cargo write some of them in
place. Every output gets the current time: with any other, cargo's next run rebuilds.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from dataclasses import dataclass

from sccache_py import make_rule
from sccache_py.model import Output, Plan, Request, Result
from sccache_py.server import permits
from sccache_py.server.compression import CompressionError, decompress
from sccache_py.server.files import FileMemo, copy_descriptor, hash_descriptor, publish, stamp_of, write_all

# Smaller ones are hashed again in less time than remembering takes.
_REMEMBERED_BYTES = 16 * 1024


class Damaged(Exception):
    """A stored file is gone or is not what its name says."""


@dataclass(frozen=True, slots=True)
class Restorer:
    """The memo also knows which stored files were compared with their digest."""

    memo: FileMemo

    def restore(self, plan: Plan, result: Result, paths: dict[bytes, str], caller: Request) -> None:
        """paths: where the store keeps each file, by digest.

        Raises Damaged if a stored file is not usable (no output is then incomplete, but some may be there), OSError if an output
        cannot be written.
        """
        if not permits.may_write(caller, result):
            raise OSError(errno.EFBIG, "larger than the caller may write")
        sources: dict[bytes, int] = {}
        try:
            for output in result.outputs:
                if output.inline is None and output.digest not in sources:
                    sources[output.digest] = self._open_stored(output, paths[output.digest])
            for output in result.outputs:
                self._write(plan, output, sources.get(output.digest), caller.umask)
        finally:
            for fd in sources.values():
                os.close(fd)

    def _open_stored(self, output: Output, path: str) -> int:
        try:
            # O_NONBLOCK: what lies there may be a FIFO by now.
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as e:
            raise Damaged(path) from e
        try:
            self._check(output, path, fd)
        except OSError as e:
            os.close(fd)
            raise Damaged(path) from e
        except Damaged:
            os.close(fd)
            raise
        return fd

    def _check(self, output: Output, path: str, fd: int) -> None:
        st = os.fstat(fd)
        if not stat.S_ISREG(st.st_mode):
            raise Damaged(path)
        if output.zstd:
            return  # its frame carries a checksum
        stamp = stamp_of(st)
        if self.memo.known(path, stamp) != output.digest:
            if stamp[2] != output.size or hash_descriptor(fd) != output.digest:
                raise Damaged(path)
            self.memo.remember(path, stamp, output.digest)

    def _write(self, plan: Plan, output: Output, source: int | None, umask: int) -> None:
        target = plan.roles.unfold(output.path)
        if target is None:
            raise Damaged(output.path)
        # What the compiler made executable is executable for whom the umask lets it be, as if it had made it now.
        mode = (0o777 if output.mode & 0o111 else 0o666) & ~umask
        written = publish(target, mode, lambda fd: _fill(plan, output, source, fd))
        # Where a later change is sure to show, dependents need not hash again what was written here.
        if written is None or output.template or output.size < _REMEMBERED_BYTES:
            return
        if self.memo.shows_every_change(written.st_dev, os.path.dirname(target)):
            with contextlib.suppress(OSError):
                st = os.stat(target)  # the rename has changed its ctime
                if (st.st_ino, st.st_size, st.st_mtime_ns) == (written.st_ino, written.st_size, written.st_mtime_ns):
                    self.memo.remember(target, stamp_of(st), output.digest)


def _fill(plan: Plan, output: Output, source: int | None, fd: int) -> None:
    if source is None:
        assert output.inline is not None
        write_all(fd, _filled(plan, output.inline) if output.template else output.inline)
    elif output.zstd:
        try:
            decompress(source, fd, output.size)
        except CompressionError as e:
            raise Damaged(output.path) from e
    else:
        copy_descriptor(source, fd, output.size)


def _filled(plan: Plan, template: bytes) -> bytes:
    """An output with this call's names in it."""
    return plan.roles.fill_template(template) if plan.depfile is None else make_rule.unfold(template, plan.depfile)
