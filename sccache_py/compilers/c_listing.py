"""What a C compiler depends on, from its own answers, where it cannot be observed.

The compiler is asked before it compiles, by `-M -v` (gcc.py, `question`): which files it reads, which directories it searches in
which order, which of those it passes over.  What it looks up there follows from the texts (c_includes.py), by the preprocessor's rule:
the directory of the including file for `"…"`, then the directories in order, the first that has the name.  Every text that is found so
is followed, whether or not a branch reaches it, and every look-up becomes a condition: a file that was found counts by its content, one
that would come first and is not there must stay away.

The list proves the rule, and no more: a listed file that was not found so refuses the whole.  It may lack some (gcc 12 passes over
`#pragma GCC target` when it only preprocesses, and so over what is included only then).  That the compile itself saw the same is
checked afterwards, by the conditions (server/miss/inputs.py).

Sources: gcc 12, `libcpp/files.cc` (search_path_head, find_file_in_dir, pch_open_file), `gcc/incpath.cc` (remove_duplicates);
clang 14, `Lex/HeaderSearch.cpp` (LookupFile), `Frontend/InitHeaderSearch.cpp` (Realize).
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from sccache_py.compilers.c_includes import names_in
from sccache_py.compilers.driver import Look, Told
from sccache_py.conditions import Draft
from sccache_py.model import Plan, Reason
from sccache_py.observation import plain

_WORD = re.compile(rb"(?:\\[ \t#]|\$\$|[^\s\\$])+")
_SPACED = re.compile(rb"(?:\s|\\\r?\n)*")

_QUOTE_STARTS = '#include "..." search starts here:'
_ANGLE_STARTS = "#include <...> search starts here:"
_ENDS = "End of search list."
_PASSED_OVER = re.compile(r'ignoring (nonexistent|duplicate) directory "(.*)"')

# What gcc reads before the source, and clang from version 17 on.
_PREINCLUDED = "stdc-predef.h"

# Where clang looks for gcc's headers, beside the place where it found some (Driver/ToolChains/Gnu.cpp).
_OTHER_GCCS = ("../lib64/gcc", "../lib64/gcc-cross", "../lib32/gcc", "../lib32/gcc-cross", "../libx32", "gcc-cross")


@dataclass(slots=True)
class Words:
    """What of a command line decides look-ups, as it is spelled there."""

    macros: list[str] = field(default_factory=list)
    included: list[str] = field(default_factory=list)  # -include, -imacros
    directories: list[str] = field(default_factory=list)
    values: list[str] = field(default_factory=list)  # of -f…=, -m…= and -W…=: may be names of files


@dataclass(slots=True)
class Search:
    """What `-v` tells of a compile, paths as the compiler spelled them."""

    quoted: list[str] = field(default_factory=list)
    angled: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    duplicate: list[str] = field(default_factory=list)
    read: list[str] = field(default_factory=list)  # specs
    programs: list[str] = field(default_factory=list)  # directories where gcc looks for programs …
    libraries: list[str] = field(default_factory=list)  # … and for specs
    other_gccs: list[str] = field(default_factory=list)  # installations from which clang chose
    installed: str = ""  # clang's directory
    target: str = ""


def parse_search(text: str) -> Search | None:
    """None: this is not what gcc or clang say."""
    search = Search()
    lines = iter(text.split("\n"))
    for line in lines:
        line = line.rstrip("\r")
        passed_over = _PASSED_OVER.match(line)
        if passed_over is not None:
            (search.missing if passed_over[1] == "nonexistent" else search.duplicate).append(passed_over[2])
        elif line == _QUOTE_STARTS:
            break
        elif line.startswith("Reading specs from "):
            search.read.append(line[len("Reading specs from ") :])
        elif line.startswith("Found candidate GCC installation: "):
            search.other_gccs.append(line[len("Found candidate GCC installation: ") :])
        elif line.startswith("InstalledDir: "):
            search.installed = line[len("InstalledDir: ") :]
        elif line.startswith("Target: "):
            search.target = line[len("Target: ") :]
        elif line.startswith("Configuration file: "):
            return None
    where = search.quoted
    for line in lines:
        if line == _ANGLE_STARTS:
            where = search.angled
        elif line == _ENDS:
            break
        elif not line.startswith(" ") or line.endswith((" (framework directory)", " (headermap)")):
            return None
        else:
            where.append(line[1:])
    else:
        return None
    for line in lines:
        if line == _QUOTE_STARTS:
            return None  # several compiles in one
        for name, into in (("COMPILER_PATH=", search.programs), ("LIBRARY_PATH=", search.libraries)):
            if line.startswith(name):
                into += [d for d in line[len(name) :].split(":") if d]
    return search


def parse_rule(text: bytes) -> list[str] | None:
    """The prerequisites of the one rule that `-M` prints, the source first; None: something in it cannot be told for sure."""
    _, colon, rest = text.partition(b":")
    files = []
    at = _SPACED.match(rest).end()  # type: ignore[union-attr]  # it matches the empty string
    while at < len(rest):
        word = _WORD.match(rest, at)
        if word is None:
            return None
        files.append(os.fsdecode(re.sub(rb"\\([ \t#])", rb"\1", word[0]).replace(b"$$", b"$")))
        at = _SPACED.match(rest, word.end()).end()  # type: ignore[union-attr]
    return files if colon and files else None


class _Walk:
    """Every look-up of one compile, in the order of the directories."""

    def __init__(self, cwd: str, search: Search, files: Sequence[str], look: Look) -> None:
        self.cwd = cwd
        self._look = look
        self._angled = [self.absolute(d) for d in search.angled]
        self._quoted = [*(self.absolute(d) for d in search.quoted), *self._angled]
        self.files = [self.absolute(f) for f in files]
        self._listed = {look.identity(f) for f in self.files}
        self._found = {look.identity(self.files[0])}
        self._finds_precompiled = False
        self._done: set[tuple[str, tuple[str, ...], bool, bool]] = set()
        self.says_lines = False
        # By dicts, for their order: equal compiles are to have equal conditions.
        self.read: dict[str, None] = dict.fromkeys(self.files)
        self.present: dict[str, None] = {}
        self.absent: dict[str, None] = {}

    def absolute(self, path: str) -> str:
        return plain(os.path.join(self.cwd, path))

    def is_there(self, path: str) -> bool:
        """Whether anything is at this place is a condition from now on."""
        there = self._look.identity(path) is not None or self._look.is_directory(path)
        (self.present if there else self.absent)[path] = None
        return there

    def texts(self, words: Words) -> Reason | None:
        """Follow every text."""
        if None in self._listed:
            return Reason.INPUT_VANISHED
        by_command = names_in(b"\n".join(os.fsencode(m) for m in words.macros))
        texts = {self.cwd + "/": by_command}
        source = self.files[0]
        for name in words.included:
            self._look_up(name, [self.cwd, *self._quoted], precompiled=True)
        self._look_up(_PREINCLUDED, self._angled)
        # Under each name by which a file was reached: it decides where its `"…"` are looked for.
        while missing := [file for file in self.read if file not in texts]:
            for file in missing:
                names = self._look.names(file)
                if names is None:
                    return Reason.INPUT_VANISHED
                if names.trouble is not None:
                    return names.trouble
                texts[file] = names
                self.says_lines = self.says_lines or names.says_lines
            asked = set[str]().union(*(n.asked for n in texts.values()))
            for file, names in texts.items():
                # gcc takes a precompiled header only for what the source includes first.
                for name in sorted(names.quoted | asked):
                    self._look_up(name, [os.path.dirname(file), *self._quoted], precompiled=file == source)
                for name in sorted(names.angled):
                    self._look_up(name, self._angled, precompiled=file == source)
                for name in sorted(names.angled_next | names.quoted_next):
                    self._look_up(name, self._quoted, onwards=True)
        if by_command.trouble is not None:
            return by_command.trouble
        if any(n.pastes_has for n in texts.values()) and any(n.bare_include for n in texts.values()):
            return Reason.FALLBACK_COMPUTED
        if self._finds_precompiled:
            return Reason.FALLBACK_PCH
        return None if self._listed <= self._found else Reason.FALLBACK_LIST

    def _look_up(self, name: str, directories: Sequence[str], precompiled: bool = False, onwards: bool = False) -> None:
        """onwards: from some directory on (`#include_next`), so each of them counts."""
        key = (name, tuple(directories), precompiled, onwards)
        if key in self._done:
            return
        self._done.add(key)
        for directory in directories if not name.startswith("/") else ("/",):
            path = plain(os.path.join(directory, name))
            if precompiled and (self.is_there(path + ".gch") or self.is_there(path + ".pch")):
                self._finds_precompiled = True
            identity = self._look.identity(path)
            if identity is None:
                self.is_there(path)
                continue
            self._found.add(identity)
            self.read[path] = None
            if not onwards:
                return


def draft(plan: Plan, told: Told, words: Words, cwd: str, look: Look) -> Draft | Reason:
    """The conditions of a compile; which variables it asked for is left to the caller."""
    files = parse_rule(told.listed)
    search = parse_search(os.fsdecode(told.said))
    if files is None or search is None:
        return Reason.FALLBACK_LIST
    walk = _Walk(cwd, search, files, look)
    if plan.source is None or look.identity(walk.files[0]) != look.identity(plan.source):
        return Reason.FALLBACK_LIST
    reason = walk.texts(words)
    if reason is not None:
        return reason
    # Which of two directories is a duplicate is decided by what they are, behind links.
    for directory in (*search.quoted, *search.angled, *search.duplicate, *search.missing, *words.directories):
        path = walk.absolute(directory)
        if walk.is_there(path) and not look.is_directory(path):
            return Reason.FALLBACK_FILES
    # Whatever `-fsomething=list` means, a file of that name would be an input.
    if any(walk.is_there(path) and not look.is_directory(path) for path in map(walk.absolute, words.values)):
        return Reason.FALLBACK_FILES
    _toolchain(walk, search)
    listings = [walk.absolute(os.path.join(d, "..")) for d in search.other_gccs]
    return Draft(
        read=[*walk.read, *(walk.absolute(p) for p in search.read)],
        present=list(walk.present),
        absent=list(walk.absent),
        listed=list(dict.fromkeys(listings)),
        asked=[],
        outputs=list(plan.must_write),
        messages_unlisted=walk.says_lines,
        # gcc writes where a system header really is, and no list tells which were found in a system directory.
        pins=["cwd"] if any(path != plan.source and _leads_out(path, cwd) for path in walk.read) else [],
    )


def _leads_out(path: str, directory: str) -> bool:
    """By dots: `/p/../inc/a.h` of `/p`."""
    return path.startswith(f"{directory}/") and not os.path.normpath(path).startswith(f"{directory}/")


def _toolchain(walk: _Walk, search: Search) -> None:
    """What would change the compiler if it appeared, as far as it tells where it looks."""
    for directory in search.libraries:
        walk.is_there(walk.absolute(os.path.join(directory, "specs")))
    for directory in search.programs:
        for name in ("as", f"{search.target}-as"):
            walk.is_there(walk.absolute(os.path.join(directory, name)))
    for directory in search.other_gccs:
        for other in _OTHER_GCCS:
            walk.is_there(walk.absolute(os.path.join(directory, "../../..", other)))
    if search.installed:
        for name in ("clang", "clang++", search.target, f"{search.target}-clang", f"{search.target}-clang++"):
            walk.is_there(walk.absolute(os.path.join(search.installed, name + ".cfg")))
