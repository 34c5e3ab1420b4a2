"""`report.html` of an evaluation: scores with intervals, classes, groups of expressions, best and worst rooms."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from liftgs_platform import storage
from liftgs_platform.evaluate_scores import AT_25, AT_50, FIGURES, NetworkScores, Scores, show
from liftgs_platform.report.drawing import data_uri
from liftgs_platform.report.page import fill

_CASES = 3


def write(output: str, scores: Scores) -> None:
    """Write the page: one file, with its pictures."""
    storage.write_bytes(storage.join(output, "report.html"), render(output, scores).encode())


def render(output: str, scores: Scores) -> str:
    """The page."""
    figures = [name for name in FIGURES if name in scores.networks[0].figures]
    last = scores.networks[-1]
    return fill(
        "evaluation",
        name=storage.name_of(output),
        uri=output,
        counted=scores.counted(),
        figures=[name.removesuffix(" all") for name in figures],
        rows=[_row(network, figures, scores) for network in scores.networks],
        first=scores.networks[0].name,
        names=[network.name for network in scores.networks],
        classes=_classes(scores),
        groups=_groups(scores),
        shown=last.name,
        cases=_cases(output, scores, last),
        bad=scores.bad,
    )


def _row(network: NetworkScores, figures: Sequence[str], scores: Scores) -> dict[str, Any]:
    """A line of the main table, with bars on one scale per figure."""
    top = {
        name: max((n.figures[name].high for n in scores.networks if not _nan(n.figures[name].high)), default=1)
        for name in figures
    }
    cells = []
    for name in figures:
        value, gain = network.figures[name], network.gain.get(name)
        scale = 100 / (top[name] or 1)
        known = not _nan(value.value)
        cells.append(
            {
                "text": f"{100 * value.value:.1f}" if known else "–",
                "range": f"{100 * value.low:.1f} to {100 * value.high:.1f}" if known else "",
                "at": value.value * scale if known else 0,
                "low": value.low * scale if known else 0,
                "width": (value.high - value.low) * scale if known else 0,
                "gain": show(gain) if gain else "",
                "clear": bool(gain and not _nan(gain.low) and (gain.low > 0 or gain.high < 0)),
            }
        )
    return {"name": network.name, "cells": cells}


def _classes(scores: Scores) -> list[dict[str, Any]]:
    """Classes with instances, by AP25 of the last network."""
    rows = []
    for number, name in enumerate(scores.classes):
        count = int(scores.networks[0].instances.instances[number])
        if count:
            values = [
                (n.instances.class_ap[number], n.instances.table[number, AT_50], n.instances.table[number, AT_25])
                for n in scores.networks
            ]
            rows.append(
                {
                    "name": name,
                    "count": count,
                    "values": [[_percent(v) for v in row] for row in values],
                    "by": values[-1][2],
                }
            )
    return sorted(rows, key=lambda row: -row["by"])


def _groups(scores: Scores) -> list[dict[str, Any]]:
    by_network = [{group.group: group for group in network.groups} for network in scores.networks]
    return [
        {
            "name": name,
            "count": group.expressions,
            "values": [[_percent(v) for v in of[name].accuracy] if name in of else [] for of in by_network],
        }
        for name, group in by_network[0].items()
    ]


def _cases(output: str, scores: Scores, network: NetworkScores) -> list[dict[str, Any]]:
    """The best and the worst scenes of a network, as every network answers them."""
    known = sorted((value, scene) for scene, value in network.of_scene.items() if not _nan(value))
    worst = known[:_CASES]
    picked = [("best", *case) for case in known[::-1][:_CASES]] + [("worst", *case) for case in worst]
    return [
        {
            "kind": kind,
            "scene": scene,
            "score": _percent(value),
            "pictures": [
                {
                    "name": other.name,
                    "score": _percent(other.of_scene[scene]),
                    "src": data_uri(_picture(storage.join(output, scores.pictures[other.name][scene])), 780),
                }
                for other in scores.networks
            ],
        }
        for kind, value, scene in picked
    ]


def _picture(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(storage.read_bytes(uri))).convert("RGB"))


def _percent(value: float) -> str:
    return "–" if _nan(value) else f"{100 * value:.1f}"


def _nan(value: float) -> bool:
    return math.isnan(value)
