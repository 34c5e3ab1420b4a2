"""The data multiplier: by hand, its laws, censoring, and whether its intervals hold the truth as often as they say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_sweeps import RATIOS, WORLD, exact, holds, noisy, without

from liftgs.scaling.arms import Arm
from liftgs.scaling.curve import fit_curves
from liftgs.scaling.multiplier import multipliers
from liftgs.scaling.simulate import World, simulate

WIDE = (0.1, 0.2, 0.5, 1.0, 2.0)


def line(r: float) -> float:
    return 0.5 + 0.1 * math.log(r)


def test_exact_on_a_curve_that_is_linear_in_log_ratio() -> None:
    scratch = exact(WIDE, [line(r) for r in WIDE])
    found = multipliers(scratch, exact([0.1, 0.2, 0.5], [line(1.7 * r) for r in (0.1, 0.2, 0.5)]), draws=50)
    for one in (*found.each, found.overall):
        assert (one.value, one.low, one.high) == pytest.approx((1.7, 1.7, 1.7), rel=1e-6)
        assert one.censored == ""


def test_equal_arms_have_multiplier_one() -> None:
    scratch, _ = noisy(3, World(seed_sd=0.002))
    assert (np.diff(scratch.means) > 0).all()
    found = multipliers(scratch, scratch, draws=50)
    assert [one.value for one in (*found.each, found.overall)] == pytest.approx([1.0] * 5, rel=1e-6)


def test_the_overall_multiplier_is_the_one_that_a_search_finds() -> None:
    scratch, pretrained = noisy(0)
    curve = fit_curves(scratch.ratios, scratch.means[None], scratch.seeds)
    tried = np.linspace(0.3, 9, 8701)
    scores = curve.at((np.log(tried)[:, None] + np.log(pretrained.ratios)).ravel()).reshape(len(tried), -1)
    best = tried[np.argmin(((scores - pretrained.means) ** 2).sum(axis=1))]
    assert multipliers(scratch, pretrained, draws=2).overall.value == pytest.approx(best, abs=2e-3)


@pytest.mark.parametrize("scratch_scores", [(0.3, 0.3, 0.3), (0.3, 0.2, 0.1), (0.1, 0.3, 0.3)])
def test_above_a_curve_that_ends_level_the_overall_multiplier_is_open_as_each_is(
    scratch_scores: tuple[float, ...],
) -> None:
    found = multipliers(exact([0.1, 0.2, 0.5], scratch_scores), exact([0.1, 0.5], [0.4, 0.5]), draws=20)
    assert [one.censored for one in (*found.each, found.overall)] == ["above"] * 3
    assert found.overall.value == pytest.approx(5.0), "from the lowest ratio to the top of the curve"


def test_below_a_level_curve_the_overall_multiplier_is_open_downwards() -> None:
    found = multipliers(exact([0.1, 0.5], [0.3, 0.3]), exact([0.1, 0.5], [0.1, 0.2]), draws=20)
    assert [one.censored for one in (*found.each, found.overall)] == ["below"] * 3


def test_ratios_with_more_seeds_weigh_more_overall() -> None:
    scratch = exact(RATIOS, [line(r) for r in RATIOS], seeds=4)
    scores = np.full((2, 4, 4), np.nan)
    scores[0], scores[1, 0] = line(0.1 * 1.5), line(0.2 * 2.0)
    found = multipliers(scratch, Arm(np.array([0.1, 0.2]), scores), draws=2)
    assert found.seeds == (4, 1)
    assert math.log(found.overall.value) == pytest.approx((4 * math.log(1.5) + math.log(2)) / 5, abs=1e-6)


def test_a_score_above_the_curve_is_a_lower_bound() -> None:
    scratch = exact(RATIOS, [line(r) for r in RATIOS])
    found = multipliers(scratch, exact([0.2, 0.5], [line(0.4), line(1.5)]), draws=50)
    inside, above = found.each
    assert (inside.censored, above.censored) == ("", "above")
    assert (above.value, above.low, above.high) == (pytest.approx(2), pytest.approx(2), math.inf)
    # What is left of the distance to the top says nothing of m, so the other ratio decides.
    assert found.overall.value == pytest.approx(2.0, rel=1e-6)
    everything = multipliers(scratch, exact([0.2, 0.5], [0.9, 0.9]), draws=50).overall
    assert (everything.censored, everything.value, everything.high) == ("above", pytest.approx(5), math.inf)


def test_a_score_below_the_curve_is_an_upper_bound() -> None:
    scratch = exact(RATIOS, [line(r) for r in RATIOS])
    found = multipliers(scratch, exact([0.2, 0.5], [0.01, 0.02]), draws=50)
    for one, bound in zip((*found.each, found.overall), (0.5, 0.2, 0.2), strict=True):
        assert (one.censored, one.value, one.low, one.high) == ("below", pytest.approx(bound), 0, pytest.approx(bound))


def test_an_interval_may_be_open_above_an_estimate_that_is_not() -> None:
    scratch, pretrained = noisy(1, World(multiplier=1.8, seed_sd=0.03))
    half = multipliers(scratch, pretrained, draws=500).each[2]
    assert half.censored == ""
    assert half.low < half.value < 2 < half.high == math.inf


@given(st.permutations(range(4)), st.integers(0, 20))
@settings(max_examples=15, deadline=None)
def test_the_order_of_seeds_means_nothing(order: list[int], seed: int) -> None:
    arms = noisy(seed, seeds=4, resamples=20)
    arms = (without(arms[0], (1, 2)), without(arms[1], (1, 2), (3, 0)))
    mixed = [Arm(arm.ratios, arm.scores[:, order]) for arm in arms]
    one, other = multipliers(*arms, draws=40), multipliers(*mixed, draws=40)
    for a, b in zip((*one.each, one.overall), (*other.each, other.overall), strict=True):
        assert (a.value, a.low, a.high) == pytest.approx((b.value, b.low, b.high), rel=1e-6)


@given(st.floats(0, 0.1), st.integers(0, 20))
@settings(max_examples=15, deadline=None)
def test_a_better_pretraining_is_worth_more(more: float, seed: int) -> None:
    scratch, pretrained = noisy(seed, resamples=20)
    better = Arm(pretrained.ratios, pretrained.scores + more)
    one, other = multipliers(scratch, pretrained, draws=40), multipliers(scratch, better, draws=40)
    for a, b in zip((*one.each, one.overall), (*other.each, other.overall), strict=True):
        for low, high in ((a.value, b.value), (a.low, b.low), (a.high, b.high)):
            assert high >= low * (1 - 1e-6)


@pytest.mark.parametrize("unit", [100.0, 1e-3])
def test_the_unit_of_the_scores_means_nothing(unit: float) -> None:
    arms = noisy(5)
    found = multipliers(*(Arm(arm.ratios, unit * arm.scores) for arm in arms), draws=100)
    same = multipliers(*arms, draws=100)
    for a, b in zip((*found.each, found.overall), (*same.each, same.overall), strict=True):
        assert (a.value, a.low, a.high) == pytest.approx((b.value, b.low, b.high), rel=1e-6)


def test_one_seed_has_a_value_and_no_interval() -> None:
    scratch, pretrained = noisy(0, seeds=1)
    for one in (*(found := multipliers(scratch, pretrained, draws=20)).each, found.overall):
        assert one.value > 0
        assert math.isnan(one.low)
        assert math.isnan(one.high)


def test_ratios_with_one_seed_borrow_the_spread_of_others() -> None:
    arms = noisy(0)
    arms = tuple(without(arm, (3, 1), (3, 2)) for arm in arms)  # type: ignore[assignment]
    full, ragged = multipliers(*noisy(0), draws=400).overall, multipliers(*arms, draws=400).overall
    assert ragged.high / ragged.low > full.high / full.low


@pytest.mark.parametrize(
    ("seeds", "ratios", "pretrained_ratios"), [(3, WIDE, WIDE[:3]), (3, RATIOS, RATIOS), (10, RATIOS, RATIOS)]
)
def test_intervals_hold_the_truth_as_often_as_they_say(
    seeds: int, ratios: tuple[float, ...], pretrained_ratios: tuple[float, ...]
) -> None:
    """Within what chance allows 100 sweeps; the benchmark has 1,000."""
    sweeps, rng = 100, np.random.default_rng(0)
    found = [
        multipliers(*simulate(WORLD, ratios, pretrained_ratios, seeds, 200, rng), draws=400, seed=n)
        for n in range(sweeps)
    ]
    for held in (
        np.mean([holds(one.overall, WORLD.multiplier) for one in found]),
        np.mean([holds(one.each[0], WORLD.multiplier) for one in found]),
        np.mean([holds(one.each[1], WORLD.multiplier) for one in found]),
    ):
        assert abs(held - 0.95) < 2.6 * math.sqrt(0.05 * 0.95 / sweeps)
