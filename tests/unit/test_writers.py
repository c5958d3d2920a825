"""Of two compiles that write one file at once neither is stored."""

from __future__ import annotations

from sccache_py.server.miss.writers import Writers


def test_who_writes_alone_is_alone():
    """Other files, and the same file later."""
    writers = Writers()
    with writers.one_more(["/a", "/b"]) as first, writers.one_more(["/c"]) as other:
        pass
    with writers.one_more(["/a"]) as later:
        pass
    assert first.is_alone
    assert other.is_alone
    assert later.is_alone


def test_two_that_share_a_file_are_not():
    """Whichever began first, and also when the other has already ended."""
    writers = Writers()
    with writers.one_more(["/a", "/b"]) as first:
        with writers.one_more(["/b", "/c"]) as second:
            pass
        assert not second.is_alone
    assert not first.is_alone
    with writers.one_more(["/b"]) as third:
        pass
    assert third.is_alone
