"""Up and scale of a reconstruction."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from liftgs.procedural import ProceduralScene
from liftgs.video.world import level


@pytest.mark.parametrize(("kind", "views"), [("apartments", 20), ("offices", 12), ("warehouses", 6)])
def test_up_is_found_whatever_the_world_was_turned_to(kind: str, views: int) -> None:
    true = np.array([camera.cam_to_world[:3, :3] for camera in ProceduralScene(kind, 1, views=views).cameras])
    for seed in range(3):
        turn = Rotation.random(random_state=seed).as_matrix()
        found, gravity = level(turn @ true)
        assert gravity == "estimated"
        np.testing.assert_allclose(found @ found.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(found) == pytest.approx(1)
        tilt = np.degrees(np.arccos((found @ turn)[2, 2]))
        assert tilt < 4


def test_a_camera_that_never_turns_has_its_own_up() -> None:
    pose = Rotation.from_euler("xyz", (20, 130, 70), degrees=True).as_matrix()
    found, gravity = level(np.stack([pose] * 9))
    assert gravity == "estimated"
    np.testing.assert_allclose(found @ pose @ (0, -1, 0), (0, 0, 1), atol=1e-9)
    np.testing.assert_allclose(found @ pose @ (1, 0, 0), (1, 0, 0), atol=1e-9)


def test_a_camera_turned_about_its_axis_tells_nothing() -> None:
    rolls = Rotation.from_euler("z", np.arange(0, 360, 30)[:, None], degrees=True).as_matrix()
    found, gravity = level(rolls)
    assert gravity == "unknown"
    np.testing.assert_array_equal(found, np.eye(3))
