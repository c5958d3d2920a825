"""A C text without what its compile cannot depend on: comments, and the lines that hold nothing else.

Two texts that come out alike here give the compiler the same tokens, directives and macros, in the same columns; which tokens share a
line is the same, too.  Only lines lie elsewhere, and in `placed` not even these.  So not only the object is the same, where nothing
in it tells a line, but also what is warned of: hence a comment with code behind it on its line stays, as does one that might mean
something to a compiler (`/* fall through */`), and one that is less indented than what follows leaves a mark, for gcc 12 looks at it
before it finds an indentation misleading (c-family/c-indentation.cc, detect_intervening_unindent).

Where it is not sure what is a comment, there is no answer.  Strings are not looked into, and nothing is expanded.

What tells lines: LINES lists all words by which gcc 12 and clang 14 do so in an object without debug information.  clang names a lambda
or a struct without a name by its line in __PRETTY_FUNCTION__ and kin.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from sccache_py.model import Plan

LINES = (
    b"__LINE__",
    b"__builtin_COLUMN",
    b"__builtin_FILE",
    b"__builtin_FUNCTION",
    b"__builtin_LINE",
    b"__builtin_dump_struct",
    b"__builtin_source_location",
    b"__func__",
    b"__FUNCTION__",
    b"__FUNCSIG__",
    b"__PRETTY_FUNCTION__",
)

# System headers that have such words only in macros, each with what a text says that uses one.
_TOLD_BY_MACRO = (
    ("/assert.h", re.compile(rb"\bassert(?:_perror)?\b(?!\.h)|\b__ASSERT")),
    ("/bits/c++config.h", re.compile(rb"glibcxx|GLIBCXX_\w*(?:ASSERT|DEBUG|VERIFY)")),
    ("/pstl/pstl_config.h", re.compile(rb"\b_PSTL")),
)
_SYSTEM = "/usr/"
_LIBRARY = re.compile(r"/usr/.*/c\+\+/")  # whose own macros use them only in places of its own
_ITSELF = ""

# What is included, by its name; anything else that is read counts by its content.
_SUFFIXES = (".c", ".c++", ".cc", ".cp", ".cpp", ".cxx", ".h", ".h++", ".hh", ".hpp", ".hxx", ".inc", ".inl", ".ipp", ".tcc", ".tpp")

# Options under which an object tells lines, a message speaks of comments, or a comment is something else.
_REFUSED = (
    "-C",
    "-Wc90-c99-compat",
    "-Wdocumentation",
    "-Weverything",
    "-Wimplicit-fallthrough=1",  # any comment will do
    "-Wleading-whitespace",
    "-Wtrailing-whitespace",
    "-ansi",
    "-fanalyzer",
    "-fcontract",
    "-fdebug-info",
    "-fdebug-macro",
    "-fms-",
    "-fmudflap",
    "-fopenacc",
    "-fopenmp",
    "-fpseudo-probe",
    "-fsanitize",
    "-ftabstop",
    "-g",
)
_OLD_C = re.compile(r"--?std=(?:c|gnu|iso9899:)(?:89|90|199|19)\S*")
_NEWER_C = re.compile(r"--?std=(?:c|gnu|iso9899:)(?:99|9x|[12][0-9x])\S*")
_PEDANTIC = ("-pedantic", "-pedantic-errors", "-Wpedantic")

# Texts in which a comment may not be one, or that some standard reads otherwise: other spaces than the usual, a splice or a trigraph
# where a comment might begin or end, raw strings, header names with slashes or quotes in them.
_UNSURE_BYTES = (b"\0", b"\1", b"\r", b"\f", b"\v", b"/\\\n", b"*\\\n", b"R\\\n", b"??/", b"??'")
_UNSURE_SPLICE = re.compile(rb"\\[ \t]+\n")
_RAW_STRING = re.compile(rb'(?<![0-9A-Za-z_$])(?:u8|[uUL])?R"')
_HEADER_NAME = re.compile(
    rb"\b(?:include(?:_next)?|__has_include\w*|__has_embed|embed|import)\b[^\n]*(?:<[^>\n]*(?:/[/*]|[\"'])[^\n]*>|\\)"
)

_TOKEN = re.compile(
    rb"//[^\n]*|/\*.*?\*/|/\*"
    rb'|"(?:[^"\\\n]|\\.)*"'
    rb"|\b[0-9][0-9A-Za-z_.]*'[0-9A-Za-z_.']*"  # 1'000
    rb"|'(?:[^'\\\n]|\\.)*'"
    rb"|[\"']",
    re.DOTALL,
)
_ANYTHING = bytes(c if c in b"\n\t " else 1 for c in range(256))
_REST_OF_LINE = re.compile(rb"[ \t]*(?=\n)")
_MEANT_FOR_COMPILERS = re.compile(rb"fall|lint", re.IGNORECASE)

# They turn text around, and gcc warns of them in comments (-Wbidi-chars).
_BIDIRECTIONAL = re.compile("[\u200e\u200f\u202a-\u202e\u2066-\u2069]")

_TAB_COLUMNS = 8


@dataclass(frozen=True, slots=True)
class Bare:
    text: bytes
    placed: bytes  # with empty lines for those that went
    once: bool  # may be left out because of another file with the same content


def bare(text: bytes) -> Bare | None:
    """None: this text counts as it is."""
    if _is_unsure(text):
        return None
    try:
        if not text.isascii() and _BIDIRECTIONAL.search(text.decode()):
            return None
    except UnicodeDecodeError:
        return None
    code = _without_comments(text)
    lines = _lines(code) if code is not None else None
    if lines is None:
        return None
    return Bare(
        b"\n".join(line for line in lines if line is not None),
        b"\n".join(line or b"" for line in lines),
        b"once" in text or b"import" in text,
    )


def _is_unsure(text: bytes) -> bool:
    # A last line that does not end is warned of, by some.
    if (text and not text.endswith(b"\n")) or text.endswith(b"\\\n") or any(word in text for word in _UNSURE_BYTES):
        return True
    if b"\\" in text and _UNSURE_SPLICE.search(text):
        return True
    return (b'R"' in text and _RAW_STRING.search(text) is not None) or _HEADER_NAME.search(text) is not None


def _without_comments(text: bytes) -> bytes | None:
    """What is left out is replaced by bytes 1, its white space excepted."""
    pieces: list[bytes] = []
    done = 0
    for match in _TOKEN.finditer(text):
        token = match[0]
        if token in (b'"', b"'", b"/*"):
            return None
        if token[:1].isdigit() and b"/" in text[match.end() : text.index(b"\n", match.end())]:
            return None  # before C23 and C++14 that was a number and the start of a character
        if not token.startswith((b"//", b"/*")):
            continue
        if token.startswith(b"//") and token.endswith(b"\\"):
            return None
        if _REST_OF_LINE.match(text, match.end()) and not _MEANT_FOR_COMPILERS.search(token) and b"/*" not in token[2:]:
            pieces += (text[done : match.start()], token.translate(_ANYTHING))
            done = match.end()
    pieces.append(text[done:])
    return b"".join(pieces)


def _lines(code: bytes) -> list[bytes | None] | None:
    """Each line, None for one that says nothing; None: a comment is all that keeps two lines apart."""
    raw = code.split(b"\n")[:-1]
    lines: list[bytes | None] = []
    spliced = False
    for line in raw:
        left = line.rstrip(b" \t\1")
        lines.append(left if left or spliced else None)
        spliced = left.endswith(b"\\")
        if spliced and left != line:
            return None
    above: list[int] = []  # lines with comments, with no code since
    for number, line in enumerate(raw):
        if lines[number]:
            begins = _indentation(line) if above else 0
            for comment in above:
                if (column := _indentation(raw[comment])) < begins:
                    lines[comment] = b"\1%d" % column
            above.clear()
        elif b"\1" in line:
            above.append(number)
    return lines


def _indentation(line: bytes) -> int:
    expanded = line.expandtabs(_TAB_COLUMNS)
    return len(expanded) - len(expanded.lstrip(b" "))


def may_be_bare(path: str) -> bool:
    """Whether a file that was read is a text of the project's, by its path (folded)."""
    return path.endswith(_SUFFIXES) and not path.startswith(_SYSTEM)


