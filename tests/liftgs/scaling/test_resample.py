"""Draws of mean scores: their spread against theory, and what cancels between arms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from simulated_sweeps import RATIOS, exact, noisy, without

from liftgs.scaling.arms import Arm
from liftgs.scaling.resample import freedom, resample, seed_variance
from liftgs.scaling.simulate import World

ONLY_SEEDS = World(scene_sd=0, arm_scene_sd=0, run_scene_sd=0, label_share=0)
ONLY_SCENES = World(seed_sd=0, run_scene_sd=0)
DRAWS = 40_000


def test_one_mean_has_the_interval_of_the_t_test() -> None:
    """Three seeds at one ratio: an interval 2.2 times as wide as the normal one, and nothing like a percentile's."""
    scores = np.repeat(np.array([[[0.31], [0.34], [0.36]]]), 3, axis=2)
    arm = Arm(np.array([1.0]), scores)
    drawn, _ = resample(arm, exact([1.0], [0.3], seeds=3, resamples=2), DRAWS, seed=0)
    values = scores[0, :, 0]
    low, high = stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
    assert np.quantile(drawn, [0.025, 0.975]) == pytest.approx([low, high], abs=0.003)
    drawn, again = resample(arm, arm, DRAWS, seed=0)
    assert np.quantile(drawn, [0.025, 0.975]) == pytest.approx([low, high], abs=0.003)
    np.testing.assert_array_equal(drawn, again)


def test_seeds_of_all_ratios_tell_how_far_they_spread() -> None:
    scratch, _ = noisy(0, ONLY_SEEDS)
    assert freedom(scratch) == 8
    assert seed_variance(scratch) == pytest.approx(scratch.scores[..., 0].var(axis=1, ddof=1).mean())
    drawn, _ = resample(scratch, exact(RATIOS, [0.1] * 4, resamples=200), DRAWS, seed=0)
    standard_error = math.sqrt(seed_variance(scratch) / 3)
    assert drawn.std(axis=0) == pytest.approx(standard_error * math.sqrt(8 / 6), rel=0.05)  # of Student's t
    assert drawn.mean(axis=0) == pytest.approx(scratch.means, abs=standard_error / 30)


def test_ragged_seeds_spread_by_how_many_they_are() -> None:
    scratch, pretrained = noisy(0, ONLY_SEEDS, seeds=9)
    scratch = without(scratch, *((0, seed) for seed in range(1, 9)))
    drawn, _ = resample(scratch, pretrained, DRAWS, seed=0)
    spread = drawn.std(axis=0)
    assert spread[0] / spread[1] == pytest.approx(3, rel=0.05)


def test_resampled_scenes_move_both_arms_together() -> None:
    scratch, pretrained = noisy(0, World(seed_sd=0, run_scene_sd=0, arm_scene_sd=0), resamples=500)
    ours, theirs = resample(scratch, pretrained, 500, seed=0)
    assert ours.std(axis=0) == pytest.approx(0.02, rel=0.25)  # 0.2 over 100 scenes
    assert np.ptp(theirs - ours, axis=0) == pytest.approx(0, abs=1e-9)


def test_labels_that_both_arms_share_move_them_together() -> None:
    same = World(label_share=1, scene_sd=0, arm_scene_sd=0, run_scene_sd=0)
    ours, theirs = resample(*noisy(0, same, seeds=5), 1000, seed=0)
    assert ours.std(axis=0).min() > 0.004
    assert np.ptp(theirs - ours, axis=0) == pytest.approx(0, abs=1e-6)


def test_other_seeds_are_no_pairs() -> None:
    same = World(label_share=1, scene_sd=0, arm_scene_sd=0, run_scene_sd=0)
    scratch, pretrained = noisy(0, same, seeds=8)
    scratch = without(scratch, *((ratio, seed) for ratio in range(4) for seed in range(4)))
    pretrained = without(pretrained, *((ratio, seed) for ratio in range(4) for seed in range(4, 8)))
    ours, theirs = resample(scratch, pretrained, DRAWS, seed=0)
    assert np.corrcoef(ours[:, 0], theirs[:, 0])[0, 1] == pytest.approx(0, abs=0.03)


def test_luck_with_the_scenes_counts_once() -> None:
    """Runs that differ by nothing but their own luck with 100 scenes: of variance .15^2 / 100, over 20 seeds."""
    lucky = World(seed_sd=0, scene_sd=0, arm_scene_sd=0)
    spreads = [resample(*noisy(n, lucky, seeds=20, resamples=300), 3000, seed=n)[0].var(axis=0) for n in range(5)]
    assert np.mean(spreads) == pytest.approx(0.15**2 / 100 / 20, rel=0.25)  # twice that, were it counted twice


def test_an_arm_with_one_seed_everywhere_has_no_known_spread() -> None:
    scratch, pretrained = noisy(0)
    single = without(pretrained, *((ratio, seed) for ratio in range(4) for seed in (1, 2)))
    ours, theirs = resample(scratch, single, 50, seed=0)
    assert np.isfinite(ours).all()
    assert np.isnan(theirs).all()


def test_a_resample_that_an_arm_cannot_use_is_used_for_neither() -> None:
    scratch, pretrained = exact(RATIOS, [0.1, 0.2, 0.3, 0.4]), exact(RATIOS, [0.2, 0.3, 0.4, 0.5])
    ours, theirs = scratch.scores.copy(), pretrained.scores.copy()
    ours[:, :, 1], theirs[1, 0, 1] = 99.0, np.nan
    drawn, _ = resample(Arm(scratch.ratios, ours), Arm(scratch.ratios, theirs), 40, seed=0)
    assert drawn == pytest.approx(np.tile(scratch.means, (40, 1)))


def test_arms_of_other_resamples_are_refused() -> None:
    with pytest.raises(ValueError, match="different numbers of resamples"):
        resample(exact([1.0], [0.3], resamples=2), exact([1.0], [0.3], resamples=3), 10, seed=0)
