"""SCCACHE_BASEDIRS: absolute paths below a base directory are told relative to it, so that two checkouts share results.

A build that says absolute paths (CMake's do) has its checkout in every word.  Where the user names the checkouts, the words that are
paths and only decide where files are looked for (the source, -I and kin, prefix maps) are told by the role `base`; files that
were read are then conditions below *this* call's base directory, so a hit never comes from another checkout's headers.

A directory that a prefix map takes out of the outputs is such a base, too: cgo says
`-I $WORK/b001/ -ffile-prefix-map=$WORK/b001=/tmp/go-build`, and $WORK is another one in each build.  Of several that hold the source
the longest that can be told counts: who names the directory above his checkouts may map each checkout.

What this must not do is give one checkout the other's paths.  So nothing is told that way where an output may depend on a path
in a manner that nobody can search the output for; and an output that shows the base directory is pinned to it, like that of any role.
Macros (-D) stay literal: they are what the program is to contain.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from sccache_py.compilers import c_options
from sccache_py.model import Plan
from sccache_py.roles import is_below

_SEARCH_OPTIONS = frozenset((*c_options.SEARCHED, *c_options.READ_FIRST, "-isysroot"))
_MAPS = ("-fcoverage-prefix-map=", "-fdebug-prefix-map=", "-ffile-prefix-map=", "-fmacro-prefix-map=", "-fprofile-prefix-map=")

_MAPS_OF_DEBUG = ("-fdebug-prefix-map=", "-ffile-prefix-map=")

_CWD_LESS = "$cwd less "  # how the driver tells a map of the cwd, or of a directory above it

# Hash the source's name, into something that does not show it.
_HASHES_NAMES = ("-funique-internal-linkage-names",)

# What names a file, unless a prefix map covers it; and what may whatever is mapped, by "(lambda at /x/y.cpp:1:2)": clang's text of a
# type without a name.  A constant expression may make a number of either.
_FILES = (b"__FILE__", b"__BASE_FILE__", b"__builtin_FILE", b"__builtin_source_location")
_TYPES = (b"__FUNCSIG__", b"__PRETTY_FUNCTION__", b"__builtin_source_location")
NAMES = (*dict.fromkeys(_FILES + _TYPES),)

# Without anything that a depfile, JSON or a shell would quote: the path looks the same wherever it is written.
_PLAIN = re.compile(r"(/[\w.+@~-]+)+", re.ASCII)


class _Map(NamedTuple):
    """A prefix map of the command line."""

    name: str  # the option's
    old: str  # what it replaces
    of_pwd: bool  # which is $PWD, or begins it


def tell(plan: Plan, basedirs: Sequence[str], toolchain: str) -> Plan:
    """The plan with paths below its base directory told by role; the plan itself where that would not be right.

    toolchain: the directory of the compiler's driver.
    """
    if plan.language == "Rust" or plan.source is None or not plan.exact_outputs:
        return plan
    if any(word.startswith(_HASHES_NAMES) for word in plan.arguments):
        return plan
    maps = _maps(plan)
    named = [] if plan.cwd_in_key else [d for d in basedirs if plan.source.startswith(d + "/")]
    mapped = _mapped_directories(plan, maps, os.path.dirname(toolchain))
    source = plan.source
    for base in sorted(filter(_PLAIN.fullmatch, {*named, *mapped}), key=lambda d: (is_below(source, d), len(d)), reverse=True):
        told = _tell_below(plan, base, maps, base in named)
        if told is not None:
            return told
    return plan


def _tell_below(plan: Plan, base: str, maps: Sequence[_Map], is_named: bool) -> Plan | None:
    """None: by this base directory that would not be right, or would change nothing."""
    arguments = _tell_arguments(plan, base)
    cwd = plan.roles.path("cwd")
    inside = is_below(cwd, base)
    if arguments == plan.arguments and not (inside and is_named):
        return None  # it says no absolute path: the cwd's role is enough
    if is_below(base, cwd) and not inside:
        return None  # by relative paths, too, it may read files below the base directory
    if any(base.startswith(m.old) and m.old not in (base, base + "/") for m in maps if m.old):
        return None  # what follows a prefix that is mapped stays in the output, and is not the whole base directory
    mapped = {m.name for m in maps if m.old in (base, base + "/")}
    debug = any((word.startswith("-g") and word != "-g0") or word == "-fworking-directory" for word in plan.arguments)
    if debug and not mapped.intersection(_MAPS_OF_DEBUG):
        return None
    where = f"cwd $base{cwd[len(base) :]}" if inside else "cwd elsewhere"
    return replace(
        plan,
        arguments=(*arguments, where),
        roles=plan.roles.with_one("base", base),
        names_base=_names_base(plan, mapped) if arguments != plan.arguments else (),
        mapped_prefixes=(*plan.mapped_prefixes, *(m.old for m in maps if m.old.startswith(base))),
    )


def _maps(plan: Plan) -> list[_Map]:
    pwd = plan.roles.spelled("cwd")
    found = []
    for word in plan.arguments:
        name = next((name for name in _MAPS if word.startswith(name)), "")
        if name:
            old = word[len(name) :].partition("=")[0]
            of_pwd = old.startswith(_CWD_LESS)
            found.append(_Map(name, pwd.removesuffix(old.removeprefix(_CWD_LESS)) if of_pwd else old, of_pwd))
    return found


def _mapped_directories(plan: Plan, maps: Sequence[_Map], prefix: str) -> list[str]:
    """What a map takes out of debug information; not where the compiler finds headers of its own, which are the same for all calls."""
    pwd_is_real = plan.roles.spelled("cwd") == plan.roles.path("cwd")
    found = [m.old.rstrip("/") for m in maps if m.name in _MAPS_OF_DEBUG and (pwd_is_real or not m.of_pwd)]
    return [d for d in found if not any(is_below(home, d) or is_below(d, home) for home in ("/usr", prefix))]


def _names_base(plan: Plan, mapped: set[str]) -> tuple[bytes, ...]:
    """For words that say absolute paths: what in a text may say them, too."""
    files = () if mapped & {"-fmacro-prefix-map=", "-ffile-prefix-map="} else _FILES
    return tuple(dict.fromkeys(files + (_TYPES if plan.types_name_files else ())))


def _tell_arguments(plan: Plan, base: str) -> tuple[str, ...]:
    told: list[str] = []
    before = ""
    for word in plan.arguments:
        name = next((name for name in _MAPS if word.startswith(name)), "")
        old = word[len(name) :].partition("=")[0] if name else word
        if (name or before in _SEARCH_OPTIONS or word == plan.source) and is_below(old, base):
            word = f"{name}$base{word[len(name) + len(base) :]}"
        told.append(word)
        before = word
    return tuple(told)
