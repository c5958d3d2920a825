"""What a user sets that means nothing here: sccache's other stores, and names that are nobody's.

A compile says nothing of it; whoever starts the server by hand is told.  What is set wrongly is an error, in config.py.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

from sccache_py.config import parse_file, table_of

# sccache's other stores, none of which is here: how their variables begin, and their tables in the file.
_OTHER_STORES = tuple(
    f"SCCACHE_{store}"
    for store in [
        "AZURE_",
        "BUCKET",
        "COS_",
        "DIST_",
        "ENDPOINT",
        "GCS_",
        "GHA_",
        "MEMCACHED",
        "MULTILEVEL_",
        "OSS_",
        "REDIS",
        "REGION",
        "S3_",
        "WEBDAV_",
    ]
)
_OTHER_TABLES = ("azure", "cos", "gcs", "gha", "memcached", "multilevel", "oss", "redis", "s3", "webdav")

# Without SCCACHE_, which all begin with.
_SETTINGS = (
    "BASEDIRS",
    "CACHE_SIZE",
    "CACHE_ZSTD_LEVEL",
    "CONF",
    "C_CUSTOM_CACHE_BUSTER",
    "DIR",
    "ERROR_LOG",
    "EXTRAENV",
    "EXTRAFILES",
    "IDLE_TIMEOUT",
    "INCREMENTAL",
    "JOBS",
    "LOCAL_RW_MODE",
    "LOG",
    "NO_CACHE",
    "NO_DAEMON",
    "NO_MEMORY_ADMISSION",
    "NO_OBSERVE",
    "NO_WATCH",
    "RECACHE",
    "SECOND_CHANCE",
    "SERVER_PORT",
    "SERVER_UDS",
    "START_SERVER",
    "TRACE",
    "VERIFY",
    "WORKERS",
)

# sccache's own, of which there is nothing to tell: they allow what is always done here (incremental crates are compiled, reflinks
# are made, a server that is gone stops no build), or set what nobody would miss.  The last two are of its GitHub action.
_NOT_MISSED = (
    "ALLOW_CORE_DUMPS",
    "ALLOW_INCREMENTAL",
    "CACHED_CONF",
    "CACHE_MULTIARCH",
    "DIRECT",
    "FILE_CLONE",
    "IGNORE_SERVER_IO_ERROR",
    "LOG_MILLIS",
    "MAX_FRAME_LENGTH",
    "STARTUP_NOTIFY",
    "PATH",
    "VERSION",
)
_OURS = "PY_"  # of one of our programs to another

_KEYS = ("basedirs", "cache")
_OTHER_KEYS = ("dist", "server_startup_timeout_ms")  # the one is told of with the stores


def reasons(env: Mapping[str, str], toml: bytes | None = None) -> list[str]:
    """A sentence for each.  `toml`: what is in the configuration file.  Raises ConfigError."""
    file = parse_file(toml)
    cache = table_of(file, "cache")
    named = sorted(name for name in env if name.startswith("SCCACHE_") and env[name])
    variables = [name for name in named if name.startswith(_OTHER_STORES)]
    tables = [f"[cache.{name}]" for name in _OTHER_TABLES if name in cache]
    elsewhere = variables + tables + (["[dist]"] if "dist" in file else [])

    told = [f"{', '.join(elsewhere)}: no effect, the cache is a local directory"] if elsewhere else []
    unknown = [name for name in named if name not in variables and not name.startswith(f"SCCACHE_{_OURS}")]
    told += _unknown((name.removeprefix("SCCACHE_") for name in unknown), _SETTINGS, _NOT_MISSED, "SCCACHE_{}")
    told += _unknown(file, _KEYS, _OTHER_KEYS, "configuration file: {}")
    return told + _unknown(cache, ("disk",), _OTHER_TABLES, "configuration file: [cache.{}]")


def _unknown(names: Iterable[str], settings: tuple[str, ...], others: tuple[str, ...], spelled: str) -> list[str]:
    told = []
    for name in names:
        if name not in settings and name not in others:
            meant = difflib.get_close_matches(name, settings, 1, 0.75)
            guess = f"; did you mean {spelled.rpartition(': ')[2].format(meant[0])}?" if meant else ""
            told.append(f"{spelled.format(name)}: no such setting{guess}")
    return told
