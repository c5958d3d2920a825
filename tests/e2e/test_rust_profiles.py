"""Macros that are instrumented for coverage: each rustc that loads one leaves a profile of it, called after the process.

`cargo llvm-cov` counts them, and so does the report on a workspace's own macros.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path

import pytest

from sccache_py.server.filesystem.files import coarse_ns

pytestmark = pytest.mark.slow

MACRO = """\
extern crate proc_macro;
#[proc_macro] pub fn one(_: proc_macro::TokenStream) -> proc_macro::TokenStream { "1".parse().unwrap() }
"""


class Covered:
    """A crate with such a macro; `made` is what its compiles left in profiles/, by name."""

    def __init__(self, world) -> None:
        self.world = world
        self.place = world.root / "profiles"
        self.place.mkdir()
        world.write("counted.rs", MACRO)
        words = ("--crate-type", "proc-macro", "-Cinstrument-coverage", "counted.rs")
        unprofiled = {**world.env, "LLVM_PROFILE_FILE": "/dev/null"}
        subprocess.run([world.compiler, *words], cwd=world.p, env=unprofiled, check=True)
        world.write("src/lib.rs", "pub const S: u32 = counted::one!();\n")

    def profiles(self) -> list[Path]:
        return [*self.place.iterdir(), *self.world.p.glob("*.profraw")]

    def compile(self, name: str, *through: str | Path, prepare=None) -> tuple[int, dict[str, bytes]]:
        """Its process id and the profiles."""
        for path in self.profiles():
            path.unlink()
        now = time.time_ns()
        while coarse_ns() <= now:  # what is younger than that clock is not stored
            os.sched_yield()
        words = ("--crate-name", "x", "--crate-type", "lib", "--emit=dep-info,metadata,link", "--edition=2021", *self.world.out)
        place = f"{self.place}/{name}" if name else ""
        process = subprocess.Popen(
            [*through, self.world.compiler, *words, "-Cinstrument-coverage", "--extern", "counted=libcounted.so", "src/lib.rs"],
            cwd=self.world.p,
            env={**self.world.env, **self.world.server_env, "LLVM_PROFILE_FILE": place},
            preexec_fn=prepare,
        )
        assert process.wait(60) == 0
        return process.pid, {path.name: path.read_bytes() for path in self.profiles()}

    def verdict(self, name: str, prepare=None) -> tuple[str, int, dict[str, bytes]]:
        before = self.world.counts() if self.world.pids else {}
        pid, made = self.compile(name, self.world.client, prepare=prepare)
        return self.world.verdict_since(before), pid, made


@pytest.mark.parametrize("name", ["x-%p-%m.profraw", "%4m.%p", "%p", ""])
def test_a_hit_leaves_the_profile_under_the_callers_process_id(make_world, name):
    """Under that number the compiler would have run, and no two callers have the same."""
    covered = Covered(make_world())

    def expected(pid: int) -> str:
        return (
            re.escape(name or "default_%m_%p.profraw").replace("%m", "[0-9]+_0").replace("%4m", f"[0-9]+_{pid % 4}").replace("%p", str(pid))
        )

    pid, plain = covered.compile(name)
    assert [bool(re.fullmatch(expected(pid), made)) for made in plain] == [True]
    verdict, _, missed = covered.verdict(name)
    assert (verdict, len(missed)) == ("miss", 1)
    for _ in range(2):
        verdict, pid, found = covered.verdict(name)
        assert verdict == "hit"
        assert [bool(re.fullmatch(expected(pid), made)) for made in found] == [True]
        assert list(found.values()) == list(missed.values())


@pytest.mark.parametrize("name", ["x.profraw", "x-%m.profraw", "x-%p-%c.profraw"])
def test_a_profile_that_several_processes_share_is_not_stored(make_world, name):
    """Each adds its counts to those of all before it, which a copy would undo."""
    covered = Covered(make_world())
    for _ in range(2):
        assert covered.verdict(name)[0] == "miss"
    assert covered.world.reasons() == {"wrote outside its output directories": 2}


def test_a_profile_is_the_same_for_who_verifies(make_world):
    """It holds addresses of the run that left it."""
    covered = Covered(make_world())
    assert covered.verdict("%p")[0] == "miss"
    covered.world.server_env["SCCACHE_VERIFY"] = "1"
    assert covered.verdict("%p")[0] == "miss"
    counts = covered.world.counts()
    assert (counts["verified"], counts.get("verify_differences", 0)) == (1, 0)


def test_a_profile_of_an_earlier_process_with_that_number_is_not_lost(make_world):
    """Numbers come again; the compiler would write over it, or add to it, and so it does."""
    covered = Covered(make_world())
    assert covered.verdict("x-%p")[0] == "miss"
    assert covered.verdict("x-%p")[0] == "hit"
    verdict, pid, made = covered.verdict("x-%p", lambda: (covered.place / f"x-{os.getpid()}").touch())
    assert verdict == "miss"
    assert made[f"x-{pid}"] == b""
