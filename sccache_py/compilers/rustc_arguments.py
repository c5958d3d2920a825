"""The words of a rustc command line, in order of reading.

What they mean for a compile is for rustc.py to say.  An option that is not in the table (rustc_options.py) is refused by name: it may mean
that the next word is its value.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sccache_py.compilers.rustc_options import OPTIONS, Does, Option
from sccache_py.model import Reason
from sccache_py.observation import plain

_BY_NAME = {o.name: o for o in OPTIONS}

# `-C` options that leave files which are no output, or write more than they are asked to.
_CODEGEN_REFUSED = {"save-temps": Reason.SAVE_TEMPS}
# `-C` options under which an object names the directory that it was written to.
_CODEGEN_NAMES_OUT_DIR = ("split-debuginfo",)
# How rustc spells that a switch is off.
_OFF = ("n", "no", "off", "false")
# `-Z` options that write profiles of this very run.
_UNSTABLE_REFUSED = (
    "self-profile", "time-", "dump-", "print-", "unpretty", "mir-include", "save-analysis", "emit-stack-sizes", "llvm-time-trace",
)  # fmt: skip

# `--print` kinds that a compile says in passing.
_PRINTED_WHILE_COMPILING = ("native-static-libs", "link-args")

# What may stand before the `=` of a `-L`; any other `=` is part of the path (rustc_session/src/search_paths.rs).
_SEARCH_KINDS = ("all", "crate", "dependency", "framework", "native")


@dataclass(slots=True)
class Parsed:
    """The command line, in order of reading."""

    cwd: str
    arguments: list[str] = field(default_factory=list)
    roles: list[tuple[str, str, str]] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    externs: list[tuple[str, str | None]] = field(default_factory=list)
    searches: list[tuple[str, str]] = field(default_factory=list)
    emit: list[tuple[str, str | None]] = field(default_factory=list)
    crate_types: list[str] = field(default_factory=list)
    crate_name: str | None = None
    extra_filename: str = ""
    out_dir: str | None = None
    output: str | None = None
    color: str | None = None
    width: str | None = None
    error_format: str = "human"
    remaps: list[tuple[str, str]] = field(default_factory=list)
    remap_scope: str | None = None
    literal: bool = False  # tell paths as they are spelled
    native_cpu: bool = False
    rpath: bool = False
    target: str | None = None
    test: bool = False
    incremental: str | None = None
    asks: bool = False  # for information, not (only) for a crate
    leaves_more: bool = False  # may write files that no rule here names
    links: bool = False  # names a native library
    refused: Reason | None = None

    def absolute(self, path: str) -> str:
        # Not normpath: behind a link `..` is another directory, and this is how observation tells a path.
        return plain(os.path.join(self.cwd, path))


def read(argv: Sequence[str], parsed: Parsed) -> Reason | None:
    words = iter(argv)
    for word in words:
        if not word.startswith("-") or word == "-":
            parsed.inputs.append(word)
            parsed.arguments.append(word)
            continue
        option, value = _split(word)
        if option is None:
            return Reason.UNKNOWN_OPTION
        if option.takes_value and value is None:
            value = next(words, None)
            if value is None:
                return Reason.BAD_ARGUMENTS
        if not option.takes_value and value is not None:
            return Reason.BAD_ARGUMENTS
        _ACTIONS.get(option.does, _keep)(parsed, option.name, value or "")
    return None


def _split(word: str) -> tuple[Option | None, str | None]:
    """`--name=value`, `-Cvalue`, `--name`, `-C` → the option and its value if it is in this word."""
    option = _BY_NAME.get(word)
    if option is not None:
        return option, None
    if word.startswith("--"):
        name, equals, value = word.partition("=")
        return _BY_NAME.get(name), value if equals else None
    option = _BY_NAME.get(word[:2])
    if option is None or not option.takes_value:
        return None, None
    return option, word[2:]


def _keep(parsed: Parsed, name: str, value: str) -> None:
    parsed.arguments += [name, value]


def _keep_as(attribute: str) -> Callable[[Parsed, str, str], None]:
    """An option that stays in the key word for word, and whose value we need to know."""

    def action(parsed: Parsed, name: str, value: str) -> None:
        setattr(parsed, attribute, value)
        parsed.arguments += [name, value]

    return action


def _codegen(parsed: Parsed, name: str, value: str) -> None:
    key, _, setting = value.partition("=")
    key = key.replace("_", "-")
    if key in _CODEGEN_REFUSED:
        parsed.refused = parsed.refused or _CODEGEN_REFUSED[key]
    elif key == "incremental" and setting:
        # What lies there speeds the compile up and leaves its result as it is: only that there is such a directory counts.
        parsed.incremental = parsed.absolute(setting)
        value = "incremental"
    elif key == "extra-filename":
        parsed.extra_filename = setting
    elif key in ("target-cpu", "tune-cpu") and setting == "native":
        parsed.native_cpu = True
    elif key in ("llvm-args", "passes"):
        parsed.leaves_more = True
    elif key == "rpath":
        parsed.rpath = setting not in _OFF
    elif key in _CODEGEN_NAMES_OUT_DIR and setting != "off":
        parsed.literal = True
    parsed.arguments += ["-C", value]


def _unstable(parsed: Parsed, name: str, value: str) -> None:
    key, _, setting = value.partition("=")
    key = key.replace("_", "-")
    if key.startswith(_UNSTABLE_REFUSED):
        parsed.refused = parsed.refused or Reason.SELF_PROFILE
    if key == "tune-cpu":
        parsed.native_cpu = parsed.native_cpu or setting == "native"
    # What an unstable option writes where is not ours to know: -Zbinary-dep-depinfo lists every path.
    if value != "unstable-options":
        parsed.literal = True
    parsed.arguments += ["-Z", value]


def _crate_type(parsed: Parsed, name: str, value: str) -> None:
    parsed.crate_types += value.split(",")
    parsed.arguments += [name, value]


def _emit(parsed: Parsed, name: str, value: str) -> None:
    for item in value.split(","):
        kind, equals, path = item.partition("=")
        parsed.emit.append((kind, path if equals else None))
    parsed.arguments += [name, value]


def _extern(parsed: Parsed, name: str, value: str) -> None:
    crate, equals, path = value.partition("=")
    parsed.externs.append((crate, path if equals else None))


def _link(parsed: Parsed, name: str, value: str) -> None:
    parsed.links = True
    parsed.arguments += [name, value]


def _search(parsed: Parsed, name: str, value: str) -> None:
    kind, equals, path = value.partition("=")
    parsed.searches.append((kind, path) if equals and kind in _SEARCH_KINDS else ("all", value))


def _out_dir(parsed: Parsed, name: str, value: str) -> None:
    parsed.out_dir = value


def _remap(parsed: Parsed, name: str, value: str) -> None:
    source, equals, target = value.rpartition("=")
    if not equals:
        parsed.refused = parsed.refused or Reason.BAD_ARGUMENTS
    parsed.remaps.append((source, target))


def _remap_scope(parsed: Parsed, name: str, value: str) -> None:
    parsed.remap_scope = value
    parsed.arguments += [name, value]


def _sysroot(parsed: Parsed, name: str, value: str) -> None:
    parsed.refused = parsed.refused or Reason.SYSROOT


def _json(parsed: Parsed, name: str, value: str) -> None:
    if "timings" in value.split(","):  # cargo's -Zsection-timings
        parsed.refused = parsed.refused or Reason.SELF_PROFILE
    parsed.arguments += [name, value]


def _test(parsed: Parsed, name: str, value: str) -> None:
    # Whatever the crate is, its test harness is a program.
    parsed.test = True
    parsed.arguments.append(name)


def _ask(parsed: Parsed, name: str, value: str) -> None:
    parsed.asks = True
    parsed.native_cpu = parsed.native_cpu or value == "target-cpus"  # of which one is called native, and which that is
    # `--print native-static-libs` and `link-args` come with a whole compile, and KIND=FILE writes a file.
    if (name == "--print" and (value.partition("=")[0] in _PRINTED_WHILE_COMPILING or "=" in value)) or name == "--unpretty":
        parsed.refused = parsed.refused or Reason.NOT_COMPILING
    parsed.arguments += [name, value]


_ACTIONS = {
    Does.CODEGEN: _codegen,
    Does.COLOR: _keep_as("color"),
    Does.CRATE_NAME: _keep_as("crate_name"),
    Does.CRATE_TYPE: _crate_type,
    Does.EMIT: _emit,
    Does.ERROR_FORMAT: _keep_as("error_format"),
    Does.EXTERN: _extern,
    Does.JSON: _json,
    Does.LINK: _link,
    Does.NOT_COMPILING: _ask,
    Does.OUTPUT: _keep_as("output"),
    Does.OUT_DIR: _out_dir,
    Does.REMAP: _remap,
    Does.REMAP_SCOPE: _remap_scope,
    Does.SEARCH: _search,
    Does.SYSROOT: _sysroot,
    Does.TARGET: _keep_as("target"),
    Does.TEST: _test,
    Does.UNSTABLE: _unstable,
    Does.WIDTH: _keep_as("width"),
}
