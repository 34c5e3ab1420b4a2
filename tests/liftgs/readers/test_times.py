"""Association in time: the nearest, and what to interpolate between."""

import numpy as np
import pytest

from liftgs.readers.times import around, nearest


def test_the_nearest_is_the_nearest_and_the_earlier_in_a_tie():
    rng = np.random.default_rng(0)
    candidates, times = np.sort(rng.random(50)), rng.random(200) * 1.2 - 0.1
    index, gap = nearest(times, candidates)
    apart = np.abs(candidates[None] - times[:, None])
    np.testing.assert_array_equal(index, apart.argmin(1))
    np.testing.assert_array_equal(gap, apart.min(1))
    assert nearest(np.array([1.5]), np.array([1.0, 2.0]))[0] == 0


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        (100.05, (0, 1, 0.25)),
        (100.2, (0, 1, 1.0)),  # a gap of just the limit, which as binary numbers is a little more
        (101.0, None),  # in a long gap
        (100.204, (1, 1, 0.0)),  # in a long gap, but as good as at its edge
        (99.998, (0, 0, 0.0)),
        (99.9, None),
        (103.004, (3, 3, 0.0)),
        (103.1, None),
    ],
)
def test_values_are_interpolated_between_near_neighbours_only(time, expected):
    found = around(np.array([100.0, 100.2, 102.9, 103.0]), time, max_gap=0.2, same=0.005)
    assert (found is None) == (expected is None)
    if expected is not None:
        assert found == pytest.approx(expected)
