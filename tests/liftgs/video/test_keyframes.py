"""Keyframes: far enough apart, sharp, not too many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import films
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, rotate, zoom

from liftgs.video.decode import Shot
from liftgs.video.keyframes import KeyframeConfig, choose, motion, thin


@dataclass(frozen=True)
class Still:
    """A frame that was never encoded."""

    index: int
    pixels: np.ndarray
    time_s: float = 0.0

    def grey(self, long_side_px: int) -> np.ndarray:
        assert max(self.pixels.shape[:2]) == long_side_px, "these tests measure in pixels of the pictures"
        return self.pixels.mean(-1).astype(np.uint8)


def chosen(pictures: Sequence[np.ndarray], max_count: int = 300) -> list[int]:
    shots = cast(list[Shot], [Still(i, picture) for i, picture in enumerate(pictures)])
    return choose(shots, KeyframeConfig(max_count=max_count), lambda line: None)


@pytest.mark.parametrize("shift", [0, 4, 10, 16, 24])
def test_motion_is_the_shift_as_a_fraction_of_the_longer_side(shift: int) -> None:
    before, after = (picture.mean(-1).astype(np.uint8) for picture in films.pan([100, 100 + shift]))
    assert motion(before, after) == pytest.approx(shift / 320, abs=1.5 / 320)


def test_walking_forward_and_rolling_are_motion_too() -> None:
    before = films.texture((240, 320)).mean(-1)
    nearer = zoom(before, 1.15, order=1)[18 : 18 + 240, 24 : 24 + 320]
    rolled = rotate(before, 8, reshape=False, order=1, mode="reflect")
    for after in (nearer, rolled):
        assert motion(before.astype(np.uint8), after.astype(np.uint8)) > 0.015


def test_a_picture_of_something_else_is_infinitely_far() -> None:
    before, after = (films.texture((240, 320), seed).mean(-1).astype(np.uint8) for seed in (0, 1))
    assert motion(before, after) == np.inf


def test_a_cut_does_not_end_the_choice() -> None:
    """After a jump beyond recognition keyframes go on."""
    pictures = [*films.pan(range(0, 160, 8)), *films.pan(range(700, 860, 8))]
    found = chosen(pictures)
    assert len([i for i in found if i < 20]) >= 5
    assert len([i for i in found if i >= 20]) >= 5


def test_noise_blur_and_bare_walls_are_no_motion() -> None:
    before = films.texture((240, 320)).mean(-1)
    noise = np.random.default_rng(0).normal(0, 4, before.shape)
    for after in (before + noise, gaussian_filter(before, 2.0)):
        assert motion(before.astype(np.uint8), after.clip(0, 255).astype(np.uint8)) < 0.01
    wall = np.full((240, 320), 180, np.uint8)
    assert motion(wall, wall + 1) == 0


def test_keyframes_lie_between_once_and_twice_the_wanted_motion_apart() -> None:
    """However unevenly the camera moves."""
    steps = np.random.default_rng(1).integers(0, 9, 150)
    at = np.cumsum(steps)
    gaps = np.diff(at[chosen(films.pan(at.tolist()))]) / 320
    assert len(gaps) > 10
    assert gaps[:-1].min() >= 0.045
    assert gaps.max() <= 0.105


def test_a_resting_camera_gives_one_keyframe() -> None:
    assert chosen(films.pan([50] * 40)) == [0]


def test_the_sharpest_of_the_frames_that_would_do_is_taken() -> None:
    pictures = films.pan(range(0, 480, 4))
    sharp = {i for i in range(len(pictures)) if i % 3 == 0}
    blurred = [p if i in sharp else gaussian_filter(p, (0, 3, 0)) for i, p in enumerate(pictures)]
    found = chosen(blurred)
    assert len(found) > 12
    assert set(found[:-1]) <= sharp


def test_too_many_are_thinned_evenly() -> None:
    assert thin(list(range(101)), 5) == [0, 25, 50, 75, 100]
    assert thin([3, 4, 8], 9) == [3, 4, 8]
    found = chosen(films.pan(range(0, 800, 8)), max_count=6)
    assert len(found) == 6
    assert found[0] == 0
    assert max(np.diff(found)) <= 2 * min(np.diff(found))
