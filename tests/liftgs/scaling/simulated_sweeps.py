"""Arms made by hand, and how often simulated intervals hold the truth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from liftgs.scaling.arms import Arm
from liftgs.scaling.estimate import Estimate
from liftgs.scaling.simulate import World, simulate

RATIOS = (0.1, 0.2, 0.5, 1.0)
WORLD = World()


def exact(ratios: Sequence[float], means: Sequence[float], seeds: int = 2, resamples: int = 3) -> Arm:
    """Runs that all score the mean, on any scenes."""
    scores = np.broadcast_to(np.array(means)[:, None, None], (len(means), seeds, 1 + resamples))
    return Arm(np.array(ratios), scores)


def noisy(
    seed: int, world: World = WORLD, ratios: tuple[float, ...] = RATIOS, seeds: int = 3, resamples: int = 200
) -> tuple[Arm, Arm]:
    """A simulated sweep, both arms at the same ratios."""
    return simulate(world, ratios, ratios, seeds, resamples, np.random.default_rng(seed))


def holds(estimate: Estimate, truth: float) -> bool:
    """Whether the interval does."""
    return estimate.low <= truth <= estimate.high


def without(arm: Arm, *runs: tuple[int, int]) -> Arm:
    """The arm with some (ratio, seed) missing."""
    scores = arm.scores.copy()
    for run in runs:
        scores[run] = np.nan
    return Arm(arm.ratios, scores)
