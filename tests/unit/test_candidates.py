"""Which crate files were only looked at, by what direct dependencies tell of those behind them."""

from __future__ import annotations

from pathlib import Path

import pytest

from sccache_py.server.miss.candidates import passed_over

ONE, TWO = "-00000000000000aa", "-00000000000000bb"


@pytest.fixture
def deps(tmp_path: Path) -> Path:
    for end in (ONE, TWO):
        (tmp_path / f"libm{end}.so").write_bytes(b"\\x7fELF rustc_proc_macro_decls_0")
    return tmp_path


def passed(deps: Path, extern: str, content: bytes, *more: str) -> set[str]:
    """Names of what was passed over by a crate that depends on `extern` and opened both files of `m`."""
    (deps / extern).write_bytes(content)
    read = [str(deps / name) for name in (f"libm{ONE}.so", f"libm{TWO}.so", *more)]
    found = passed_over(read, [str(deps / extern)], [str(deps)])
    return {Path(path).name for path in found}


def test_the_file_that_no_dependency_tells_of_was_passed_over(deps):
    """It belongs to another build."""
    assert passed(deps, "libx.rmeta", b"m" + ONE.encode()) == {f"libm{TWO}.so"}


def test_two_versions_of_a_macro_are_both_used(deps):
    """thiserror 1 and 2 have macros of one name."""
    assert passed(deps, "libx.rmeta", ONE.encode() + TWO.encode()) == set()


def test_where_no_file_is_told_of_any_may_have_been_taken(deps):
    """By its hash alone, if it was renamed."""
    assert passed(deps, "libx.rmeta", b"nothing") == set()


def test_what_a_dynamic_library_tells_may_be_compressed(deps):
    """Then nobody knows; a macro has nothing behind it."""
    assert passed(deps, "libx.so", ONE.encode()) == set()
    assert passed(deps, f"libm{ONE}.so", b"rustc_proc_macro_decls_0") == {f"libm{TWO}.so"}


def test_metadata_beside_an_extern_tells_as_well(deps):
    """A library that was made without metadata has it in a file of its own."""
    (deps / "libx.rmeta").write_bytes(ONE.encode() + TWO.encode())
    assert passed(deps, "libx.rlib", ONE.encode(), "libx.rmeta") == set()
