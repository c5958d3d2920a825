"""REQUEST's payload: what any client of any version may send."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sccache_py import __version__
from sccache_py.codec import pack
from sccache_py.environment import of_all_variables
from sccache_py.errors import FormatError
from sccache_py.request import OtherVersion, decode_request
from sccache_py.wire import PROTOCOL

FIELDS = [
    PROTOCOL, __version__.encode(), [b"rustc", b"\xff"], b"/bin/rustc", b"/p", [b"A=1", b"A=2", b"B=", b"C==x", b"nothing"],
    0o22, 0, [[7, 1, 2]], 7, 80, [1, 2], [3, 4], b"\x03", 0, 0,
]  # fmt: skip


def decode(*changes: tuple[int, object]):
    fields = list(FIELDS)
    for index, value in changes:
        fields[index] = value
    return decode_request(pack(fields))


def test_a_request_is_what_was_sent():
    """Names that are no UTF-8 too; of equal variables the first counts, as for getenv."""
    request = decode()
    assert request.argv == ["rustc", "\udcff"]
    assert request.env == {"A": "1", "B": "", "C": "=x"}
    assert (request.umask, request.root, request.limits) == (0o22, (1, 2), [(7, 1, 2)])


@pytest.mark.parametrize(
    "change",
    [(2, []), (2, b"rustc"), (2, [1]), (3, b""), (4, b"relative"), (5, [1]), (6, "x"), (8, [[1]]), (11, [1]), (13, 5), (15, None)],
)
def test_a_request_of_another_shape_is_a_format_error(change):
    """The connection ends, and its client becomes the compiler."""
    with pytest.raises(FormatError):
        decode(change)


def test_a_request_with_more_or_fewer_fields_is_a_format_error():
    """Within one protocol number there is one shape."""
    for fields in (FIELDS[:-1], [*FIELDS, 0]):
        with pytest.raises(FormatError):
            decode_request(pack(fields))


def test_another_version_is_told_apart_before_anything_else_is_read():
    """Its request may have another shape; all that matters is that it is to be served by another server."""
    found = decode_request(pack([PROTOCOL + 1, b"9.9", "whatever"]))
    assert isinstance(found, OtherVersion)
    assert (found.protocol, found.version) == (PROTOCOL + 1, "9.9")


@given(st.binary(max_size=80))
@example(b"\x83\x00\x00\x00\x00\x80\x00")  # a map as a key
def test_garbage_is_a_format_error_and_nothing_else(data):
    """Whatever somebody writes to the socket."""
    try:
        decode_request(data)
    except FormatError:
        pass


def test_equal_variables_are_read_once():
    """And what follows from all of them is worked out once."""
    first, again, other = decode(), decode(), decode((5, [b"A=1"]))
    assert again.env is first.env
    assert other.env is not first.env
    seen = []

    @of_all_variables
    def work(env):
        seen.append(env)
        return len(env)

    assert [work(r.env) for r in (first, again, other)] == [3, 3, 1]
    assert len(seen) == 2
    assert work({"A": "2"}) == 1  # of a plain mapping nothing is remembered
    assert work({"A": "2", "B": ""}) == 2
