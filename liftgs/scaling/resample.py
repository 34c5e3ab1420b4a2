"""How the mean scores of two arms could have come out with other seeds and other evaluation scenes.

A hierarchical bootstrap. The scenes are resampled as they are given: one draw takes the same resample for every run of
both arms, so what all networks find hard cancels in a comparison. Resampling seeds the same way fails: the variance of
a mean over resampled seeds is 2/3 of the right one for 3 seeds, and the tails are missing besides. So the seeds' share
is drawn from a model of it:

- The seeds of an arm spread alike at all ratios, so their variance is pooled over the ratios: 3 seeds at 4 ratios have
  8 degrees of freedom, not 2. Each draw takes another variance that the same runs could have come from (scaled inverse
  chi-square), which spreads means as Student's t: for a single mean, the interval of the t-test (Gelman et al. 2013,
  Bayesian Data Analysis, section 3.2). For two arms of unlike variance that alone would be too wide, as in the problem
  of Behrens and Fisher; the variances are drawn under the prior whose intervals for a difference of two means hold
  their level best (Ghosh and Kim 2001, The Behrens-Fisher problem revisited).
- Where both arms ran a seed at a ratio, they had the same labels. The correlation of their deviations, pooled over
  ratios, is kept in the draws and in those of the variances, so what the labels do to both arms cancels too.
- Each run's own luck with the evaluation scenes is part of how the seeds spread, and resampled scenes show it again; a
  bootstrap over both counts it twice (Owen 2007, The pigeonhole bootstrap). It is how differently the runs of a ratio
  respond to a resample, and it is taken out of the seeds' variance, down to zero at most: with few seeds, intervals
  are a little wider than they need be where that luck is much of what sets seeds apart.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from liftgs.scaling.arms import Arm

#: With fewer degrees of freedom among paired runs, a correlation is guesswork, and arms count as independent (wider).
_LEAST_PAIRED = 3


def resample(
    first: Arm, second: Arm, draws: int, seed: int
) -> tuple[Float[np.ndarray, "draws ratios"], Float[np.ndarray, "draws other"]]:
    """Mean scores of both arms as they could have come out.

    Args:
        first: one arm.
        second: another, evaluated on the same resamples; its ratios may be other ones.
        draws: how many.
        seed: of the draws.

    Returns:
        Means over seeds by draw and ratio, of each arm. All NaN for an arm with one seed at every ratio: nothing is
        known then of how its scores spread.

    Raises:
        ValueError: the arms have different numbers of resamples, or no usable one in common.
    """
    if first.scores.shape[2] != second.scores.shape[2]:
        raise ValueError("the arms have different numbers of resamples, so those cannot be of the same scenes")
    usable = 1 + np.flatnonzero(first.usable & second.usable)
    if not len(usable):
        raise ValueError("no resample of the scenes gives every run of both arms a score")
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(np.arange(draws) % len(usable))
    correlation = _correlation(first, second)
    scales = _variance_scales(rng, draws, first, second, correlation)
    noises = _noises(rng, draws, first, second, correlation)
    means = []
    for arm, scale, noise in zip((first, second), scales, noises, strict=True):
        moves = arm.scores[..., usable] - arm.scores[..., usable].mean(axis=2, keepdims=True)
        variance = seed_variance(arm) * scale[:, None] - _luck(moves)
        means.append(
            arm.means + np.nanmean(moves, axis=1).T[chosen] + noise * np.sqrt(np.maximum(variance, 0.0) / arm.seeds)
        )
    return means[0], means[1]


def freedom(arm: Arm) -> int:
    """Degrees of freedom of the spread of seeds."""
    return int((arm.seeds - 1).sum())


def seed_variance(arm: Arm) -> float:
    """Of single runs around the mean of their ratio, pooled over ratios; NaN if no ratio has two."""
    squares = float(np.nansum(_deviations(arm) ** 2))
    return squares / freedom(arm) if freedom(arm) else float("nan")


def _deviations(arm: Arm) -> Float[np.ndarray, "ratios seeds"]:
    return arm.scores[..., 0] - arm.means[:, None]


def _luck(moves: Float[np.ndarray, "ratios seeds draws"]) -> float:
    """Variance of a single run's score from its own luck with the scenes, beside what all runs of its ratio share."""
    ran = ~np.isnan(moves[..., :1])
    spare = ran.sum(axis=1, keepdims=True) - 1
    own = np.nansum((moves - np.nanmean(moves, axis=1, keepdims=True)) ** 2)
    return float(own / max(1, spare.sum() * moves.shape[2]))


