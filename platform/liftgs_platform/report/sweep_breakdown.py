"""Where pretraining helped: classes, groups of expressions, rooms; pretrained minus scratch, seed by seed."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from liftgs_platform import storage
from liftgs_platform.report.drawing import data_uri
from liftgs_platform.report.inline import dumbbell
from liftgs_platform.sweep_results import SCRATCH, Cell, SweepResults

_BETTER, _WORSE = 3, 1
Table = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Pair:
    """A network from scratch and a pretrained one that shared their labels."""

    scratch: Cell
    pretrained: Cell


def pairs(results: SweepResults, mix: str) -> dict[float, list[Pair]]:
    """By ratio, ascending, above zero-shot; a pair per seed that both have."""
    of: dict[tuple[str, float, int], Cell] = {(c.mix, c.ratio, c.seed): c for c in results.cells if not c.control}
    found: dict[float, list[Pair]] = {}
    for name, ratio, seed in sorted(of):
        if name == mix and ratio > 0 and (SCRATCH, ratio, seed) in of:
            found.setdefault(ratio, []).append(Pair(of[SCRATCH, ratio, seed], of[mix, ratio, seed]))
    return found


def breakdowns(found: dict[float, list[Pair]], colour: str, shape: str) -> list[dict[str, Any]]:
    """Tables of classes and of groups of expressions, those that gain most first; the lowest ratio in full.

    Args:
        found: from `pairs`.
        colour: of the mix.
        shape: of its marker.
    """
    parts: list[tuple[str, str, str, str, Callable[[Cell], Table]]] = [
        ("Classes", "class", "instances", "AP25", lambda cell: cell.classes),
        ("Expressions", "group", "expressions", "Acc@.25", lambda cell: cell.groups),
    ]
    made = []
    for title, head, count, measure, pick in parts:
        rows = _rows(found, pick, measure, count, colour, shape)
        if rows:
            ratios = [f"{ratio:g}" for ratio in found]
            made.append(
                {
                    "title": title,
                    "head": head,
                    "count": count,
                    "measure": measure,
                    "ratio": ratios[0],
                    "ratios": ratios,
                    "rows": rows,
                }
            )
    return made


def _rows(
    found: dict[float, list[Pair]], pick: Callable[[Cell], Table], measure: str, count: str, colour: str, shape: str
) -> list[dict[str, Any]]:
    shown = next(iter(found.values()), [])
    names = dict.fromkeys(name for pair in shown for name in (*pick(pair.scratch), *pick(pair.pretrained)))

    def value(cell: Cell, name: str) -> float:
        return pick(cell).get(name, {}).get(measure, math.nan)

    rows: list[dict[str, Any]] = []
    for name in names:
        before = _mean([value(pair.scratch, name) for pair in shown])
        after = _mean([value(pair.pretrained, name) for pair in shown])
        number = next((t[count] for p in shown for t in [pick(p.pretrained).get(name, {})] if count in t), math.nan)
        gains = [_gain([value(p.pretrained, name) - value(p.scratch, name) for p in of]) for of in found.values()]
        rows.append({"name": name, "number": number, "before": before, "after": after, "gains": gains})
    ends = [end for row in rows for end in (row["before"], row["after"]) if math.isfinite(end)]
    if not ends:
        return []
    limits = min(0.0, *ends), max(0.01, *ends)
    rows.sort(key=lambda row: (math.isnan(row["after"] - row["before"]), row["before"] - row["after"]))
    return [
        {
            "name": row["name"],
            "count": f"{row['number']:,.0f}" if math.isfinite(row["number"]) else "–",
            "before": percent(row["before"]),
            "after": percent(row["after"]),
            "drawing": dumbbell(row["before"], row["after"], limits, colour, shape),
            "gains": row["gains"],
        }
        for row in rows
    ]


def _gain(differences: Sequence[float]) -> dict[str, Any]:
    known = [d for d in differences if math.isfinite(d)]
    sure = len(known) > 1 and (min(known) > 0 or max(known) < 0)
    return {"value": points(_mean(known)), "sure": sure}


def cases(found: dict[float, list[Pair]], names: tuple[str, str]) -> dict[str, Any]:
    """Rooms with pictures from both arms: those that gained most and the one that lost most, of the lowest ratio.

    Args:
        found: from `pairs`.
        names: of the two arms.

    Returns:
        For the template: `cases`, `case_ratio`, `case_seed`; empty without pictures.
    """
    pair = next((p for of in found.values() for p in of if p.scratch.pictures and p.pretrained.pictures), None)
    if pair is None:
        return {}
    cells = (pair.scratch, pair.pretrained)
    gains = {
        scene: value - pair.scratch.scenes.get(scene, math.nan)
        for scene, value in pair.pretrained.scenes.items()
        if all(cell.pictures.get(scene) for cell in cells)
    }
    ranked = sorted((scene for scene, gain in gains.items() if math.isfinite(gain)), key=lambda scene: -gains[scene])
    return {
        "case_ratio": f"{pair.pretrained.ratio:g}",
        "case_seed": pair.pretrained.seed,
        "cases": [
            {
                "scene": scene,
                "gain": points(gains[scene]),
                "pictures": [
                    {"name": name, "score": percent(cell.scenes[scene]), **_picture(cell.pictures[scene])}
                    for name, cell in zip(names, cells, strict=True)
                ],
            }
            for scene in dict.fromkeys([*ranked[:_BETTER], *ranked[-_WORSE:]])
        ],
    }


def _picture(uri: str) -> dict[str, str]:
    """Its data URI, or what is wrong with it: a page is worth having without a picture."""
    try:
        pixels = np.asarray(Image.open(io.BytesIO(storage.read_bytes(uri)), formats=["PNG"]).convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as fault:
        return {"fault": f"no picture: {fault}"}
    return {"src": data_uri(pixels, 800)}


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    return sum(known) / len(known) if known else math.nan


def percent(value: float) -> str:
    """ "12.3"."""
    return f"{100 * value:.1f}" if math.isfinite(value) else "–"


def points(value: float) -> str:
    """ "+1.2", "−0.3" or "0.0", of a difference between shares."""
    shown = f"{100 * value:+.1f}".replace("-", "−") if math.isfinite(value) else "–"
    return shown.lstrip("+−") if shown in ("+0.0", "−0.0") else shown
