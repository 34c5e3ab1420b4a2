"""Figures of a sweep as SVG: scaling curves with the arrows that are the multiplier.

Knows curves and arrows, not how they were computed.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from liftgs_platform.report import svg
from liftgs_platform.report.sweep_words import count


@dataclass(frozen=True)
class Curve:
    """One arm in a figure.

    Attributes:
        name: for the title under the mouse.
        colour: class of `svg`.
        shape: of its markers.
        means: (ratio, mean over seeds, lower, upper end of its interval), by ratio; ratio 0 is zero-shot.
        points: (ratio, place of the seed, seed, score) of each network.
        dashed: for controls.
    """

    name: str
    colour: str
    shape: str
    means: Sequence[tuple[float, float, float, float]]
    points: Sequence[tuple[float, float, int, float]] = ()
    dashed: bool = False


@dataclass(frozen=True)
class Arrow:
    """A multiplier: from the pretrained score to where scratch reaches as much.

    Attributes:
        ratio: where it starts.
        score: its height.
        reaches: the ratio where it ends; None if scratch never gets there.
        label: e.g. "2.3×".
        colour: class of `svg`.
        rising: whether an open end points to more labels, or to fewer.
    """

    ratio: float
    score: float
    reaches: float | None
    label: str
    colour: str
    rising: bool = True


@dataclass(frozen=True)
class Size:
    """Of a figure, pixels."""

    width: int = 760
    height: int = 430
    left: int = 50
    bottom: int = 54
    top: int = 16
    right: int = 18


LARGE = Size()
SMALL = Size(372, 236, 40, 36, 26, 10)


def scaling(
    curves: Sequence[Curve],
    arrows: Sequence[Arrow],
    label: str,
    size: Size = LARGE,
    title: str = "",
    scenes: Mapping[float, int] | None = None,
) -> str:
    """Score against the share of labels, which is logarithmic; zero-shot stands left of a break.

    Args:
        curves: drawn in order, the last on top.
        arrows: on top of all.
        label: of the vertical axis.
        size: `LARGE`, or `SMALL` for one of many.
        title: inside the figure.
        scenes: ratio -> labelled scenes, written under the ticks.
    """
    means = [mean for curve in curves for mean in curve.means]
    ratios = sorted({mean[0] for mean in means if mean[0] > 0})
    if not ratios:
        return ""
    bare = any(mean[0] == 0 for mean in means)
    start = size.left + (44 if bare else 0)
    spread = max(1.12, (ratios[-1] / ratios[0]) ** 0.06)
    x = svg.Scale(ratios[0] / spread, ratios[-1] * spread, start, size.width - size.right, log=True)
    heights = [v for mean in means for v in mean[1:]] + [p[3] for curve in curves for p in curve.points]
    low, high, ticks = svg.nice_range([100 * v for v in heights], 7 if size is LARGE else 5)
    base = size.height - size.bottom
    y = svg.Scale(low / 100, high / 100, base, size.top)
    place = _Place(x, y, size.left + 20)
    return "".join(
        (
            f'<svg viewBox="0 0 {size.width} {size.height}" width="{size.width}" role="img" '
            f'aria-label="{html.escape(f"{label} against the share of labels")}">',
            *(f'<path class="grid" d="M{size.left} {y(t / 100):.1f}H{size.width - size.right}"/>' for t in ticks),
            *(svg.text(size.left - 6, y(t / 100) + 3.5, f"{t:g}", "end") for t in ticks),
            *_ratio_ticks(ratios, x, base, size, scenes or {}),
            _floor(size, base, bare),
            svg.text(size.left, size.top - 11, title, kind="title") if title else "",
            *(_band(curve, place) for curve in curves),
            *(_curve(curve, place, size is LARGE) for curve in curves),
            *(_arrow(arrow, place) for arrow in arrows),
            _words(label, size),
            "</svg>",
        )
    )


@dataclass(frozen=True)
class _Place:
    x_of_ratio: svg.Scale
    y: svg.Scale
    zero_shot: float

    def x(self, ratio: float) -> float:
        return self.x_of_ratio(ratio) if ratio > 0 else self.zero_shot


def _words(label: str, size: Size) -> str:
    if size is not LARGE:
        return ""
    middle = (size.top + size.height - size.bottom) / 2
    return svg.text((size.left + size.width) / 2, size.height - 4, "share of the labelled scenes", "middle") + (
        f'<text transform="translate(12 {middle:.0f}) rotate(-90)" text-anchor="middle">{html.escape(label)}</text>'
    )


def _floor(size: Size, base: int, bare: bool) -> str:
    """The axis, with a break after zero-shot."""
    right = size.width - size.right
    if not bare:
        return f'<path class="axis" d="M{size.left} {base}H{right}"/>'
    gap = size.left + 38
    return (
        f'<path class="axis" d="M{size.left} {base}H{gap - 3}M{gap + 3} {base}H{right}'
        f'M{gap - 5} {base + 4}L{gap - 1} {base - 4}M{gap + 1} {base + 4}L{gap + 5} {base - 4}"/>'
        + svg.text(size.left + 20, base + 16, "0", "middle")
    )


def _ratio_ticks(
    ratios: Sequence[float], x: svg.Scale, base: int, size: Size, scenes: Mapping[float, int]
) -> list[str]:
    """Ticks at the ratios that were run; words only where there is room for them."""
    drawn, free = [], -math.inf
    for ratio in ratios:
        at = x(ratio)
        drawn.append(f'<path class="axis" d="M{at:.1f} {base}v4"/>')
        if at >= free:
            drawn.append(svg.text(at, base + 16, f"{ratio:g}", "middle"))
            if size is LARGE and scenes.get(ratio):
                drawn.append(svg.text(at, base + 29, count(scenes[ratio], "scene"), "middle", "soft"))
            free = at + (58 if size is LARGE and scenes else 26)
    return drawn


def _band(curve: Curve, place: _Place) -> str:
    known = [mean for mean in curve.means if mean[0] > 0 and all(map(math.isfinite, mean))]
    if len(known) < 2 or curve.dashed:
        return ""
    upper = [(place.x(ratio), place.y(high)) for ratio, _, _, high in known]
    lower = [(place.x(ratio), place.y(low)) for ratio, _, low, _ in known]
    return f'<g class="{curve.colour}">{svg.polygon(upper + lower[::-1], "band")}</g>'


def _curve(curve: Curve, place: _Place, large: bool) -> str:
    known = [mean for mean in curve.means if math.isfinite(mean[1])]
    line = [(place.x(mean[0]), place.y(mean[1])) for mean in known if mean[0] > 0]
    drawn = [svg.polyline(line, "line dashed" if curve.dashed else "line")]
    drawn += [
        svg.marker(
            curve.shape,
            place.x(ratio) + 3.5 * seed_place,
            place.y(score),
            2.2 if large else 1.6,
            "seed",
            f"{curve.name}, ratio {ratio:g}, seed {seed}: {100 * score:.1f}",
        )
        for ratio, seed_place, seed, score in curve.points
    ]
    for ratio, mean, low, high in known:
        span = f" ({100 * low:.1f} to {100 * high:.1f})" if math.isfinite(low) else ""
        words = f"{curve.name}, ratio {ratio:g}: {100 * mean:.1f}{span}"
        if ratio == 0 and math.isfinite(low):
            at = place.x(0)
            drawn.append(f'<path class="line" d="M{at:.1f} {place.y(low):.1f}V{place.y(high):.1f}"/>')
        drawn.append(svg.marker(curve.shape, place.x(ratio), place.y(mean), 4.6 if large else 3.2, "mark", words))
    return f'<g class="{curve.colour}">{"".join(drawn)}</g>'


def _arrow(arrow: Arrow, place: _Place) -> str:
    axis = place.x_of_ratio
    start, y = axis(arrow.ratio), place.y(arrow.score)
    open_end = axis.stop if arrow.rising else axis.start
    stop = open_end if arrow.reaches is None else axis.clamped(arrow.reaches)
    drawn = svg.arrow(
        start, stop, y, "arrow" if arrow.reaches is not None else "arrow bound", arrow.reaches is not None
    )
    label = svg.text((start + stop) / 2, y - 6, arrow.label, "middle", "halo")
    return f'<g class="{arrow.colour}">{drawn}{label}</g>'
