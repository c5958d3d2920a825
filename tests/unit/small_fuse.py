"""The smallest file system of FUSE: one file, of which the kernel may remember all that a stat says, for ever.

A sshfs, a virtiofs and NFS let it do so for a second or a minute.  linux/fuse.h, protocol 7.31.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
import threading

_LOOKUP, _FORGET, _GETATTR, _OPEN, _READ, _RELEASE, _INIT, _BATCH_FORGET = 1, 2, 3, 14, 15, 18, 26, 42
_FOR_EVER_S = 1 << 30
_FILE, _ROOT = 2, 1


class SmallFuse:
    """`text` is what whoever opens the file reads; all other that is to be seen of it stays as it is."""

    def __init__(self, directory: str, name: str, text: bytes) -> None:
        """Raises OSError where that may not be mounted."""
        self._name, self.text = name.encode(), text
        self._fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        libc = ctypes.CDLL(None, use_errno=True)
        options = f"fd={self._fd},rootmode=40000,user_id=0,group_id=0".encode()
        if libc.mount(b"small", directory.encode(), b"fuse", 0, options):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                asked = os.read(self._fd, 1 << 20)
            except OSError:
                return  # unmounted
            _, operation, unique, node = struct.unpack_from("=IIQQ", asked)
            if operation in (_FORGET, _BATCH_FORGET):
                continue
            said = self._answer(operation, node, asked[40:])
            error, body = (-said, b"") if isinstance(said, int) else (0, said)
            os.write(self._fd, struct.pack("=IiQ", 16 + len(body), error, unique) + body)

    def _answer(self, operation: int, node: int, body: bytes) -> bytes | int:
        if operation == _INIT:
            return struct.pack("=4I2H2I2H8I", 7, 31, 1 << 16, 0, 8, 8, 1 << 16, 1, 0, 0, *[0] * 8)
        if operation == _LOOKUP:
            if body.rstrip(b"\0") != self._name:
                return errno.ENOENT
            return struct.pack("=4Q2I", _FILE, 0, _FOR_EVER_S, _FOR_EVER_S, 0, 0) + self._attributes(_FILE)
        if operation == _GETATTR:
            return struct.pack("=QII", _FOR_EVER_S, 0, 0) + self._attributes(node)
        if operation == _OPEN:
            return struct.pack("=QII", 1, 0, 0)
        if operation == _READ:
            _, offset, size = struct.unpack_from("=QQI", body)
            return self.text[offset : offset + size]
        return b"" if operation == _RELEASE else errno.ENOSYS

    def _attributes(self, node: int) -> bytes:
        mode = stat.S_IFDIR | 0o755 if node == _ROOT else stat.S_IFREG | 0o644
        return struct.pack("=6Q10I", node, len(self.text), 1, *[10**9] * 3, *[1] * 3, mode, 1, 0, 0, 0, 4096, 0)
