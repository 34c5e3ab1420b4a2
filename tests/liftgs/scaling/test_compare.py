"""Two arms at one ratio, and what a larger mix saves in labels."""

from __future__ import annotations

import math

import numpy as np
import pytest
from simulated_sweeps import RATIOS, exact, holds, noisy

from liftgs.scaling.compare import compare, finetuning_gains
from liftgs.scaling.simulate import World


def test_differences_by_hand() -> None:
    found = compare(exact([0.1, 1.0], [0.2, 0.3]), exact([0.5, 1.0], [0.1, 0.37]), [1.0], draws=20)
    assert (found.difference.value, found.difference.low, found.difference.high) == pytest.approx((0.07, 0.07, 0.07))
    assert found.chance == 1
    assert compare(exact([1.0], [0.3]), exact([1.0], [0.3]), [1.0], draws=20).chance == 0.5


def test_several_ratios_count_alike() -> None:
    one, other = exact([0.1, 0.5, 1.0], [0.2, 0.3, 0.4]), exact([0.1, 0.5, 1.0], [0.3, 0.1, 0.7])
    assert compare(one, other, [0.1, 0.5, 1.0], draws=20).difference.value == pytest.approx((0.1 - 0.2 + 0.3) / 3)


def test_swapping_the_arms_swaps_the_answer() -> None:
    one, other = noisy(0)
    forth, back = compare(one, other, [0.2], draws=20_000), compare(other, one, [0.2], draws=20_000)
    assert forth.difference.value == -back.difference.value
    assert forth.difference.low == pytest.approx(
        -back.difference.high, abs=0.1 * (forth.difference.high - forth.difference.low)
    )
    assert forth.chance == pytest.approx(1 - back.chance, abs=0.02)


@pytest.mark.parametrize("label_share", [0.0, 0.9])
def test_intervals_of_differences_hold_the_truth_as_often_as_they_say(label_share: float) -> None:
    world, sweeps = World(label_share=label_share), 100
    truth = world.curve(np.array([0.2])).item(), world.curve(np.array([0.4])).item()
    held = [
        holds(compare(*noisy(n, world), [0.2], draws=400, seed=n).difference, truth[1] - truth[0])
        for n in range(sweeps)
    ]
    assert abs(np.mean(held) - 0.95) < 2.6 * math.sqrt(0.05 * 0.95 / sweeps)


def test_a_ratio_that_was_not_run_is_named() -> None:
    with pytest.raises(ValueError, match="no ratio to compare at"):
        compare(exact([1.0], [0.3]), exact([1.0], [0.3]), [])
    with pytest.raises(ValueError, match=r"no run at ratio 0\.3"):
        compare(exact([1.0], [0.3]), exact([1.0], [0.3]), [0.3])


def test_one_seed_has_a_difference_without_a_chance() -> None:
    found = compare(*noisy(0, seeds=1), [0.2], draws=20)
    assert math.isnan(found.chance)
    assert math.isnan(found.difference.low)


def test_a_larger_mix_is_worth_as_many_more_labels_as_its_curve_lies_ahead() -> None:
    """The paper's "30 % more pretraining data equals 15 % more labels"."""
    base = exact(RATIOS, [0.5 + 0.1 * math.log(r) for r in RATIOS])
    more = exact([0.2, 0.5, 1.0], [0.5 + 0.1 * math.log(1.15 * r) for r in (0.2, 0.5, 1.0)])
    *inside, top = finetuning_gains(base, more, draws=20)
    assert [(gain.value, gain.censored) for gain in inside] == [(pytest.approx(0.15), "")] * 2
    assert (top.value, top.high, top.censored) == (pytest.approx(0), math.inf, "above")
