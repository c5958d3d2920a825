"""An output of a compile, held open from before the answer until it is stored.

Behind the answer the build tool goes on, and may change what was compiled: Linux's objtool writes into every object, others strip
it.  Where times have ticks, a write within the one of the compile shows in no time.  So what is small is copied before the answer.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from sccache_py import entry
from sccache_py.server.filesystem.files import coarse_ns
from sccache_py.server.filesystem.stamps import latest_ns
from sccache_py.server.running.held import held

# Half a millisecond.
_TAKEN_BYTES = 1 << 20


@dataclass(slots=True)
class Opened:
    path: str
    told: str  # the same, or what depends on the process id marked
    fd: int  # of the file, or of the copy that was taken
    st: os.stat_result
    began_ns: int  # when the compile began
    taken: bool = False
    settled: bool = False  # of what was taken: whether its ctime tells this content from any later one
    data: bytes | None = None  # what was taken, if it is small enough for an entry

    def take(self) -> None:
        """Copy it as it is now, unless it is large."""
        if self.st.st_size > _TAKEN_BYTES:
            return
        self.settled = latest_ns(self.st.st_ctime_ns) < coarse_ns()
        try:
            data = os.pread(self.fd, self.st.st_size, 0)
            if len(data) <= entry.INLINE_LIMIT_BYTES:
                self.data = data
            else:
                copy = held(data)
                os.close(self.fd)
                self.fd = copy
        except OSError:
            return
        self.taken = True

    def is_unchanged(self) -> bool:
        """A write would set the mtime forward.  `cargo check` (1.90, issue 16132) sets it back, to before the compiler was started.

        That may still be later than the coarse clock at the spawn: since Linux 6.13 a file has the fine clock's time where somebody looked
        at the one before, as cargo does.
        """
        if self.taken:
            return True
        now = os.fstat(self.fd)
        return now.st_size == self.st.st_size and now.st_mtime_ns <= max(self.st.st_mtime_ns, self.began_ns)
