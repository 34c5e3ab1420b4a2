"""The lens model term by term, and which pinhole camera a lens becomes."""

import numpy as np
import pytest

from liftgs.readers.distortion import (
    NO_DISTORTION,
    Distortion,
    Fisheye,
    ideal_intrinsics,
    undistort_depth,
    undistort_photo,
)

K = np.array([[100.0, 0, 80], [0, 100, 60], [0, 0, 1]])
SIZE = (160, 120)


@pytest.mark.parametrize(
    ("lens", "expected"),
    [
        (NO_DISTORTION, (0.3, 0.5)),
        # r^2 = 0.34 at (0.3, 0.5); worked out by hand from the model in OpenCV's calib3d documentation
        (Distortion(k1=0.1), (0.3 * 1.034, 0.5 * 1.034)),
        (Distortion(k2=0.1), (0.3 * 1.01156, 0.5 * 1.01156)),
        (Distortion(k3=0.1), (0.3 * 1.0039304, 0.5 * 1.0039304)),
        (Distortion(p1=0.1), (0.3 + 0.03, 0.5 + 0.084)),
        (Distortion(p2=0.1), (0.3 + 0.052, 0.5 + 0.03)),
    ],
)
def test_each_coefficient_moves_a_point_as_published(lens, expected):
    moved = lens.distort(np.array(0.3), np.array(0.5))
    np.testing.assert_allclose(moved, expected, rtol=1e-12)
    assert bool(lens) == (lens != NO_DISTORTION)


@pytest.mark.parametrize(
    ("lens", "expected"),
    [
        # a ray 45 degrees off the axis, t = pi / 4; seen at t (1 + k t^2i) along (0.6, 0.8)
        (Fisheye(), 0.7853981634),
        (Fisheye(k1=0.1), 0.7853981634 * 1.06168502751),
        (Fisheye(k2=0.1), 0.7853981634 * 1.03805042617),
        (Fisheye(k3=0.1), 0.7853981634 * 1.02347141586),
        (Fisheye(k4=0.1), 0.7853981634 * 1.01447834937),
    ],
)
def test_a_fisheye_sees_angles_as_published(lens, expected):
    np.testing.assert_allclose(lens.distort(np.array(0.6), np.array(0.8)), (0.6 * expected, 0.8 * expected), rtol=1e-9)
    np.testing.assert_array_equal(lens.distort(np.zeros(1), np.zeros(1)), np.zeros((2, 1)))
    assert lens


def test_a_fisheye_keeps_its_focal_length_and_loses_its_margin():
    wide = np.array([[70.0, 0, 80], [0, 70, 60], [0, 0, 1]])  # 131 degrees from side to side
    lens = Fisheye(k1=-0.02)
    np.testing.assert_array_equal(ideal_intrinsics(wide, lens, SIZE), wide)
    assert undistort_depth(np.ones((120, 160), np.float32), wide, lens, wide).all()


def test_a_barrel_keeps_its_focal_length_and_a_cushion_zooms_until_no_border_is_empty():
    np.testing.assert_array_equal(ideal_intrinsics(K, Distortion(k1=-0.2), SIZE), K)
    lens = Distortion(k1=0.2)
    ideal = ideal_intrinsics(K, lens, SIZE)
    assert ideal[0, 0] > K[0, 0]
    full = np.ones((120, 160), np.float32)
    assert undistort_depth(full, K, lens, ideal).all()
    assert not undistort_depth(full, K, lens, K).all()  # without the zoom there would be an empty border
    np.testing.assert_allclose(ideal[:2, 2], K[:2, 2])
    tighter = ideal.copy()
    tighter[[0, 1], [0, 1]] *= 0.98
    assert not undistort_depth(full, K, lens, tighter).all()  # and it is as small as can be


@pytest.mark.parametrize("lens", [Distortion(k1=-1.2), Distortion(k1=5.0), Distortion(k2=-3.0)])
def test_a_model_that_folds_over_or_hides_most_of_the_image_is_refused(lens):
    with pytest.raises(ValueError, match="does not fit a 160x120 image"):
        ideal_intrinsics(K, lens, SIZE)


def test_no_distortion_changes_no_pixel():
    rng = np.random.default_rng(0)
    rgb, depth = rng.integers(0, 256, (120, 160, 3)).astype(np.uint8), rng.random((120, 160)).astype(np.float32)
    np.testing.assert_array_equal(undistort_photo(rgb, K, NO_DISTORTION, K), rgb)
    np.testing.assert_array_equal(undistort_depth(depth, K, NO_DISTORTION, K), depth)
