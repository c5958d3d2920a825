"""What is watched: a stat that is vouched for is what os.stat says, whatever was done to the file, to a link, or to a directory above."""

from __future__ import annotations

import mmap
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sccache_py.server.filesystem import watch
from sccache_py.server.filesystem.files import FileMemo, hash_path
from sccache_py.server.filesystem.sight import Sight
from sccache_py.server.filesystem.stamps import stamp_of
from sccache_py.server.filesystem.watch import Watcher


@pytest.fixture
def watcher() -> Iterator[Watcher]:
    made = Watcher()
    yield made
    made.close()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """real/inc/a.h, real/inc/b.h, `inc` a link to real/inc, `b.h` a link to inc/b.h, `other.h` a second name of a.h."""
    inc = tmp_path / "real" / "inc"
    inc.mkdir(parents=True)
    (inc / "a.h").write_text("a")
    (inc / "b.h").write_text("b")
    (tmp_path / "inc").symlink_to("real/inc")
    (tmp_path / "b.h").symlink_to("inc/b.h")
    os.link(inc / "a.h", tmp_path / "other.h")
    return tmp_path


def watch_now(watcher: Watcher, *paths: Path | str) -> None:
    for path in paths:
        for _ in range(2):
            watcher.wish(str(path))
    watcher.watch_all()


def vouched(watcher: Watcher, path: Path | str) -> bool:
    """Whether a stat is vouched for; it must be the true one."""
    watcher.look()
    stamp = watcher.stamps.get(str(path))
    assert stamp is None or stamp == stamp_of(os.stat(path))
    return stamp is not None


def wish_and_wait(watcher: Watcher, path: str) -> None:
    """Until the watcher's own thread has done it."""
    for _ in range(2):
        watcher.wish(path)
    for _ in range(1000):
        if vouched(watcher, path):
            return
        time.sleep(0.01)
    pytest.fail("never watched")


def test_a_path_is_watched_from_the_second_wish_on(watcher, tree):
    """One that is looked at once in a build is not worth it."""
    path = str(tree / "inc" / "a.h")
    watcher.wish(path)
    watcher.watch_all()
    assert not vouched(watcher, path)
    watcher.wish(path)
    watcher.watch_all()
    assert vouched(watcher, path)


def test_reading_and_looking_change_nothing(watcher, tree):
    """Else every compile would undo what it is for."""
    path = tree / "inc" / "a.h"
    watch_now(watcher, path)
    path.read_bytes()
    os.listdir(path.parent)
    (tree / "real" / "inc" / "c.h").write_text("beside it")
    (tree / "elsewhere").write_text("x")
    assert vouched(watcher, path)


def map_and_write(path: Path) -> None:
    with open(path, "r+b") as f, mmap.mmap(f.fileno(), 0) as m:
        m[0:1] = b"m"


def replace(path: Path) -> None:
    new = path.with_name("new")
    new.write_text("n")
    os.replace(new, path)


def copy_over(path: Path) -> None:
    other = path.with_name("source")
    other.write_text("s")
    shutil.copyfile(other, path)


CHANGES: dict[str, Callable[[Path], object]] = {
    "written in place": lambda tree: (tree / "real/inc/a.h").write_text("A"),
    "written by another name of the same file": lambda tree: (tree / "other.h").write_text("A"),
    "written through a mapping": lambda tree: map_and_write(tree / "real/inc/a.h"),
    "truncated": lambda tree: os.truncate(tree / "real/inc/a.h", 0),
    "copied over": lambda tree: copy_over(tree / "real/inc/a.h"),
    "its times set": lambda tree: os.utime(tree / "real/inc/a.h", (1, 1)),
    "its mode set": lambda tree: os.chmod(tree / "real/inc/a.h", 0o600),
    "given another name": lambda tree: os.link(tree / "real/inc/a.h", tree / "third.h"),
    "removed": lambda tree: os.unlink(tree / "real/inc/a.h"),
    "replaced by a rename": lambda tree: replace(tree / "real/inc/a.h"),
    "its directory renamed": lambda tree: os.rename(tree / "real/inc", tree / "real/old"),
    "the directory above renamed": lambda tree: os.rename(tree / "real", tree / "unreal"),
    "everything removed": lambda tree: shutil.rmtree(tree / "real"),
}


