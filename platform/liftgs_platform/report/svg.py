"""Pieces of drawings as SVG text: scales, ticks, markers, words. Knows nothing of what they show.

Colours are classes, so that the page decides them for screen, dark screen and paper: `k-scratch`, `k-compute` and
`k0` .. `k5`, which every piece takes from its nearest ancestor.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

#: Shapes of markers, so that no curve is told by its colour alone.
MARKERS = ("circle", "square", "triangle", "diamond", "wedge", "cross")


@dataclass(frozen=True)
class Scale:
    """Values to pixels along one axis.

    Attributes:
        low: value at `start`.
        high: value at `stop`; above `low`.
        start: pixels.
        stop: pixels; below `start` for an axis that goes up.
        log: whether equal factors are equal lengths; then `low` is above 0.
    """

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Pixels."""
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.stop - self.start)

    def clamped(self, value: float) -> float:
        """Pixels of the nearest value on the axis."""
        return self(min(max(value, self.low), self.high))


def nice_range(values: Sequence[float], most_ticks: int = 6) -> tuple[float, float, list[float]]:
    """A range of round numbers around all values, and its ticks: multiples of 1, 2 or 5 times a power of ten."""
    known = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(known), max(known)
    if high - low < 1e-9:
        low, high = low - 0.01, high + 0.01
    power = 10.0 ** math.floor(math.log10((high - low) / (most_ticks - 1)))
    step = next(power * k for k in (1, 2, 5, 10, 20) if (high - low) / (power * k) <= most_ticks - 1)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = [step * i for i in range(first, last + 1)]
    return ticks[0], ticks[-1], ticks


def text(x: float, y: float, words: str, anchor: str = "start", kind: str = "") -> str:
    """Words, escaped; the class `halo` keeps them legible on lines."""
    name = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{name}>{html.escape(words)}</text>'


def polyline(points: Sequence[tuple[float, float]], kind: str) -> str:
    """A line through pixels."""
    return f'<polyline class="{kind}" points="{_pairs(points)}"/>'


def polygon(points: Sequence[tuple[float, float]], kind: str) -> str:
    """An area between pixels."""
    return f'<polygon class="{kind}" points="{_pairs(points)}"/>'


def marker(shape: str, x: float, y: float, radius: float, kind: str = "mark", title: str = "") -> str:
    """One of `MARKERS`, all of about the same area; `title` shows under the mouse."""
    words = f"<title>{html.escape(title)}</title>" if title else ""
    if shape == "circle":
        return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}">{words}</circle>'
    outline = " ".join(f"{x + radius * dx:.1f},{y + radius * dy:.1f}" for dx, dy in _OUTLINES[shape])
    return f'<polygon class="{kind}" points="{outline}">{words}</polygon>'


def arrow(x0: float, x1: float, y: float, kind: str, solid_head: bool = True) -> str:
    """A horizontal arrow; with an open head it says that there is more where it points."""
    sign = 1.0 if x1 >= x0 else -1.0
    length = min(7.0, abs(x1 - x0))
    back = x1 - sign * length
    head = [(back, y - 3.6), (x1, y), (back, y + 3.6)]
    shape = polygon(head, "head") if solid_head else polyline(head, "head open")
    stop = back if solid_head else x1
    return f'<g class="{kind}"><path class="shaft" d="M{x0:.1f} {y:.1f}H{stop:.1f}"/>{shape}</g>'


def _pairs(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


#: Corners in units of a circle's radius.
_OUTLINES: dict[str, tuple[tuple[float, float], ...]] = {
    "square": ((-0.89, -0.89), (0.89, -0.89), (0.89, 0.89), (-0.89, 0.89)),
    "triangle": ((0, -1.25), (1.15, 0.8), (-1.15, 0.8)),
    "diamond": ((0, -1.25), (1.25, 0), (0, 1.25), (-1.25, 0)),
    "wedge": ((0, 1.25), (1.15, -0.8), (-1.15, -0.8)),
    "cross": tuple(
        (dx * 0.85, dy * 0.85)
        for dx, dy in (
            (-0.4, -1.2), (0.4, -1.2), (0.4, -0.4), (1.2, -0.4), (1.2, 0.4), (0.4, 0.4),
            (0.4, 1.2), (-0.4, 1.2), (-0.4, 0.4), (-1.2, 0.4), (-1.2, -0.4), (-0.4, -0.4),
        )
    ),
}  # fmt: skip
