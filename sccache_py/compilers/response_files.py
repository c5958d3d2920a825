"""`@file` on a command line, as gcc and clang expand it.

Source: libiberty's `expandargv` and `buildargv` (gcc 12), which LLVM's `TokenizeGNUCommandLine` follows: words are separated by
white space; both quotes keep it; a backslash takes the next character as it is, within quotes too.  A name that cannot be read
stays on the command line as it stands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

# libiberty gives up after as many files, so that one that names itself ends.
_MOST_FILES = 2000


def expand(argv: Sequence[str], read: Callable[[str], str | None]) -> list[str] | None:
    """The words; None if there is no end to them.  read: a file's text by its name, or None."""
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
        pending += reversed(split(text))
    return words


def split(text: str) -> list[str]:
    """A response file's text → words."""
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
            word.append(next(characters, ""))
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
