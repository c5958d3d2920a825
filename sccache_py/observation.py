"""The preload record → what was read, absent, asked, written.

The record (docs/protocol.md, section 4) is what each process of a compiler's tree noted of itself, in the order in which it was
claimed.  Order carries meaning: a file that the tree wrote before it read it is no input, whoever of the tree did either.

This module decides whether the record is whole.  It does not judge what was seen (conditions.py) and opens nothing.
"""

from __future__ import annotations

import errno
import os
import struct
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import lru_cache

from sccache_py.errors import FormatError
from sccache_py.model import Observation, Reason

HEADER_BYTES = 64
MAGIC = b"SCOB"
VERSION = 1
_HEADER = struct.Struct("<4sIQQI")
_RECORD = struct.Struct("<IBBHI")

# In the place of which file a name was, where it was more than one.
SEVERAL = "several"

_GONE = (errno.ENOENT, errno.ENOTDIR)

# The kernel follows no more.
_MOST_LINKS = 40


def new_header(size: int) -> bytes:
    """The 64 bytes that make an empty record file of `size` bytes."""
    return _HEADER.pack(MAGIC, VERSION, size, HEADER_BYTES, 0).ljust(HEADER_BYTES, b"\0")


def used_bytes(header: bytes) -> int:
    """How much of the file the record takes, header included.  Raises FormatError."""
    magic, version, size, position, _ = _HEADER.unpack_from(header)
    if magic != MAGIC or version != VERSION or position < HEADER_BYTES:
        raise FormatError("not an observation record")
    return int(min(position, size))


def records(data: bytes) -> Iterator[tuple[str, int, int, str, str]]:
    """(kind, errno, pid, text1, text2) in order.  Raises FormatError where the record is not whole."""
    _, _, size, position, lost = _HEADER.unpack_from(data)
    if lost or position > min(size, len(data)):
        raise FormatError(f"{lost} records did not fit")
    unpack, head = _RECORD.unpack_from, _RECORD.size
    at = HEADER_BYTES
    while at < position:
        length, done, kind, error, pid = unpack(data, at)
        end = at + length
        if not done or length < head or end > position:
            raise FormatError("a process ended while it wrote a record")
        yield chr(kind), error, pid, *_texts(data[at + head : end])
        at = end


# One compile names a file again and again, and the next compile the same ones.
@lru_cache(maxsize=8192)
def _texts(data: bytes) -> tuple[str, str]:
    text1, _, rest = data.partition(b"\0")
    return os.fsdecode(text1), os.fsdecode(rest.partition(b"\0")[0])


@lru_cache(maxsize=8192)
def plain(path: str) -> str:
    """`a//b` and `a/./b` name the same file always; `..` may not, behind a link, so it stays."""
    while "//" in path:
        path = path.replace("//", "/")
    if "/." in path:
        while "/./" in path:
            path = path.replace("/./", "/")
        if path.endswith("/."):
            path = path[:-2]
    return path.rstrip("/") or "/"


def observe(data: bytes, places: Sequence[tuple[str, str]] = ()) -> Observation | Reason:
    """Read a whole record; the Reason says why it cannot be relied on.

    places: directories behind links or dots, (physical path, path as the caller named it).
    """
    try:
        return _Reader(places).run(data)
    except (FormatError, struct.error):
        return Reason.RECORD_LOST


