"""May the server do for its caller what the caller may do itself?

A compiler is a child of the server: it cannot be more urgent than the server may make it, nor have higher limits.  Where the
caller could, it runs the compiler itself.
"""

from __future__ import annotations

import contextlib
import os
import resource

from sccache_py.model import Request, Result

# Limits that a compile can run into.  RLIMIT_MEMLOCK and the like differ between login and service, and no compiler feels them.
_FELT = frozenset(
    (
        resource.RLIMIT_AS,
        resource.RLIMIT_CPU,
        resource.RLIMIT_DATA,
        resource.RLIMIT_FSIZE,
        resource.RLIMIT_NOFILE,
        resource.RLIMIT_NPROC,
        resource.RLIMIT_STACK,
    )
)

_INFINITY = (1 << 64) - 1  # as requests have it, and the kernel


def allows(caller: Request) -> bool:
    """Whether a compile for `caller` would be what it is without us.  Asked of the kernel: root may, in a container it may not."""
    return _may_be_as_nice(caller.nice) and all(_may_be_limited(number, hard) for number, _, hard in caller.limits if number in _FELT)


def _may_be_as_nice(niceness: int) -> bool:
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    if niceness >= ours:
        return True
    try:
        os.setpriority(os.PRIO_PROCESS, 0, niceness)
    except OSError:
        return False
    os.setpriority(os.PRIO_PROCESS, 0, ours)
    return True


def _may_be_limited(number: int, hard: int) -> bool:
    soft, ours = resource.getrlimit(number)
    if ours == resource.RLIM_INFINITY or hard <= ours:
        return True
    with contextlib.suppress(OSError, ValueError):
        # What we are allowed to raise stays raised: the next caller need not ask.
        resource.setrlimit(number, (soft, resource.RLIM_INFINITY if hard == _INFINITY else hard))
        return True
    return False


def may_write(caller: Request, result: Result) -> bool:
    """Whether the caller's compiler could have written these outputs (`ulimit -f`)."""
    limit = next((soft for number, soft, _ in caller.limits if number == resource.RLIMIT_FSIZE), _INFINITY)
    return limit == _INFINITY or all(output.size <= limit for output in result.outputs)
