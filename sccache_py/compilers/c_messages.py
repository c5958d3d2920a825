"""How messages of gcc and clang look: their colours, width, links and language.

None of this changes an object.  So it is not in the key: a compile that said nothing is the same for whoever asks, and one that did
is for those alone whose messages look alike (Plan.pin).  Options that write the command line into an output are the driver's to know.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from sccache_py.compilers.c_dialects import CLANG, GCC, Dialect
from sccache_py.model import Plan

_GCC_WITH_COLORS = 5
_GCC_WITH_URLS = 10
_CLANG_WITH_NO_COLOR = 17
_CLANG_WITHOUT_TERMINFO = 19

# Terminals of which clang then knows that they have colours (llvm/lib/Support/Unix/Process.inc, terminalHasColors).
_CLANGS_TERMS = re.compile(r"ansi|cygwin|linux|(screen|xterm|vt100|rxvt).*|.*color")

# What an option for colours may say; all else is an error.
COLORED = ("", "always", "auto", "never")
BY_THE_TERMINAL = (None, "-fdiagnostics-color=auto")

# Asked for by gcc and as, for their messages.  No text is read or written in the character set of a locale (libcpp/charset.cc,
# _cpp_default_encoding; gas/as.c takes kinds of characters from libiberty).
VARIABLES = frozenset(("COLORTERM", "GCC_COLORS", "GCC_URLS", "LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE", "LC_MESSAGES", "TERM_URLS"))


def know_colors(dialect: Dialect, version: int) -> bool:
    return dialect is CLANG or version >= _GCC_WITH_COLORS


def terminal_arguments(plan: Plan, dialect: Dialect, version: int, env: Mapping[str, str], columns: int) -> tuple[str, ...]:
    """What the compiler would find out by looking at its stderr, a terminal, where ours is a pipe.  version: as the driver's."""
    extra = []
    if plan.chooses_color and _colors(env, dialect, version):
        extra.append(dialect.color)
    if plan.chooses_width and dialect.width and columns:
        extra.append(f"{dialect.width}{columns}")
    if plan.chooses_links and dialect is GCC and version >= _GCC_WITH_URLS and _shows_urls(env):
        extra.append("-fdiagnostics-urls=always")
    return tuple(extra)


def _colors(env: Mapping[str, str], dialect: Dialect, version: int) -> bool:
    """Whether it would colour what it says on this terminal."""
    term = env.get("TERM", "dumb")
    if dialect is CLANG and version >= _CLANG_WITH_NO_COLOR and env.get("NO_COLOR"):
        return False
    if dialect is CLANG and version >= _CLANG_WITHOUT_TERMINFO:
        return _CLANGS_TERMS.fullmatch(term) is not None
    return term != "dumb" and know_colors(dialect, version)


def _shows_urls(env: Mapping[str, str]) -> bool:
    """Whether gcc would make a link of each option's name on this terminal (gcc/diagnostic-color.cc, auto_enable_urls)."""
    term, color_term = env.get("TERM"), env.get("COLORTERM")
    if term in (None, "dumb") or color_term in ("xfce4-terminal", "gnome-terminal"):
        return False
    if "GCC_URLS" in env or "TERM_URLS" in env:
        return True
    return color_term is not None or term not in ("xterm", "linux")
