"""How answers look on a terminal.  Statistics stay plain text, as sccache prints them: scripts read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sccache_py.stats import Stats, Surroundings, as_text

# A wait that is worth a look.
LONG_WAIT_S = 2.0

_SHORT_SOURCE = 30  # columns that a source has at least
_NO_LIMIT = 1 << 20

# A job's fields in the order of columns; what a server does not tell has no column.
_COLUMNS = {
    "state": "State",
    "seconds": "For",
    "tokens": "Tokens",
    "pid": "Process",
    "build": "Build",
    "compiler": "Compiler",
    "source": "Source",
}


def stats(counted: Stats, surroundings: Surroundings, advanced: bool) -> str:
    """The lines of --show-stats, or of --show-adv-stats."""
    return as_text(counted, surroundings, advanced)


def jobs(answer: Mapping[str, Any]) -> None:
    """Print the answer to the CONTROL `jobs`: `size` and `in_use` tokens, and `jobs`, a list of maps."""
    from rich.console import Console  # costs 30 ms, and only this needs it
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

    listed = [job for job in answer.get("jobs", []) if isinstance(job, Mapping)]
    print(f"{answer.get('in_use', 0)} of {answer.get('size', 0)} job tokens in use, {len(listed)} under way")
    if not listed:
        return
    fields = [name for name in _COLUMNS if any(name in job for job in listed)]
    table = Table(box=None, pad_edge=False)
    for name in fields:
        # The source gives way on a terminal: it may take several lines.
        right = name in ("seconds", "tokens", "pid")
        table.add_column(_COLUMNS[name], justify="right" if right else "left", overflow="fold", no_wrap=name != "source")
    for job in listed:
        # Text, not str: a path may look like markup.
        seconds = job.get("seconds")
        waits_long = job.get("waits") and isinstance(seconds, int | float) and seconds > LONG_WAIT_S
        table.add_row(*(Text(_cell(name, job)) for name in fields), style="bold yellow" if waits_long else None)
    console = Console(highlight=False)
    whole = Measurement.get(console, console.options.update(max_width=_NO_LIMIT), table).maximum
    spared = max(len(_cell("source", job)) for job in listed) - _SHORT_SOURCE
    # Narrower, rich would cut process ids and leave the source out; a terminal breaks a long line itself.
    console.width = max(console.width, whole - max(0, spared)) if console.is_terminal else whole
    console.print(table)


def _cell(name: str, job: Mapping[str, Any]) -> str:
    value = job.get(name)
    if value is None:
        return ""
    if name == "seconds":
        return f"{value:.1f} s"
    if name == "compiler":
        value = str(value).rpartition("/")[2]
    elif name == "source":
        value = " ".join(str(value).removeprefix(f"{job.get('cwd')}/").split())
    # What cannot be shown must not stop the rest from being shown.
    return str(value).encode(errors="replace").decode()
