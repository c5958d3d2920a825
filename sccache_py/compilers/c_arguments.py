"""The words of a command line of gcc's or clang's, in order of reading.

What they mean for a compile is for gcc.py to say.  An option that is not in the table (c_options.py) is refused by name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from sccache_py.compilers import c_messages, c_options
from sccache_py.compilers.c_dialects import CLANG, Dialect
from sccache_py.compilers.c_options import Does, Option, Takes
from sccache_py.model import Reason, Refusal

_ENDS = ("-fsyntax-only", "-S", "-c", "--precompile")


@dataclass(slots=True)
class Parsed:
    """The command line, in order of reading."""

    arguments: list[str] = field(default_factory=list)
    question: list[str] = field(default_factory=list)  # those of them that say what is read
    unlisted: str | None = None  # what no list tells, by its name
    inputs: list[tuple[str, str | None]] = field(default_factory=list)  # with what -x said
    language: str | None = None
    mode: str | None = None
    rules: str | None = None  # -M or -MM
    preprocesses: bool = False
    output: str | None = None
    writes_depfile: bool = False
    depfile: str | None = None
    depfile_by_wp: str | None = None
    depfile_by_driver: bool = False
    files: list[str] = field(default_factory=list)  # further outputs, by name
    targets: list[tuple[str, str]] = field(default_factory=list)  # (-MT or -MQ, name)
    maps: list[tuple[str, str, str]] = field(default_factory=list)
    colors: list[str] = field(default_factory=list)
    debug: bool = False
    debug_directory: bool = False  # debug information names another directory than the cwd
    hides_cwd: bool = False  # $PWD is no directory's name
    shows_cwd: bool = False
    shows_names: bool = False
    shows_output: bool = False  # less than that: the cwd counts only as with other debug information
    records: bool = False
    native_cpu: bool = False
    told_variables: tuple[str, ...] = ("PWD", "PATH")  # asked by all; the cwd is a role, what PATH finds is in the compiler's identity
    implicit_modules: bool = False
    beside: list[str] = field(default_factory=list)  # suffixes of further files that are called like the output
    refused: Reason | Refusal | None = None

    def colors_by_terminal(self) -> bool:
        return next(reversed(self.colors), None) in c_messages.BY_THE_TERMINAL

    def width_by_terminal(self) -> bool:
        return not any(word.startswith("-fmessage-length") for word in self.arguments)

    def language_of(self, number: int) -> str | None:
        """Of an input: as -x said, or by its name.

        clang takes an object for bitcode if it shall be optimised by an index (lib/Driver/Driver.cpp, BuildInputs).
        """
        name, told = self.inputs[number]
        suffix = os.path.splitext(name)[1]
        if told is None and suffix == ".o" and any(word.startswith("-fthinlto-index=") for word in self.arguments):
            return "ir"
        return told or c_options.EXTENSIONS.get(suffix)


def is_stream(name: str) -> bool:
    """Whether an output of that name is a stream of the caller's, or a device."""
    return name == "-" or name.startswith(("/dev/", "/proc/"))


def read(dialect: Dialect, options: dict[str, Option], argv: Sequence[str], parsed: Parsed) -> Reason | Refusal | None:
    """options: the dialect's table, by name.  What is returned says why not to read on."""
    words = iter(argv)
    for word in words:
        if word == "-" or not word.startswith("-"):
            parsed.inputs.append((word, parsed.language))
            parsed.arguments.append(word)
            parsed.question.append(word)
            continue
        if word == "--" and dialect is CLANG:
            parsed.inputs += [(w, parsed.language) for w in words]
            parsed.arguments += ["--", *(name for name, _ in parsed.inputs)]
            parsed.unlisted = "--"
            break
        found = c_options.find(options, word)
        if found is None:
            return Refusal(Reason.UNKNOWN_OPTION, word.partition("=")[0])
        option, value = found
        short = c_options.SHORT.get(option.name)
        if short is not None:
            option, value = (c_options.find(options, short + value) if value else None) or (options[short], value)
        if option.does is Does.NOT_COMPILING:
            return Reason.NOT_COMPILING  # also where a value is missing: configure scripts ask with `gcc -V`
        if value is None and option.takes in (Takes.NEXT, Takes.EITHER):
            value = next(words, None)
            if value is None:
                return Reason.BAD_ARGUMENTS
        _take(parsed, option, value or "")
    return None


