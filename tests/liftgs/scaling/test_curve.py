"""The from-scratch curve: isotonic regression against pooling, cubics against SciPy's, and reading backwards."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import PchipInterpolator

from liftgs.scaling.curve import fit_curves, isotonic

values = st.lists(st.tuples(st.floats(-1, 1), st.integers(1, 9)), min_size=2, max_size=7)


def pool(values: list[float], weights: list[float]) -> list[float]:
    """Pool adjacent violators, one at a time: blocks of (mean, weight, length)."""
    blocks: list[tuple[float, float, int]] = []
    for value, weight in zip(values, weights, strict=True):
        blocks.append((value, weight, 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (m1, w1, n1), (m2, w2, n2) = blocks[-2:]
            blocks[-2:] = [((m1 * w1 + m2 * w2) / (w1 + w2), w1 + w2, n1 + n2)]
    return [mean for mean, _, length in blocks for _ in range(length)]


@given(values)
def test_isotonic_regression_is_pooling_of_adjacent_violators(rows: list[tuple[float, int]]) -> None:
    y, weights = (np.array(column, np.float64) for column in zip(*rows, strict=True))
    found = isotonic(np.stack([y, y[::-1]]), weights)
    assert (np.diff(found, axis=1) >= 0).all()
    np.testing.assert_allclose(found[0], pool(list(y), list(weights)), atol=1e-12)
    np.testing.assert_allclose(found[1], pool(list(y[::-1]), list(weights)), atol=1e-12)


def test_isotonic_regression_by_hand() -> None:
    found = isotonic(np.array([[1.0, 5.0, 2.0, 6.0]]), np.array([1.0, 1.0, 2.0, 1.0]))
    np.testing.assert_allclose(found, [[1.0, 3.0, 3.0, 6.0]])


def test_what_rises_stays_to_the_bit() -> None:
    y = np.array([[0.1, 0.1, 0.3, 0.7000000000000001]])
    assert (isotonic(y, np.array([3.0, 7.0, 1.0, 3.0])) == y).all()


@given(values)
def test_curves_are_scipys_monotone_cubics_cut_into_pieces(rows: list[tuple[float, int]]) -> None:
    y, weights = (np.array(column, np.float64) for column in zip(*rows, strict=True))
    ratios = 0.05 * 1.7 ** np.arange(len(y)) + 0.01 * weights.cumsum()
    curves = fit_curves(ratios, y[None], weights)
    cubic = PchipInterpolator(np.log(ratios), isotonic(y[None], weights)[0])
    np.testing.assert_allclose(curves.scores[0], cubic(curves.log_ratios), atol=1e-9)
    assert (np.diff(curves.scores[0]) >= 0).all()


@given(st.integers(0, 1000))
def test_reading_backwards_undoes_reading(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ratios = np.sort(rng.uniform(0.05, 2, 5)) + 0.01 * np.arange(5)
    curves = fit_curves(ratios, rng.uniform(0, 1, (20, 5)).cumsum(axis=1), np.ones(5))
    x = np.sort(rng.uniform(np.log(ratios[0]), np.log(ratios[-1]), 8))
    np.testing.assert_allclose(curves.inverse(curves.at(x)), np.tile(x, (20, 1)), atol=1e-6)


def test_a_plateau_is_reached_at_its_start() -> None:
    curves = fit_curves(np.array([0.1, 0.2, 0.5, 1.0]), np.array([[0.1, 0.3, 0.3, 0.3]]), np.ones(4))
    assert np.exp(curves.inverse(np.array([[0.3]]))) == pytest.approx(0.2)


def test_nothing_is_extrapolated() -> None:
    curves = fit_curves(np.array([0.1, 1.0]), np.array([[0.2, 0.4]]), np.ones(2))
    found = np.exp(curves.inverse(np.array([[0.2 - 1e-9, 0.2, 0.3, 0.4, 0.4 + 1e-9]])))
    np.testing.assert_allclose(found, [[0, 0.1, np.sqrt(0.1), 1, np.inf]])
    np.testing.assert_allclose(curves.at(np.log([0.01, 9])), [[0.2, 0.4]])


def test_one_ratio_makes_no_curve() -> None:
    with pytest.raises(ValueError, match="two ratios"):
        fit_curves(np.array([1.0]), np.array([[0.5]]), np.ones(1))


def test_cubics_miss_a_bent_curve_by_less_than_chords_do() -> None:
    """The multiplier at .2 is read between .2 and .5, the widest gap."""
    ratios = np.array([0.1, 0.2, 0.5, 1.0, 2.0])

    def learn(r: np.ndarray) -> np.ndarray:
        return np.asarray(0.6 - 0.4 * (r / 0.1) ** -0.7)

    read = fit_curves(ratios, learn(ratios)[None], np.ones(5)).inverse(learn(np.array([[0.4]])))
    chord = np.interp(learn(np.array([0.4])), learn(ratios), np.log(ratios))
    assert abs(np.exp(read.item()) / 0.4 - 1) < 0.012
    assert np.exp(chord.item()) / 0.4 - 1 > 0.03
