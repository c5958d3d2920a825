"""Keys: what differs must differ in them."""

from __future__ import annotations

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from sccache_py import keys
from sccache_py.compilers.rustc import Rustc
from sccache_py.model import Plan, Variant


def plan(*more: str) -> Plan:
    argv = ["--crate-name", "x", "--crate-type", "lib", "--emit=metadata", "--out-dir", "/t", *more, "src/lib.rs"]
    found = Rustc().parse(argv, "/p", "/p")
    assert isinstance(found, Plan)
    return found


def recipe(of: Plan, compiler: bytes = b"c", source: bytes = b"s", env: dict[str, str] | None = None, more=()) -> bytes:
    sink = keys.KeyHash()
    keys.describe_recipe(of, compiler, source, env or {}, more, sink)
    return sink.key()


@given(st.lists(st.tuples(st.text(max_size=3), st.binary(max_size=3)), max_size=4), st.data())
def test_fields_cannot_run_into_each_other(fields, data):
    """`-DA B` is not `-DAB`: names and lengths go in."""
    other = data.draw(st.lists(st.tuples(st.text(max_size=3), st.binary(max_size=3)), max_size=4))
    hashes = []
    for those in (fields, other):
        hash_ = keys.KeyHash()
        for name, value in those:
            hash_.field(name, value)
        hashes.append(hash_.key())
    assert (hashes[0] == hashes[1]) == (fields == other)


def test_every_part_of_a_recipe_changes_its_key():
    """Compiler, arguments, source, cargo's package variables, and whatever else the caller names."""
    base = recipe(plan())
    assert base == recipe(plan())
    others = [
        recipe(plan(), compiler=b"d"),
        recipe(plan(), source=b"t"),
        recipe(plan("--cfg", "a")),
        recipe(plan("--cfg", "b")),
        recipe(plan(), env={"CARGO_PKG_VERSION": "1"}),
        recipe(plan(), env={"CARGO_PKG_VERSION": "2"}),
        recipe(plan(), env={"RUSTC_BOOTSTRAP": "1"}),
        recipe(plan(), more=[("mode", b"listed")]),
    ]
    assert len({base, *others}) == len(others) + 1


def test_variables_that_nobody_asks_for_change_nothing():
    """They come as conditions if somebody does."""
    assert recipe(plan(), env={"HOME": "/a", "CARGO_MANIFEST_DIR": "/b"}) == recipe(plan())


def test_the_explanation_names_every_field_of_the_key():
    """One walk, so they cannot drift apart."""
    sink = keys.KeyExplanation()
    keys.describe_recipe(plan("--cfg", "a"), b"\1", b"\2", {"CARGO_PKG_NAME": "x"}, [("mode", b"observed")], sink)
    assert {line.partition(":")[0] for line in sink.lines} >= {"format", "compiler", "arg", "source", "env", "mode"}


BASE = Variant([("/a", b"1")], [("/b", b"d")], [("/c", ["n"])], [("/d", b"2")], [("E", None)], [("out", "/t")])


def test_every_condition_is_in_the_key_of_the_result():
    """Two compiles under different conditions may have different results."""
    others = [
        dataclasses.replace(BASE, files=[("/a", b"2")]),
        dataclasses.replace(BASE, files=[("/A", b"1")]),
        dataclasses.replace(BASE, present=[("/b", b"f1")]),
        dataclasses.replace(BASE, absent=[("/c", ["n", "m"])]),
        dataclasses.replace(BASE, listed=[("/d", b"3")]),
        dataclasses.replace(BASE, env=[("E", "")]),
        dataclasses.replace(BASE, env=[("E", "1")]),
        dataclasses.replace(BASE, pins=[("out", "/u")]),
    ]
    found = {keys.result_key(b"r", v) for v in (BASE, *others)} | {keys.result_key(b"q", BASE)}
    assert len(found) == len(others) + 2


def test_names_of_a_directory_have_one_digest_in_any_order():
    """readdir gives them as it likes."""
    a, b, ab = (("a", "file"), ("b", "file"), ("ab", "file"))
    assert keys.names_digest([a, b]) == keys.names_digest([b, a])
    assert keys.names_digest([ab]) != keys.names_digest([a, b])
    assert keys.names_digest([a]) != keys.names_digest([("a", "link")])


def test_the_fallback_takes_cargos_variables_and_those_of_macros():
    """Without observation nobody knows what a macro asked for."""
    cargos = ("CARGO_MANIFEST_DIR", "CARGO_MAKEFLAGS", "CARGO_TERM_COLOR", "OUT_DIR")
    env = dict.fromkeys((*cargos, "DATABASE_URL", "SQLX_OFFLINE", "HOME"), "")
    names = keys.fallback_environment(env, keys.EXTRA_ENV_DEFAULT)
    assert names == ["CARGO_MANIFEST_DIR", "DATABASE_URL", "OUT_DIR", "SQLX_OFFLINE"]
    assert keys.fallback_environment(env, "HO*") == ["CARGO_MANIFEST_DIR", "HOME", "OUT_DIR"]
