"""Write what a hit brings back: each output whole or not at all, with this call's names and the caller's umask.

Contents that are files in the store are copied inside the kernel; never a hard link, for rustc and cargo write some of them in
place. Every output gets the current time: with any other, cargo's next run rebuilds.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sccache_py import make_rule
from sccache_py.model import Output, Plan, Request, Result
from sccache_py.profiles import for_process, is_profile
from sccache_py.server.filesystem import permits
from sccache_py.server.filesystem.files import FileMemo, Target, copy_descriptor, find_target, hash_descriptor, publish, write_all
from sccache_py.server.filesystem.private import make_directory
from sccache_py.server.filesystem.stamps import stamp_of
from sccache_py.server.store.compression import CompressionError, Unpacking
from sccache_py.server.store.keeper import StoredFiles

# Smaller ones are hashed again in less time than remembering takes.
_REMEMBERED_BYTES = 16 * 1024


class Damaged(Exception):
    """A stored file is gone or is not what its name says."""


@dataclass(frozen=True, slots=True)
class Restorer:
    """The memo also knows which stored files were compared with their digest."""

    memo: FileMemo

    def restore(self, plan: Plan, result: Result, files: StoredFiles, caller: Request) -> None:
        """Raises Damaged if a stored file is not usable, OSError if an output cannot be written.  What was written before is removed then:
        the compiler runs next, and where it fails, too, an object without the rest would be taken for its work.
        """
        if not permits.may_write(caller, result):
            raise OSError(errno.EFBIG, "larger than the caller may write")
        places: list[tuple[Output, str, Target]] = []
        for output in result.outputs:
            target = _target(plan, output, caller)
            if target is None:
                raise Damaged(output.path)
            found = find_target(target)
            if found[0] != target and not plan.follows_links:
                raise OSError(errno.ELOOP, "a link is where an output goes", target)
            places.append((output, target, found))
        if _overlap(plan.source, [found for _, _, found in places]):
            raise OSError(errno.EEXIST, "an output is the source or another output", plan.source)
        umasks = {d: 0 if _passes_its_acl_on(d) else caller.umask for d in {os.path.dirname(path) for _, _, (path, _) in places}}
        with contextlib.ExitStack() as opened:
            fill: Callable[[Output, int], None]
            pack = None
            if files.pack is not None:
                descriptor = _open_stored(files.pack)
                opened.callback(os.close, descriptor)
                pack = opened.enter_context(Unpacking(descriptor))
                fill = _packed(pack)
            else:
                sources: dict[bytes, int] = {}
                for output in result.outputs:
                    if output.inline is None and output.digest not in sources:
                        path = files.plain[output.digest]
                        sources[output.digest] = descriptor = _open_stored(path)
                        opened.callback(os.close, descriptor)
                        self._check(output, path, descriptor)

                def fill(output: Output, fd: int) -> None:
                    copy_descriptor(sources[output.digest], fd, output.size)

            written: list[str] = []
            try:
                for output, target, found in places:
                    self._write(plan, output, target, found, fill, umasks[os.path.dirname(found[0])])
                    written.append(target)
                if pack is not None:
                    pack.end()
            except (Damaged, CompressionError, OSError) as e:
                _remove(written)
                if isinstance(e, CompressionError):
                    raise Damaged(files.pack or "") from e
                raise

    def _check(self, output: Output, path: str, fd: int) -> None:
        try:
            stamp = stamp_of(os.fstat(fd))
            if self.memo.known(path, stamp) != output.digest:
                if stamp[2] != output.size or hash_descriptor(fd) != output.digest:
                    raise Damaged(path)
                self.memo.remember(path, stamp, output.digest)
        except OSError as e:
            raise Damaged(path) from e

    def _write(self, plan: Plan, output: Output, target: str, found: Target, fill: Callable[[Output, int], None], umask: int) -> None:
        if is_profile(output.path) and os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, "an earlier process of that number left a profile", target)
        # What the compiler made executable is executable for whom the umask lets it be, as if it had made it now.
        mode = (0o777 if output.mode & 0o111 else 0o666) & ~umask
        if target not in plan.must_write:
            # A compiler makes the directory that it keeps modules in (gcm.cache), but not one that it is told to write to.
            make_directory(os.path.dirname(target), 0o777 & ~umask)
        written = publish(
            target,
            mode,
            lambda fd: _write_inline(plan, output, fd) if output.inline is not None else fill(output, fd),
            output.size,
            in_place=target in plan.in_place or (target not in plan.must_write and target.endswith(plan.overwrites)),
            found=found,
            fills_empty=target in plan.fills_empty,
        )
        if output.mtime_ns is not None:
            os.utime(target, ns=(output.mtime_ns, output.mtime_ns))
            return
        # Where a later change is sure to show, dependents need not hash again what was written here.
        if written is None or output.template or output.size < _REMEMBERED_BYTES:
            return
        if self.memo.shows_every_change(written.st_dev, os.path.dirname(target)):
            with contextlib.suppress(OSError):
                st = os.stat(target)  # the rename has changed its ctime
                if (st.st_ino, st.st_size, st.st_mtime_ns) == (written.st_ino, written.st_size, written.st_mtime_ns):
                    self.memo.remember(target, stamp_of(st), output.digest)


def _overlap(source: str | None, targets: list[Target]) -> bool:
    """Whether an output is the source or another output, by another name: a linked directory, a hard link.  gcc refuses the former."""
    seen = set()
    if source is not None and any(there is not None for _, there in targets):
        with contextlib.suppress(OSError):  # a question has no file
            st = os.stat(source)
            seen.add((st.st_dev, st.st_ino))
    names: dict[str, str] = {}
    for path, there in targets:
        directory, name = os.path.split(path)
        other = names.setdefault(name, directory)
        if there is None:
            if other is not directory and os.path.samefile(other, directory):
                return True
        elif stat.S_ISREG(there.st_mode):
            if (there.st_dev, there.st_ino) in seen:
                return True
            seen.add((there.st_dev, there.st_ino))
    return False


def _passes_its_acl_on(directory: str) -> bool:
    """A default ACL takes the place of the umask (acl(5)): what lies in a directory that is shared may be written by those it names."""
    try:
        return "system.posix_acl_default" in os.listxattr(directory)  # to ask for it by name raises where it is not: 1 µs against 3
    except OSError:  # no such directory, or no such thing on this file system
        return False


def _target(plan: Plan, output: Output, caller: Request) -> str | None:
    """Where an output goes; None: this call has no such place."""
    path = plan.roles.unfold(output.path)
    return for_process(path, caller.pid) if path is not None and is_profile(path) else path


def _remove(written: Iterable[str]) -> None:
    for path in written:
        with contextlib.suppress(OSError):
            if os.path.isfile(path):  # not /dev/null
                os.unlink(path)


def _open_stored(path: str) -> int:
    """Raises Damaged."""
    try:
        # O_NONBLOCK: what lies there may be a FIFO by now.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as e:
        raise Damaged(path) from e
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise Damaged(path)
    return fd


def _packed(pack: Unpacking) -> Callable[[Output, int], None]:
    def fill(output: Output, fd: int) -> None:
        try:
            digest = pack.next_file(fd, output.size)
        except CompressionError as e:
            raise Damaged(output.path) from e
        if digest != output.digest:
            raise Damaged(output.path)

    return fill


def _write_inline(plan: Plan, output: Output, fd: int) -> None:
    assert output.inline is not None
    write_all(fd, _filled(plan, output.inline) if output.template else output.inline)


def _filled(plan: Plan, template: bytes) -> bytes:
    """An output with this call's names in it."""
    filled = plan.roles.fill_template(template)
    return filled if plan.depfile is None else make_rule.unfold(filled, plan.depfile)
