"""Warnings: the traps of under-trained scratch curves, each with figures as they were once measured."""

from __future__ import annotations

import numpy as np
import pytest
from simulated_sweeps import RATIOS, exact, noisy

from liftgs.scaling.arms import Arm
from liftgs.scaling.fairness import warnings
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
    assert "multipliers are too large" in said


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