def ignores_comments(plan: Plan) -> bool:
    """Whether what this call leaves and says can depend on comments only by the lines that they take."""
    words = plan.arguments
    if not plan.dialect.startswith(("c [", "c++ [")) or plan.unlisted is not None or not plan.exact_outputs:
        return False
    if "-c" not in words or plan.source is None or plan.cwd_in_key or plan.writes_times:
        return False
    if any(w.startswith(_REFUSED) and w != "-g0" for w in words):
        return False
    if plan.dialect.startswith("c [") and any(_OLD_C.fullmatch(w) for w in words):
        return False  # `//` is no comment there, or one to be warned of
    return not (plan.dialect.startswith("c [") and any(w in _PEDANTIC for w in words)) or any(_NEWER_C.fullmatch(w) for w in words)


def lines_told(text: bytes) -> frozenset[str]:
    """How a text may tell lines: by a word of its own (""), by macros of these headers."""
    own = (_ITSELF,) if any(word in text for word in LINES) else ()
    return frozenset((*own, *(header for header, said in _TOLD_BY_MACRO if said.search(text))))


def counts_lines(plan: Plan, told: Mapping[str, frozenset[str]]) -> bool:
    """Whether the object may tell lines.  told: of all that was read, by its path (folded)."""
    by_words = lines_told(os.fsencode("\n".join(plan.arguments)))  # -DCHECK=assert
    if _ITSELF in by_words:
        return True
    by_texts = (said - {_ITSELF} for path, said in told.items() if not _LIBRARY.match(path) and not _header(path))
    used = by_words.union(*by_texts)
    return any(_ITSELF in said and (_header(path) is None or _header(path) in used) for path, said in told.items())


def _header(path: str) -> str | None:
    """Which of _TOLD_BY_MACRO it is."""
    return next((header for header, _ in _TOLD_BY_MACRO if path.startswith(_SYSTEM) and path.endswith(header)), None)
