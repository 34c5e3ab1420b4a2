"""Effective data transferred: the labelled scenes that a pretraining stands in for, and how they grow with the labels.

Source: Hernandez, Kaplan, Henighan and McCandlish 2021, Scaling Laws for Transfer: D_T is the data a network from
scratch would need beside the D_F it has to score as the pretrained one, so D_T = (m - 1) D_F; at one network size, it
follows D_T = k D_F^alpha. Alpha 1 is a constant multiplier; with less, a pretraining is worth most where labels are
fewest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from liftgs.scaling.arms import Arm
from liftgs.scaling.estimate import DRAWS, LEVEL, Estimate, from_draws
from liftgs.scaling.multiplier import log_multipliers, multipliers

#: Ratios that a power law must pass near; through two, any does.
_LEAST_RATIOS = 3


@dataclass(frozen=True)
class PowerLaw:
    """D_T = k D_F^alpha, both in scenes.

    Attributes:
        k: scenes transferred to one labelled scene.
        alpha: exponent.
        ratios: of the points it is fitted to.
    """

    k: Estimate
    alpha: Estimate
    ratios: tuple[float, ...]


@dataclass(frozen=True)
class Transfer:
    """What a pretraining stands in for.

    Attributes:
        scenes: labelled scenes finetuned on, D_F, by ratio.
        transferred: effective data D_T in labelled scenes, by ratio; negative where the pretraining does harm.
        law: the fit, or None where fewer than three ratios have a positive D_T that is not censored.
    """

    scenes: tuple[float, ...]
    transferred: tuple[Estimate, ...]
    law: PowerLaw | None


def transfer(
    scratch: Arm, pretrained: Arm, labelled_scenes: float, draws: int = DRAWS, seed: int = 0, level: float = LEVEL
) -> Transfer:
    """The effective data that a pretraining transfers, and its power law.

    Args:
        scratch: see `multipliers`.
        pretrained: see `multipliers`.
        labelled_scenes: how many ratio 1 is.
        draws: of the bootstrap.
        seed: of the bootstrap.
        level: of the intervals.

    Raises:
        ValueError: as `multipliers`.
    """
    scenes = pretrained.ratios * labelled_scenes
    each = multipliers(scratch, pretrained, draws, seed, level).each
    transferred = tuple(one.rescaled(count, -count) for one, count in zip(each, scenes.tolist(), strict=True))
    values, drawn = (np.expm1(logs[..., :-1]) * scenes for logs in log_multipliers(scratch, pretrained, draws, seed))
    used = np.isfinite(values) & (values > 0)
    law = None
    if used.sum() >= _LEAST_RATIOS:
        law = _fit(scenes[used], values[used], drawn[:, used], level, tuple(pretrained.ratios[used].tolist()))
    return Transfer(tuple(scenes.tolist()), transferred, law)


def _fit(
    scenes: Float[np.ndarray, " n"],
    values: Float[np.ndarray, " n"],
    drawn: Float[np.ndarray, "draws n"],
    level: float,
    ratios: tuple[float, ...],
) -> PowerLaw:
    """By least squares of logarithms.

    A draw leaves out the ratios where its transfer is censored or not positive. One with fewer than two left says
    nothing, and counts as unboundedly low for the lower limits and as unboundedly high for the upper ones.
    """
    (log_k,), (alpha,) = _lines(np.log(scenes), values[None])
    log_ks, alphas = _lines(np.log(scenes), drawn)
    silent = np.isnan(alphas) & ~np.isnan(drawn).any(axis=1)

    def estimate(value: float, draws: Float[np.ndarray, " draws"]) -> Estimate:
        low = from_draws(value, np.where(silent, -np.inf, draws), level).low
        return Estimate(value, low, from_draws(value, np.where(silent, np.inf, draws), level).high)

    log = estimate(float(log_k), log_ks)
    k = Estimate(float(np.exp(log.value)), float(np.exp(log.low)), float(np.exp(log.high)))
    return PowerLaw(k, estimate(float(alpha), alphas), ratios)


def _lines(
    x: Float[np.ndarray, " n"], y: Float[np.ndarray, "rows n"]
) -> tuple[Float[np.ndarray, " rows"], Float[np.ndarray, " rows"]]:
    """Offsets and slopes of log y over x, by row; NaN with fewer than two finite, positive y."""
    weight = (np.isfinite(y) & (y > 0)).astype(np.float64)
    logs = np.log(np.where(weight > 0, y, 1.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        count = weight.sum(axis=1)
        mean_x, mean_y = weight @ x / count, (weight * logs).sum(axis=1) / count
        spread = x - mean_x[:, None]
        slope = (weight * spread * logs).sum(axis=1) / (weight * spread**2).sum(axis=1)
    slope = np.where(count >= 2, slope, np.nan)
    return mean_y - slope * mean_x, slope
