"""rustc and clippy-driver: what a command line means for a compile, and what a crate's outputs are called.

As of rustc 1.95 (`rustc --help -v`, `rustc_session/src/config.rs`).  Everything that stays on the command line is in the key; paths that
cargo moves about (`--out-dir`, `-L`, `--extern`) are told by their role, for rustc writes none of them into a crate.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from sccache_py.compilers.driver import Look, Told
from sccache_py.compilers.rustc_arguments import Parsed, read
from sccache_py.conditions import Draft
from sccache_py.depfile import parse_dep_info
from sccache_py.model import PROBE, OwnOutputs, Plan, Reason
from sccache_py.observation import plain
from sccache_py.roles import Roles, is_below

# What each crate type is called in the output directory, for targets whose names are like Linux's.
_FILE_NAMES = {
    "bin": "{}",
    "cdylib": "lib{}.so",
    "dylib": "lib{}.so",
    "lib": "lib{}.rlib",
    "proc-macro": "lib{}.so",
    "rlib": "lib{}.rlib",
    "staticlib": "lib{}.a",
}

# How the files end that lie beside those, by `--emit` kind; what is made on the way; and how another system's linker calls its outputs.
_EMIT_ENDINGS = {"asm": "s", "dep-info": "d", "llvm-bc": "bc", "llvm-ir": "ll", "metadata": "rmeta", "mir": "mir", "obj": "o"}
_ENDINGS_ON_THE_WAY = frozenset(("bc", "d", "dwo", "dwp", "o", "rmeta"))
_FOREIGN_ENDINGS = frozenset(("a", "dll", "dylib", "exe", "js", "lib", "pdb", "so", "wasm"))

# These are made by a linker or contain other units' objects: only observation knows of what.
_LINKED_TYPES = ("bin", "cdylib", "dylib", "proc-macro", "staticlib")

# `--emit` kinds whose files have one name each; the others are called after the code generation units.
_LISTED_EMITS = {"dep-info", "link", "metadata"}

# `--emit` kinds that are text: rustc writes no other to a terminal, and the server has none.
_TEXT_EMITS = {"asm", "llvm-ir", "mir"}

# What autocfg 1.5 compiles to find out whether it compiles (src/lib.rs, probe_fmt): the name is a random number and a count.
_AUTOCFG = re.compile(r"autocfg_[0-9a-f]{16}_([0-9]+)")

# By these the text of a crate can ask for its name, and whether it compiles may hang on the answer.
ASKS_NAME = re.compile(rb"module_path|type_name")

# Kinds of `-L` in which rustc looks up names that it already knows whole: the hash of a crate is part of them, so a new file there decides
# nothing unless it was asked for by name.  The others are searched by pattern; and who lists a native directory may be a macro.
_EXACT_KINDS = ("dependency",)


class Rustc:
    """Driver for rustc and for whatever calls itself rustc behind another name (clippy-driver)."""

    name = "rust"

    uses_pwd = False
    expands_response_files = False
    escapes_within_quotes = False

    def parse(self, argv: Sequence[str], cwd: str, pwd: str) -> Plan | Reason:
        parsed = Parsed(cwd)
        if argv and os.path.basename(argv[0]) == "rustc":
            argv = argv[1:]  # a workspace wrapper (clippy-driver) is given rustc's name first
        reason = read(argv, parsed)
        if reason is not None:
            return reason
        return _plan(parsed)

    def refused_variable(self, env: Mapping[str, str]) -> None:
        return None

    def terminal_arguments(self, plan: Plan, env: Mapping[str, str], columns: int) -> tuple[str, ...]:
        extra = []
        if plan.chooses_color and _colors(env):
            extra.append("--color=always")
        if plan.chooses_width and columns:
            extra.append(f"--diagnostic-width={columns}")
        return tuple(extra)

    def draft_from_lists(
        self, plan: Plan, told: Told, env: Mapping[str, str], cwd: str, extra_files: Sequence[str], look: Look
    ) -> Draft | Reason:
        """Sources and variables from dep-info, each --extern, and what the caller adds by SCCACHE_EXTRAFILES.

        Not in that list: what a macro opens, module files looked for in vain, libraries found by search (correctness.md).
        """
        files, names = parse_dep_info(told.listed)
        read = [plain(os.path.join(cwd, os.fsdecode(f))) for f in files]
        read = [f for f in read if f not in plan.must_write]
        read += [p for p in plan.known_inputs if p not in read]
        read += [os.path.join(cwd, p) for p in extra_files]
        absent = []
        for file in files:
            other = _other_module_file(plain(os.path.join(cwd, os.fsdecode(file))))
            if other is not None and other not in read:
                absent.append(other)
        return Draft(
            read=read,
            present=[],
            absent=absent,
            listed=[],
            asked=[os.fsdecode(n) for n in names],
            outputs=list(plan.must_write),
            pins=list(plan.mapped_roles),
        )


def _colors(env: Mapping[str, str]) -> bool:
    """Whether rustc 1.95 colours what it says on this terminal (the crate anstream's AutoStream::choice)."""
    if env.get("NO_COLOR"):
        return False
    if env.get("CLICOLOR_FORCE"):
        return True
    if env.get("CLICOLOR") == "0":
        return False
    return env.get("TERM", "dumb") != "dumb" or "CLICOLOR" in env or "CI" in env


def _other_module_file(path: str) -> str | None:
    """`foo.rs` for `foo/mod.rs` and the reverse: error E0761 if both are there."""
    directory, name = os.path.split(path)
    if name == "mod.rs":
        return directory + ".rs"
    stem, extension = os.path.splitext(name)
    if extension == ".rs" and stem not in ("lib", "main"):
        return os.path.join(directory, stem, "mod.rs")
    return None


def _refusal(parsed: Parsed) -> Reason | None:
    """Why not, in the order in which sccache would say it."""
    if parsed.refused is not None:
        return parsed.refused
    if len(parsed.inputs) > 1:
        return Reason.MANY_INPUTS
    if not parsed.inputs and not parsed.asks:
        return Reason.MISSING_INPUT
    if any(t not in _FILE_NAMES for t in parsed.crate_types):
        return Reason.CRATE_TYPE
    if not _TEXT_EMITS.issuperset(kind for kind, path in parsed.emit or [("link", None)] if "-" in (path, parsed.output)):
        return Reason.OUTPUT_IS_STDOUT
    return None


def _plan(parsed: Parsed) -> Plan | Reason:
    reason = _refusal(parsed)
    if reason is not None:
        return reason

    named_outputs = [p for p in (parsed.output, *(path for _, path in parsed.emit)) if p not in (None, "-")]
    spelled_out = parsed.out_dir if parsed.out_dir is not None else ""
    out = parsed.absolute(spelled_out)
    roles = [("out", out, spelled_out)]
    arguments = parsed.arguments
    if parsed.out_dir is not None:
        arguments += ["--out-dir", "$out"]
    # rustc writes the directory into depfiles and notices as it was spelled.  Only an absolute path is sure to be nothing else
    # there: `--out-dir src` also begins the names of sources.
    if parsed.literal or (parsed.out_dir is not None and spelled_out != out):
        arguments.append("literal out-dir " + spelled_out)

    for number, (kind, path) in enumerate(parsed.searches):
        known = next((role for role, p, _ in roles if p == parsed.absolute(path)), None)
        if known is None:
            known = f"L{number}"
            roles.append((known, parsed.absolute(path), path))
        arguments += ["-L", f"{kind}={path}" if parsed.literal else f"{kind}=${known}"]

    probe = _AUTOCFG.fullmatch(parsed.crate_name or "") if _is_probe(parsed) else None
    if probe is not None:
        roles.append((PROBE, os.path.join(out, f"{probe[0]}.ll"), probe[0]))
        arguments[arguments.index(probe[0])] = f"${PROBE} {probe[1]}"

    # rustc keeps externs in a map ordered by name; cargo's order is its own affair.
    known_inputs = []
    for number, (crate, file) in enumerate(sorted(parsed.externs, key=lambda e: e[0])):
        if file is None:
            arguments += ["--extern", crate]
            continue
        absolute = parsed.absolute(file)
        known_inputs.append(absolute)
        roles.append((f"x{number}", absolute, file))
        arguments += ["--extern", f"{crate}={file if parsed.literal else os.path.basename(file)}"]

    if parsed.target is not None and parsed.target.endswith(".json"):
        known_inputs.append(parsed.absolute(parsed.target))

    movable = {} if parsed.asks else _movable_maps(parsed, out, known_inputs)
    roles += [(role, path, path) for path, role in movable.items()]
    told, cwd_in_key = ([], False) if parsed.asks else _tell_cwd(parsed, movable)
    arguments += told
    roles.append(("cwd", parsed.cwd, parsed.cwd))
    sources_by = _tell_sources(parsed, movable, Roles(roles), cwd_in_key)

    must, templates, own = ([], [], OwnOutputs()) if parsed.asks else _outputs(parsed, out)
    must += [path for role, path, _ in roles if role == PROBE]
    kinds = [kind for kind, _ in parsed.emit] or ["link"]
    source = parsed.inputs[0] if parsed.inputs else None
    linked = parsed.asks or parsed.test or not parsed.crate_types or any(t in _LINKED_TYPES for t in parsed.crate_types)
    return Plan(
        language="Rust",
        dialect="rust",
        source=parsed.absolute(source) if source is not None and source != "-" else None,
        reads_stdin=source == "-",
        asks=parsed.asks,
        incremental=parsed.incremental,
        target=os.path.basename(parsed.target).removesuffix(".json") if parsed.target is not None else None,
        arguments=tuple(arguments),
        roles=Roles(roles),
        known_inputs=tuple(known_inputs),
        must_write=tuple(dict.fromkeys(must)),
        droppable=_droppable(parsed, must),
        mapped_roles=tuple(movable.values()),
        maps_below=(*movable.values(), *(() if cwd_in_key or _maps_apart(parsed) else ("cwd",))),
        sources_by=sources_by,
        may_write=tuple({out, *(os.path.dirname(parsed.absolute(p)) for p in named_outputs)}),
        templates=tuple(templates),
        own=own,
        builds=tuple({f"{os.path.dirname(path)}/build/" for _, path, _ in roles if os.path.basename(path) == "deps"}),
        exact_outputs=probe is not None or (not must and any("-" in (path, parsed.output) for _, path in parsed.emit)),
        list_free=tuple(parsed.absolute(path) for kind, path in parsed.searches if kind in _EXACT_KINDS),
        wants_jobserver=True,
        checks={"dep-info", "metadata"}.issuperset(kinds),
        dep_info=next((t for t in templates if t in must), None) if "dep-info" in kinds else None,
        json_diagnostics=parsed.error_format == "json",
        cwd_in_key=cwd_in_key,
        native_cpu=parsed.native_cpu,
        linked=linked,
        relates_places=linked and parsed.rpath,
        searches=parsed.links
        or any(kind not in _EXACT_KINDS for kind, _ in parsed.searches)
        or any(file is None for _, file in parsed.externs),
        leaves_more=parsed.literal or parsed.leaves_more or not _LISTED_EMITS.issuperset(kinds),
        chooses_color=parsed.error_format != "json" and parsed.color in (None, "auto"),
        chooses_width=parsed.error_format != "json" and parsed.width is None,
    )


def _is_probe(parsed: Parsed) -> bool:
    """Whether it is one like autocfg's, which is only asked whether it compiles."""
    is_like_it = (parsed.emit, parsed.crate_types, parsed.inputs) == ([("llvm-ir", None)], ["lib"], ["-"])
    return is_like_it and parsed.out_dir is not None and parsed.output is None and not parsed.asks


def _droppable(parsed: Parsed, must: list[str]) -> frozenset[str]:
    """Shared libraries beside other crate types: where the target has none, for musl say, that is only warned of."""
    return frozenset(path for path in must if path.endswith(".so")) if len(set(parsed.crate_types)) > 1 else frozenset()


def _movable_maps(parsed: Parsed, out: str, inputs: Sequence[str]) -> dict[str, str]:
    """Directories that are mapped and told by a role: path → role.

    In RUSTFLAGS the map of a checkout is said to every crate, also to those of the registry, which have nothing there but their target
    directory.  So nothing that was compiled elsewhere may come in, whose paths the map might or might not match.  To a vendored crate it
    is said, too, which lies as a whole below it: there names are told relative to what is mapped.
    """
    if parsed.literal or parsed.remap_scope not in (None, "all"):
        return {}
    own = [out, *inputs, *(parsed.absolute(path) for kind, path in parsed.searches if kind != "native")]
    apart = [parsed.cwd, *(parsed.absolute(path) for path in parsed.inputs)]
    sources = [source for source, _ in parsed.remaps]
    found = {}
    for number, source in enumerate(sources):
        others = [*sources[:number], *sources[number + 1 :]]
        if not source.startswith("/") or source in ("/", parsed.cwd) or source != plain(source):
            continue
        if any(is_below(p, source) or is_below(source, p) for p in others) or any(is_below(source, p) for p in apart):
            continue
        if len({is_below(path, source) for path in apart}) == 1 and all(is_below(path, source) for path in own):
            found[source] = f"m{number}"
    return found


def _maps_apart(parsed: Parsed) -> bool:
    """Whether something below the cwd may be mapped otherwise than the cwd is."""
    return parsed.asks or parsed.literal or any(source != parsed.cwd and is_below(source, parsed.cwd) for source, _ in parsed.remaps)


def _tell_cwd(parsed: Parsed, movable: Mapping[str, str]) -> tuple[list[str], bool]:
    """Words for the key, and whether the cwd is among them.

    rustc writes its cwd into metadata and debug info, as the last map that matches makes it (rustc_span/src/lib.rs, FilePathMapping).
    If that map is for exactly this cwd all checkouts are alike; of a directory above it, the names below it remain.
    """
    matching = [source for source, _ in parsed.remaps if is_below(parsed.cwd, source)]
    covered = bool(matching) and matching[-1] == parsed.cwd and parsed.remap_scope in (None, "all")
    told = []
    for source, target in parsed.remaps:
        role = "cwd" if covered and source == parsed.cwd else movable.get(source)
        told += ["--remap-path-prefix", f"{'$' + role if role else source}={target}"]
    if matching and matching[-1] in movable:
        covered = True
        told += ["cwd", f"${movable[matching[-1]]}{parsed.cwd[len(matching[-1]) :]}"]
    elif not covered:
        told += ["cwd", parsed.cwd]
    return told, not covered


def _tell_sources(parsed: Parsed, movable: Mapping[str, str], roles: Roles, cwd_in_key: bool) -> tuple[str, ...]:
    """By which roles a depfile names the sources, where cargo spells the main one out (vendored crates); that is told so, too."""
    if cwd_in_key or parsed.literal or parsed.asks or _maps_apart(parsed):
        return ()
    by = ("cwd", *(role for source, role in movable.items() if is_below(parsed.cwd, source)))
    named = [path for path in parsed.inputs if path.startswith("/") and roles.fold(path).partition("/")[0][1:] in by]
    for path in named:
        parsed.arguments[parsed.arguments.index(path)] = roles.fold(path)
    return by if named else ()


def _outputs(parsed: Parsed, out: str) -> tuple[list[str], list[str], OwnOutputs]:
    """Paths that must be there after a success, those of them that are depfiles, and all that are this unit's own."""
    if parsed.output == "-":
        return [], [], _own(parsed, out, None)
    if parsed.output is not None:
        output = parsed.absolute(parsed.output)
        stem = os.path.splitext(output)[0]
        own = _own(parsed, *os.path.split(stem))
        return [], [stem + ".d"], replace(own, exact=own.exact | {output})
    if parsed.crate_name is None:
        source = parsed.inputs[0]  # whose name is the crate's, unless the source says another
        stem = "rust_out" if source == "-" else os.path.splitext(os.path.basename(source))[0]
        return [], [], _own(parsed, out, stem.replace("-", "_") + parsed.extra_filename)
    foreign = _is_foreign(parsed)
    name = parsed.crate_name.replace("-", "_") + parsed.extra_filename
    library, plain = os.path.join(out, f"lib{name}."), os.path.join(out, f"{name}.")
    must = []
    for kind, path in [e for e in parsed.emit if e[1] != "-"] if parsed.emit else [("link", None)]:
        if path is not None:
            must.append(parsed.absolute(path))
        elif kind == "dep-info":
            must.append(plain + "d")
        elif kind == "metadata":
            must.append(library + "rmeta")
        elif kind == "link":
            types = ["bin"] if parsed.test or not parsed.crate_types else parsed.crate_types
            if parsed.crate_types or parsed.test:
                must += [os.path.join(out, _FILE_NAMES[t].format(name)) for t in types if not foreign or t in ("lib", "rlib")]
    depfiles = [parsed.absolute(path) if path else plain + "d" for kind, path in parsed.emit if kind == "dep-info"]
    return must, depfiles, _own(parsed, out, name)


def _is_foreign(parsed: Parsed) -> bool:
    return parsed.target is not None and "linux" not in parsed.target


def _own(parsed: Parsed, directory: str, name: str | None) -> OwnOutputs:
    """Of a unit whose files in `directory` are called after `name`."""
    exact = {parsed.absolute(path) for _, path in parsed.emit if path not in (None, "-")}
    if name is None:
        return OwnOutputs(frozenset(exact))
    types = ["bin"] if parsed.test or not parsed.crate_types else parsed.crate_types
    exact.update(os.path.join(directory, _FILE_NAMES[t].format(name)) for t in types)
    endings = _ENDINGS_ON_THE_WAY.union(_EMIT_ENDINGS[kind] for kind, _ in parsed.emit if kind in _EMIT_ENDINGS)
    return OwnOutputs(
        exact=frozenset(exact),
        stems=(os.path.join(directory, f"lib{name}."), os.path.join(directory, f"{name}.")),
        endings=endings | _FOREIGN_ENDINGS if _is_foreign(parsed) else endings,
    )
