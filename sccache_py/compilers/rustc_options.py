"""rustc's options, as of 1.95 (`rustc --help -v`, `rustc_session/src/config.rs`): which take a value, and what they mean to us."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Does(enum.Enum):
    """What an option means to us."""

    KEEP = enum.auto()
    LINK = enum.auto()
    CODEGEN = enum.auto()
    COLOR = enum.auto()
    CRATE_NAME = enum.auto()
    CRATE_TYPE = enum.auto()
    EMIT = enum.auto()
    ERROR_FORMAT = enum.auto()
    EXTERN = enum.auto()
    JSON = enum.auto()
    NOT_COMPILING = enum.auto()
    OUT_DIR = enum.auto()
    OUTPUT = enum.auto()
    REMAP = enum.auto()
    REMAP_SCOPE = enum.auto()
    SEARCH = enum.auto()
    SYSROOT = enum.auto()
    TARGET = enum.auto()
    TEST = enum.auto()
    UNSTABLE = enum.auto()
    WIDTH = enum.auto()


@dataclass(frozen=True, slots=True)
class Option:
    name: str
    takes_value: bool
    does: Does = Does.KEEP


# Sorted (a test holds us to it); review is by eye.
OPTIONS = (
    Option("--allow", True),
    Option("--cap-lints", True),
    Option("--cfg", True),
    Option("--check-cfg", True),
    Option("--codegen", True, Does.CODEGEN),
    Option("--color", True, Does.COLOR),
    Option("--crate-name", True, Does.CRATE_NAME),
    Option("--crate-type", True, Does.CRATE_TYPE),
    Option("--deny", True),
    Option("--diagnostic-width", True, Does.WIDTH),
    Option("--edition", True),
    Option("--emit", True, Does.EMIT),
    Option("--env-set", True),
    Option("--error-format", True, Does.ERROR_FORMAT),
    Option("--explain", True, Does.NOT_COMPILING),
    Option("--extern", True, Does.EXTERN),
    Option("--forbid", True),
    Option("--force-warn", True),
    Option("--help", False, Does.NOT_COMPILING),
    Option("--json", True, Does.JSON),
    Option("--out-dir", True, Does.OUT_DIR),
    Option("--print", True, Does.NOT_COMPILING),
    Option("--remap-path-prefix", True, Does.REMAP),
    Option("--remap-path-scope", True, Does.REMAP_SCOPE),
    Option("--sysroot", True, Does.SYSROOT),
    Option("--target", True, Does.TARGET),
    Option("--test", False, Does.TEST),
    Option("--unpretty", True, Does.NOT_COMPILING),
    Option("--verbose", False),
    Option("--version", False, Does.NOT_COMPILING),
    Option("--warn", True),
    Option("-A", True),
    Option("-C", True, Does.CODEGEN),
    Option("-D", True),
    Option("-F", True),
    Option("-L", True, Does.SEARCH),
    Option("-O", False),
    Option("-V", False, Does.NOT_COMPILING),
    Option("-W", True),
    Option("-Z", True, Does.UNSTABLE),
    Option("-g", False),
    Option("-h", False, Does.NOT_COMPILING),
    Option("-l", True, Does.LINK),
    Option("-o", True, Does.OUTPUT),
    Option("-v", False),
    Option("-vV", False, Does.NOT_COMPILING),
)
