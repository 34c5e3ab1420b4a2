"""Arms of a sweep as the statistics want them. Knows what a sweep stores, and no page."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool

from liftgs.scaling.arms import Arm
from liftgs.scaling.estimate import DRAWS, LEVEL, Estimate, from_draws
from liftgs.scaling.resample import resample
from liftgs_platform.sweep_results import SweepResults


def arm_of(results: SweepResults, metric: str, mix: str, control: str = "") -> Arm | None:
    """The finetuned networks of an arm, or None if it has none with this metric."""
    ratios, _, values = results.scores(mix, metric, control)
    kept = (ratios > 0) & np.isfinite(values[..., :1]).any(axis=(1, 2))
    return Arm(ratios[kept], values[kept]) if kept.any() else None


def levels(results: SweepResults, metric: str, mix: str, control: str = "") -> list[tuple[float, Estimate]]:
    """The mean over seeds at each ratio of an arm, zero-shot too; NaN ends where no ratio has a second seed."""
    ratios, _, values = results.scores(mix, metric, control)
    bare = (ratios == 0) & np.isfinite(values[..., :1]).any(axis=(1, 2))
    made: list[tuple[float, Estimate]] = []
    if bare.any():  # an arm of its own, as zero-shot networks spread in their own way; its ratio is only a name
        made += [(0.0, level) for _, level in _means(Arm(np.ones(1), values[bare]))]
    finetuned = arm_of(results, metric, mix, control)
    return made + (_means(finetuned) if finetuned else [])


def _means(arm: Arm) -> list[tuple[float, Estimate]]:
    drawn, _ = resample(arm, arm, DRAWS, 0)
    return [
        (float(ratio), from_draws(float(mean), draws, LEVEL))
        for ratio, mean, draws in zip(arm.ratios, arm.means, drawn.T, strict=True)
    ]


def plateaus(results: SweepResults, metric: str, mix: str, arm: Arm) -> Bool[np.ndarray, "ratios seeds"]:
    """Whether each network of `arm_of` the same stopped at its plateau; missing ones count as if."""
    _, seeds, _ = results.scores(mix, metric)
    reached = {(c.ratio, c.seed): c.plateau for c in results.cells if (c.mix, c.control) == (mix, "")}
    return np.array([[reached.get((ratio, seed), True) for seed in seeds] for ratio in arm.ratios.tolist()])


def all_labels(results: SweepResults) -> int:
    """How many labelled scenes ratio 1 is; 0 if no network says."""
    counts = [(abs(c.ratio - 1), c.labelled_scenes / c.ratio) for c in results.cells if c.ratio and c.labelled_scenes]
    return round(min(counts)[1]) if counts else 0
