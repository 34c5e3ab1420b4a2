"""Warnings: the traps of under-trained scratch curves, each with figures as they were once measured."""

from __future__ import annotations

import numpy as np
import pytest
from simulated_sweeps import RATIOS, exact, noisy

from liftgs.scaling.arms import Arm
from liftgs.scaling.fairness import sound_up_to, warnings
from liftgs.scaling.multiplier import log_multipliers
from liftgs.scaling.simulate import World

ALL = np.ones((4, 2), bool)
#: AP25 from scratch by ratio, of runs that end at their plateau, and of runs with too few steps.
GROWN = [24.0, 40.0, 52.0, 60.0]
STARVED = [18.0, 27.0, 40.0, 35.0]
PRETRAINED = [26.0, 44.0, 55.0, 61.0]


def told(scratch: Arm, pretrained: Arm | None = None, plateau: np.ndarray = ALL, **more: Arm) -> list[str]:
    pretrained = pretrained or exact(RATIOS, PRETRAINED)
    return warnings(scratch, pretrained, plateau, np.ones(pretrained.ran.shape, bool), draws=200, **more)


def test_a_fair_sweep_is_not_blamed() -> None:
    assert told(exact(RATIOS, GROWN), same_compute=exact(RATIOS, GROWN)) == []


def test_runs_that_ended_before_their_plateau_are_counted() -> None:
    plateau = ALL.copy()
    plateau[1] = False
    plateau[3, 0] = False
    (said,) = told(exact(RATIOS, GROWN), plateau=plateau)
    assert said.startswith("Runs of scratch ended before any plateau was seen (2 of 2 at ratio 0.2, 1 of 2 at ratio 1)")
    assert "multipliers that end beyond ratio 0.1 are too large" in said


def test_what_unfinished_runs_leave_alone_is_told() -> None:
    plateau = ALL.copy()
    assert sound_up_to(exact(RATIOS, GROWN), plateau) == np.inf
    plateau[3, 0] = False
    assert sound_up_to(exact(RATIOS, GROWN), plateau) == 0.5
    assert sound_up_to(exact(RATIOS, STARVED), plateau) == 0.2  # .5 is pooled with 1
    plateau[0, 0] = False
    assert sound_up_to(exact(RATIOS, GROWN), plateau) == 0
    (said,) = told(exact(RATIOS, GROWN), plateau=np.where(np.arange(4) < 3, True, False)[:, None] & ALL)
    assert "multipliers that end beyond ratio 0.5 are too large" in said


@pytest.mark.parametrize("seed", range(20))
def test_no_multiplier_that_ends_on_sound_ground_is_too_large(seed: int) -> None:
    """However much higher the unfinished runs would have ended."""
    rng = np.random.default_rng(seed)
    scores = np.sort(rng.uniform(10, 50, 4)) + rng.normal(0, 3, 4)
    plateau = np.ones((4, 2), bool)
    plateau[rng.integers(1, 4) :] = False
    low = exact(RATIOS, scores.tolist())
    high = exact(RATIOS, np.where(plateau[:, 0], scores, scores + rng.uniform(0, 50, 4)).tolist())
    pretrained = exact(RATIOS, np.sort(rng.uniform(10, 60, 4)).tolist())
    sound = sound_up_to(low, plateau)
    before, after = (log_multipliers(scratch, pretrained, 1, 0)[0] for scratch in (low, high))
    ends = np.exp(before[:4]) * RATIOS
    assert (after[:4] >= before[:4] - 1e-9)[ends <= sound].all()
    if np.exp(before[4]) * max(RATIOS) <= sound:  # a best fit may give way where it fits badly
        assert after[4] >= before[4] - 0.02


def test_a_missing_run_cannot_be_unfinished() -> None:
    scratch = exact(RATIOS, GROWN)
    scores = scratch.scores.copy()
    scores[0, 1] = np.nan
    plateau = ALL.copy()
    plateau[0, 1] = False
    assert told(Arm(scratch.ratios, scores), plateau=plateau) == []


def test_a_scratch_curve_that_falls_is_under_trained() -> None:
    (warning,) = told(exact(RATIOS, STARVED))
    assert warning.startswith("Scratch falls from ratio 0.5 to 1,")


def test_a_fall_within_the_noise_is_told_as_flat() -> None:
    world = World(bottom=0.59, seed_sd=0.03)
    scratch, pretrained = noisy(0, world, seeds=2)
    assert (np.diff(scratch.means) < 0).any()
    assert [text[:33] for text in told(scratch, pretrained)] == ["Scratch does not measurably rise "] * 3


def test_more_steps_that_help_scratch_unmask_its_curve() -> None:
    """Scratch at ratio 1: 35 with the steps of finetuning, 60 with more; pretrained 43."""
    scratch, pretrained = exact(RATIOS, [18.0, 27.0, 33.0, 35.0]), exact(RATIOS, [26.0, 34.0, 40.0, 43.0])
    lead, gap = told(scratch, pretrained, same_compute=exact([1.0], [60.0]))
    assert lead.startswith("At ratio 1, scratch with more compute scores higher: what pretraining gains")
    assert lead.endswith("is compute, not data.")
    assert gap.startswith("At ratio 1, scratch scores higher with more steps")


def test_a_lead_of_more_compute_that_chance_may_explain_is_no_more_than_that() -> None:
    scratch, pretrained = noisy(0, World(seed_sd=0.05), seeds=2)
    same = Arm(pretrained.ratios[:1], pretrained.scores[:1] + 0.001)
    said = " ".join(told(scratch, pretrained, same_compute=same))
    assert "scratch with more compute scores no lower: what pretraining gains" in said
    assert "may be compute" in said
    assert "is compute, not data" not in said


def test_a_lone_seed_is_told() -> None:
    scratch, pretrained = (exact(RATIOS, means, seeds=1) for means in (GROWN, PRETRAINED))
    (warning,) = told(scratch, pretrained, plateau=ALL[:, :1])
    assert warning.startswith("Only one seed at every ratio")


def test_a_plateau_table_of_other_runs_is_refused() -> None:
    with pytest.raises(ValueError, match="scratch: plateaus of shape"):
        told(exact(RATIOS, GROWN), plateau=ALL[:3])
