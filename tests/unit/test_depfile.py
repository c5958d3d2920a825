"""rustc's dep-info, as rustc writes it."""

from __future__ import annotations

from sccache_py.depfile import parse_dep_info, replace_targets

TEXT = b"""/t/my deps/x.d: src/lib.rs src/with\\ space.rs /abs/g.rs

/t/my deps/libx.rlib: src/lib.rs src/with\\ space.rs /abs/g.rs

src/lib.rs:
src/with\\ space.rs:
/abs/g.rs:

# env-dep:SET=a value: with b
# env-dep:UNSET
"""


def test_sources_and_variables_are_found():
    """Targets are escaped by no one, prerequisites by a backslash."""
    files, names = parse_dep_info(TEXT)
    assert files == [b"src/lib.rs", b"src/with space.rs", b"/abs/g.rs"]
    assert names == [b"SET", b"UNSET"]


def test_a_colon_in_a_name_is_part_of_it():
    """Only a colon before a space, or at the end, ends a target."""
    files, _ = parse_dep_info(b"o/x.d: a:b.rs\n\na:b.rs:\n")
    assert files == [b"a:b.rs"]


def test_only_targets_of_rules_are_replaced():
    """`file:` alone names a source."""
    assert replace_targets(TEXT, lambda _: b"T") == TEXT.replace(b"/t/my deps/x.d:", b"T:").replace(b"/t/my deps/libx.rlib:", b"T:")
    assert replace_targets(TEXT, lambda target: target) == TEXT
