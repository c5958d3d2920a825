"""File systems by whose stats two contents look the same: images of which one takes the other's place, and times in whole seconds.

Each test mounts what it needs from a file, in a mount namespace of its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sccache_py.server.filesystem.stamps import latest_ns

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mke2fs") is None, reason="mounting an image is root's"),
]

BEGIN = """
import os, subprocess, sys
from sccache_py.server.filesystem.files import FileMemo
from sccache_py.server.filesystem.sight import Sight
from sccache_py.server.filesystem.watch import Watcher
top = sys.argv[1]
path = f"{top}/at/a.h"
def mount(image, *options):
    subprocess.run(["mount", "-o", ",".join(["loop", *options]), f"{top}/{image}", f"{top}/at"], check=True)
def unmount():
    subprocess.run(["umount", f"{top}/at"], check=True)
def right(memo):
    with open(path, "rb") as f:
        return Sight(memo).hash_now(path) == FileMemo().hash(path)[1]
"""


def printed(program: str, directory: Path) -> list[str]:
    unshare = shutil.which("unshare")
    assert unshare is not None
    command = [unshare, "-m", sys.executable, "-c", BEGIN + program, str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "mount: " in done.stderr or "unshare failed" in done.stderr:
        pytest.skip(f"cannot be mounted here: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def make_image(directory: Path, *options: str, text: str = "#define RELEASE 111\n") -> Path:
    """One file, a.h, of long ago."""
    (directory / "at").mkdir()
    (directory / "files").mkdir()
    (directory / "files" / "a.h").write_text(text)
    image = directory / "one"
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", directory / "files", *options, image, "2M"], check=True, stderr=subprocess.DEVNULL)
    subprocess.run(["debugfs", "-w", "-R", "set_inode_field a.h ctime 20200101000000", image], check=True, stderr=subprocess.DEVNULL)
    return image


@pytest.mark.parametrize("options", ["", "ro"])
@pytest.mark.parametrize("watcher", ["None", "Watcher()"])
def test_the_next_release_of_an_image_at_the_place_of_the_last_is_another(tmp_path, options, watcher):
    """An SDK in squashfs or erofs whose files all have one time: device, inode, size, mtime and ctime are those of the release before."""
    image = make_image(tmp_path)
    (tmp_path / "two").write_bytes(image.read_bytes().replace(b"RELEASE 111", b"RELEASE 222"))
    program = f"""
memo = FileMemo({watcher})
stats = []
for image in ("one", "two", "one"):
    mount(image, "noatime", *{options.split()!r})
    stats.append(os.stat(path)[:9])
    print(right(memo), right(memo))
    unmount()
print(stats[0] == stats[1])
"""
    assert printed(program, tmp_path) == ["True"] * 7


def test_a_digest_of_an_image_is_not_for_the_next_server(tmp_path):
    """It cannot know whether another was mounted meanwhile; a toolchain on disk is still handed on."""
    make_image(tmp_path, text="x" * 300_000)
    program = """
from sccache_py.server.filesystem.files import coarse_ns
mount("one")
memo = FileMemo()
subprocess.run(["mount", "-t", "tmpfs", "none", f"{top}/files"], check=True)
with open(f"{top}/files/b.h", "w") as f:
    f.write("x" * 300_000)
while coarse_ns() <= os.stat(f"{top}/files/b.h").st_ctime_ns:
    pass
for name in (path, f"{top}/files/b.h"):
    Sight(memo).hash_now(name)
print(*(os.path.basename(row[0]) for row in memo.export()))
"""
    assert printed(program, tmp_path) == ["b.h"]


def test_a_second_change_within_the_second_is_seen_where_times_are_whole_seconds(tmp_path):
    """ext4 with inodes of 128 bytes: `sed -i` on a header, make, sed again; the size is the same."""
    make_image(tmp_path, "-I", "128")
    program = """
mount("one")
memo = FileMemo()
stats, found = set(), []
for number in range(40):
    fd = os.open(path, os.O_WRONLY)
    os.write(fd, b"#define RELEASE %d" % (100 + number))
    os.close(fd)
    stats.add(os.stat(path)[:10])
    found.append(right(memo))
print(all(found), len(stats) < 40)
"""
    assert printed(program, tmp_path) == ["True", "True"]


@pytest.mark.parametrize(
    ("time_ns", "latest"),
    [(5_000_000_000, 6_999_999_999), (5_010_000_000, 5_019_999_999), (5_010_000_001, 5_010_000_001)],
)
def test_a_round_time_may_have_been_rounded_down(time_ns, latest):
    """FAT by two seconds, exFAT by ten milliseconds."""
    assert latest_ns(time_ns) == latest


def test_what_another_machine_changes_is_read_anew(tmp_path):
    """NFS and FUSE: for some seconds a stat says what it said, while the compiler, which opens the file, reads what it is now."""
    (tmp_path / "at").mkdir()
    program = f"""
sys.path.insert(0, {str(Path(__file__).parent)!r})
from small_fuse import SmallFuse
try:
    served = SmallFuse(f"{{top}}/at", "a.h", b"int a;")
except OSError as e:
    sys.exit(f"mount: {{e}}")
memo = FileMemo(Watcher())
print(right(memo), right(memo))
before = os.stat(path)
served.text = b"int b;"
print(os.stat(path) == before, right(memo), Sight(memo).digest(path) == FileMemo().hash(path)[1])
unmount()
"""
    assert printed(program, tmp_path) == ["True"] * 5
