"""gcc and clang: what a command line compiles, and which of its words change no byte of the result.

Everything stays in the key word for word, but for names: where the object and the depfile go and what the depfile calls
its target.  The cwd is in the key where an output names it (debug info) and no prefix map covers it.  Some options make
outputs name even these (split dwarf, coverage), leave further files beside the object, or make of it what
nobody can search for a path (LTO): then names and cwd are all in the key (`shows_names`).

Paths are joined, never normalised: `-o ../b/x.o` is recorded as the compiler opened it, and `..` behind a link is not what it
seems. Options are in c_options.py; where gcc and clang differ is in c_dialects.py.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence

from sccache_py.compilers import c_arguments, c_link, c_listing, c_messages, c_options, c_rules, c_search
from sccache_py.compilers.c_arguments import Parsed
from sccache_py.compilers.c_dialects import CLANG, GCC, Dialect
from sccache_py.compilers.c_options import Takes
from sccache_py.compilers.driver import Look, Told
from sccache_py.conditions import Draft
from sccache_py.make_rule import Depfile, quote
from sccache_py.model import OwnOutputs, Plan, Reason, Refusal
from sccache_py.observation import plain
from sccache_py.roles import Roles

_SUFFIXES = {"-c": ".o", "-S": ".s", "--precompile": ".pcm"}

_GCC_WITH_PLAIN_TARGETS_FIRST = 10
_GCC_WITH_POSIX_QUOTES = 15

# A file of further options, of which one may be -march=native; so may a script have.
_ADDS_OPTIONS = ("--config", "-specs")

_MAY_OFFLOAD = ("-fopenmp", *_ADDS_OPTIONS)


class C:
    """Driver for one dialect.

    opaque: a script that may add options of its own: names are then always in the key.  version: what __GNUC__ says, or
    __clang_major__.  called: by which name, with which its driver begins what it says.
    """

    uses_pwd = True
    expands_response_files = True

    def __init__(self, dialect: Dialect, plus: bool, opaque: bool = False, version: int = 12, called: str = "gcc") -> None:
        self.dialect = dialect
        self._called = called
        self._version = version
        self.name = f"{dialect.name}{'+' * plus}{'?' * opaque} {version} {called}"  # under which plans are remembered
        self._plus = plus
        self._opaque = opaque
        self.escapes_within_quotes = not opaque and (dialect is CLANG or version < _GCC_WITH_POSIX_QUOTES)
        self.options = {o.name: o for o in (*c_options.COMMON_OPTIONS, *dialect.options)}

    def parse(self, argv: Sequence[str], cwd: str, pwd: str) -> Plan | Reason | Refusal:
        parsed = Parsed(shows_names=self._opaque)
        refusal = c_arguments.read(self.dialect, self.options, argv, parsed)
        if refusal is not None:
            return refusal
        if self._opaque:
            parsed.told_variables = ()
        if pwd.startswith("/proc/"):  # it names any cwd: debug information says no directory; what does is found by its real name
            parsed.arguments.append(f"PWD {pwd}")
            parsed.hides_cwd, pwd = True, cwd
        parsed.native_cpu = parsed.native_cpu or self._opaque or any(word.startswith(_ADDS_OPTIONS) for word in parsed.arguments)
        refusal = self._refusal(parsed)
        if refusal is Reason.NOT_COMPILING and parsed.inputs and c_link.makes_code(parsed.arguments, parsed.inputs):
            objects = [name for name, _ in parsed.inputs]
            output = parsed.output or "a.out"
            words = [*parsed.arguments, *parsed.colors]
            return c_link.plan(self.dialect, self._called, words, objects, output, cwd, pwd, parsed.native_cpu)
        if refusal is not None:
            return refusal
        if parsed.rules is not None:
            plan = c_rules.plan(self.dialect, self._called, parsed, cwd, pwd)
        else:
            plan = self._plan(parsed, cwd, pwd)
        return Reason.OUTPUT_TWICE if plan.overwrites_itself() else plan

    def refused_variable(self, env: Mapping[str, str]) -> Refusal | None:
        name = next((n for n in c_options.REFUSED_VARIABLES if env.get(n)), None)
        return Refusal(Reason.REFUSED_VARIABLE, name) if name is not None else None

    def terminal_arguments(self, plan: Plan, env: Mapping[str, str], columns: int) -> tuple[str, ...]:
        return c_messages.terminal_arguments(plan, self.dialect, self._version, env, columns)

    def draft_from_lists(
        self, plan: Plan, told: Told, env: Mapping[str, str], cwd: str, extra_files: Sequence[str], look: Look
    ) -> Draft | Reason:
        """Look-ups are read off the texts and held against the list (c_listing.py); outputs are those that the table names."""
        if any(env.get(n) for n in c_options.LOUD_VARIABLES):
            return Reason.FALLBACK_FILES
        draft = c_listing.draft(plan, told, self._words(plan.question), cwd, look)
        if isinstance(draft, Reason):
            return draft
        draft.read += [os.path.join(cwd, p) for p in extra_files]
        draft.asked = list(c_options.ASKED_VARIABLES)
        if self.dialect.dates_by_variable and "SOURCE_DATE_EPOCH" in env:
            draft.asked.append("SOURCE_DATE_EPOCH")
        return draft

    def _words(self, question: Sequence[str]) -> c_listing.Words:
        found = c_listing.Words()
        words = iter(question)
        for word in words:
            entry = c_options.find(self.options, word) if word.startswith("-") else None
            if entry is None:
                continue
            option, value = entry
            if value is None and option.takes in (Takes.NEXT, Takes.EITHER):
                value = next(words, None)
            if value is None:
                continue
            if option.name in ("-A", "-D"):
                found.macros.append(value)
            elif option.name in ("-imacros", "-include"):
                found.included.append(value)
            elif option.name in _DIRECTORIES and not value.startswith(("=", "$SYSROOT")):
                found.directories.append(value)
            elif option.name in _FAMILIES and "=" in value:
                found.values += [v for v in _PIECES.split(value.partition("=")[2]) if v and not v.isdigit()]
        return found

    def _refusal(self, parsed: Parsed) -> Reason | Refusal | None:
        """Why not, in the order in which sccache would say it."""
        if not parsed.inputs and parsed.mode is None:
            return Reason.NOT_COMPILING  # `gcc -v`
        if self.dialect is GCC and "|" in (parsed.output, parsed.depfile, *(name for _, name in parsed.targets)):
            return Reason.BAD_ARGUMENTS  # its driver starts a pipe there, and fails (gcc/gcc.cc, execute)
        if parsed.refused is not None:
            return parsed.refused
        if parsed.preprocesses and parsed.rules is None:
            return Refusal(Reason.REFUSED_OPTION, "-E")
        if not parsed.inputs:
            return Reason.MISSING_INPUT
        if parsed.rules is not None:
            return _implicit_modules(parsed) or c_rules.refusal(parsed)
        source, language = parsed.inputs[0][0], parsed.language_of(0)
        is_header = language is not None and language.endswith("-header")
        if parsed.mode is None and not (is_header and len(parsed.inputs) == 1):
            return Reason.NOT_COMPILING  # linking
        if len(parsed.inputs) > 1:
            return Reason.MANY_INPUTS
        if source == "-":
            return Reason.STDIN
        if language not in c_options.LANGUAGES:
            return Refusal(Reason.UNKNOWN_LANGUAGE, language or os.path.splitext(source)[1])
        if (refused := _implicit_modules(parsed)) is not None:
            return refused
        for name in (parsed.output, parsed.depfile, *parsed.files):
            if name is not None and name != "/dev/null" and c_arguments.is_stream(name):
                return Reason.OUTPUT_IS_STDOUT
        return None

    # -- planning --------------------------------------------------------------------------------------------------

    def _plan(self, parsed: Parsed, cwd: str, pwd: str) -> Plan:
        source, language = parsed.inputs[0][0], parsed.language_of(0) or ""
        if self._plus and language in ("c", "c-header", "cpp-output"):
            language = language.replace("c-", "c++-") if language.startswith("c-") else "c++"
        counted, named = c_options.LANGUAGES[language]

        def absolute(name: str) -> str:
            return plain(os.path.join(cwd, name))

        output = self._output(parsed, source, language)
        depfile = self._depfile(parsed, source, language)
        roles = [("cwd", cwd, pwd), ("program", self._called, self._called)]
        must = []
        templates: list[str] = []
        if output is not None and output != "/dev/null":
            must.append(absolute(output))
            roles.append(("o", must[0], output))
        if depfile is not None and depfile != "/dev/null":
            templates.append(absolute(depfile))
            must += templates
            roles.append(("d", templates[0], depfile))
        must += [absolute(name) for name in parsed.files if name != "/dev/null"]

        roles += [(f"t{number}", name, name) for number, (_, name) in enumerate(parsed.targets)]

        arguments = [*parsed.arguments, f"-o {'null' if output == '/dev/null' else '$o'}"]
        if parsed.writes_depfile or parsed.depfile is not None:
            arguments.append(f"-MF {'null' if depfile == '/dev/null' else '$d'}")
        arguments += [flag for flag, _ in parsed.targets]
        # Which paths a precompiled header of clang's names is told in bits, not in bytes: nobody can search it.
        makes_header = language.endswith("-header") or "-emit-pch" in arguments
        stem = _stem(parsed, output)
        shows_names = parsed.shows_names = (
            parsed.shows_names or (makes_header and self.dialect.stamps_headers) or (bool(parsed.beside) and stem is None)
        )
        checks_times = self.dialect.stamps_headers and "-fno-pch-timestamp" not in arguments
        exact = not (shows_names or parsed.shows_output)
        colors = tuple(parsed.colors)
        if not exact or not c_messages.know_colors(self.dialect, self._version):
            arguments, colors = [*arguments, *colors], ()
        if not exact:
            # By -o files are called also where there is no output (-fsyntax-only).
            arguments += [f"output {output or parsed.output}", f"depfile {depfile}", *(f"target {name}" for _, name in parsed.targets)]
        beside = [] if shows_names else [f"{stem}{suffix}" for suffix in dict.fromkeys(parsed.beside)]
        roles += [(f"b{number}", absolute(name), name) for number, name in enumerate(beside)]
        must += map(absolute, beside)
        told, cwd_in_key, mapped = _tell_cwd(parsed, pwd)
        directories = {os.path.dirname(path) for path in must}
        in_place = [*templates, *map(absolute, beside)]
        fills_empty: tuple[str, ...] = ()
        if any(role == "o" for role, _, _ in roles) and not self.dialect.renames:
            if makes_header or parsed.mode == "-S":
                in_place.append(must[0])
            else:  # as and objcopy take what is there away first, unless it is empty (bfd/cache.c, bfd_open_file), like a file of mktemp's
                fills_empty = (must[0], os.path.splitext(must[0])[0] + ".dwo")
        return Plan(
            language=counted,
            dialect=f"{named} [{self.dialect.name}]",
            # The empty source of many a build's questions (Linux's cc-option): no file that could change.
            source=None if source == "/dev/null" else absolute(source),
            arguments=(*arguments, *told, *c_search.named_twice(parsed.arguments, source, cwd)),
            roles=Roles(roles),
            known_inputs=(),
            must_write=tuple(must),
            # Coverage and dumps go where the output goes, or to the cwd.
            may_write=tuple(directories if exact else directories | {cwd}),
            templates=tuple(templates),
            in_place=tuple(in_place),
            fills_empty=fills_empty,
            # clang leaves none for a source without functions.
            droppable=frozenset(map(absolute, beside)),
            overwrites=self.dialect.overwrites,
            own=OwnOutputs(),
            list_free=(),
            cwd_in_key=cwd_in_key,
            native_cpu=parsed.native_cpu,
            chooses_color=not parsed.records and parsed.colors_by_terminal(),
            # Not with -g: gcc 12 writes this option, unlike that of colours, into DW_AT_producer.
            chooses_links=self.dialect is GCC
            and not (parsed.records or parsed.shows_names or parsed.debug)
            and not any(a.startswith("-fdiagnostics-urls") for a in arguments),
            chooses_width=not parsed.records and parsed.width_by_terminal(),
            colors=colors,
            message_variables=c_messages.VARIABLES,
            depfile=self._targets(parsed, source, templates[0]) if templates else None,
            exact_outputs=exact,
            # as and clang replace a link, cc1 and whoever writes a depfile write through it.
            follows_links=False,
            moves_text=False,
            told_variables=parsed.told_variables,
            mapped_prefixes=mapped,
            resolves_names=True,
            tells_time=True,
            question=(*self.dialect.question, *parsed.question),
            unlisted=_unlisted(parsed, language),
            writes_times=checks_times and makes_header,
            checks_times=checks_times,
            tells_twins=self.dialect.twins,
            types_name_files=self.dialect.types_name_files,
            inode_marks=self.dialect.inode_marks if self._opaque or any(w.startswith(_MAY_OFFLOAD) for w in parsed.arguments) else (),
        )

    def _output(self, parsed: Parsed, source: str, language: str) -> str | None:
        if parsed.mode == "-fsyntax-only":
            return None
        if parsed.output is not None:
            return parsed.output
        if language.endswith("-header"):
            return source + ".gch"
        suffix = _SUFFIXES[parsed.mode or "-c"]
        if "-emit-llvm" in parsed.arguments:
            suffix = {".o": ".bc", ".s": ".ll"}.get(suffix, suffix)
        return self._named_after(source) + suffix

    def _depfile(self, parsed: Parsed, source: str, language: str) -> str | None:
        if not parsed.writes_depfile or language in c_options.PREPROCESSED:
            return None
        if parsed.depfile_by_wp is not None and self.dialect is GCC:
            return parsed.depfile_by_wp  # its driver hands it on behind all others
        if parsed.depfile is not None:
            return parsed.depfile
        return (self._named_after(source) if parsed.output is None else _less_suffix(parsed.output)) + ".d"

    def _named_after(self, source: str) -> str:
        """Without its directory and suffix; gcc takes none from a name that would be empty then."""
        name = os.path.basename(source)
        return _less_suffix(name) or name if self.dialect is GCC else _less_suffix(name)

    def _targets(self, parsed: Parsed, source: str, path: str) -> Depfile:
        """What the depfile will begin with, if it is as usual; else it is not taken apart."""
        targets = parsed.targets
        if self.dialect is GCC and self._version >= _GCC_WITH_PLAIN_TARGETS_FIRST:
            targets = _plain_first(targets)
        shown = _less_here if self.dialect is GCC else str
        names = [os.fsencode(shown(name)) if flag == "-MT" else quote(os.fsencode(shown(name))) for flag, name in targets]
        if not names:
            # gcc's driver says -MQ for -o, but only beside an -MD of its own.
            by_output = parsed.output is not None and (self.dialect.wp_target_is_output or parsed.depfile_by_driver)
            name = parsed.output if by_output and parsed.output else self._named_after(source) + ".o"
            names = [quote(os.fsencode(shown(name)))]
        return Depfile(path, tuple(names), self.dialect.depfiles)


def _less_suffix(path: str) -> str:
    """From the last dot of its last component on, be it the first character (not so os.path.splitext)."""
    directory, slash, name = path.rpartition("/")
    return f"{directory}{slash}{name.rpartition('.')[0] if '.' in name else name}"


def _stem(parsed: Parsed, output: str | None) -> str | None:
    """What names of further files begin with, if the output's name is a usual one; else the compilers differ."""
    if output is None or parsed.mode not in ("-c", "-S"):
        return None
    stem, suffix = os.path.splitext(output)
    return stem if suffix in (".o", ".obj", ".s") else None


