"""Frames between client and server, and the name of the socket between them.

Sans-io: bytes go in, values come out.  What the payload of a frame means is not known here (request.py knows
it for REQUEST), and neither is where bytes come from.  The grammar is docs/protocol.md, sections 1 and 2; the
C half is client/native/wire.c and place.c, and tests/contract/test_client_start.py holds the two together.
"""

import enum
import struct
from collections.abc import Mapping

PROTOCOL = 1

# Linux refuses to exec with more than a few MiB of arguments and environment,
# so no compiler was ever called with more.  Beyond this, the peer is not ours.
MAX_FRAME = 8 * 1024 * 1024

# What the client sends of its standard input at most, in all STDIN frames of a
# connection together; a longer input is compiled by the client itself.
MAX_STDIN = 1024 * 1024

# sizeof(sockaddr_un.sun_path) on Linux, the closing NUL included.
SUN_PATH_BYTES = 108

HEADER = struct.Struct("<IB")


class ProtocolError(ValueError):
    """The peer sent what no peer of ours sends."""


class Kind(enum.IntEnum):
    """The kinds of frame; below 16 the client speaks, from 16 on the server."""

    REQUEST = 1
    SIGNAL = 2
    STDIN = 3
    CONTROL = 4
    LEASE = 5
    ALIVE_WANTED = 6
    PASS = 16
    STARTED = 17
    STDOUT = 18
    STDERR = 19
    EXIT = 20
    STDIN_WANTED = 21
    ANSWER = 22
    LEAVING = 23
    LEASED = 24
    ALIVE = 25


def encode_frame(kind: Kind, payload: bytes = b"") -> bytes:
    """One frame as it goes over the socket.

    Raises ProtocolError if the payload is longer than MAX_FRAME bytes.
    """
    if len(payload) > MAX_FRAME:
        raise ProtocolError(f"frame of {len(payload)} bytes (limit {MAX_FRAME})")
    return HEADER.pack(len(payload), kind) + payload


class Decoder:
    """Feed it whatever recv() returned; ask it for frames until it has none."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        """Append bytes of the stream, cut anywhere."""
        self._buffer += data

    def next_frame(self) -> tuple[Kind, bytes] | None:
        """One (kind, payload), or None: more bytes are needed.

        Raises ProtocolError for an unknown kind or a payload announced to be longer than MAX_FRAME, as soon
        as the header is there: nothing of such a frame needs to be buffered.
        """
        if len(self._buffer) < HEADER.size:
            return None
        length, number = HEADER.unpack_from(self._buffer)
        if length > MAX_FRAME:
            raise ProtocolError(f"frame of {length} bytes (limit {MAX_FRAME})")
        try:
            kind = Kind(number)
        except ValueError as e:
            raise ProtocolError(f"frame of unknown kind {number}") from e
        end = HEADER.size + length
        if len(self._buffer) < end:
            return None
        payload = bytes(self._buffer[HEADER.size : end])
        del self._buffer[:end]
        return kind, payload

    def rest(self) -> bytes:
        """What was fed and is not part of a frame that was returned: for whoever goes on with this stream."""
        return bytes(self._buffer)

    def pending_bytes(self) -> int:
        """How much was fed and not returned in frames; not 0 at the end of a stream means that it was cut."""
        return len(self._buffer)


def fnv1a64(data: bytes) -> int:
    """The 64-bit FNV-1a hash (draft-eastlake-fnv-17), 0 ≤ result < 2**64.

    Not for anything an adversary chooses: it only names a socket in a directory of the user's own.
    """
    value = 0xCBF29CE484222325
    for byte in data:
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return value


def socket_identity(
    uid: int,
    environ: Mapping[bytes, bytes],
    root: tuple[int, int],
    mnt_ns: int,
    pid_ns: int,
) -> bytes:
    """Whatever must be equal for two clients to share a server (docs/protocol.md, section 1).

    `environ` is the caller's environment (six names are looked at), `root` is (device, inode) of `/`, the
    namespaces are inode numbers, 0 where there is no /proc.
    """
    names = (b"SCCACHE_DIR", b"SCCACHE_CONF", b"XDG_CACHE_HOME", b"XDG_CONFIG_HOME", b"HOME", b"SCCACHE_SERVER_PORT")
    cache = b"|".join(environ.get(name, b"") for name in names)
    numbers = (root[0], root[1], mnt_ns, pid_ns)
    return b"\0".join([b"%d" % uid, cache, *(b"%d" % n for n in numbers)])


def runtime_directory(uid: int, environ: Mapping[bytes, bytes], xdg_is_ours: bool = True) -> bytes:
    """The directory that holds the user's sockets; whether it is fit for that is for the caller to see.

    `xdg_is_ours`: whether $XDG_RUNTIME_DIR is a directory and belongs to `uid` (after `su` or `sudo -E` it does not).
    """
    xdg = environ.get(b"XDG_RUNTIME_DIR", b"")
    directory = xdg + b"/sccache-py"
    if xdg_is_ours and xdg.startswith(b"/") and len(directory) + len("/0123456789abcdef.sock") < SUN_PATH_BYTES:
        return directory
    return b"/tmp/sccache-py-%d" % uid


def socket_name(identity: bytes) -> bytes:
    """The socket's name within the runtime directory."""
    return b"%016x.sock" % fnv1a64(identity)


def state_stem(socket: bytes, runtime: bytes) -> bytes:
    """The X of X.lock, X.failed and X.uncounted, for a socket as SCCACHE_SERVER_UDS or --socket names it.

    An abstract socket (a leading backslash, x, 0, 0) has no place in the file system: its files stand in
    `runtime` under the hash of its name as written.
    """
    if socket.startswith(rb"\x00"):
        return runtime + b"/%016x" % fnv1a64(socket)
    return socket.removesuffix(b".sock")
