"""Statistics of repeated measurements: medians, quantiles, and ratios taken pair by pair.

Contenders alternate, so the n-th values of two of them were measured next to each other: what slowed the machine
down slowed both.  Their ratio is therefore taken within each pair, and the median is the median of these ratios.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

# A run whose control (plain against plain) is further off than this says so.
CONTROL_LIMIT = 0.05


@dataclass(frozen=True, slots=True)
class Summary:
    """median, and the quartiles around it as spread."""

    median: float
    low: float
    high: float
    count: int


def quantile(values: Sequence[float], q: float) -> float:
    """Linear between the two neighbours; q from 0 to 1."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    place = q * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def median(values: Sequence[float]) -> float:
    return quantile(values, 0.5)


def summary(values: Sequence[float]) -> Summary:
    return Summary(median(values), quantile(values, 0.25), quantile(values, 0.75), len(values))


def pair_ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """ours/theirs of each pair; a contender that ended early leaves fewer pairs."""
    return [a / b for a, b in zip(ours, theirs, strict=False) if b > 0]


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Summary | None:
    """None: there is no pair."""
    ratios = pair_ratios(ours, theirs)
    return summary(ratios) if ratios else None


def control_offset(plain: Sequence[float], again: Sequence[float]) -> float | None:
    """How far plain against plain is from 1: 0.07 for 7 %."""
    against = ratio(again, plain)
    return None if against is None else abs(against.median - 1)


def control_remark(case: str, plain: Sequence[float], again: Sequence[float]) -> str | None:
    """What to say if the control does not hold."""
    offset = control_offset(plain, again)
    if offset is None or offset <= CONTROL_LIMIT:
        return None
    return f"{case}: the control (plain against plain) is off by {offset:.0%}: the machine was not quiet"


def least_squares(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """(slope, intercept) of y over x; for cost against size."""
    n = len(points)
    mean_x = sum(x for x, _ in points) / n
    mean_y = sum(y for _, y in points) / n
    across = sum((x - mean_x) ** 2 for x, _ in points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / across if across else 0.0
    return slope, mean_y - slope * mean_x
