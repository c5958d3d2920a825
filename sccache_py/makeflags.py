"""Jobserver settings in the environment.

GNU make's manual, "Job Slots"; jobserver-rs 0.1.34 reads the *first that exists* of CARGO_MAKEFLAGS, MAKEFLAGS, MFLAGS, so one without
`--jobserver-auth` hides a good one behind it: both are set, and MFLAGS and GNUMAKEFLAGS go.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

# Names the lease (server/jobserver.py) that a process runs under: a compile that comes from inside is lent its token.
LEASE_VARIABLE = "SCCACHE_PY_LEASE"

JOBSERVER_VARIABLES = ("CARGO_MAKEFLAGS", "GNUMAKEFLAGS", "MAKEFLAGS", "MAKELEVEL", "MFLAGS")


def without_jobserver(env: Mapping[str, str]) -> dict[str, str]:
    child = dict(env)
    for name in JOBSERVER_VARIABLES:
        child.pop(name, None)
    return child


def with_jobserver(env: Mapping[str, str], jobs: int, read_fd: int, write_fd: int) -> dict[str, str]:
    """`env` with the caller's jobserver replaced by the pipe (read_fd, write_fd) of a pool of `jobs`."""
    child = without_jobserver(env)
    # The leading space says that there are no single-letter flags; make 4.3 reads the first word as such.
    child["MAKEFLAGS"] = child["CARGO_MAKEFLAGS"] = f" -j{jobs} --jobserver-auth={read_fd},{write_fd}"
    return child


def for_build(env: Mapping[str, str], jobs: int, auth: str) -> dict[str, str]:
    """`env` for a whole build: the caller's other flags (-k, V=1) stay.  auth: `R,W` or `fifo:PATH`."""
    child = {name: value for name, value in env.items() if name not in ("CARGO_MAKEFLAGS", "MFLAGS")}
    ours = f"-j{jobs} --jobserver-auth={auth}"
    child["CARGO_MAKEFLAGS"] = " " + ours
    if "GNUMAKEFLAGS" in child:
        child["GNUMAKEFLAGS"] = " ".join(_without_jobs(child["GNUMAKEFLAGS"].split()))
    flags, dashes, variables = child.get("MAKEFLAGS", "").partition(" -- ")
    words = _without_jobs(flags.split())
    # The first word has the single-letter flags, without a dash; there may be none.
    letters = words.pop(0) if words and not words[0].startswith("-") and "=" not in words[0] else ""
    child["MAKEFLAGS"] = " ".join([letters, ours, *words]) + dashes + variables
    return child


def _without_jobs(words: list[str]) -> list[str]:
    kept: list[str] = []
    for word, before in zip(words, ["", *words], strict=False):
        is_number = before in ("-j", "--jobs") and word.isdecimal()
        if not is_number and not re.fullmatch(r"-?j\d*|--jobs(=\d+)?|--jobserver-(auth|fds|style)=.*", word):
            kept.append(word)
    return kept
