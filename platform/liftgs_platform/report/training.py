"""`report.html` in a run's folder: the curves and the panels of a training, for a browser."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import numpy as np

from liftgs_platform import storage
from liftgs_platform.report.page import fill

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 400, 150, 46, 26, 18
_POINTS, _ROWS = 200, 4000
_GROUPS = ("validation", "loss", "optim", "speed", "progress")


def write(run: str, rows: Sequence[dict[str, Any]], total_steps: int) -> None:
    """Write the page beside the panels that it shows, of which it needs the folder.

    Args:
        run: URI of the run's folder.
        rows: of its log.
        total_steps: at which training ends.
    """
    storage.write_bytes(storage.join(run, "report.html"), render(run, rows, total_steps).encode())


def render(run: str, rows: Sequence[dict[str, Any]], total_steps: int) -> str:
    """The page."""
    measured = [row for row in rows if "event" not in row]
    bands = worlds(measured)
    thinned = len(measured) // _ROWS + 1
    measured = [row for number, row in enumerate(measured) if number % thinned == 0 or "score" in row]
    names = sorted(
        {name: None for row in measured for name in row if name not in ("step", "samples", "epoch", "at")}, key=_place
    )
    charts = [chart for name in names if (chart := curve(name, measured, total_steps, bands))]
    last = measured[-1] if measured else {}
    tiles = [
        {"label": f"of {total_steps:,} steps", "value": f"{last.get('step', 0):,}"},
        {"label": "samples", "value": f"{last.get('samples', 0):,}"},
        {"label": "epochs", "value": f"{last.get('epoch', 0):.1f}"},
        {"label": "loss", "value": _short(last["loss"]) if "loss" in last else "–"},
        {"label": "items/s", "value": _short(last["items_per_s"]) if "items_per_s" in last else "–"},
        {"label": "workers", "value": f"{last.get('workers', 1):g}"},
        {"label": "restarts", "value": f"{last.get('restarts', 0):g}"},
        {"label": "goodput", "value": f"{last['goodput']:.0%}" if "goodput" in last else "–"},
        {"label": "steps skipped", "value": f"{last.get('skipped', 0):g}", "bad": last.get("skipped", 0) > 0},
        {"label": "bad samples", "value": f"{last.get('bad_samples', 0):g}", "bad": last.get("bad_samples", 0) > 0},
    ]
    panels = [uri.rpartition("/")[2] for uri in storage.list_files(storage.join(run, "panels")) if uri.endswith(".png")]
    events = [row for row in rows if "event" in row]
    name = storage.name_of(run)
    banded = ", ".join(f"{workers} to step {stop:,}" for _, stop, workers in bands[-12:])
    return fill(
        "training",
        name=name,
        uri=run,
        tiles=tiles,
        charts=charts,
        panels=panels[::-1],
        events=events[-20:],
        banded=banded,
    )


def worlds(rows: Sequence[dict[str, Any]]) -> list[tuple[int, int, int]]:
    """First step, last step and workers of each stretch that had as many; none if all had."""
    bands: list[tuple[int, int, int]] = []
    for row in rows:
        workers, step = int(row.get("workers", 1)), int(row["step"])
        if bands and bands[-1][2] == workers:
            bands[-1] = (bands[-1][0], step, workers)
        else:
            bands.append((bands[-1][1] if bands else 0, step, workers))
    return bands if len(bands) > 1 else []


def curve(
    name: str, rows: Sequence[dict[str, Any]], total_steps: int, bands: Sequence[tuple[int, int, int]] = ()
) -> str | None:
    """One value over steps as SVG, thinned to means of neighbours; None where there are not two, or all are 0.

    Args:
        name: of the value.
        rows: of the log.
        total_steps: where the axis ends.
        bands: see `worlds`; the more workers, the darker the ground.
    """
    points = np.array([(row["step"], row[name]) for row in rows if isinstance(row.get(name), int | float)], float)
    if len(points) < 2 or not points[:, 1].any():
        return None
    thin = np.array([part.mean(0) for part in np.array_split(points, min(len(points), _POINTS))])
    low, high = float(thin[:, 1].min()), float(thin[:, 1].max())
    span = high - low or 1.0
    per_step = (WIDTH - LEFT - 4) / max(total_steps, points[-1, 0])
    x = LEFT + thin[:, 0] * per_step
    y = TOP + (high - thin[:, 1]) / span * (HEIGHT - BOTTOM - TOP - 6)
    line = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    base = HEIGHT - BOTTOM
    most = max((workers for _, _, workers in bands), default=1)
    grounds = "".join(
        f'<rect class="band" x="{LEFT + first * per_step:.1f}" y="{TOP - 4}" width="{(last - first) * per_step:.1f}" '
        f'height="{base - TOP + 4}" style="opacity:{0.3 * workers / most:.2f}"><title>{workers} workers</title></rect>'
        for first, last, workers in bands
    )
    title = f"{html.escape(name)} {_short(float(points[-1, 1]))}"
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(name)} over steps">{grounds}'
        f'<path class="axis" d="M{LEFT} {TOP - 4}V{base}H{WIDTH}"/>'
        f'<text x="{LEFT - 4}" y="{TOP + 4}" text-anchor="end">{_short(high)}</text>'
        f'<text x="{LEFT - 4}" y="{base}" text-anchor="end">{_short(low)}</text>'
        f'<text x="{LEFT}" y="{HEIGHT - 4}">0</text>'
        f'<text x="{WIDTH}" y="{HEIGHT - 4}" text-anchor="end">{total_steps:,}</text>'
        f'<text class="title" x="{WIDTH}" y="14" text-anchor="end">{title}</text>'
        f'<polyline points="{line}"/></svg>'
    )


def group_of(name: str) -> str:
    """Under which heading a value is shown."""
    if name.endswith("_s"):
        return "speed"
    if name in ("score", "best_score"):
        return "validation"
    if name in ("items_per_s_per_worker", "wait_share", "goodput"):
        return "speed"
    if name in ("samples", "epoch", "skipped", "bad_samples", "workers", "restarts"):
        return "progress"
    return "optim" if name in ("lr", "grad_norm") else "loss"


def _place(name: str) -> tuple[int, bool]:
    """By groups, the loss itself first, otherwise as the rows have it."""
    return _GROUPS.index(group_of(name)), name != "loss"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}".replace("e-0", "e-")
