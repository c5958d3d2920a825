"""Macros that leave files where a build script leaves what it generates: they come back with the crate, in the same directory alone."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package

from rust_macros import LIB, NO_MACRO_READS

pytestmark = pytest.mark.slow


class Target:
    """A target directory as cargo lays it out, with a crate whose macro adds to a build script's output."""

    def __init__(self, world, macros, directory: Path) -> None:
        self.world = world
        self.macros = macros
        self.script = directory / "build" / "x-1" / "out"
        self.script.mkdir(parents=True)
        self.deps = directory / "deps"

    def words(self, made: Path, remap: bool = False) -> tuple[str, ...]:
        world = self.world
        world.write("src/lib.rs", f'pub const S: &str = g::made!("{made}");\n')
        world.outs[:] = [self.deps, self.script]
        maps = ("--remap-path-prefix", f"{world.p}=/src") if remap else ()
        return (*LIB, "--out-dir", str(self.deps), "--extern", f"g={self.macros}/libg.so", *maps, "src/lib.rs")

    def expect(self, verdict: str, made: Path, remap: bool = False) -> None:
        self.world.expect(verdict, *self.words(made, remap))


@pytest.fixture
def target(world, macros) -> Target:
    world.needs_observation(NO_MACRO_READS)
    return Target(world, macros, world.root / "one" / "debug")


def test_what_a_macro_adds_to_a_build_scripts_output_comes_back(target):
    made = target.script / "cache" / "page.html"
    target.expect("miss", made)
    target.expect("hit", made)
    target.world.cached(*target.words(made))
    assert target.world.counts()["cache_hits"] == 2
    assert made.read_text() == "made"
    assert made.with_suffix(".long").stat().st_size == 100_000
    assert made.with_suffix(".lock").stat().st_size == 0
    assert made.parent.stat().st_mode & 0o777 == 0o755
    assert made.stat().st_mtime == 946_684_800, "or cargo takes it for a change"
    assert made.with_suffix(".long").stat().st_mtime > 1_700_000_000


def test_what_is_there_already_is_another_condition(target):
    """The second build of a target directory that was kept: the macro reads what it made before."""
    made = target.script / "page.html"
    target.expect("miss", made)
    world = target.world
    words = target.words(made)
    world.outs.remove(target.script)
    for text in ("made", "other"):
        made.write_text(text)
        world.expect("miss", *words)
        world.expect("hit", *words)


def test_another_target_directory_has_files_of_its_own(target, macros):
    """Though the name of what was made shows in no output."""
    other = Target(target.world, macros, target.world.root / "two" / "debug")
    target.expect("miss", target.script / "page.html", remap=True)
    other.expect("miss", other.script / "page.html", remap=True)
    shutil.rmtree(target.script)
    target.expect("hit", target.script / "page.html", remap=True)


def test_what_a_macro_makes_elsewhere_is_not_brought_back(target):
    """In a directory that is not this build's."""
    target.expect("miss", target.script / "page.html")
    target.world.outs.append(target.world.root / "other")
    target.expect("miss", target.world.root / "other" / "page.html")
    target.world.outs.append(target.world.root / "other")
    assert target.world.reasons() == {"wrote outside its output directories": 1}
