"""Drawings the height of a line of text, for tables and legends; the numbers beside them say the same."""

from __future__ import annotations

import math
from collections.abc import Sequence

from liftgs_platform.report import svg


def interval(
    value: float, low: float, high: float, limits: tuple[float, float], colour: str, shape: str, censored: str = ""
) -> str:
    """A multiplier on a logarithmic line, 1 marked, with its interval if known; an open arrow is an end off it."""
    width, middle = 200, 9.0
    x = svg.Scale(*limits, 6, width - 6, log=True)
    parts = [f'<path class="one" d="M{x.clamped(1):.1f} 0V18"/>']
    if not (math.isnan(low) or math.isnan(high)):
        left, right = x.clamped(low), x.clamped(high)
        parts.append(f'<path class="line" d="M{left:.1f} 9H{right:.1f}"/>')
        if low < limits[0]:
            parts.append(svg.arrow(left + 8, left, middle, "bound", solid_head=False))
        if high > limits[1]:
            parts.append(svg.arrow(right - 8, right, middle, "bound", solid_head=False))
    kind = "mark hollow" if censored else "mark"
    parts.append(svg.marker(shape, x.clamped(value), middle, 4.2, kind))
    return _inline(colour, width, 18, parts)


def dumbbell(before: float, after: float, limits: tuple[float, float], colour: str, shape: str) -> str:
    """Two scores of one thing on a line: hollow is scratch, filled is pretrained."""
    width, middle = 180, 8.0
    x = svg.Scale(*limits, 6, width - 6)
    ends = [end for end in (before, after) if math.isfinite(end)]
    parts = [f'<path class="grid" d="M6 {middle}H{width - 6}"/>']
    if len(ends) == 2:
        parts.append(f'<path class="line" d="M{x(before):.1f} {middle}H{x(after):.1f}"/>')
    if math.isfinite(before):
        parts.append(f'<g class="k-scratch">{svg.marker("circle", x(before), middle, 3.8, "mark hollow")}</g>')
    if math.isfinite(after):
        parts.append(svg.marker(shape, x(after), middle, 4.2))
    return _inline(colour, width, 16, parts)


def swatch(colour: str, shape: str, dashed: bool) -> str:
    """For the legend."""
    line = svg.polyline([(1, 7), (33, 7)], "line dashed" if dashed else "line")
    return _inline(colour, 34, 14, [line, svg.marker(shape, 17, 7, 4.6)])


def _inline(colour: str, width: int, height: int, parts: Sequence[str]) -> str:
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    return f'<svg class="inline {colour}" {size} aria-hidden="true">{"".join(parts)}</svg>'