def _take(parsed: Parsed, option: Option, value: str) -> None:
    does = option.does
    if does in _SILENT:
        _SILENT[does](parsed, option, value)
        return
    if does is Does.REFUSE or re.match(option.refused, value):
        parsed.refused = parsed.refused or Refusal(Reason.REFUSED_OPTION, option.name)
    told = [option.name + value] if option.takes is Takes.JOINED else [option.name, value] if value else [option.name]
    is_color = does is Does.COLOR and value in c_messages.COLORED and not told[-1].endswith("=")
    (parsed.colors if is_color else parsed.arguments).extend(told)
    if does not in _NOT_ASKED and option.name not in _PRINTS:
        parsed.question += told
    # An empty value would take the next word for itself in the question; `-I-` changes where `"…"` is looked for.
    if does in _UNLISTED or (option.takes in (Takes.NEXT, Takes.EITHER) and value in ("", "-")):
        parsed.unlisted = parsed.unlisted or option.name
    if does is Does.DEBUG:
        parsed.debug = True
    elif does is Does.DEBUG_DIRECTORY:
        parsed.debug_directory = True
    elif does is Does.NO_DEBUG:
        parsed.debug = False
    elif does is Does.SHOWS_CWD:
        parsed.shows_cwd = True
    elif does is Does.SHOWS_NAMES or re.match(option.shows, value):
        parsed.shows_names = True
    elif does is Does.SPLITS_DEBUG:
        parsed.debug = parsed.shows_output = True
        parsed.told_variables = _less_path(parsed)  # gcc's driver has objcopy take it out
    elif does is Does.BESIDE:
        parsed.beside.append(option.beside)
    elif does is Does.WRITES:
        parsed.shows_names = True
        parsed.files.append(value)
    elif does is Does.RECORDS:
        parsed.shows_names = parsed.records = True
    elif does is Does.IMPLICIT_MODULES:
        parsed.implicit_modules = True
    elif does is Does.SEARCHES_PROGRAMS:
        parsed.told_variables = ()
    elif does is Does.TARGETS:
        parsed.told_variables = _less_path(parsed)
    elif does is Does.MACHINE:
        parsed.native_cpu = parsed.native_cpu or value == "native"
    elif does is Does.RULES:
        parsed.rules = option.name
    elif does is Does.PREPROCESS:
        parsed.preprocesses = True
    elif does is Does.LANGUAGE:
        parsed.language = None if value == "none" else value
    elif does is Does.COMPILE or does is Does.SYNTAX_ONLY:
        # Whatever their order, the one that ends first wins; clang's --precompile is another way, not an end.
        modes = [mode for mode in (parsed.mode, option.name) if mode is not None]
        if "--precompile" in modes and len(set(modes)) > 1:
            parsed.refused = parsed.refused or Reason.BAD_ARGUMENTS
        parsed.mode = min(modes, key=_ENDS.index)
        parsed.shows_names = parsed.shows_names or option.name == "--precompile"


def _less_path(parsed: Parsed) -> tuple[str, ...]:
    return tuple(name for name in parsed.told_variables if name != "PATH")


def _take_output(parsed: Parsed, option: Option, value: str) -> None:
    parsed.output = value


def _take_dep_file(parsed: Parsed, option: Option, value: str) -> None:
    parsed.depfile = value


def _take_dep_target(parsed: Parsed, option: Option, value: str) -> None:
    parsed.targets.append((option.name, value))


def _take_dep_write(parsed: Parsed, option: Option, value: str) -> None:
    parsed.writes_depfile = parsed.depfile_by_driver = True
    parsed.arguments.append(option.name)


def _take_map(parsed: Parsed, option: Option, value: str) -> None:
    old, _, new = value.partition("=")
    parsed.maps.append((option.name, old, new))


def _take_preprocessor(parsed: Parsed, option: Option, value: str) -> None:
    """`-Wp,-MD,FILE` is how the Linux kernel writes depfiles; what else is handed through may do anything, macros apart."""
    words = value.split(",")
    if len(words) == 2 and words[0] in ("-MD", "-MMD"):
        parsed.arguments.append(f"-Wp,{words[0]}")
        parsed.writes_depfile = True
        parsed.depfile = parsed.depfile_by_wp = words[1]
        return
    # Fedora's -Wp,-D_FORTIFY_SOURCE=2: the same as without -Wp.
    parsed.shows_names = parsed.shows_names or not all(word.startswith(("-D", "-U")) and len(word) > 2 for word in words)
    parsed.unlisted = parsed.unlisted or option.name
    parsed.arguments.append(option.name + value)


# Without observation: these may leave further files or read some, and those say nothing of what is read.
_UNLISTED = (
    Does.BESIDE,
    Does.IMPLICIT_MODULES,
    Does.RECORDS,
    Does.SEARCHES_PROGRAMS,
    Does.SHOWS_NAMES,
    Does.SPLITS_DEBUG,
    Does.TARGETS,
    Does.UNLISTED,
    Does.WRITES,
)
_NOT_ASKED = (Does.COMPILE, Does.SYNTAX_ONLY)
_PRINTS = ("-H", "-MG", "-MP")

# What these say is told by role.
_SILENT = {
    Does.DEP_FILE: _take_dep_file,
    Does.DEP_TARGET: _take_dep_target,
    Does.DEP_WRITE: _take_dep_write,
    Does.OUTPUT: _take_output,
    Does.PREFIX_MAP: _take_map,
    Does.PREPROCESSOR: _take_preprocessor,
}