class _Reader:
    def __init__(self, places: Sequence[tuple[str, str]]) -> None:
        self.places = places
        self.read: dict[str, None] = {}
        self.present: dict[str, None] = {}
        self.absent: dict[str, None] = {}
        self.listed: dict[str, None] = {}
        self.wanted: dict[str, None] = {}
        self.asked: set[str] = set()
        self.plugins_asked: set[str] = set()
        self.plugin_clock = False
        self.machine: set[str] = set()
        self.dated: defaultdict[str, set[str]] = defaultdict(set)
        self.sized: dict[str, None] = {}
        self.which: dict[str, str] = {}
        self.linked: set[str] = set()
        self.image_of: dict[int, str] = {}  # by pid
        self.path_asked_by: set[str] = set()
        self.zone_asked_by: set[str] = set()
        self.written: dict[str, None] = {}
        self.removed: dict[str, None] = {}
        self.spared: dict[str, None] = {}
        self.made: set[str] = set()
        self.shining: dict[str, None] = {}
        self.made_directories: list[str] = []
        self.kept: dict[str, None] = {}  # those directories, less what was removed
        self.links: dict[str, str] = {}  # that the tree made → what each says
        self.images: dict[str, None] = {}
        self.tried: dict[int, str] = {}  # by pid: the exec that has neither failed nor shown its image
        self.owed: dict[tuple[int, str], int] = {}  # by pid and name: images that were to begin, less those that did

    def run(self, data: bytes) -> Observation | Reason:
        used_bytes(data)
        made, name = self.made, self._name if self.places else plain
        read, present, absent = self.read, self.present, self.absent
        for kind, error, pid, text1, text2 in records(data):
            # Nearly all are these, several hundred in a compile.
            if kind in "RSD":
                path = name(text1)
                if self.links or (".." in path and self.made_directories):
                    path = self._follow(path)
                if path in made:
                    continue
                if kind == "S" and text2 == "reader":
                    self.sized[path] = None
                elif error in _GONE:
                    absent[path] = None
                    if kind == "R":
                        self.wanted[path] = None
                elif error:
                    present[path] = None
                elif kind == "S":
                    present[path] = None
                    self.dated[text2 or self.image_of.get(pid, "")].add(path)
                else:
                    (read if kind == "R" else self.listed)[path] = None
                    if text2 and self.which.setdefault(path, text2) != text2:
                        self.which[path] = SEVERAL
            elif kind == "E":
                self.asked.add(text1)
                if text2 == "plugin":
                    self.plugins_asked.add(text1)
                elif text1 == "PATH" and text2 != "search":
                    self.path_asked_by.add(self.image_of.get(pid, ""))
                elif text1 == "TZ":
                    self.zone_asked_by.add(self.image_of.get(pid, ""))
            elif kind == "C":
                if text1 == "plugin":
                    self.plugin_clock = True
                else:
                    self.machine.add(text1)
            elif kind == "I":
                path = self._follow(plain(text1))
                self._input(path)
                self.linked.add(path)
            elif kind == "N":
                return Reason.RECORD_UNFOLLOWED
            elif kind in "PXxY":
                self._process(kind, pid, text1, text2)
            else:
                self._changed(kind, error, self._follow(self._name(text1), to_the_end=kind in "WBbT"), text2)
        if not self.images:
            return Reason.RECORD_LOST
        # Every exec that was begun must show up as an image that announced itself: what does not is static, setuid or of another libc,
        # and did things that nobody noted.  And every image was begun by an exec that was seen, or such a one stands in between.
        if any(self.owed.values()):
            return Reason.RECORD_FOREIGN
        return self._result()

    def _process(self, kind: str, pid: int, text1: str, text2: str) -> None:
        if kind == "P":
            # What an exec named, its image names too; by a descriptor, only the file is known.  The first image was started by us.
            name = text1 if text2.startswith("/dev/fd/") else text2
            if self.images:
                self._owe(pid, name, -1)
            if pid in self.tried:
                self._executed(self.tried.pop(pid))
            self.images[text1] = None
            self.image_of[pid] = os.path.basename(text1)
        elif kind == "X":
            self._owe(pid, text1, 1)
            self.tried[pid] = plain(text1)
        elif kind == "x":
            self._owe(pid, text1, -1)
            self.tried.pop(pid, None)
            self.absent[plain(text1)] = None
        else:
            self._owe(int(text2), text1, 1)
            self._executed(plain(text1))

    def _executed(self, path: str) -> None:
        """Its content is an input, and that it may be executed: else a search would have gone on."""
        path = self._follow(path)
        self._input(path)
        if path not in self.made:
            self.present[path] = None

    def _owe(self, pid: int, path: str, count: int) -> None:
        key = (pid, os.path.basename(path))
        self.owed[key] = self.owed.get(key, 0) + count

    def _name(self, text: str) -> str:
        """One name for what the tree made.  A directory is removed by descriptors, and these are told by their physical paths."""
        path = plain(text)
        for physical, named in self.places:
            if path.startswith(physical + "/"):
                again = named + path[len(physical) :]
                if again in self.made or again.startswith(tuple(self.made_directories)):
                    return again
        return path

    def _follow(self, path: str, to_the_end: bool = True) -> str:
        """What a path leads to by links, and out of directories, that the tree made: these are its own, but not what is behind them.

        to_the_end: even if the path itself is such a link.
        """
        for _ in range(_MOST_LINKS):
            for link, says in self.links.items():
                if path.startswith(link + "/") or (to_the_end and path == link):
                    path = plain(f"{os.path.join(os.path.dirname(link), says)}/{path[len(link) :]}")
                    break
            else:
                out = next((d for d in self.made_directories if f"{path}/".startswith(d + "../")), None)
                if out is None:
                    break
                path = plain(f"{os.path.dirname(out[:-1])}/{path[len(out) + 2 :]}")
        return path

    def _input(self, path: str) -> None:
        if path not in self.made:
            self.read[path] = None

    def _changed(self, kind: str, error: int, path: str, text2: str) -> None:
        if error:
            if kind == "K" and error == errno.EEXIST and path not in self.made:
                self.present[path] = None
            elif kind == "U" and error in _GONE:
                self.spared[path] = None
        elif kind == "W":
            self._wrote(path)
        elif kind == "B":
            # It may have been there before: whoever opens without truncating may read.
            if path not in self.absent:
                self._input(path)
            self._wrote(path)
        elif kind == "b":
            if path not in self.made and path not in self.absent:
                self.shining[path] = None
            self._wrote(path)
        elif kind == "M":
            target = self._follow(self._name(text2), to_the_end=False)
            self._input(path)
            self._moved(path, target)
        elif kind == "U":
            self.written.pop(path, None)
            self.links.pop(path, None)
            if self.kept:
                self.kept = {d: None for d in self.kept if d != path and not d.startswith(path + "/")}
            if path not in self.made:
                self.removed[path] = None
            self.made.add(path)
        elif kind == "K":
            self.made.add(path)
            self.made_directories.append(path + "/")
            self.kept[path] = None
        else:  # L, T: changes of something by path
            if kind == "T" and path not in self.made:
                self._input(path)
            elif kind == "L":
                self.links[path] = text2
            self._wrote(path)

    def _wrote(self, path: str) -> None:
        self.made.add(path)
        self.written[path] = None

    def _moved(self, source: str, target: str) -> None:
        # A hard link leaves the source, a rename does not; who looks at `written` sees what is still there.
        self._wrote(target)
        self.made.add(source)
        if source in self.shining:
            self.shining[target] = None
        prefix = source + "/"
        self.links.pop(target, None)
        for link in [link for link in self.links if link == source or link.startswith(prefix)]:
            self.links[target + link[len(source) :]] = self.links[link]
        for path in [p for p in self.written if p.startswith(prefix)]:
            self._wrote(target + "/" + path[len(prefix) :])
            del self.written[path]
        if prefix in self.made_directories:
            self.made_directories.append(target + "/")
            self.kept = {target + d[len(source) :] if f"{d}/".startswith(prefix) else d: None for d in self.kept}
            del self.written[target]

    def _result(self) -> Observation:
        directories = tuple(self.made_directories)

        def outside(paths: dict[str, None]) -> list[str]:
            if self.made.isdisjoint(paths) and not directories:
                return list(paths)
            return [p for p in paths if p not in self.made and not p.startswith(directories)]

        return Observation(
            read=[p for p in self.read if not p.startswith(directories)],
            present=outside(self.present),
            absent=outside(self.absent),
            listed=outside(self.listed),
            wanted=[p for p in self.wanted if p in self.made],
            lacked=[p for p in self.absent if p in self.made],
            asked=sorted(self.asked),
            plugins_asked=self.plugins_asked,
            plugin_clock=self.plugin_clock,
            machine=self.machine,
            dated={who: paths & self.present.keys() for who, paths in self.dated.items()},
            sized=outside(self.sized),
            which=self.which,
            linked=self.linked,
            path_asked_by=self.path_asked_by,
            zone_asked_by=self.zone_asked_by,
            shining=list(self.shining),
            written=list(self.written),
            removed=list(self.removed),
            spared=outside(self.spared),
            made=self.made,
            directories=list(self.kept),
            images=list(self.images),
        )
