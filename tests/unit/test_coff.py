"""The head of an object for Windows, as LLVM writes it."""

from __future__ import annotations

import struct

import pytest

from sccache_py.coff import HEAD_BYTES, made_at


@pytest.mark.parametrize(
    ("head", "time_s"),
    [
        (struct.pack("<HHII", 0x8664, 5, 1_700_000_000, 300), 1_700_000_000),
        (struct.pack("<HHHHI", 0, 0xFFFF, 2, 0xAA64, 1_700_000_000), 1_700_000_000),
        (struct.pack("<HHII", 0x8664, 5, 0, 300), 0),
        (b"\x7fELF".ljust(HEAD_BYTES, b"\1"), 0),
        (b"int x;", 0),
        (b"", 0),
    ],
)
def test_the_time_is_read_where_there_is_one(head, time_s):
    """Everything else that a compiler writes has none there."""
    assert made_at(head) == time_s
