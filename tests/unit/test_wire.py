"""Frames and names that two languages have to agree on."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sccache_py.wire import (
    HEADER,
    MAX_FRAME,
    Decoder,
    Kind,
    ProtocolError,
    encode_frame,
    fnv1a64,
    runtime_directory,
    socket_identity,
    socket_name,
    state_stem,
)

FRAMES = st.lists(st.tuples(st.sampled_from(Kind), st.binary(max_size=300)))


@given(FRAMES, st.lists(st.integers(1, 40)))
def test_frames_survive_any_split_of_the_stream(frames: list[tuple[Kind, bytes]], steps: list[int]) -> None:
    """Streams may cut anywhere; the decoder must not care where."""
    stream = b"".join(encode_frame(kind, payload) for kind, payload in frames)
    decoder, got, at = Decoder(), [], 0
    for step in itertools.chain(steps, itertools.repeat(1 << 20)):
        decoder.feed(stream[at : at + step])
        at += step
        while (frame := decoder.next_frame()) is not None:
            got.append(frame)
        if at >= len(stream):
            break
    assert got == frames
    assert decoder.pending_bytes() == 0


def test_a_stream_that_was_cut_leaves_bytes_pending() -> None:
    """The end of a connection in the middle of a frame is not the end of a conversation."""
    decoder = Decoder()
    decoder.feed(encode_frame(Kind.STDOUT, b"hello")[:-1])
    assert decoder.next_frame() is None
    assert decoder.pending_bytes() == 9


def test_an_oversized_frame_is_refused_by_its_header() -> None:
    """Nobody makes us buffer gigabytes by announcing them."""
    decoder = Decoder()
    decoder.feed(HEADER.pack(MAX_FRAME + 1, Kind.STDOUT))
    with pytest.raises(ProtocolError, match="limit"):
        decoder.next_frame()
    with pytest.raises(ProtocolError, match="limit"):
        encode_frame(Kind.STDOUT, bytes(MAX_FRAME + 1))
    decoder = Decoder()
    decoder.feed(encode_frame(Kind.STDOUT, bytes(MAX_FRAME)))
    assert decoder.next_frame() == (Kind.STDOUT, bytes(MAX_FRAME))


def test_an_unknown_kind_is_refused() -> None:
    """Client and server are of one version; what neither knows is noise."""
    decoder = Decoder()
    decoder.feed(HEADER.pack(0, 200))
    with pytest.raises(ProtocolError, match="200"):
        decoder.next_frame()


@pytest.mark.parametrize(
    ("data", "value"),
    [(b"", 0xCBF29CE484222325), (b"a", 0xAF63DC4C8601EC8C), (b"foobar", 0x85944171F73967E8)],
)
def test_the_hash_is_fnv1a(data: bytes, value: int) -> None:
    """The published test vectors: C and Python must name the same socket."""
    assert fnv1a64(data) == value


def test_the_identity_is_spelled_as_the_protocol_says() -> None:
    """docs/protocol.md, section 1, letter by letter; unset counts as empty."""
    environ = {b"HOME": b"/h", b"SCCACHE_DIR": b"/c", b"PATH": b"/bin"}
    identity = socket_identity(1000, environ, (2, 3), 4, 5)
    assert identity == b"1000\0/c||||/h|\x002\x003\x004\x005"
    assert socket_name(identity) == b"%016x.sock" % fnv1a64(identity)


@pytest.mark.parametrize(
    ("xdg", "directory"),
    [
        (b"/run/user/7", b"/run/user/7/sccache-py"),
        (b"", b"/tmp/sccache-py-7"),
        (b"run", b"/tmp/sccache-py-7"),
        (b"/" + b"x" * 73, b"/" + b"x" * 73 + b"/sccache-py"),
        (b"/" + b"x" * 74, b"/tmp/sccache-py-7"),
    ],
)
def test_the_runtime_directory_fits_a_sockets_address(xdg: bytes, directory: bytes) -> None:
    """108 bytes with the closing NUL; one too many and bind fails for everybody."""
    assert runtime_directory(7, {b"XDG_RUNTIME_DIR": xdg}) == directory
    assert len(directory + b"/" + socket_name(b"")) < 108


def test_lock_and_stamps_stand_beside_the_socket() -> None:
    """An abstract socket has no beside: its files go to the runtime directory."""
    assert state_stem(b"/run/x.sock", b"/r") == b"/run/x"
    assert state_stem(b"/run/x", b"/r") == b"/run/x"
    assert state_stem(rb"\x00name", b"/r") == b"/r/%016x" % fnv1a64(rb"\x00name")
