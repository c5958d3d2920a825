"""REQUEST's payload → Request (docs/protocol.md, section 2)."""

from __future__ import annotations

from typing import Any, NamedTuple

from sccache_py import __version__
from sccache_py.codec import unpack
from sccache_py.environment import environment_of
from sccache_py.errors import FormatError
from sccache_py.model import Request
from sccache_py.wire import PROTOCOL

_FIELDS = 16


def _bytes(value: Any) -> bytes:
    if not isinstance(value, bytes):
        raise FormatError("a string that is not bin")
    return value


def _text(value: Any) -> str:
    return _bytes(value).decode("utf-8", "surrogateescape")


def _pair(value: Any) -> tuple[int, int]:
    first, second = value
    return int(first), int(second)


class OtherVersion(NamedTuple):
    """A request of a client that is not of our version; the rest of it was not looked at."""

    protocol: int
    version: str


def decode_request(payload: bytes) -> Request | OtherVersion:
    """Raises FormatError."""
    fields = unpack(payload)
    try:
        protocol, version = int(fields[0]), _text(fields[1])
        if (protocol, version) != (PROTOCOL, __version__):
            return OtherVersion(protocol, version)
        if len(fields) != _FIELDS:
            raise FormatError(f"{len(fields)} fields in a request")
        request = Request(
            argv=[_text(a) for a in fields[2]],
            program=_text(fields[3]),
            cwd=_text(fields[4]),
            env=environment_of(b"\0".join(fields[5])),
            umask=int(fields[6]) & 0o777,
            nice=int(fields[7]),
            limits=[(int(r), int(s), int(h)) for r, s, h in fields[8]],
            descriptors=int(fields[9]),
            columns=int(fields[10]),
            root=_pair(fields[11]),
            here=_pair(fields[12]),
            affinity=_bytes(fields[13]),
            blocked=int(fields[14]),
            ignored=int(fields[15]),
        )
    except (TypeError, ValueError, IndexError, KeyError, AttributeError, OverflowError) as e:
        raise FormatError(f"not a request: {e}") from e
    if not request.argv or not request.program or not request.cwd.startswith("/"):
        raise FormatError("a request without argv, program or cwd")
    if "\0" in request.program or "\0" in request.cwd:
        raise FormatError("a path with NUL")
    return request
