"""Bars as plain SVG: one group per case, one bar per contender, quartiles as whiskers.

Each group has a scale of its own: a case that takes a millisecond stands beside one that takes minutes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

from benchmarks.figures import Summary

_WIDTH, _NAMES, _BARS = 760, 130, 480
_BAR, _GAP, _GROUP_GAP, _TOP = 16, 4, 22, 44

# Readable on white and on black.
_COLORS = {"sccache-py": "#d9730d", "plain": "#8a8f98", "plain again": "#b6bac0"}
_OTHERS = ("#3f7cbf", "#5a9e6f", "#8b6fc0", "#b05c7a")
_TEXT = "#808790"


@dataclass(frozen=True, slots=True)
class Bar:
    name: str
    value: Summary
    label: str


@dataclass(frozen=True, slots=True)
class Group:
    title: str
    bars: Sequence[Bar]


def bars(title: str, note: str, groups: Sequence[Group]) -> str:
    """note: date and command, under the title."""
    names = list(dict.fromkeys(bar.name for group in groups for bar in group.bars))
    others = [name for name in names if name not in _COLORS]
    colors = _COLORS | {name: _OTHERS[n % len(_OTHERS)] for n, name in enumerate(others)}
    y, parts = _TOP, []
    for group in groups:
        parts.append(_text(0, y + 12, group.title, weight="bold"))
        y += 20
        top = max(bar.value.high for bar in group.bars) or 1.0
        for bar in group.bars:
            parts += _bar(y, bar, top, colors[bar.name])
            y += _BAR + _GAP
        y += _GROUP_GAP
    head = [_text(0, 16, title, size=16, weight="bold"), _text(0, 33, note, size=11)]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{y}" viewBox="0 0 {_WIDTH} {y}" '
        f'font-family="sans-serif" role="img" aria-label={quoteattr(title)}>\n' + "\n".join(head + parts) + "\n</svg>\n"
    )


def _bar(y: int, bar: Bar, top: float, color: str) -> list[str]:
    def x(value: float) -> float:
        return round(_NAMES + _BARS * value / top, 1)

    middle = y + _BAR / 2
    return [
        _text(_NAMES - 8, y + 12, bar.name, anchor="end"),
        f'<rect x="{_NAMES}" y="{y}" width="{max(x(bar.value.median) - _NAMES, 1):.1f}" height="{_BAR}" fill="{color}" rx="2"/>',
        f'<path d="M{x(bar.value.low)} {middle}H{x(bar.value.high)}" stroke="{_TEXT}" stroke-width="1.5"/>',
        _text(x(bar.value.high) + 8, y + 12, bar.label),
    ]


def _text(x: float, y: float, text: str, size: int = 12, weight: str = "normal", anchor: str = "start") -> str:
    return f'<text x="{x}" y="{y}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}" fill="{_TEXT}">{escape(text)}</text>'
