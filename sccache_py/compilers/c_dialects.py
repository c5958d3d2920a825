"""Where gcc and clang differ, as the driver for both (gcc.py) has to know it.

Each entry was tried out with gcc 12 and clang 14; the end-to-end tests hold the two against it.
"""

from __future__ import annotations

from dataclasses import dataclass

from sccache_py.compilers import c_options
from sccache_py.compilers.c_options import Option
from sccache_py.make_rule import Style
from sccache_py.model import Twins


@dataclass(frozen=True, slots=True)
class Dialect:
    """Where gcc and clang differ."""

    name: str
    options: tuple[Option, ...]
    depfiles: Style
    color: str  # makes it colour its messages
    width: str  # tells it the terminal's width; "": it cannot be told
    stdout_by_dash: bool  # `-o -` is standard output, not a file named `-`
    wp_target_is_output: bool  # the target of -Wp,-MD,FILE is what -o says, not the source's name with .o
    stamps_headers: bool  # a precompiled header holds its sources' mtimes and paths, and is refused where they are others
    question: tuple[str, ...]  # makes it list what it would read and where it looks
    dates_by_variable: bool  # SOURCE_DATE_EPOCH is what __DATE__ says
    twins: Twins
    renames: bool  # what -o names is written beside it and renamed, whatever it is; gcc leaves that to as, for objects
    types_name_files: bool  # __PRETTY_FUNCTION__ says "(lambda at x.cpp:1:2)"
    inode_marks: tuple[bytes, ...]  # how names begin that OpenMP makes of the device and inode of a source
    overwrites: tuple[str, ...]  # further outputs that take no other file's place, by their names' ends


# clang ≥ 16 knows SOURCE_DATE_EPOCH, too; without observation it would not be told from one that does not.
_QUESTION = ("-M", "-v", "-w")
GCC = Dialect(
    "gcc", c_options.GCC_OPTIONS, Style.GCC, "-fdiagnostics-color=always", "", False, False, False, _QUESTION, True, Twins.BY_TIME, False,
    False, (), (".ci", ".gcno", ".su"),
)  # fmt: skip
CLANG = Dialect(
    "clang", c_options.CLANG_OPTIONS, Style.CLANG, "-fcolor-diagnostics", "-fmessage-length=", True, True, True,
    (*_QUESTION, "-Qunused-arguments"), False, Twins.BY_INODE, True, True, (b"__omp_offloading_",), (".dwo", ".gcno", ".su"),
)  # fmt: skip