@pytest.mark.parametrize("way", ["real/inc/a.h", "inc/a.h", "inc/../inc/./a.h"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_ends_it(watcher, tree, change, way):
    path = f"{tree}/{way}"
    watch_now(watcher, path)
    assert vouched(watcher, path)
    CHANGES[change](tree)
    watcher.look()
    assert path not in watcher.stamps


def test_a_link_on_the_way_that_is_retargeted_ends_it(watcher, tree):
    """Every file is as it was; the path leads to another one."""
    (tree / "real2").mkdir()
    (tree / "real2" / "a.h").write_text("another")
    watch_now(watcher, tree / "inc" / "a.h")
    assert vouched(watcher, tree / "inc" / "a.h")
    (tree / "new").symlink_to("real2")
    os.replace(tree / "new", tree / "inc")
    watcher.look()
    assert str(tree / "inc" / "a.h") not in watcher.stamps


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: replace(tree / "real/inc/b.h"),
        lambda tree: (tree / "real/inc/b.h").write_text("B"),
        lambda tree: os.rename(tree / "real", tree / "unreal"),
        lambda tree: os.unlink(tree / "inc"),
        lambda tree: os.unlink(tree / "b.h"),
    ],
)
def test_a_file_that_is_a_link_depends_on_all_that_it_leads_through(watcher, tree, change):
    watch_now(watcher, tree / "b.h")
    assert vouched(watcher, tree / "b.h")
    change(tree)
    watcher.look()
    assert str(tree / "b.h") not in watcher.stamps


@pytest.mark.parametrize("way", ["/b.h", "//b.h", "/./b.h", "/real/..//b.h"])
def test_a_link_that_is_retargeted_ends_every_spelling_of_it(watcher, tree, way):
    """Nothing but its name tells of a link, and `-L/usr/lib/` makes `/usr/lib//libm.so`."""
    path = f"{tree}{way}"
    watch_now(watcher, path)
    assert vouched(watcher, path)
    (tree / "new").symlink_to("inc/a.h")
    os.replace(tree / "new", tree / "b.h")
    watcher.look()
    assert path not in watcher.stamps


def test_slashes_at_the_start_and_deep_paths_stop_nothing(watcher, tree):
    """`--sysroot=/` makes `//usr/include`; a wish that raised would end the thread that fulfils them."""
    deep = str(tree) + "/." * 1500 + "/b.h"
    watch_now(watcher, deep, f"//{tree}/b.h", f"/{tree}/inc/a.h", "//", "///")
    assert vouched(watcher, f"//{tree}/b.h")
    assert vouched(watcher, f"/{tree}/inc/a.h")


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: (tree / "inc/c.h").write_text("new"),
        lambda tree: os.unlink(tree / "inc/b.h"),
        lambda tree: os.rename(tree / "inc/b.h", tree / "inc/c.h"),
        lambda tree: os.rename(tree / "other.h", tree / "inc/c.h"),
        lambda tree: os.mkdir(tree / "inc/sys"),
    ],
)
def test_a_directory_counts_with_the_names_in_it(watcher, tree, change):
    """A header that appears and shadows another shows in its directory's mtime."""
    spellings = [f"{tree}/{inc}" for inc in ("inc", "real/inc", "inc/../inc", "inc/", "inc/.")]
    watch_now(watcher, *spellings)
    assert all(vouched(watcher, path) for path in spellings)
    change(tree)
    watcher.look()
    assert not watcher.stamps


