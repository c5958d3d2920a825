"""`gcc -MM *.c`: rules for make alone, of what is preprocessed and not compiled.

A makefile that asks so asks again in every fresh checkout, of all its sources at once, and waits for the answer.  Neither sccache nor
ccache has it.  Names and the cwd are all in the key; what was read and looked for is known by observation alone.
"""

from __future__ import annotations

import os

from sccache_py.compilers import c_options
from sccache_py.compilers.c_arguments import Parsed, is_stream
from sccache_py.compilers.c_dialects import Dialect
from sccache_py.model import OwnOutputs, Plan, Reason, Refusal
from sccache_py.observation import plain
from sccache_py.roles import Roles


def refusal(parsed: Parsed) -> Reason | Refusal | None:
    """Beside a compile or a depfile the two compilers, and their versions, differ in what -M then means: that is left to them."""
    targets = [name for name in (parsed.output, parsed.depfile) if name is not None]
    if parsed.mode is not None or parsed.writes_depfile or parsed.files or len(targets) > 1:
        return Refusal(Reason.REFUSED_OPTION, parsed.rules or "")
    if targets and len(parsed.inputs) > 1:
        return Reason.MANY_INPUTS  # each writes over what the one before it wrote
    if any(map(is_stream, targets)):
        return Reason.OUTPUT_IS_STDOUT
    for number, (name, _) in enumerate(parsed.inputs):
        if name == "-":
            return Reason.STDIN
        language = parsed.language_of(number)
        if language not in c_options.LANGUAGES or language in c_options.PREPROCESSED:
            return Refusal(Reason.UNKNOWN_LANGUAGE, language or os.path.splitext(name)[1])
    return None


def plan(dialect: Dialect, called: str, parsed: Parsed, cwd: str, pwd: str) -> Plan:
    sources = [plain(os.path.join(cwd, name)) for name, _ in parsed.inputs]
    counted, named = c_options.LANGUAGES[parsed.language_of(0) or ""]
    output = parsed.output or parsed.depfile
    must = [plain(os.path.join(cwd, output))] if output is not None else []
    told = [f"{flag} {name}" for flag, name in parsed.targets] + [f"{flag}{old}={new}" for flag, old, new in parsed.maps]
    return Plan(
        language=counted,
        dialect=f"{named} [{dialect.name}]",
        source=sources[0],
        more_sources=tuple(sources[1:]),
        arguments=(*parsed.arguments, *parsed.colors, *told, f"-o {parsed.output}", f"-MF {parsed.depfile}", f"cwd {pwd}"),
        roles=Roles([("cwd", cwd, pwd), ("program", called, called), *(("o", path, output or "") for path in must)]),
        known_inputs=(),
        must_write=tuple(must),
        may_write=tuple(os.path.dirname(path) for path in must),
        templates=(),
        in_place=tuple(must),
        own=OwnOutputs(),
        list_free=(),
        native_cpu=parsed.native_cpu,
        unlisted=Refusal(Reason.FALLBACK_C, parsed.rules or ""),
        chooses_color=parsed.colors_by_terminal(),
        chooses_width=parsed.width_by_terminal(),
        follows_links=False,
        moves_text=False,
        told_variables=parsed.told_variables,
        resolves_names=True,
        tells_time=True,
        exact_outputs=True,
        checks_times=dialect.stamps_headers and "-fno-pch-timestamp" not in parsed.arguments,
        tells_twins=dialect.twins,
    )
