"""The data multiplier: how many times the labels would scratch need to score as the pretrained network does?

Of a ratio r, m(r) = S^-1(P(r)) / r, where S is the from-scratch curve and P the pretrained mean. Of all ratios, the m
that fits P(r) = S(m r) best.

A percentile interval of m is a test read backwards, since S never falls: the upper limit is the m above which
more than 97.5 % of the draws have P(r) < S(m r). That difference is nearly linear in the scores, however skewed or
endless m itself is, so intervals hold their level also where S is nearly flat, and where m is censored.

`benchmarks.multiplier` measures how often they hold the truth: 94 to 97 % from 3 seeds on, for smooth curves that bend
as a saturating power law does and ratios at most 2.5 times apart; more often where the truth is at the top of S or
beyond, and the interval open. Where seeds spread twice as far at ratio .1 as at 1, it is 92 % at .1. A step of S
between two ratios would be read wrongly by any method: only more ratios tell it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from liftgs.scaling.arms import Arm
from liftgs.scaling.curve import Curves, fit_curves
from liftgs.scaling.estimate import DRAWS, LEVEL, Estimate, from_logs
from liftgs.scaling.resample import resample

#: Differences of sums of squares below this share of the largest sum are rounding.
_ROUNDING = 1e-14


@dataclass(frozen=True, eq=False)
class Multipliers:
    """What one pretraining is worth.

    Attributes:
        ratios: of the pretrained runs.
        seeds: pretrained runs of each ratio.
        each: the multiplier at each ratio.
        overall: one multiplier for all.
    """

    ratios: tuple[float, ...]
    seeds: tuple[int, ...]
    each: tuple[Estimate, ...]
    overall: Estimate


def multipliers(scratch: Arm, pretrained: Arm, draws: int = DRAWS, seed: int = 0, level: float = LEVEL) -> Multipliers:
    """The data multiplier of a pretraining, with intervals.

    Args:
        scratch: runs from scratch, trained to their plateau (`liftgs.scaling.fairness`), at two ratios or more; each
            ratio beyond 1 leaves fewer multipliers censored.
        pretrained: runs that start from the pretraining.
        draws: of the bootstrap.
        seed: of the bootstrap.
        level: of the intervals.

    Raises:
        ValueError: one ratio in `scratch`, or arms that were not evaluated on the same resamples.
    """
    values, drawn = log_multipliers(scratch, pretrained, draws, seed)
    sets = [*pretrained.ratios[:, None], pretrained.ratios]
    estimates = tuple(
        from_logs(value, column, _bounds(scratch, ratios), level)
        for value, column, ratios in zip(values, drawn.T, sets, strict=True)
    )
    seeds = tuple(pretrained.seeds.tolist())
    return Multipliers(tuple(pretrained.ratios.tolist()), seeds, estimates[:-1], estimates[-1])


def log_multipliers(
    scratch: Arm, pretrained: Arm, draws: int, seed: int
) -> tuple[Float[np.ndarray, " ratios1"], Float[np.ndarray, "draws ratios1"]]:
    """Log multipliers at every ratio of the pretrained arm and, last, overall: of the runs as they are, and drawn.

    Infinite where censored. Draws are NaN where nothing is known of how an arm's scores spread. Equal arguments give
    equal draws, so that what is computed from them belongs together.
    """
    value = _solve(scratch, pretrained, scratch.means[None], pretrained.means[None])[0]
    return value, _solve(scratch, pretrained, *resample(scratch, pretrained, draws, seed))


def _solve(
    scratch: Arm,
    pretrained: Arm,
    scratch_means: Float[np.ndarray, "draws other"],
    pretrained_means: Float[np.ndarray, "draws ratios"],
) -> Float[np.ndarray, "draws ratios1"]:
    curves = fit_curves(scratch.ratios, scratch_means, scratch.seeds)
    x = np.log(pretrained.ratios)
    each = curves.inverse(pretrained_means) - x
    overall = fit_shift(curves, x, pretrained_means, pretrained.seeds)
    solved = np.hstack([each, overall[:, None]])
    known = np.isfinite(scratch_means).all(axis=1) & np.isfinite(pretrained_means).all(axis=1)
    return np.where(known[:, None], solved, np.nan)


def fit_shift(
    curves: Curves,
    x: Float[np.ndarray, " points"],
    scores: Float[np.ndarray, "curves points"],
    weights: Float[np.ndarray, " points"],
) -> Float[np.ndarray, " curves"]:
    """How far along log ratio each curve must be moved to fit the points best, by weighted squares in score.

    Beyond its ends a curve counts as level. A point above its top thus wants the curve moved until its top is reached
    there, and is indifferent to more; what is left of its distance stays the same. Of equal fits, the least shift; but
    where the largest is as good and the points lie above the curve even so, none is too large, as where a curve is
    level throughout. The sum of squares is a parabola between neighbouring shifts at which some point passes a knot, so
    its least value is found without iterating.

    Args:
        curves: one per row of `scores`.
        x: log ratios of the points.
        scores: their scores.
        weights: of the points.

    Returns:
        The shifts; inf where no shift is too large, -inf where none is too small.
    """
    passes = np.unique(np.round((curves.log_ratios[:, None] - x).ravel(), 9))
    shifts = np.sort(np.concatenate([passes, (passes[1:] + passes[:-1]) / 2]))
    fitted = curves.at((shifts[:, None] + x).ravel()).reshape(len(scores), len(shifts), len(x))
    squares = (fitted - scores[:, None]) ** 2 @ weights
    start, middle, stop = squares[:, :-2:2], squares[:, 1::2], squares[:, 2::2]
    # In each gap: middle + tilt t + bend t^2 with t from -1 to 1.
    tilt, bend = (stop - start) / 2, np.maximum((stop + start) / 2 - middle, 0.0)
    rounding = _ROUNDING * squares.max(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(bend > rounding, np.clip(-tilt / (2 * bend), -1.0, 1.0), np.where(tilt < -rounding, 1.0, -1.0))
    least = middle + tilt * t + bend * t**2
    best = np.argmin(least > least.min(axis=1, keepdims=True) + rounding, axis=1)  # the first that is as good
    half = np.diff(passes) / 2
    shift = passes[best] + half[best] * (1 + t[np.arange(len(t)), best])
    as_good = squares[:, -1] <= least.min(axis=1) + rounding[:, 0]
    beyond = as_good & ((scores - fitted[:, -1]) @ weights > 1e-9)
    return np.where(beyond | (shift >= passes[-1] - 1e-9), np.inf, np.where(shift <= passes[0] + 1e-9, -np.inf, shift))


def _bounds(scratch: Arm, ratios: Float[np.ndarray, " n"]) -> tuple[float, float]:
    """The least and the greatest multiplier that the curve lets one state at these ratios."""
    return float(scratch.ratios[0] / ratios.max()), float(scratch.ratios[-1] / ratios.min())
