"""What a compiler leaves that opened an instrumented library: a profile whose name says the process id.

`cargo llvm-cov` instruments proc-macros, too, and at its end each rustc that loaded one writes LLVM_PROFILE_FILE, or where that is not
set what rustc 1.95 put into the library, with these filled in (compiler-rt 22, InstrProfilingFile.c): %p the process id, %Nm a signature
of the library, `_` and the process id modulo N (none: 1).  A hit brings it back under the name that the compiler would have given it as
this caller's.  Without %p in the name several processes share one file, which is nobody's output.

This module knows names only.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sccache_py.observation import plain

_VARIABLE = "LLVM_PROFILE_FILE"
_DEFAULT = "default_%m_%p.profraw"
_OPTION = "instrument-coverage"
_SPECIFIER = re.compile(r"%(p|[0-9]*m)")

# In a told name NUL N NUL stands for the process id modulo N; N = 0: all of it.
_MARK = re.compile(r"\0([0-9]+)\0")


@dataclass(frozen=True, slots=True)
class ProfileNames:
    directory: str
    _words: tuple[str, ...]  # text and specifiers in turn
    taken: frozenset[str] = frozenset()  # names that are there: into such a file another process's counts went, too

    def told(self, path: str, pid: int) -> str | None:
        """The path with marks for what depends on the process id; None: not a profile of that process."""
        texts, specifiers = self._words[::2], self._words[1::2]
        pattern, marked = re.escape(texts[0]), [texts[0]]
        for specifier, text in zip(specifiers, texts[1:], strict=True):
            modulus = 0 if specifier == "p" else int(specifier[:-1] or 1) or 1
            pattern += (f"(){pid}" if not modulus else f"([0-9]+_){pid % modulus}") + re.escape(text)
            marked += [f"\0{modulus}\0", text]
        directory, name = os.path.split(path)
        found = re.fullmatch(pattern, name) if directory == self.directory and name not in self.taken else None
        if found is None:
            return None
        signatures = iter(found.groups())
        return os.path.join(directory, "".join(next(signatures) + word if _MARK.fullmatch(word) else word for word in marked))


def profile_names(env: Mapping[str, str], arguments: Sequence[str], cwd: str) -> ProfileNames | None:
    """None: no profile is expected, or not one for each process.  A build that instruments its macros instruments what uses them, too."""
    pattern = env.get(_VARIABLE) or (_DEFAULT if any(word.startswith(_OPTION) for word in arguments) else "")
    directory, name = os.path.split(plain(os.path.join(cwd, pattern)))
    words = _SPECIFIER.split(name)
    if "p" not in words[1::2] or "%" in directory or any("%" in text for text in words[::2]):
        return None
    return ProfileNames(directory, tuple(words))


def is_profile(told: str) -> bool:
    return "\0" in told


def for_process(told: str, pid: int) -> str:
    return _MARK.sub(lambda mark: str(pid % int(mark[1]) if mark[1] != "0" else pid), told)
