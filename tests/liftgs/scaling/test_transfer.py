"""Effective data transferred and its power law."""

from __future__ import annotations

import math

import numpy as np
import pytest
from simulated_sweeps import RATIOS, exact, holds

from liftgs.scaling.arms import Arm
from liftgs.scaling.simulate import World, simulate
from liftgs.scaling.transfer import transfer

WIDE = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)


def line(r: float) -> float:
    return 0.5 + 0.1 * math.log(r)


def test_a_power_law_is_found_again() -> None:
    """D_T = 3 D_F^.6 of 80 scenes."""
    scratch = exact(WIDE, [line(r) for r in WIDE])
    ratios = [0.1, 0.2, 0.5]
    found = transfer(scratch, exact(ratios, [line(r + 3 * (80 * r) ** 0.6 / 80) for r in ratios]), 80, draws=50)
    assert found.scenes == pytest.approx((8, 16, 40))
    assert [one.value for one in found.transferred] == pytest.approx([3 * d**0.6 for d in (8, 16, 40)], rel=1e-5)
    assert found.law is not None
    for one, truth in ((found.law.k, 3), (found.law.alpha, 0.6)):
        assert (one.value, one.low, one.high) == pytest.approx((truth, truth, truth), rel=1e-4)


def test_a_constant_multiplier_has_exponent_one() -> None:
    world, held = World(seed_sd=0.01), []
    for n in range(30):
        arms = simulate(world, WIDE, (0.05, 0.1, 0.2, 0.5), 5, 100, np.random.default_rng(n))
        law = transfer(*arms, 80, draws=200, seed=n).law
        held.append(law is not None and holds(law.alpha, 1) and holds(law.k, 1))
    assert np.mean(held) > 0.8


def test_two_points_make_no_law() -> None:
    scratch = exact(RATIOS, [line(r) for r in RATIOS])
    found = transfer(scratch, exact([0.1, 0.2, 1.0], [line(0.2), line(0.4), line(2)]), 80, draws=20)
    assert found.law is None
    assert [one.censored for one in found.transferred] == ["", "", "above"]
    assert found.transferred[2].value == pytest.approx(0)


def test_harm_is_negative_data_and_no_point_of_the_law() -> None:
    scratch = exact(RATIOS, [line(r) for r in RATIOS])
    found = transfer(scratch, exact([0.1, 0.2, 0.5, 1.0], [line(0.2), line(0.15), line(0.9), line(0.95)]), 80, draws=20)
    assert found.transferred[1].value == pytest.approx(-4)
    assert found.law is None


def test_draws_that_say_nothing_open_the_law() -> None:
    """Multipliers so close to 1 that in nearly half of the draws no two ratios have positive transfer."""
    ratios = [0.1, 0.2, 0.5]
    even = exact(ratios, [line(1.02 * r) for r in ratios], seeds=3)
    pretrained = Arm(even.ratios, even.scores + 0.04 * np.array([-1, 0, 1])[:, None])
    scratch = exact(WIDE, [line(r) for r in WIDE], seeds=3)
    law = transfer(scratch, pretrained, 80, draws=400).law
    assert law is not None
    assert law.alpha.value == pytest.approx(1, abs=1e-3)
    assert (law.alpha.low, law.alpha.high) == (-math.inf, math.inf)
    assert (law.k.low, law.k.high) == (0, math.inf)


def test_one_seed_has_a_law_without_limits() -> None:
    scratch = exact(WIDE, [line(r) for r in WIDE], seeds=1)
    law = transfer(scratch, exact([0.1, 0.2, 0.5], [line(0.2), line(0.4), line(1)], seeds=1), 80, draws=20).law
    assert law is not None
    assert law.alpha.value == pytest.approx(1)
    assert math.isnan(law.alpha.low)
