"""What tools read of a jobserver in the environment, and what of the caller's must be gone or must stay."""

from __future__ import annotations

from sccache_py.makeflags import for_build, with_jobserver, without_jobserver

OLD = {"MAKEFLAGS": " -j8 --jobserver-auth=88,89", "CARGO_MAKEFLAGS": "x", "MFLAGS": "-j8", "GNUMAKEFLAGS": "-j8", "HOME": "/h"}


def test_a_compiler_sees_no_jobserver_but_ours() -> None:
    """jobserver-rs reads the first that exists of three variables: one without a jobserver hides a good one."""
    env = with_jobserver(OLD, 4, 11, 12)
    ours = " -j4 --jobserver-auth=11,12"
    assert env == {"HOME": "/h", "MAKEFLAGS": ours, "CARGO_MAKEFLAGS": ours}


def test_a_compiler_that_cannot_use_one_sees_none() -> None:
    """gcc -c would only complain."""
    assert without_jobserver(OLD) == {"HOME": "/h"}


def test_a_build_keeps_its_callers_other_flags() -> None:
    """`export MAKEFLAGS=-k` is a habit of people who read all errors at once."""
    env = for_build({**OLD, "MAKEFLAGS": "ks -j8 --jobserver-auth=88,89 --no-print-directory -- V=1"}, 4, "11,12")
    assert env["MAKEFLAGS"] == "ks -j4 --jobserver-auth=11,12 --no-print-directory -- V=1"
    assert env["CARGO_MAKEFLAGS"] == " -j4 --jobserver-auth=11,12"
    assert "MFLAGS" not in env
    assert env["GNUMAKEFLAGS"] == ""


def test_an_own_number_of_jobs_is_dropped_in_every_spelling() -> None:
    """It would put the pool aside: "resetting jobserver mode"."""
    for flags in ("-j8", "-j 8", "-j", "--jobs=8", "--jobs 8", "j8", "-j8 --jobserver-fds=3,4", "--jobserver-style=pipe"):
        assert for_build({"MAKEFLAGS": flags}, 2, "fifo:/f")["MAKEFLAGS"] == " -j2 --jobserver-auth=fifo:/f", flags
