"""What was recorded at about the same time. Knows nothing of formats."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int64

_ROUNDING_S = 1e-9  # decimal time stamps are no binary numbers


def nearest(
    times: Float[np.ndarray, " n"], candidates: Float[np.ndarray, " m"]
) -> tuple[Int64[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Index of the nearest candidate (sorted, at least one) for each time, the earlier in a tie, and its distance."""
    after = np.searchsorted(candidates, times).clip(0, len(candidates) - 1)
    before = (after - 1).clip(0)
    use_before = np.abs(candidates[before] - times) <= np.abs(candidates[after] - times)
    chosen = np.where(use_before, before, after)
    return chosen, np.abs(candidates[chosen] - times)


def around(times: Float[np.ndarray, " n"], time: float, max_gap: float, same: float) -> tuple[int, int, float] | None:
    """What to interpolate between for a value at `time`.

    Args:
        times: of the values; sorted, at least one.
        time: wanted.
        max_gap: values farther apart say nothing of the time between them.
        same: a value that near is taken as it is where there is nothing to interpolate between.

    Returns:
        Indices of the values before and after, and how far it is from the one to the other (0 to 1); None if too far.
    """
    after = int(np.searchsorted(times, time))
    if 0 < after < len(times) and times[after] - times[after - 1] <= max_gap + _ROUNDING_S:
        return after - 1, after, float((time - times[after - 1]) / (times[after] - times[after - 1]))
    index, gap = nearest(np.array([time]), times)
    return (int(index[0]), int(index[0]), 0.0) if gap[0] <= same + _ROUNDING_S else None
