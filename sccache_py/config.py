"""Settings, from sccache's variables and its TOML file.  The environment wins over the file.

Which of them belong to one request (`SCCACHE_RECACHE` of that caller) and which to the server (the store's place and size) is
decided here: `Settings` is read once, when the server starts; `Wishes` are read from each request's environment.
"""

from __future__ import annotations

import json
import posixpath
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sccache_py.environment import of_all_variables

DEFAULT_SIZE_BYTES = 10 * 1024**3
MAX_SIZE_BYTES = 2**63 - 1  # SQLite's largest number; more than any disk has, so it means: no limit
DEFAULT_ZSTD_LEVEL = 3
MAX_ZSTD_LEVEL = 22

DEFAULT_IDLE_S = 600

# What the server starts with, but a caller may have another.
BASEDIRS = "SCCACHE_BASEDIRS"

_UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4, "P": 1024**5}
_TRUE = ("1", "true", "on", "yes")

# Python's names, from the quietest; sccache's users also write `warn`, `trace`, `off`, and filters of several (`sccache=debug,info`).
LOG_LEVELS = ("critical", "error", "warning", "info", "debug")
_LEVEL_NAMES = {**{name: name for name in LOG_LEVELS}, "off": "critical", "warn": "warning", "trace": "debug"}

# What [cache.disk] may hold; the last two are sccache's: how it looks for headers, and reflinks, for which there is nothing to set here.
_DISK_KEYS = ("dir", "size", "rw_mode", "preprocessor_cache_mode", "file_clone")

_TYPE_NAMES = {str: "string", int: "whole number"}


class ConfigError(Exception):
    """A setting that cannot be meant; the message names it."""


@dataclass(frozen=True, slots=True)
class Settings:
    directory: str
    size_bytes: int = DEFAULT_SIZE_BYTES
    idle_s: float = DEFAULT_IDLE_S
    read_only: bool = False
    jobs: int | None = None  # None: the processors that this process may use
    workers: int | None = None  # None: by the number of processors
    zstd_level: int = DEFAULT_ZSTD_LEVEL  # 0: stored as they are
    basedirs: tuple[str, ...] = ()
    error_log: str | None = None
    log_level: str = "warning"
    observe: bool = True
    watch: bool = True
    memory_admission: bool = True  # a compile that would make the machine swap waits
    trace: str | None = None


@dataclass(frozen=True, slots=True)
class Wishes:
    recache: bool = False
    no_cache: bool = False
    incremental: bool = False
    buster: str = ""
    extra_files: tuple[str, ...] = ()
    extra_env: str | None = None
    verify_every: int = 0
    second_chance: bool = False


NO_WISHES = Wishes()


def parse_size(text: str, name: str) -> int:
    """`10G`, `1.5T`, `512M`, `1048576` → bytes, at most MAX_SIZE_BYTES.  Raises ConfigError."""
    match = re.fullmatch(r"\s*(\d{1,20})(\.\d{1,9})?\s*([KMGTP]?)i?B?\s*", text, re.IGNORECASE)
    if match is None:
        raise ConfigError(f"{name}: {text!r} is not a size (10G, 512M, …)")
    unit = _UNITS[match[3].upper()]
    return min(int(match[1]) * unit + int(float(match[2] or 0) * unit), MAX_SIZE_BYTES)


