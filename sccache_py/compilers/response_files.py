"""`@file` on a command line, as gcc and clang expand it.

Source: libiberty's `expandargv` and `buildargv` (gcc 12), which LLVM's `TokenizeGNUCommandLine` follows: words are separated by
white space; both quotes keep it; a backslash takes the next character as it is, within quotes too.  A name that cannot be read
stays on the command line as it stands.

What they read in different ways is left to them: to clang a form feed is no white space and a zero byte is, and a backslash at the
end is one; libiberty goes by POSIX from gcc 15 on, to which a backslash is nothing within '…', something only before some characters
within "…", and takes away the end of a line.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

_DISPUTED_SPACE = frozenset("\f\v\0")
_ESCAPED_IN_DOUBLE_QUOTES = frozenset('"\\$`')

# libiberty gives up after as many files, so that one that names itself ends.
_MOST_FILES = 2000


def expand(argv: Sequence[str], read: Callable[[str], str | None], escapes_within_quotes: bool = False) -> list[str] | None:
    """The words; None if there is no end to them or the compilers differ.

    read: a file's text by its name, or None.  escapes_within_quotes: this compiler is known not to go by POSIX.
    """
    words: list[str] = []
    files = 0
    pending = list(reversed(argv))
    while pending:
        word = pending.pop()
        text = read(word[1:]) if word.startswith("@") and len(word) > 1 else None
        if text is None:
            words.append(word)
            continue
        files += 1
        if files > _MOST_FILES:
            return None
        found = split(text, escapes_within_quotes)
        if found is None:
            return None
        pending += reversed(found)
    return words


def split(text: str, escapes_within_quotes: bool = False) -> list[str] | None:
    """A response file's text → words; None: not all compilers would read it so."""
    if not _DISPUTED_SPACE.isdisjoint(text):
        return None
    words: list[str] = []
    word: list[str] = []
    inside = False  # a word, maybe an empty one: ''
    quote = ""
    characters = iter(text)
    for character in characters:
        if not quote and character in " \t\n\v\f\r":
            if inside:
                words.append("".join(word))
                word, inside = [], False
            continue
        inside = True
        if character == "\\":
            escaped = next(characters, "\n")
            disputed = quote == "'" or (quote and escaped not in _ESCAPED_IN_DOUBLE_QUOTES)
            if escaped == "\n" or (disputed and not escapes_within_quotes):
                return None
            word.append(escaped)
        elif quote:
            if character == quote:
                quote = ""
            else:
                word.append(character)
        elif character in "'\"":
            quote = character
        else:
            word.append(character)
    if inside:
        words.append("".join(word))
    return words
