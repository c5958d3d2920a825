"""What a build script compiles to find out what its compiler can do may fail, and that is an answer; the machine's trouble is none."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package

from stage import World, rustc, world

__all__ = ["world"]  # fixtures

pytestmark = pytest.mark.slow


@pytest.fixture(params=["rustc", "gcc", "clang"])
def probe(request: pytest.FixtureRequest, world: World) -> list[str]:
    """What a build script would call: its outputs go below OUT_DIR."""
    world.env["OUT_DIR"] = str(world.out)
    if request.param == "rustc":
        (world.cwd / "probe.rs").write_text("fn main() {}\n")
        return [rustc(), "--crate-name=probe", "--crate-type=bin", "-o", f"{world.out}/sub/probe", "probe.rs"]
    if shutil.which(request.param) is None:
        pytest.skip(f"no {request.param}")
    (world.cwd / "probe.c").write_text("int answer;\n")
    return [request.param, "-c", "probe.c", "-o", f"{world.out}/sub/probe.o"]


@pytest.fixture
def small(world: World) -> Iterator[Path]:
    """The output directory, on a file system of its own."""
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "none", world.out], stderr=subprocess.DEVNULL, check=False)
    if mounted.returncode != 0:
        pytest.skip("no mounts here")
    yield world.out
    subprocess.run(["umount", "-l", world.out], check=True)


def fails_and_then_succeeds(world: World, line: list[str], mend: Callable[[], None]) -> None:
    for _ in range(2):
        assert world.run(*line).returncode != 0
        world.settle()
    mend()
    for _ in range(2):
        assert world.run(*line).returncode == 0
        world.settle()
    counts = world.counts()
    assert (counts.total("cache_hits"), counts.total("cache_writes")) == (1, 1)


def test_a_full_disk_is_no_answer(world: World, probe: list[str], small: Path) -> None:
    """The build script went on to hear, for as long as the cache lived, that its compiler could not do this."""
    (small / "sub").mkdir()
    ballast = small / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as f:
        while f.write(b"x" * 4096):
            pass
    fails_and_then_succeeds(world, probe, ballast.unlink)


def test_a_directory_that_is_not_there_is_no_answer(world: World, probe: list[str]) -> None:
    """What a compiler writes to is no condition: it would have failed for ever after the directory was made."""
    fails_and_then_succeeds(world, probe, (world.out / "sub").mkdir)


def test_a_directory_in_the_place_of_the_output_is_no_answer(world: World, probe: list[str]) -> None:
    """The same for what stands there already."""
    os.makedirs(probe[probe.index("-o") + 1])
    fails_and_then_succeeds(world, probe, lambda: os.rmdir(probe[probe.index("-o") + 1]))


def test_a_header_that_is_not_there_is_an_answer(world: World) -> None:
    """The same words, and the compiler's own verdict: half of all probes fail by design."""
    world.env["OUT_DIR"] = str(world.out)
    (world.cwd / "probe.c").write_text("#include <no_such_header.h>\n")
    line = ("gcc", "-c", "probe.c", "-o", f"{world.out}/probe.o")
    assert world.same_as_plain(*line).returncode == 1
    assert world.counts().total("cache_hits") == 1


@pytest.mark.parametrize(
    ("language", "known"),
    [
        ({"LC_ALL": "de_DE.UTF-8"}, 0),
        ({"LC_ALL": "", "LANG": "de_DE.UTF-8"}, 0),
        ({"LC_ALL": "en_GB.UTF-8", "LANGUAGE": "de"}, 0),
        ({"LC_ALL": "", "LANG": "en_US.UTF-8"}, 1),
        ({"LC_ALL": "C.UTF-8", "LANGUAGE": "de"}, 1),
    ],
)
def test_a_failure_is_an_answer_where_it_can_be_told_from_trouble(world: World, language: dict[str, str], known: int) -> None:
    """ "Auf dem Gerät ist kein Speicherplatz mehr verfügbar": whatever is not understood is not remembered."""
    world.env.update({"OUT_DIR": str(world.out), **language})
    (world.cwd / "probe.c").write_text("#include <no_such_header.h>\n")
    assert world.same_as_plain("gcc", "-c", "probe.c", "-o", f"{world.out}/probe.o").returncode == 1
    assert world.counts().total("cache_hits") == known
