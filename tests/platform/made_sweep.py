"""Results of sweeps that never ran: saturating curves, a known multiplier, noise of seeds and scenes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from liftgs_platform.sweep_results import COMPUTE, SCRATCH, Cell, Planned, StageCost, SweepResults

RATIOS = (0.1, 0.2, 0.5, 1.0)
#: metric -> (top, how far below it nothing is, how fast labels help)
METRICS = {
    "AP25": (0.62, 0.55, 0.55),
    "AP50": (0.42, 0.4, 0.5),
    "Acc@.25 all": (0.8, 0.5, 0.6),
    "Acc@.5 all": (0.6, 0.5, 0.5),
}
CLASSES = ("chair", "table", "lamp", "bed", "shelf", "plant")


def score(metric: str, ratio: float) -> float:
    """From scratch, without noise; steep enough in log ratio that inverting it is well conditioned."""
    top, drop, power = METRICS[metric]
    return top - drop / (1 + (ratio / 0.3) ** power)


def made_sweep(
    multipliers: Mapping[str, float],
    ratios: Sequence[float] = RATIOS,
    scratch_ratios: Sequence[float] = (*RATIOS, 2.0),
    seeds: int = 3,
    draws: int = 60,
    noise: float = 0.006,
    plateau: bool = True,
    compute: float | None = 1.0,
    zero_shot: bool = True,
    **facts: Any,
) -> SweepResults:
    """A sweep whose mixes are worth `multipliers` times the labels."""
    rng = np.random.default_rng(0)
    scenes = rng.normal(0, noise, draws)
    rich = dict.fromkeys(multipliers, 0)

    def cell(mix: str, control: str, ratio: float, seed: int, multiplier: float) -> Cell:
        luck = np.random.default_rng([seed, int(1000 * ratio), *map(ord, mix), *map(ord, control)])
        figures, value = {}, 0.0
        for metric in METRICS:
            value = score(metric, max(ratio, 0.01) * multiplier) + luck.normal(0, noise)
            figures[metric] = [value, *(value + scenes + luck.normal(0, noise / 3, draws)).tolist()]
        base = figures["AP25"][0]
        return Cell(
            mix=mix,
            control=control,  # type: ignore[arg-type]
            ratio=ratio,
            seed=seed,
            figures=figures,
            classes={
                name: {
                    "AP25": base + 0.03 * i * (mix in rich) - 0.05 * i,
                    "AP50": base / 2,
                    "AP": base / 3,
                    "instances": 90.0 - 9 * i,
                }
                for i, name in enumerate(CLASSES)
            },
            groups={
                name: {
                    "Acc@.25": base + 0.1 - 0.04 * i,
                    "Acc@.5": base,
                    "Acc@.75": base / 2,
                    "expressions": 200.0 - 30 * i,
                }
                for i, name in enumerate(("all", "nearest", "on", "between"))
            },
            scenes={f"room-{i:02d}": float(np.clip(base + luck.normal(0, 0.1), 0, 1)) for i in range(12)},
            steps=2400 + 100 * seed,
            plateau=plateau,
            seconds=600.0,
            labelled_scenes=round(80 * ratio),
            stage=f"{len(figures):x}{seed}{round(1000 * ratio):04x}",
        )

    cells = [cell(SCRATCH, "", r, s, 1.0) for r in scratch_ratios for s in range(seeds)]
    if compute is not None:
        cells += [cell(SCRATCH, COMPUTE, r, s, compute) for r in ratios for s in range(seeds)]
    for mix, multiplier in multipliers.items():
        tried = (0.0, *ratios) if zero_shot else ratios
        cells += [cell(mix, "", r, s, multiplier) for r in tried for s in range(seeds)]
    stages = (
        StageCost("label", "rooms", "aa11", 900.0, False, len(multipliers) * seeds * len(ratios)),
        StageCost("pretrain", "A", "bb22", 4000.0, True, seeds * len(ratios)),
        StageCost("finetune", "A 0.1", "cc33", 600.0, False, 1),
        StageCost("evaluate", "A 0.1", "dd44", 60.0, False, 1),
    )
    return SweepResults(
        **{
            "name": "finetune_scaling",
            "task_metric": "AP25",
            "cells": tuple(cells),
            "stages": stages,
            "planned": tuple(Planned(c.mix, c.control, c.ratio, c.seed) for c in cells),
            "axes": {"ratio": list(scratch_ratios), "seed": list(range(seeds)), "mix": [SCRATCH, *multipliers]},
            "provenance": {"code": "0.1.0+abc", "spec": "job: sweep\nratios: [0.1, 0.2]\n", "machine": {"cpus": 2}},
            **facts,
        }
    )
