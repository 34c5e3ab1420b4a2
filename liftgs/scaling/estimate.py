"""A figure with its interval, from bootstrap draws that may be censored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

#: "above": the truth may be any larger value, as the score lies above all of the scratch curve; "below": any smaller.
Censored = Literal["", "above", "below"]

#: Of the bootstrap; with so many, the limits themselves are sure to a fiftieth of an interval.
DRAWS = 2000

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval, which may be open to a side.

    Attributes:
        value: of the runs as they are; when `censored`, only the bound that can be stated.
        low: lower limit.
        high: upper limit, infinite where it is censored. Both limits are NaN where no ratio has a second seed.
        censored: on which side of `value` the truth lies, if `value` is a bound.
    """

    value: float
    low: float
    high: float
    censored: Censored = ""

    def rescaled(self, scale: float, shift: float) -> Estimate:
        """The estimate of `scale` x + `shift`, for a positive scale."""
        value, low, high = (scale * part + shift for part in (self.value, self.low, self.high))
        return Estimate(value, low, high, self.censored)


def from_draws(value: float, drawn: Float[np.ndarray, " draws"], level: float) -> Estimate:
    """The middle share of draws. Draws that are infinite count; NaN draws leave the interval unknown."""
    if np.isnan(drawn).any():
        return Estimate(value, float("nan"), float("nan"))
    low = np.quantile(drawn, (1 - level) / 2, method="lower")
    high = np.quantile(drawn, (1 + level) / 2, method="higher")
    return Estimate(value, float(low), float(high))


def from_logs(value: float, drawn: Float[np.ndarray, " draws"], bounds: tuple[float, float], level: float) -> Estimate:
    """Of a positive figure that is known only between bounds.

    Args:
        value: its logarithm, infinite if it is beyond a bound.
        drawn: draws of the same.
        bounds: the least and the greatest figure that can be stated.
        level: of the interval.
    """
    least, greatest = bounds
    logs = from_draws(value, drawn, level)
    # Where nearly all draws are beyond a bound, the limit towards them is the bound: nothing further is known.
    low, high = min(float(np.exp(logs.low)), greatest), max(float(np.exp(logs.high)), least)
    if np.isinf(value):
        return Estimate(*((greatest, low, high, "above") if value > 0 else (least, low, high, "below")))
    return Estimate(float(np.exp(value)), low, high)