def _number(text: str, name: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = -1
    if number < 0:
        raise ConfigError(f"{name}: {text!r} is not a whole number of 0 or more")
    return number


def base_directories(variable: str | None, table: object) -> tuple[str, ...]:
    """Absolute directories, without a slash at the end.  Raises ConfigError."""
    name, named = (BASEDIRS, variable.split(":")) if variable is not None else ("configuration file: basedirs", table)
    if not isinstance(named, list) or not all(isinstance(directory, str) for directory in named):
        raise ConfigError(f"{name} is not a list of strings")
    for directory in named:
        if directory and (not directory.startswith("/") or ".." in directory.split("/") or not directory.strip("/")):
            raise ConfigError(f"{name}: {directory!r} is not the absolute path of a directory below the root")
    return tuple(dict.fromkeys(posixpath.normpath("/" + directory.strip("/")) for directory in named if directory))


def _log_level(text: str) -> str:
    """The most talkative of those that are named, one of LOG_LEVELS; what is none does not count."""
    named = [_LEVEL_NAMES.get(part.rpartition("=")[2].strip().lower()) for part in text.split(",")]
    return max((level for level in named if level), key=LOG_LEVELS.index, default="warning")


def table_of(file: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    """A table of the file within others, empty where it is not there.  Raises ConfigError."""
    for i, name in enumerate(names):
        inner = file.get(name, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"configuration file: [{'.'.join(names[: i + 1])}] is not a table")
        file = inner
    return file


def _either(env: Mapping[str, str], variable: str, table: Mapping[str, Any], key: str, *types: type) -> tuple[str | None, str]:
    """What the variable, else the file says, and what the user calls it.  Raises ConfigError if the file has another type there."""
    if env.get(variable):
        return env[variable], variable
    name, value = f"configuration file: [cache.disk] {key}", table.get(key)
    if value is not None and type(value) not in types:
        raise ConfigError(f"{name}: {value!r} is not a {' or a '.join(_TYPE_NAMES[t] for t in types)}")
    return (None if value is None else str(value)), name


def _is_true(text: str | None) -> bool:
    return text is not None and text.lower() in _TRUE


def file_path(env: Mapping[str, str]) -> str | None:
    """Where the TOML file would be: SCCACHE_CONF, else sccache-py/config below the XDG configuration directory."""
    if env.get("SCCACHE_CONF"):
        return env["SCCACHE_CONF"]
    home = env.get("XDG_CONFIG_HOME") or (env["HOME"] + "/.config" if env.get("HOME") else None)
    return f"{home}/sccache-py/config" if home else None


def cache_directory(env: Mapping[str, str]) -> str | None:
    """SCCACHE_DIR, else the XDG cache directory's; None where neither it nor HOME is known.  sccache's own is never touched."""
    if env.get("SCCACHE_DIR"):
        return env["SCCACHE_DIR"]
    home = env.get("XDG_CACHE_HOME") or (env["HOME"] + "/.cache" if env.get("HOME") else None)
    return f"{home}/sccache-py" if home else None


def parse_file(toml: bytes | None) -> dict[str, Any]:
    """What is in a configuration file, if there is one.  Raises ConfigError."""
    try:
        return tomllib.loads(toml.decode()) if toml else {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise ConfigError(f"configuration file: {e}") from e


def settings(env: Mapping[str, str], toml: bytes | None = None) -> Settings:
    """`toml`: what is in the configuration file.  Raises ConfigError."""
    file = parse_file(toml)
    disk = table_of(file, "cache", "disk")
    if unknown := sorted(disk.keys() - set(_DISK_KEYS)):
        raise ConfigError(f"configuration file: [cache.disk] has no {unknown[0]!r}, only {', '.join(_DISK_KEYS[:3])}")

    directory = _either(env, "SCCACHE_DIR", disk, "dir", str)[0] or cache_directory(env)
    if directory is None:
        raise ConfigError("neither SCCACHE_DIR nor HOME is set, and the user has no home: no place for the cache")
    size, size_name = _either(env, "SCCACHE_CACHE_SIZE", disk, "size", str, int)
    mode, mode_name = _either(env, "SCCACHE_LOCAL_RW_MODE", disk, "rw_mode", str)
    if mode not in (None, "", "READ_WRITE", "READ_ONLY"):
        raise ConfigError(f"{mode_name}: {mode!r} is neither READ_WRITE nor READ_ONLY")

    def number(name: str) -> int | None:
        return _number(env[name], name) if env.get(name) else None

    idle = number("SCCACHE_IDLE_TIMEOUT")
    level = number("SCCACHE_CACHE_ZSTD_LEVEL")
    return Settings(
        directory=directory,
        size_bytes=DEFAULT_SIZE_BYTES if size is None else parse_size(size, size_name),
        idle_s=DEFAULT_IDLE_S if idle is None else idle,
        read_only=mode == "READ_ONLY",
        jobs=number("SCCACHE_JOBS") or None,
        workers=number("SCCACHE_WORKERS"),
        zstd_level=DEFAULT_ZSTD_LEVEL if level is None else min(level, MAX_ZSTD_LEVEL),
        basedirs=base_directories(env.get(BASEDIRS), file.get("basedirs", [])),
        error_log=env.get("SCCACHE_ERROR_LOG") or None,
        log_level=_log_level(env.get("SCCACHE_LOG", "")),
        observe=not _is_true(env.get("SCCACHE_NO_OBSERVE")),
        watch=not _is_true(env.get("SCCACHE_NO_WATCH")),
        memory_admission=not _is_true(env.get("SCCACHE_NO_MEMORY_ADMISSION")),
        trace=env.get("SCCACHE_TRACE") or None,
    )


def settings_to_json(settings_: Settings) -> str:
    """For handing settings to a hit worker."""
    return json.dumps(asdict(settings_))


def settings_from_json(text: str) -> Settings:
    fields = json.loads(text)
    return Settings(**{**fields, "basedirs": tuple(fields["basedirs"])})


@of_all_variables
def wishes(env: Mapping[str, str]) -> Wishes:
    """What this caller wants.  A malformed number counts as not set: a build never fails by a wish."""
    if not any(name.startswith("SCCACHE_") for name in env):
        return NO_WISHES
    every = env.get("SCCACHE_VERIFY", "")
    return Wishes(
        recache=bool(env.get("SCCACHE_RECACHE")),
        no_cache=_is_true(env.get("SCCACHE_NO_CACHE")),
        incremental=_is_true(env.get("SCCACHE_INCREMENTAL")),
        buster=env.get("SCCACHE_C_CUSTOM_CACHE_BUSTER", ""),
        extra_files=tuple(f for f in env.get("SCCACHE_EXTRAFILES", "").split(":") if f),
        extra_env=env.get("SCCACHE_EXTRAENV"),
        verify_every=int(every) if every.isdigit() else 0,
        second_chance=_is_true(env.get("SCCACHE_SECOND_CHANCE")),
    )
