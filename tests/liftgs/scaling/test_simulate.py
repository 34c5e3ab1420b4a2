"""The simulator: what it says of its worlds is so."""

from __future__ import annotations

import numpy as np
import pytest
from simulated_sweeps import RATIOS

from liftgs.scaling.simulate import World, simulate


def test_the_pretrained_curve_is_the_scratch_curve_at_more_labels() -> None:
    silent = World(multiplier=2.5, seed_sd=0, scene_sd=0, arm_scene_sd=0, run_scene_sd=0)
    scratch, pretrained = simulate(silent, RATIOS, (0.2, 0.5), 2, 3, np.random.default_rng(0))
    assert scratch.means == pytest.approx(silent.curve(np.array(RATIOS)))
    assert pretrained.means == pytest.approx(silent.curve(2.5 * np.array([0.2, 0.5])))
    assert silent.curve(np.array([0.1])) == pytest.approx(silent.bottom)


def test_deviations_are_as_large_and_as_shared_as_the_world_says() -> None:
    world = World(seed_sd=0.02, seed_slope=0.5, label_share=0.6, scene_sd=0, arm_scene_sd=0, run_scene_sd=0)
    arms = simulate(world, RATIOS, RATIOS, 4000, 1, np.random.default_rng(0))
    scratch, pretrained = (arm.scores[..., 0] for arm in arms)
    assert scratch.std(axis=1) == pytest.approx(0.02 * np.array(RATIOS) ** -0.5, rel=0.05)
    assert np.corrcoef(scratch[1], pretrained[1])[0, 1] == pytest.approx(0.6, abs=0.04)
    assert np.corrcoef(scratch[1], pretrained[2])[0, 1] == pytest.approx(0, abs=0.05)


def test_resamples_are_of_the_same_scenes_for_all() -> None:
    world = World(seed_sd=0, arm_scene_sd=0, run_scene_sd=0)
    scratch, pretrained = simulate(world, RATIOS, (0.1,), 2, 400, np.random.default_rng(0))
    moves = scratch.scores - scratch.scores[..., :1]
    assert np.ptp(moves, axis=(0, 1)) == pytest.approx(0, abs=1e-12)
    assert pretrained.scores[0, 0] - pretrained.scores[0, 0, 0] == pytest.approx(moves[0, 0])
    assert moves[0, 0].std() == pytest.approx(world.scene_sd / 10, rel=0.2)
