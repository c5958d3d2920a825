"""Vendored crates below the map of a checkout: cargo names their sources with whole paths, and their directory is below what is mapped."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package

from rust_macros import LIB

pytestmark = pytest.mark.slow

SOURCES = {
    "src/lib.rs": "mod m;\npub use m::*;\npub fn f() -> &'static str { panic!(\"{}\", file!()) }\n",
    "src/m.rs": 'pub const S: &str = include_str!("../../../LICENSE");\n',
}

FILES_MACRO = """
extern crate proc_macro;
use proc_macro::TokenStream;
#[proc_macro] pub fn where_it_is(input: TokenStream) -> TokenStream {
    let span = input.into_iter().next().unwrap().span();
    format!("{}", span.local_file().unwrap().to_str().unwrap().len()).parse().unwrap()
}
"""


class Checkouts:
    """Some of one project, with a crate below `vendor`."""

    def __init__(self, world) -> None:
        self.world = world

    def make(self, name: str, crate: str = "vendor/x") -> Path:
        where = self.world.root / name
        for path, text in {"LICENSE": "any\n", **{f"{crate}/{path}": text for path, text in SOURCES.items()}}.items():
            (where / path).parent.mkdir(parents=True, exist_ok=True)
            (where / path).write_text(text)
        (where / "target").mkdir()
        return where

    def expect(self, verdict: str, where: Path, *more: str, crate: str = "vendor/x", maps: str = "{}=/src"):
        target = where / "target"
        self.world.outs[:] = [target]
        mapped = f"--remap-path-prefix={maps.format(where)}"
        words = (*LIB, "--out-dir", str(target), "-L", f"dependency={target}", "-g", mapped, *more, str(where / crate / "src/lib.rs"))
        return self.world.expect(verdict, *words, cwd=where / crate)


@pytest.fixture
def checkouts(make_world) -> Checkouts:
    return Checkouts(make_world())


def test_checkouts_share_their_vendored_crates(checkouts):
    """Each gets a depfile with its own paths, and a space in one is escaped as rustc does it."""
    one, other, spaced = checkouts.make("one"), checkouts.make("two"), checkouts.make("a space")
    checkouts.expect("miss", one)
    for where in (other, spaced):
        done = checkouts.expect("hit", where)
        assert f"{where}/vendor/x/src/../../../LICENSE".replace(" ", "\\ ").encode() in done.file("x.d")
    (other / "LICENSE").write_text("none\n")
    checkouts.expect("miss", other)
    checkouts.expect("hit", one)


@pytest.mark.parametrize("maps", ["{}=/other", "{}/vendor=/src", "/=/src"])
def test_what_is_mapped_otherwise_is_another_crate(checkouts, maps):
    """Where the crate lies below the mapped directory, and to what that is mapped, is in what rustc writes."""
    one, other = checkouts.make("one"), checkouts.make("two", "third/x")
    checkouts.expect("miss", one)
    checkouts.expect("miss", other, crate="third/x")
    checkouts.expect("miss", one, maps=maps)


def test_a_macro_that_asks_where_a_source_lies_keeps_checkouts_apart(checkouts):
    """Span::local_file tells the whole path whatever the maps say, and an output need not show it."""
    source = checkouts.world.write("files.rs", FILES_MACRO)
    one, other = checkouts.make("one"), checkouts.make("another")
    made = ("--crate-type=proc-macro", "--crate-name=files", "--edition=2021", "--out-dir", str(one / "macros"), str(source))
    assert checkouts.world.run([checkouts.world.compiler, *made], None, {}).returncode == 0
    shutil.copytree(one / "macros", other / "macros")
    for where in (one, other):
        (where / "vendor/x/src/m.rs").write_text("pub const N: usize = files::where_it_is!(here);\n")
        extern = ("--extern", f"files={where}/macros/libfiles.so")
        checkouts.expect("miss", where, *extern)
        checkouts.expect("hit", where, *extern)
