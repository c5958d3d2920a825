"""Stored values and their bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sccache_py.codec import pack
from sccache_py.entry import Shared, pack_manifest, pack_result, unpack_manifest, unpack_result
from sccache_py.errors import FormatError
from sccache_py.model import Output, Result, Variant

# As paths are: any bytes of a file system, decoded with surrogateescape.
PATHS = st.binary(max_size=20).map(lambda b: b.replace(b"\0", b"x").decode("utf-8", "surrogateescape"))
DIGESTS = st.binary(min_size=16, max_size=16)
VARIANTS = st.builds(
    Variant,
    files=st.lists(st.tuples(PATHS, DIGESTS), max_size=4),
    present=st.lists(st.tuples(PATHS, st.binary(max_size=9)), max_size=3),
    absent=st.lists(st.tuples(PATHS, st.lists(PATHS, max_size=3)), max_size=3),
    listed=st.lists(st.tuples(PATHS, DIGESTS), max_size=3),
    env=st.lists(st.tuples(PATHS, st.none() | PATHS), max_size=3),
    pins=st.lists(st.tuples(st.sampled_from(["out", "cwd"]), PATHS), max_size=2),
    result=DIGESTS,
)
OUTPUTS = st.builds(
    Output, path=PATHS, mode=st.integers(0, 0o777), size=st.integers(0, 1 << 40), digest=DIGESTS, inline=st.none() | st.binary(max_size=20),
    template=st.booleans(),
)  # fmt: skip
RESULTS = st.builds(
    Result, outputs=st.lists(OUTPUTS, max_size=3).map(tuple), stdout=st.binary(max_size=20), stderr=st.binary(max_size=20),
    took_ns=st.integers(0, 1 << 50), peak_rss_kib=st.integers(0, 1 << 30), status=st.integers(0, 255),
)  # fmt: skip


@given(st.lists(VARIANTS, max_size=4))
def test_a_manifest_comes_back_as_it_was(variants):
    """Also with names that are no UTF-8."""
    assert unpack_manifest(pack_manifest(variants)) == variants


@given(st.lists(VARIANTS, max_size=4), st.lists(VARIANTS, max_size=4))
def test_what_variants_share_says_what_each_said(some, others):
    """Nothing of one kind is taken for another kind that looks like it."""
    shared = Shared()
    for variants in (some, others, some):
        made = unpack_manifest(pack_manifest(variants))
        assert shared.share(made) is made
        assert made == variants


def test_a_condition_of_many_manifests_stands_in_memory_once():
    """A server that sees a project edited for days keeps 32 variants of each of its files: 1.3 GB for 600 files by themselves."""
    one = Variant([("$cwd/a.h", b"1" * 16)], [("/usr", b"d")], [("$cwd", ["b.h"])], [], [("LANG", None)], [])
    shared = Shared()
    first, second = (shared.share(unpack_manifest(pack_manifest([one])))[0] for _ in range(2))
    assert all(
        a is b
        for a, b in zip(
            (*first.files, *first.present, *first.absent, *first.env),
            (*second.files, *second.present, *second.absent, *second.env),
            strict=True,
        )
    )


@given(RESULTS)
def test_a_result_comes_back_as_it_was(result):
    """Exit status, streams and all outputs."""
    assert unpack_result(pack_result(result)) == result


@given(st.binary(max_size=60))
def test_garbage_is_a_format_error_and_nothing_else(data):
    """Whoever reads it takes that for a miss; any other exception would end a request."""
    for unpack in (unpack_manifest, unpack_result):
        try:
            unpack(data)
        except FormatError:
            pass


LEAVES = st.none() | st.booleans() | st.integers(-5, 5) | st.binary(max_size=4) | st.text(max_size=4)
VALUES = st.recursive(LEAVES, lambda v: st.lists(v, max_size=7), max_leaves=12)


@given(VALUES)
def test_a_value_of_another_shape_is_a_format_error_or_decodes(value):
    """An entry of another version that got past the key."""
    for unpack in (unpack_manifest, unpack_result):
        try:
            unpack(pack(value))
        except FormatError:
            pass


@pytest.mark.parametrize("at", range(0, 40, 7))
def test_a_cut_entry_is_a_format_error(at):
    """Torn by a crash."""
    data = pack_result(Result((), b"out", b"err", 1, 2))
    with pytest.raises(FormatError):
        unpack_result(data[: min(at, len(data) - 1)])
