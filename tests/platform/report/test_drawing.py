from __future__ import annotations

import numpy as np
import pytest

from liftgs.scene import Camera, PointCloud
from liftgs_platform.report import drawing


def camera(size: int = 32) -> Camera:
    K = np.array([[size, 0, size / 2], [0, size, size / 2], [0, 0, 1.0]])
    return Camera(K, np.eye(4), size, size)


def slow_splat(cloud: PointCloud, view: Camera, point_size_m: float, background: int) -> np.ndarray:
    """Point by point, pixel by pixel, with a z-buffer."""
    image = np.full((view.height, view.width, 3), background, np.uint8)
    nearest = np.full((view.height, view.width), np.inf)
    for point, rgb in zip(cloud.xyz.astype(float), cloud.rgb, strict=True):
        x, y, z = view.world_to_cam[:3, :3] @ point + view.world_to_cam[:3, 3]
        if z <= 0.05:
            continue
        u, v = view.K[0, 0] * x / z + view.K[0, 2], view.K[1, 1] * y / z + view.K[1, 2]
        r = min(max(0.5 * point_size_m * view.K[0, 0] / z, 0.5), 40)
        for row in range(max(0, int(np.floor(v - r))), min(view.height, int(np.ceil(v + r)))):
            for column in range(max(0, int(np.floor(u - r))), min(view.width, int(np.ceil(u + r)))):
                if z < nearest[row, column]:
                    nearest[row, column], image[row, column] = z, rgb
    return image


def test_splat_is_a_z_buffer_of_squares() -> None:
    rng = np.random.default_rng(0)
    xyz = rng.uniform([-2, -2, -1], [2, 2, 4], (300, 3)).astype(np.float32)
    cloud = PointCloud(xyz, rng.integers(0, 256, (300, 3), np.uint8))
    assert np.array_equal(drawing.splat(cloud, camera(), 0.2, 24), slow_splat(cloud, camera(), 0.2, 24))


def test_splat_of_nothing_is_background() -> None:
    empty = PointCloud(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.uint8))
    assert (drawing.splat(empty, camera(), 0.05, 7) == 7).all()


@pytest.mark.parametrize("extent", [(4, 4, 2.5), (12, 3, 3), (0.5, 0.5, 8)])
def test_overhead_camera_holds_the_whole_cloud_from_above(extent: tuple[float, float, float]) -> None:
    xyz = np.random.default_rng(1).uniform(0, 1, (500, 3)) * extent + [3.0, -7.0, 1.0]
    view = drawing.overhead_camera(xyz, 100)
    in_camera = xyz @ view.world_to_cam[:3, :3].T + view.world_to_cam[:3, 3]
    pixels = in_camera @ view.K.T
    pixels = pixels[:, :2] / pixels[:, 2:]
    assert (in_camera[:, 2] > 0).all()
    assert (pixels >= 0).all()
    assert (pixels <= 100).all()
    up = view.world_to_cam[:3, :3] @ [0, 0, 1.0]
    assert up[1] < 0  # world up is up in the picture: image y runs down


def test_overlay_tints_each_segment_in_the_colour_of_its_legend() -> None:
    semantics = np.zeros((20, 20), np.uint16)
    semantics[:10], semantics[10:, 10:] = 1, 2
    rgb = np.full((20, 20, 3), 100, np.uint8)
    drawn = drawing.overlay(rgb, semantics, opacity=0.5)
    colours = drawing.segment_colours(2).astype(int)
    assert np.abs(drawn[4, 4].astype(int) - (100 + colours[0]) / 2).max() <= 1
    assert np.abs(drawn[16, 16].astype(int) - (100 + colours[1]) / 2).max() <= 1
    assert (drawn[16, 4] == 50).all()
    assert (drawn[10, 3] == 255).all()  # outline


def test_segment_colours_are_far_apart_for_neighbours() -> None:
    colours = drawing.segment_colours(40).astype(int)
    assert (np.abs(np.diff(colours, axis=0)).max(axis=1) > 60).all()
