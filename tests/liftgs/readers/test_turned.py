"""Quarter turns of a frame: the picture, its depth and ids, and the camera stay in agreement."""

import numpy as np
import pytest
from box_room import CAMERAS, depth_m, photo, rays_of, render_rays

from liftgs.geometry import project
from liftgs.readers.frames import turned
from liftgs.scene import Frame

CAMERA = CAMERAS[0]
IDS = np.arange(CAMERA.height * CAMERA.width, dtype=np.uint16).reshape(CAMERA.height, CAMERA.width)
FRAME = Frame("0", "x", CAMERA, photo(CAMERA), depth_m(CAMERA.resized(80, 60)).astype(np.float32), b"jpeg", IDS)


@pytest.mark.parametrize("quarters", [1, 2, 3, -1, 5])
def test_a_turned_frame_is_what_its_turned_camera_sees(quarters):
    frame = turned(FRAME, quarters)
    assert frame.jpeg is None
    assert frame.rgb.shape == (frame.camera.height, frame.camera.width, 3)
    np.testing.assert_array_equal(frame.rgb, photo(frame.camera))
    height, width = frame.depth.shape
    np.testing.assert_allclose(frame.depth, depth_m(frame.camera.resized(width, height)), atol=1e-5)
    np.testing.assert_allclose(frame.camera.cam_to_world[:3, 3:], CAMERA.cam_to_world[:3, 3:])


def test_clockwise_is_clockwise():
    """What was up is to the right; and a point keeps its pixel's id."""
    frame = turned(FRAME, 1)
    np.testing.assert_array_equal(frame.rgb[:, -1], FRAME.rgb[0])
    rays = rays_of(CAMERA)
    _, z = render_rays(rays, CAMERA.cam_to_world)
    points = (rays * z[..., None]).reshape(-1, 3) @ CAMERA.cam_to_world[:3, :3].T + CAMERA.cam_to_world[:3, 3]
    pixels, _ = project(points, frame.camera)
    column, row = pixels.astype(int).T
    np.testing.assert_array_equal(frame.instances[row, column], IDS.ravel())


def test_four_quarter_turns_are_none():
    assert turned(FRAME, 0) is FRAME
    assert turned(FRAME, 4) is FRAME
    there_and_back = turned(turned(FRAME, 1), 3)
    np.testing.assert_allclose(there_and_back.camera.K, CAMERA.K)
    np.testing.assert_allclose(there_and_back.camera.cam_to_world, CAMERA.cam_to_world, atol=1e-12)