def test_a_directory_that_takes_a_files_place_at_that_moment_keeps_its_watch(watcher, tree, monkeypatch):
    """It is watched where it lies; as a file none of its names would be."""
    (tree / "x").mkdir()
    (tree / "x" / "inc").write_text("a file")
    watch_now(watcher, tree / "real" / "inc")
    assert vouched(watcher, tree / "real" / "inc")

    def swap(st: os.stat_result, path: str) -> os.stat_result:
        if path == f"{tree}/x/inc":
            os.rename(tree / "x", tree / "y")
            (tree / "x").symlink_to("real")
        return st

    monkeypatch.setattr(os, "lstat", lambda path, lstat=os.lstat: swap(lstat(path), path))
    watch_now(watcher, tree / "x" / "inc")
    monkeypatch.undo()
    assert (tree / "x").is_symlink()
    assert vouched(watcher, tree / "real" / "inc")
    (tree / "real" / "inc" / "c.h").write_text("new")
    assert not vouched(watcher, tree / "real" / "inc")


def lies(path: str, resolved: str, is_directory: bool) -> str:
    return resolved


def test_where_a_watched_file_really_is_is_looked_at_anew_when_its_way_changed(watcher, tree):
    """gcc says it of system headers; the file keeps its stat when a directory above it is renamed."""
    memo, path = FileMemo(watcher), f"{tree}/inc/a.h"

    def look() -> Sight:
        sight = Sight(memo)
        sight.digest(path)
        sight.files_are([(path, hash_path(path)[1])], str)
        return sight

    state = look().state(path, lies, True)
    assert state == os.fsencode(f"f1>{tree}/real/inc/a.h")
    watch_now(watcher, path)
    assert vouched(watcher, path)
    for _ in range(2):
        assert look().states_are([(path, state)], str, lies, True)
    os.rename(tree / "real", tree / "unreal")
    (tree / "real").symlink_to("unreal")
    assert not look().states_are([(path, state)], str, lies, True)
    watch_now(watcher, path)
    assert vouched(watcher, path)
    assert not look().states_are([(path, state)], str, lies, True)
    assert look().state(path, lies, True) == os.fsencode(f"f1>{tree}/unreal/inc/a.h")


def test_what_is_not_there_or_no_file_is_not_vouched_for(watcher, tree):
    os.mkfifo(tree / "fifo")
    (tree / "loop").symlink_to("loop")
    (tree / "loops").symlink_to("loops/x")
    names = ("missing", "missing/x", "fifo", "loop", "loops/y", "a\0b", "inc/a.h/x")
    watch_now(watcher, *(f"{tree}/{name}" for name in names), "/dev/null", "/proc/self/exe", "a.h", "/", "/proc", "")
    watcher.look()
    assert not watcher.stamps


def test_more_events_than_the_kernel_keeps_end_everything(watcher, tree):
    """What overflowed is not known."""
    watch_now(watcher, tree / "inc" / "a.h", tree / "inc")
    assert vouched(watcher, tree / "inc" / "a.h")
    overflow(tree / "inc")
    watcher.look()
    assert not watcher.stamps
    watch_now(watcher, tree / "other.h")
    assert vouched(watcher, tree / "other.h"), "it begins anew"


