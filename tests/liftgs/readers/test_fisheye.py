"""Aria's lens: the model as published, written out slowly, against ours; forward against inverse."""

import math

import numpy as np
import pytest
from scipy.optimize import brentq, fsolve

from liftgs.readers.fisheye import Fisheye624, depth_per_distance, pinhole_pixels

#: like ASE's, but with decentring and prism terms large enough to show
LENS = Fisheye624(
    focal=297.6,
    cx=358.1,
    cy=349.7,
    radial=(0.365, -0.174, -0.753, 2.435, -2.578, 0.879),
    tangential=(0.004, -0.003),
    prism=(0.002, -0.001, 0.003, 0.0015),
    valid_radius=353.75,
)


def slow_project(lens, x: float, y: float) -> tuple[float, float]:
    """One point, from the equations in Aria's header file, term by term."""
    r = math.hypot(x, y)
    theta = math.atan(r)
    distorted = theta + sum(k * theta ** (2 * i + 3) for i, k in enumerate(lens.radial))
    xr, yr = (distorted * x / r, distorted * y / r) if r > 0 else (0.0, 0.0)
    rd2 = xr * xr + yr * yr
    (p0, p1), (s0, s1, s2, s3) = lens.tangential, lens.prism
    u = xr + (2 * xr * xr + rd2) * p0 + 2 * xr * yr * p1 + s0 * rd2 + s1 * rd2**2
    v = yr + (2 * yr * yr + rd2) * p1 + 2 * xr * yr * p0 + s2 * rd2 + s3 * rd2**2
    return lens.focal * u + lens.cx, lens.focal * v + lens.cy


def rays(count: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    tangent, heading = np.tan(rng.random(count) * 0.98), rng.random(count) * 2 * np.pi
    return np.stack([tangent * np.cos(heading), tangent * np.sin(heading)])


def test_the_model_is_the_published_one():
    points = np.concatenate([rays(200), [[0.0], [0.0]]], 1)
    expected = np.array([slow_project(LENS, x, y) for x, y in points.T]).T
    np.testing.assert_allclose(LENS.project(*points), expected, atol=1e-9)


def test_the_inverse_undoes_the_model():
    points = rays(2000)
    np.testing.assert_allclose(LENS.unproject(*LENS.project(*points)), points, atol=1e-9)
    u, v = np.meshgrid(np.arange(704) + 0.5, np.arange(704) + 0.5)
    x, y = LENS.unproject(u, v)
    seen = np.hypot(u - LENS.cx, v - LENS.cy) <= LENS.valid_radius
    np.testing.assert_array_equal(np.isfinite(x), seen)
    again = LENS.project(x[seen], y[seen])
    np.testing.assert_allclose(again, (u[seen], v[seen]), atol=1e-8)
    np.testing.assert_array_equal(LENS.unproject(np.array(LENS.cx), np.array(LENS.cy)), (0, 0))


def test_the_inverse_agrees_with_a_general_solver():
    for u, v in [(358.1, 349.7), (10.5, 300.5), (600.5, 500.5), (358.5, 690.5), (150.5, 120.5), (400.0, 20.0)]:
        start = ((u - LENS.cx) / LENS.focal, (v - LENS.cy) / LENS.focal)
        solution = fsolve(lambda xy, goal=(u, v): np.subtract(slow_project(LENS, *xy), goal), start, xtol=1e-13)
        np.testing.assert_allclose(LENS.unproject(np.array(u), np.array(v)), solution, atol=1e-8)


def test_without_decentring_the_angle_is_the_polynomials_root():
    lens = Fisheye624(297.6, 352.0, 352.0, LENS.radial, (0.0, 0.0), (0.0, 0.0, 0.0, 0.0), 353.75)
    for radius in (1.0, 50.0, 200.0, 300.0, 353.0):
        angle = brentq(lambda a, r=radius: slow_project(lens, math.tan(a), 0.0)[0] - 352 - r, 0, 1.2, xtol=1e-14)
        x, y = lens.unproject(np.array(352.0), np.array(352.0 - radius))
        assert x == pytest.approx(0, abs=1e-12)
        assert math.atan(-y) == pytest.approx(angle, abs=1e-10)


def test_a_lens_of_twice_the_size_sees_the_same_at_twice_the_pixel():
    points = rays(100)
    np.testing.assert_allclose(LENS.scaled(2).project(*points), 2 * np.array(LENS.project(*points)))
    assert LENS.scaled(2).valid_radius == 707.5


def test_the_maps_index_arrays_not_coordinates():
    """A ray along the axis lands at (358.1, 349.7), which is in row 349, column 358: array index (349.2, 357.6)."""
    lens = Fisheye624(297.6, 358.1, 349.7, LENS.radial, (0.0, 0.0), (0.0, 0.0, 0.0, 0.0), 353.75)
    rows, columns = pinhole_pixels(lens, 300.0, 65)  # an odd size has a pixel in the middle
    assert rows[32, 32] == pytest.approx(349.2, abs=1e-4)
    assert columns[32, 32] == pytest.approx(357.6, abs=1e-4)
    assert rows[33, 32] > rows[32, 32]
    assert columns[32, 33] > columns[32, 32]


def test_distance_becomes_depth_by_the_cosine_of_the_rays_angle_and_is_nothing_outside():
    factor = depth_per_distance(LENS, (704, 704))
    x, y = LENS.unproject(np.array(600.5), np.array(500.5))
    assert factor[500, 600] == pytest.approx(1 / math.sqrt(1 + x * x + y * y))
    assert factor[0, 0] == factor[703, 703] == 0
    assert factor.max() <= 1