def _less_here(target: str) -> str:
    """Without `./` before it, any number of times and with any number of slashes (libcpp/mkdeps.cc, apply_vpath)."""
    return target[found.end() :] if (found := _HERE.match(target)) else target


def _plain_first(targets: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The driver hands on -MQ before -MT; a plain target then takes the place of the first quoted one, which goes to the end
    (libcpp/mkdeps.cc, deps_add_target)."""
    ordered = [target for target in targets if target[0] == "-MQ"]
    for number, target in enumerate(t for t in targets if t[0] == "-MT"):
        ordered.append(target)
        ordered[number], ordered[-1] = ordered[-1], ordered[number]
    return ordered


def _implicit_modules(parsed: Parsed) -> Refusal | None:
    uses = parsed.implicit_modules and "-fno-implicit-modules" not in parsed.arguments
    return Refusal(Reason.REFUSED_OPTION, "-fmodules") if uses else None


def _unlisted(parsed: Parsed, language: str) -> Refusal | None:
    name = parsed.unlisted if language in c_options.LISTED_LANGUAGES else language
    return Refusal(Reason.FALLBACK_C, name) if name is not None else None


def _tell_cwd(parsed: Parsed, pwd: str) -> tuple[list[str], bool, tuple[str, ...]]:
    """Words for the key; whether the cwd is among them; and the old prefixes of maps that are told relative to the cwd.

    gcc and clang compare a prefix by characters, not by components: `/a/b` covers `/a/bc`, which becomes what it is mapped to and `c`.
    """
    shows_own = parsed.shows_cwd or (parsed.debug and not parsed.debug_directory)
    shows = parsed.shows_names or (shows_own and not parsed.hides_cwd)
    covered = False
    told, mapped = [], []
    for name, old, new in parsed.maps:
        if pwd.startswith(old) and old and not parsed.shows_names and not parsed.hides_cwd:
            covered = covered or name in ("-fdebug-prefix-map=", "-ffile-prefix-map=")
            told.append(f"{name}$cwd less {pwd[len(old) :]}={new}")
            mapped.append(old)
        else:
            told.append(f"{name}{old}={new}")
    if not shows or covered:
        return told, False, tuple(mapped)
    return [*told, f"cwd {pwd}"], True, tuple(mapped)


_HERE = re.compile(r"(?:\./+)+")
_DIRECTORIES = ("-I", "-idirafter", "-iquote", "-isystem")
_FAMILIES = ("--param", "-W", "-f", "-m")
_PIECES = re.compile("[=,:]")
