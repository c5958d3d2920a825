"""Links with -flto: what the command line compiled was only read and written down; the code is made here, and takes most of the time.

Other links are not ours: they are over before a cache has looked at what they read, and sccache's statistics count them as no compiles.
What the linker, its plugin and the compiler behind it read is known by observation alone.  Names and the cwd are all in the key.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from sccache_py.compilers.c_dialects import Dialect
from sccache_py.model import OwnOutputs, Plan, Reason, Refusal
from sccache_py.observation import plain
from sccache_py.roles import Roles

_LINKED = re.compile(r"\.(a|l?o|so(\.[0-9]+)*)$")
_SWITCH = re.compile(r"-f(no-)?lto(=.*)?$")
_FALLBACK = Refusal(Reason.FALLBACK_C, "-flto")


def makes_code(arguments: Sequence[str], inputs: Sequence[tuple[str, str | None]]) -> bool:
    """Whether a command line that ends with a link does so with -flto, and has objects and libraries alone.

    inputs: names, with what -x said.  -r makes another object; a build ID may be drawn by lot.
    """
    switches = [word for word in arguments if _SWITCH.match(word)]
    is_on = bool(switches) and switches[-1] != "-fno-lto"
    is_other = "-r" in arguments or any("build-id=uuid" in word for word in arguments)
    return is_on and not is_other and all(language is None and _LINKED.search(name) for name, language in inputs)


def plan(
    dialect: Dialect, called: str, arguments: Sequence[str], objects: Sequence[str], output: str, cwd: str, pwd: str, native_cpu: bool
) -> Plan:
    """output: as -o says it."""
    target = plain(os.path.join(cwd, output))
    return Plan(
        language="C/C++",
        dialect=f"c [{dialect.name}]",
        source=None,
        arguments=(*arguments, f"link {output}", f"cwd {pwd}"),
        roles=Roles([("cwd", cwd, pwd), ("program", called, called), ("o", target, output)]),
        known_inputs=tuple(plain(os.path.join(cwd, name)) for name in objects),
        must_write=(target,),
        may_write=(os.path.dirname(target), cwd),
        templates=(),
        own=OwnOutputs(),
        list_free=(),
        lists_own=True,
        wants_jobserver=True,
        native_cpu=native_cpu,
        unlisted=_FALLBACK,
        chooses_color=not any(word.startswith("-fdiagnostics-color") for word in arguments),
        follows_links=False,
        moves_text=False,
    )
