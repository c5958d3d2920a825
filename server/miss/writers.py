"""Which running compiles write which files.

Two that write the same file at once may each leave bytes of the other: whoever looks afterwards cannot tell.  So neither of them is
stored.  Build tools do not do this; two builds in one directory do.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class Writer:
    """One running compile."""

    is_alone: bool = True


@dataclass(slots=True)
class Writers:
    _by_path: dict[str, set[Writer]] = field(default_factory=dict)

    @contextlib.contextmanager
    def one_more(self, paths: Iterable[str]) -> Iterator[Writer]:
        """From before the compiler starts until its outputs are held open."""
        me = Writer()
        paths = tuple(paths)
        for path in paths:
            here = self._by_path.setdefault(path, set())
            for other in here:
                other.is_alone = me.is_alone = False
            here.add(me)
        try:
            yield me
        finally:
            for path in paths:
                here = self._by_path[path]
                here.discard(me)
                if not here:
                    del self._by_path[path]
