"""Names of LLVM's profiles, and what in them is the process id's."""

from __future__ import annotations

import dataclasses

import pytest

from sccache_py.profiles import for_process, profile_names


@pytest.mark.parametrize(
    ("pattern", "made", "other"),
    [
        ("/t/x-%p.profraw", "/t/x-17.profraw", "/t/x-30.profraw"),
        ("/t/%p-%8m.profraw", "/t/17-99_1.profraw", "/t/30-99_6.profraw"),
        ("/t/%m%p", "/t/99_017", "/t/99_030"),
        ("", "/cwd/default_99_0_17.profraw", "/cwd/default_99_0_30.profraw"),
        ("rel/%p", "/cwd/rel/17", "/cwd/rel/30"),
    ],
)
def test_a_name_is_told_and_filled_in_for_another_process(pattern, made, other):
    """A hit is another process than the one that was stored."""
    names = profile_names({"LLVM_PROFILE_FILE": pattern}, ["instrument-coverage"], "/cwd")
    assert names is not None
    told = names.told(made, 17)
    assert told is not None
    assert for_process(told, 30) == other
    assert names.told(made, 18) is None
    assert dataclasses.replace(names, taken=frozenset([made.rpartition("/")[2]])).told(made, 17) is None


@pytest.mark.parametrize("pattern", ["", "/t/x", "/t/%m", "/t/%p%c", "/t/%h-%p", "/t/%p/x-%p", "/t/%p-100%"])
def test_what_is_not_understood_has_no_names(pattern):
    """Then what is written there is refused, as ever."""
    assert profile_names({"LLVM_PROFILE_FILE": pattern}, [], "/cwd") is None
