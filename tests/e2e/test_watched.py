"""What is watched by the kernel's word is not looked at on a hit (server/filesystem/watch.py); a change there is a miss all the same.

Each test waits until the server does watch, for else it would show nothing.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package

from c_world import C, one_compiler, shared_server  # noqa: F401 - fixtures
from stage import wait_until

pytestmark = pytest.mark.slow

SOURCE = "#include <a.h>\n#if __has_include(<b.h>)\n#define B 1\n#else\n#define B 0\n#endif\nint f(void) { return A + B; }\n"


def place(c: C) -> Path:
    """Headers that do not lie below the directory in which is compiled."""
    return Path(c.world.root) / "system"


def is_watched(c: C, path: Path) -> bool:
    """By an inotify descriptor of the server (proc(5), /proc/pid/fdinfo)."""
    inode = f" ino:{path.stat().st_ino:x} "
    for pid in c.world.pids:
        for info in Path(f"/proc/{pid}/fdinfo").iterdir():
            try:
                if any(line.startswith("inotify ") and inode in line for line in info.read_text().splitlines()):
                    return True
            except OSError:
                pass  # closed meanwhile
    return False


@pytest.fixture
def args(c: C) -> tuple[str, ...]:
    """A compile with headers in two directories that are spelled out whole, of which the first is searched in vain, and watched."""
    if not c.observed and not c.is_gcc:
        pytest.skip("one compiler will do without observation")
    c.write("x.c", SOURCE)
    top = place(c)
    for name in ("first", "real"):
        (top / name).mkdir(parents=True)
    (top / "real/a.h").write_text("#define A 1\n")
    (top / "inc").symlink_to("real")
    words = (f"-I{top}/first", f"-I{top}/inc", "-c", "x.c", "-o", c.object())
    c.compile_twice(*words)

    def hit_and_watched() -> bool:
        c.expect("hit", *words)
        return all(is_watched(c, top / name) for name in ("real/a.h", "real", "first", "."))

    wait_until(hit_and_watched)
    return words


def changes(c: C, change: Callable[[], object], undo: Callable[[], object], args: tuple[str, ...]) -> None:
    """A change is a miss, with what an uncached compile makes; undone it is a hit."""
    first = c.expect("hit", *args)
    change()
    assert c.expect("miss", *args) != first
    undo()
    assert c.expect("hit", *args) == first


def put_link(top: Path) -> None:
    """`inc` leads elsewhere from now on; no file is another."""
    (top / "real2").mkdir()
    (top / "real2/a.h").write_text("#define A 2\n")
    (top / "new").symlink_to("real2")
    os.replace(top / "new", top / "inc")


def replace(top: Path) -> None:
    (top / "new.h").write_text("#define A 2\n")
    os.replace(top / "new.h", top / "real/a.h")


def write_by_another_name(top: Path) -> None:
    os.link(top / "real/a.h", top / "elsewhere.h")
    (top / "elsewhere.h").write_text("#define A 2\n")
    os.unlink(top / "elsewhere.h")


CHANGES: dict[str, Callable[[Path], object]] = {
    "edited": lambda top: (top / "real/a.h").write_text("#define A 2\n"),
    "edited by another name": write_by_another_name,
    "replaced": replace,
    "shadowed": lambda top: (top / "first/a.h").write_text("#define A 2\n"),
    "now there": lambda top: (top / "real/b.h").write_text(""),
    "behind another link": put_link,
}


def undo(top: Path) -> None:
    (top / "first/a.h").unlink(missing_ok=True)
    (top / "real/b.h").unlink(missing_ok=True)
    (top / "inc").unlink()
    (top / "inc").symlink_to("real")
    (top / "real/a.h").write_text("#define A 1\n")


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_in_a_watched_place_is_a_miss_and_back_a_hit(c, args, change):
    changes(c, lambda: CHANGES[change](place(c)), lambda: undo(place(c)), args)


def test_a_directory_renamed_away_is_noticed(c, args):
    """Another one takes its place, with the same names in it."""
    top = place(c)

    def swap() -> None:
        (top / "other").mkdir()
        (top / "other/a.h").write_text("#define A 2\n")
        os.rename(top / "real", top / "old")
        os.rename(top / "other", top / "real")

    def swap_back() -> None:
        shutil.rmtree(top / "real")
        os.rename(top / "old", top / "real")

    changes(c, swap, swap_back, args)
