"""What an arm refuses, and what it counts."""

from __future__ import annotations

import numpy as np
import pytest
from simulated_sweeps import exact, without

from liftgs.scaling.arms import Arm


def test_missing_runs_do_not_count() -> None:
    arm = without(exact([0.1, 1.0], [0.2, 0.4], seeds=3), (0, 2), (1, 0))
    assert arm.seeds.tolist() == [2, 2]
    np.testing.assert_allclose(arm.means, [0.2, 0.4])


def test_a_resample_without_a_score_for_a_run_is_left_out() -> None:
    scores = exact([0.1], [0.2], resamples=3).scores.copy()
    scores[0, 0, 2] = np.nan
    assert Arm(np.array([0.1]), scores).usable.tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("ratios", "scores", "wrong"),
    [
        ([0.1, 0.1], np.zeros((2, 1, 2)), "ascend"),
        ([0.0, 0.1], np.zeros((2, 1, 2)), "positive"),
        ([0.1], np.zeros((2, 1, 2)), "ratios, seeds, draws"),
        ([0.1], np.zeros((1, 1, 1)), "resample"),
        ([0.1, 0.2], np.array([[[1.0, 1.0]], [[np.nan, np.nan]]]), "no run at ratio 0.2"),
        ([0.1], np.array([[[np.nan, 1.0], [1.0, 1.0]]]), "none on all scenes"),
        ([0.1], np.array([[[np.inf, 1.0]]]), "infinite"),
        ([0.1], np.array([[[1.0, np.nan]]]), "no resample"),
    ],
)
def test_runs_that_cannot_be_used_are_refused(ratios: list[float], scores: np.ndarray, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        Arm(np.array(ratios), scores)


def test_a_ratio_is_found_despite_rounding() -> None:
    arm = exact([0.1, 0.3], [0.2, 0.4])
    assert arm.place(0.1 + 0.2) == 1
    with pytest.raises(ValueError, match=r"no run at ratio 0\.2, only at 0\.1, 0\.3"):
        arm.place(0.2)
