"""What a text says of OUT_DIR: which file it includes, or more."""

from __future__ import annotations

import pytest

from sccache_py.keys import digest
from sccache_py.server.filesystem.time_macros import OUT_DIR, TimeMacros

INCLUDES = b'include!(concat!(env!("OUT_DIR"), "/a.rs"));\n'


@pytest.mark.parametrize(
    ("before", "says_more"),
    [
        (b"", False),
        (b"use std::env;\n", False),
        (b"use core::{include, fmt};\n", False),
        (b"use foo::bar; // env;\n", False),
        (b"use other::env;\n", True),
        (b"use other::{fmt,\n include};\n", True),
        (b"use other::{self as include};\n", True),
        (b"macro_rules! concat { ($($x:tt)*) => {} }\n", True),
        (b'const N: usize = env!("OUT_DIR").len();\n', True),
    ],
)
def test_another_include_may_say_more_than_which_file(before, says_more):
    text = before + INCLUDES
    assert (OUT_DIR in TimeMacros().search(text, digest(text), (OUT_DIR,))) is says_more


def test_a_name_that_is_put_together_may_be_that_one():
    for text, says in ((b'env!(concat!("OUT_", "DIR")).len()', True), (b'env!( "X" )', False), (b"option_env!(name!())", True)):
        assert (OUT_DIR in TimeMacros().search(text, digest(text), (OUT_DIR,))) is says
