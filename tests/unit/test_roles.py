"""Paths by role, both ways; and texts in which they stand."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sccache_py.roles import Roles

NOTICE = '{"$message_type":"artifact","artifact":"%s","emit":"link"}\n'


def roles(out: str, cwd: str = "/src/p") -> Roles:
    return Roles([("out", out, out), ("cwd", cwd, cwd)])


@pytest.mark.parametrize(
    ("path", "folded"),
    [
        ("/t/deps", "$out"),
        ("/t/deps/libx.rlib", "$out/libx.rlib"),
        ("/t/deps2/x", "/t/deps2/x"),
        ("/src/p/a.rs", "$cwd/a.rs"),
        ("/src/p/../b.rs", "$cwd/../b.rs"),
        ("/src/pq", "/src/pq"),
        ("/usr/include/x.h", "/usr/include/x.h"),
    ],
)
def test_a_path_is_told_by_its_role_and_found_again(path, folded):
    """`/t/deps2` only looks as if it were below `/t/deps`."""
    assert roles("/t/deps").fold(path) == folded
    assert roles("/t/deps").unfold(folded) == path


def test_a_folded_path_is_another_file_in_another_place():
    """That is what it is for."""
    assert roles("/elsewhere").unfold("$out/libx.rlib") == "/elsewhere/libx.rlib"


def test_a_role_that_a_call_does_not_have_gives_no_path():
    """A manifest with seven externs does not fit a call with six."""
    assert roles("/t").unfold("$x7") is None
    assert roles("/t").unfold("$x7/a") is None


def test_the_longest_directory_wins():
    """OUT_DIR lies below the target directory."""
    nested = Roles([("a", "/t", "/t"), ("b", "/t/u", "/t/u")])
    assert nested.fold("/t/u/x") == "$b/x"


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=12).filter(lambda n: n not in (".", ".."))


@given(NAMES, NAMES)
def test_a_notice_is_given_with_this_calls_path_in_json(one, other):
    """Quotes, backslashes, control characters: cargo parses that line."""
    first, second = f"/t/{one}/deps", f"/u/{other}/deps"
    said = (NOTICE % json.dumps(f"{first}/libx.rlib", ensure_ascii=False)[1:-1]).encode()
    template = roles(first).make_stream_template(said, ["out"])
    assert roles(first).fill_template(template) == said
    assert json.loads(roles(second).fill_template(template))["artifact"] == f"{second}/libx.rlib"


@given(st.binary(max_size=200))
def test_any_bytes_come_back_as_they_were(text):
    """The marks have a byte of their own, which a text may contain."""
    some = roles("/t/deps")
    for template in (some.make_stream_template(text, ["out"]), some.make_template(text, ["out"], b"r")):
        assert some.fill_template(template) == text


def test_only_notices_are_changed():
    """A path in a warning is part of what a source made the compiler say."""
    text = b"warning: look at /t/deps/x.rs\n" + (NOTICE % "/t/deps/libx.rlib").encode()
    template = roles("/t/deps").make_stream_template(text, ["out"])
    assert roles("/u").fill_template(template) == b"warning: look at /t/deps/x.rs\n" + (NOTICE % "/u/libx.rlib").encode()


@pytest.mark.parametrize("text", [b"/t/deps2/x", b"/src/t/deps/x", b"a/t/deps", b"/t/deps-x"])
def test_a_longer_name_is_another_directory(text):
    """Replacing it would name a directory that never was."""
    assert roles("/t/deps").make_template(text, ["out"], b"r") == text