def overflow(directory: Path) -> None:
    """Queue more events than the kernel keeps."""
    with open("/proc/sys/fs/inotify/max_queued_events") as f:
        queued = int(f.read())
    for n in range(queued // 2 + 10):
        os.rename(directory / ("b.h" if n % 2 == 0 else "c.h"), directory / ("c.h" if n % 2 == 0 else "b.h"))


def test_another_thread_that_begins_anew_is_waited_for_or_has_dropped_everything(watcher, tree, monkeypatch):
    """It may be at any point of that when a request looks."""
    path = str(tree / "other.h")  # no event tells of it
    watch_now(watcher, path, tree / "inc")
    assert vouched(watcher, path)
    dropped, found = watcher.dropped, []

    def meanwhile() -> None:
        asked = threading.Thread(target=lambda: (watcher.look(), found.append((path in watcher.stamps, watcher.dropped == dropped))))
        asked.start()
        asked.join(0.05)  # it may have to wait for us

    def closing(fd: int, close: Callable[[int], None] = os.close) -> None:
        close(fd)
        meanwhile()

    overflow(tree / "inc")
    monkeypatch.setattr(os, "close", closing)
    watcher.look()
    monkeypatch.undo()
    wait = time.monotonic() + 10
    while len(found) < 2 and time.monotonic() < wait:
        time.sleep(0.01)
    assert len(found) >= 2
    assert set(found) == {(False, False)}


def test_what_watches_goes_on_after_a_new_beginning(watcher, tree):
    """Its thread may look for something to do just then."""
    watcher._thread = threading.Thread(target=watcher._fulfil, daemon=True)
    kept, watcher._inotify = watcher._inotify, None
    watcher._thread.start()
    watcher._thread.join(0.05)
    watcher._inotify = kept
    path = str(tree / "inc" / "a.h")
    wish_and_wait(watcher, path)


def test_one_that_ended_while_its_turn_was_waited_for_is_no_trouble(watcher, tree):
    """The mounts changed once too often in another thread."""
    with watcher._lock:
        asked = threading.Thread(target=watcher.look)
        raised: list[object] = []
        asked.run = lambda run=asked.run: raised.append(_raised(run))  # type: ignore[method-assign]
        asked.start()
        asked.join(0.05)
        watcher._end()
    asked.join()
    assert raised == [None]


def _raised(run: Callable[[], object]) -> BaseException | None:
    try:
        run()
    except Exception as e:
        return e
    return None


def test_a_restless_place_is_left_alone(watcher, tree, monkeypatch):
    """Events cost more than stats would."""
    monkeypatch.setattr(watch, "_RESTLESS", 50)
    path = tree / "inc" / "a.h"
    watch_now(watcher, path)
    for n in range(60):
        (tree / "inc" / f"{n}.h").write_text("x")
        watcher.look()
    assert str(path) not in watcher.stamps
    watch_now(watcher, path, tree / "other.h")
    assert not vouched(watcher, path)
    assert vouched(watcher, tree / "other.h")


def test_a_directory_whose_names_change_often_is_not_watched_for_them(watcher, tree):
    """/tmp, in which every compile makes files: each time it would cost all that was noted as steady.  What lies in it is watched."""
    for n in range(watch._MOST_LISTINGS + 2):
        watch_now(watcher, tree / "inc", tree / "inc" / "a.h")
        assert vouched(watcher, tree / "inc") == (n <= watch._MOST_LISTINGS)
        assert vouched(watcher, tree / "inc" / "a.h")
        (tree / "inc" / f"{n}.h").write_text("x")
        assert not vouched(watcher, tree / "inc")
    assert vouched(watcher, tree / "inc" / "a.h")


def test_no_more_watches_are_taken_than_the_limit(watcher, tree):
    watcher._limit = len(watcher._inodes)
    watch_now(watcher, tree / "inc" / "a.h")
    assert not vouched(watcher, tree / "inc" / "a.h")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting is root's")
def test_a_mount_over_it_ends_everything(tmp_path):
    """No file is changed by a mount, and no event is queued."""
    program = """
import os, sys, subprocess
from sccache_py.server.filesystem.watch import Watcher
path = sys.argv[1] + "/a.h"
watcher = Watcher()
for _ in range(2): watcher.wish(path)
watcher.watch_all()
watcher.look()
before = path in watcher.stamps
subprocess.run(["mount", "-t", "tmpfs", "none", sys.argv[1]], check=True)
watcher.look()
print(before, path in watcher.stamps)
"""
    (tmp_path / "a.h").write_text("a")
    unshare = shutil.which("unshare")
    assert unshare is not None
    done = subprocess.run([unshare, "-m", sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True)
    if "Operation not permitted" in done.stderr:
        pytest.skip("mounting is not allowed here")
    assert done.stdout.split() == ["True", "False"], done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting is root's")
def test_overlayfs_tells_of_files_that_are_copied_up(tmp_path):
    """In a container all but the volumes lies on one: a file of a lower layer is another inode below once it was written to."""
    program = """
import os, sys, subprocess
from sccache_py.server.filesystem.watch import Watcher
top = sys.argv[1]
for name in ("low/inc", "up", "work", "all"): os.makedirs(f"{top}/{name}")
for name in "abcd": open(f"{top}/low/inc/{name}.h", "w").write(name)
layers = f"lowerdir={top}/low,upperdir={top}/up,workdir={top}/work"
subprocess.run(["mount", "-t", "overlay", "-o", layers, "none", f"{top}/all"], check=True)
watcher = Watcher()
paths = [f"{top}/all/inc/{name}.h" for name in "abcd"]
for path in paths * 2: watcher.wish(path)
watcher.watch_all()
watcher.look()
print(len(watcher.stamps))
open("/proc/sys/vm/drop_caches", "w").write("2")
def changed(path, change):
    change(path)
    watcher.look()
    print(path in watcher.stamps)
def write(path):
    with open(path, "w") as f: f.write("x")
def replace(path):
    write(path + ".new")
    os.replace(path + ".new", path)
changed(paths[0], write)
changed(paths[1], lambda path: os.chmod(path, 0o600))
changed(paths[2], replace)
print(paths[3] in watcher.stamps)
changed(paths[3], os.unlink)
"""
    unshare = shutil.which("unshare")
    assert unshare is not None
    done = subprocess.run([unshare, "-m", sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True)
    if "Operation not permitted" in done.stderr or "overlay" in done.stderr:
        pytest.skip(f"no overlayfs here: {done.stderr.splitlines()[-1]}")
    assert done.stdout.split() == ["4", "False", "False", "False", "True", "False"], done.stderr


def in_own_mounts(program: str, directory: Path, *options: str) -> list[str]:
    """What a program prints that may mount; it gets the directory."""
    unshare = shutil.which("unshare")
    assert unshare is not None
    done = subprocess.run([unshare, *options, sys.executable, "-c", program, str(directory)], capture_output=True, text=True)
    if "Operation not permitted" in done.stderr or "overlay" in done.stderr or "unshare failed" in done.stderr:
        pytest.skip(f"cannot be mounted here: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting is root's")
def test_what_is_mounted_over_a_local_file_system_is_not_local(tmp_path):
    """ramfs stands for NFS, where others change files; both mounts have one path."""
    program = """
import os, sys, subprocess
from sccache_py.server.filesystem.watch import Watcher
for kind in ("tmpfs", "ramfs"): subprocess.run(["mount", "-t", kind, "none", sys.argv[1]], check=True)
path = sys.argv[1] + "/a.h"
open(path, "w").close()
watcher = Watcher()
for _ in range(2): watcher.wish(path)
watcher.watch_all()
print(path in watcher.stamps)
"""
    assert in_own_mounts(program, tmp_path, "-m") == ["False"]


def test_files_of_a_rootless_overlayfs_are_not_watched(tmp_path):
    """One that was copied up is another inode as soon as its name is not cached, and the watch lies on the former."""
    program = """
import os, sys, subprocess
from sccache_py.server.filesystem.watch import Watcher
top = sys.argv[1]
for name in ("low/inc", "up", "work", "all"): os.makedirs(f"{top}/{name}")
open(f"{top}/low/inc/a.h", "w").close()
layers = f"userxattr,lowerdir={top}/low,upperdir={top}/up,workdir={top}/work"
subprocess.run(["mount", "-t", "overlay", "-o", layers, "none", f"{top}/all"], check=True)
watcher = Watcher()
paths = [f"{top}/all/inc", f"{top}/all/inc/a.h", f"{top}/low/inc/a.h"]
for path in paths * 2: watcher.wish(path)
watcher.watch_all()
print(*(path in watcher.stamps for path in paths))
"""
    assert in_own_mounts(program, tmp_path, "-Urm") == ["True", "False", "True"]


def test_wishes_are_fulfilled_behind_the_request(watcher, tree):
    path = str(tree / "inc" / "a.h")
    wish_and_wait(watcher, path)