def _pairs(first: Arm, second: Arm) -> tuple[Int[np.ndarray, " both"], Int[np.ndarray, " both"], int]:
    """Rows of the ratios that both arms have, in each, and how many seeds both could have."""
    rows, others = np.nonzero(np.isclose(first.ratios[:, None], second.ratios))
    return rows, others, min(first.scores.shape[1], second.scores.shape[1])


def _correlation(first: Arm, second: Arm) -> float:
    """Of the deviations of runs with the same ratio and seed; 0 if too few to tell, 1 of an arm and itself."""
    if first is second:
        return 1.0
    rows, others, seeds = _pairs(first, second)
    ours, theirs = first.scores[rows, :seeds, 0], second.scores[others, :seeds, 0]
    both = ~np.isnan(ours + theirs)
    count = both.sum(axis=1, keepdims=True)
    ours, theirs = (
        np.where(both, part - np.where(both, part, 0).sum(axis=1, keepdims=True) / np.maximum(count, 1), 0)
        for part in (ours, theirs)
    )
    power = np.sum(ours**2) * np.sum(theirs**2)
    if np.maximum(count - 1, 0).sum() < _LEAST_PAIRED or power == 0:
        return 0.0
    return float(np.clip(np.sum(ours * theirs) / np.sqrt(power), -1, 1))


def _variance_scales(
    rng: np.random.Generator, draws: int, first: Arm, second: Arm, correlation: float
) -> tuple[Float[np.ndarray, " draws"], Float[np.ndarray, " draws"]]:
    """What to multiply the arms' estimated variances by. Those of correlated runs are off in the same direction.

    The matching prior, (a^2 + b^2) / (a b)^3 over standard deviations a and b, is a mixture: of one variance, drawn in
    proportion to its estimate, nothing is known before, and of the other as much as two more runs would tell; less for
    correlated arms, whose variances are not two independent unknowns.
    """
    freedoms, variances = (freedom(first), freedom(second)), (seed_variance(first), seed_variance(second))
    shared = min(freedoms)
    squares = [np.sum(part**2, axis=1) for part in _correlated(rng, (draws, shared), np.full(shared, correlation))]
    known = (1 - correlation**2) * rng.chisquare(2, draws)
    second_known = rng.random(draws) * np.nansum(variances) <= np.nan_to_num(variances[0])
    scales = []
    for own, square, is_known in zip(freedoms, squares, (~second_known, second_known), strict=True):
        rest = rng.chisquare(own - shared, draws) if own > shared else 0.0
        scales.append(own / (square + rest + known * is_known) if own else np.full(draws, np.nan))
    return scales[0], scales[1]


def _noises(
    rng: np.random.Generator, draws: int, first: Arm, second: Arm, correlation: float
) -> tuple[Float[np.ndarray, "draws ratios"], Float[np.ndarray, "draws other"]]:
    """Normals for the means of each arm, correlated at the ratios that both have by their share of common seeds."""
    rows, others, seeds = _pairs(first, second)
    common = (first.ran[rows, :seeds] & second.ran[others, :seeds]).sum(axis=1)
    share = common / np.sqrt(first.seeds[rows] * second.seeds[others])
    ours, theirs = rng.normal(size=(draws, len(first.ratios))), rng.normal(size=(draws, len(second.ratios)))
    ours[:, rows], theirs[:, others] = _correlated(rng, (draws, len(rows)), share * correlation)
    return ours, theirs


def _correlated(
    rng: np.random.Generator, shape: tuple[int, int], correlation: Float[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, "draws n"], Float[np.ndarray, "draws n"]]:
    """Pairs of standard normals."""
    ours, fresh = rng.normal(size=shape), rng.normal(size=shape)
    return ours, correlation * ours + np.sqrt(1 - correlation**2) * fresh
