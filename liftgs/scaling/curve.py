"""Scores over ratios as monotone curves that can be read backwards: how many labels does a score take from scratch?

Three steps. Isotonic regression takes out the falls that noise makes, since more labels do not hurt a network trained
to its plateau. Between the measured ratios the curve is a monotone cubic in the logarithm of the ratio (Fritsch and
Butland 1984, as SciPy's PCHIP): accuracy over labels bends, and a chord lies below the bend, so that straight pieces
between .2 and .5 inflate a multiplier of 2 by 3 to 5 %; cubics leave less than 1 %. Last, each cubic is cut into short
straight pieces, which makes the curve exactly and cheaply invertible.

Everything works on stacks of curves with the same knots, since a bootstrap has thousands.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

#: Straight pieces for each cubic.
_PIECES = 4


@dataclass(frozen=True, eq=False)
class Curves:
    """Monotone, piecewise linear curves of scores over log ratio, with knots in common.

    Attributes:
        log_ratios: the knots, ascending.
        scores: one curve per row; never falls along a row.
    """

    log_ratios: Float[np.ndarray, " knots"]
    scores: Float[np.ndarray, "curves knots"]

    def inverse(self, scores: Float[np.ndarray, "curves points"]) -> Float[np.ndarray, "curves points"]:
        """Log of the least ratio at which each curve reaches the scores.

        The least, so that on a plateau it is the fewest labels that do, and a multiplier claims no more than it must.
        Nothing is extrapolated: a score above the top of a curve has inf, one below its bottom -inf.
        """
        columns = [self._inverse(column) for column in scores.T]
        return np.stack(columns, axis=1)

    def _inverse(self, score: Float[np.ndarray, " curves"]) -> Float[np.ndarray, " curves"]:
        below = (self.scores < score[:, None]).sum(axis=1)
        right = np.clip(below, 1, len(self.log_ratios) - 1)
        row = np.arange(len(score))
        start, stop = self.scores[row, right - 1], self.scores[row, right]
        # A score between two knots has a rise there; at or below the first knot, or above all, the share is not used.
        share = (score - start) / np.where(stop > start, stop - start, 1.0)
        x = self.log_ratios
        inside = np.where(below == 0, x[0], x[right - 1] + share * (x[right] - x[right - 1]))
        bounded = np.where(score < self.scores[:, 0], -np.inf, inside)
        return np.where(below == len(x), np.inf, bounded)

    def at(self, log_ratios: Float[np.ndarray, " points"]) -> Float[np.ndarray, "curves points"]:
        """Scores at ratios; beyond the ends, those of the ends."""
        knots = np.eye(len(self.log_ratios))
        hats = np.stack([np.interp(log_ratios, self.log_ratios, knot) for knot in knots])  # linear in the knots' scores
        return self.scores @ hats


def fit_curves(
    ratios: Float[np.ndarray, " ratios"],
    scores: Float[np.ndarray, "curves ratios"],
    weights: Float[np.ndarray, " ratios"],
) -> Curves:
    """The monotone curves through noisy scores.

    Args:
        ratios: ascending, at least two.
        scores: means over seeds, a row per curve.
        weights: of the ratios, usually how many seeds each has.

    Raises:
        ValueError: fewer than two ratios.
    """
    if len(ratios) < 2:
        raise ValueError("a curve needs scores at two ratios at least")
    return _bend(np.log(ratios), isotonic(scores, weights))


def isotonic(values: Float[np.ndarray, "rows n"], weights: Float[np.ndarray, " n"]) -> Float[np.ndarray, "rows n"]:
    """The nearest rows, by weighted squares, that never fall.

    By the min-max formula: a value is the greatest, over the starts up to it, of the least mean of a run from there to
    an end at or after it. For rows as short as these it is faster than pooling, since all rows go at once.

    Source: Robertson, Wright and Dykstra 1988, Order Restricted Statistical Inference, theorem 1.4.4.
    """
    n = values.shape[1]
    zero = np.zeros((len(values), 1))
    sums, weight = np.hstack([zero, np.cumsum(values * weights, axis=1)]), np.append(0.0, np.cumsum(weights))
    start, stop = np.arange(n)[:, None], np.arange(1, n + 1)[None]
    with np.errstate(divide="ignore", invalid="ignore"):  # runs that end before they start; no answer looks at them
        means = (sums[:, stop] - sums[:, start]) / (weight[stop] - weight[start])
    least = np.minimum.accumulate(means[:, :, ::-1], axis=2)[:, :, ::-1]
    fitted = np.stack([least[:, : i + 1, i].max(axis=1) for i in range(n)], axis=1)
    rises = (np.diff(values, axis=1) >= 0).all(axis=1, keepdims=True)
    return np.where(
        rises, values, np.maximum.accumulate(fitted, axis=1)
    )  # what rises already stays as it is, to the bit


def _bend(x: Float[np.ndarray, " n"], y: Float[np.ndarray, "rows n"]) -> Curves:
    """Monotone cubics through the points, in straight pieces."""
    gap = np.diff(x)
    slope = _slopes(gap, np.diff(y, axis=1) / gap)
    t = (np.arange(_PIECES) / _PIECES)[:, None]  # pieces in front, then gaps
    knots = (x[:-1] + t * gap).T.ravel()
    hermite = (
        (1 + 2 * t) * (1 - t) ** 2 * y[:, None, :-1]
        + t * (1 - t) ** 2 * gap * slope[:, None, :-1]
        + t**2 * (3 - 2 * t) * y[:, None, 1:]
        - t**2 * (1 - t) * gap * slope[:, None, 1:]
    )
    scores = np.hstack([hermite.transpose(0, 2, 1).reshape(len(y), -1), y[:, -1:]])
    return Curves(np.append(knots, x[-1]), np.maximum.accumulate(scores, axis=1))  # rounding must not make it fall


def _slopes(gap: Float[np.ndarray, " gaps"], rise: Float[np.ndarray, "rows gaps"]) -> Float[np.ndarray, "rows n"]:
    """Of the cubics at the points: harmonic means of both sides inside, a parabola's at the ends, kept monotone."""
    if len(gap) == 1:
        return np.repeat(rise, 2, axis=1)
    before, after = rise[:, :-1], rise[:, 1:]
    first, second = 2 * gap[1:] + gap[:-1], gap[1:] + 2 * gap[:-1]
    climbs = (before > 0) & (after > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        inside = np.where(climbs, (first + second) / (first / before + second / after), 0.0)
    ends = [_end(gap[0], gap[1], rise[:, 0], rise[:, 1]), _end(gap[-1], gap[-2], rise[:, -1], rise[:, -2])]
    return np.hstack([ends[0][:, None], inside, ends[1][:, None]])


def _end(
    gap: float, next_gap: float, rise: Float[np.ndarray, " rows"], next_rise: Float[np.ndarray, " rows"]
) -> Float[np.ndarray, " rows"]:
    slope = ((2 * gap + next_gap) * rise - gap * next_rise) / (gap + next_gap)
    return np.clip(slope, 0.0, 3 * rise)
