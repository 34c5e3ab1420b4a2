"""What is drawn: masks light up where they are, on points and on Gaussians, and walls can be taken away."""

from __future__ import annotations

import numpy as np
import pytest

from liftgs.ground import EncodedScan, Grounder, Scan, encode, load
from liftgs.ground.views import overview, walls, walls_before
from liftgs.scene import PointCloud
from liftgs.viewer.answers import Finder, Highlight
from liftgs.viewer.layers import Layer, points, splats

ROOM = "procedural:apartments/000005?seed=1000000&width=96&height=96"
VOXEL_M = 0.1


@pytest.fixture(scope="module")
def grounder() -> Grounder:
    return load("tiny")


@pytest.fixture(scope="module")
def known(grounder: Grounder) -> EncodedScan:
    return encode(grounder, ROOM)


@pytest.fixture(scope="module")
def highlights(grounder: Grounder, known: EncodedScan) -> list[Highlight]:
    return list(Finder(grounder, known)("a plant, a bookshelf", 1, 0).highlights)


@pytest.fixture(scope="module", params=["points", "splats"])
def layer(request: pytest.FixtureRequest, known: EncodedScan) -> Layer:
    return points(known, VOXEL_M) if request.param == "points" else splats(known)


def test_masks_light_up_where_they_are_and_the_rest_is_dimmed(layer: Layer, highlights: list[Highlight]) -> None:
    rgb, _ = layer.lit(highlights)
    largest, smallest = sorted(highlights, key=lambda found: -found.match.voxels.sum())
    for found in (largest, smallest):
        inside = found.match.voxels[layer.voxel]
        if found is largest:
            inside &= ~smallest.match.voxels[layer.voxel]
        assert inside.sum() > 50
        np.testing.assert_allclose(rgb[inside], 0.8 * found.colour + 0.2 * layer.rgb[inside], atol=1)
        box = found.match.box_min - 2 * VOXEL_M, found.match.box_max + 2 * VOXEL_M
        assert ((layer.xyz[inside] >= box[0]) & (layer.xyz[inside] <= box[1])).all()
    outside = ~np.logical_or(*(found.match.voxels[layer.voxel] for found in highlights))
    np.testing.assert_allclose(rgb[outside], 0.45 * layer.rgb[outside], atol=1)


def test_without_masks_everything_has_its_own_colour(layer: Layer) -> None:
    rgb, wall = layer.lit([])
    np.testing.assert_array_equal(rgb, layer.rgb)
    np.testing.assert_array_equal(wall, layer.wall)


def test_what_is_found_at_a_wall_stays_when_the_wall_goes(layer: Layer, highlights: list[Highlight]) -> None:
    _, wall = layer.lit(highlights)
    found = np.logical_or(*(found.match.voxels[layer.voxel] for found in highlights))
    assert (found & np.isin(layer.wall, (0, 1, 3, 4))).any(), "the test needs something at a wall"
    assert not (found & np.isin(wall, (0, 1, 3, 4))).any()
    np.testing.assert_array_equal(wall[~found], layer.wall[~found])
    np.testing.assert_array_equal(wall == 5, layer.wall == 5)


def test_depth_is_shown_in_finer_detail_than_the_network_sees(known: EncodedScan) -> None:
    fine = points(known, VOXEL_M)
    assert len(fine.xyz) > 2 * len(known.scan.cloud)
    assert 0.01 < fine.size_m < VOXEL_M
    nearest = known.encoded.voxels.xyz.numpy()[fine.voxel]
    assert np.linalg.norm(fine.xyz - nearest, axis=1).max() <= 3**0.5 * VOXEL_M
    assert (fine.voxel >= 0).all()


def test_of_a_dense_cloud_a_part_is_shown_and_masks_stay_in_place(grounder: Grounder) -> None:
    rng = np.random.default_rng(0)
    cloud = PointCloud(rng.random((20_000, 3), np.float32), rng.integers(0, 255, (20_000, 3)).astype(np.uint8))
    known = encode(grounder, Scan("dense", cloud))
    some = points(known, VOXEL_M, most=500)
    assert len(some.xyz) == 500
    of_point = dict(zip(map(tuple, cloud.xyz.tolist()), map(tuple, cloud.rgb.tolist()), strict=True))
    assert [of_point[tuple(xyz)] for xyz in some.xyz.tolist()] == list(map(tuple, some.rgb.tolist()))
    again = points(known, VOXEL_M, most=500)
    np.testing.assert_array_equal(some.xyz, again.xyz)


@pytest.mark.parametrize("count", [1, 3])
def test_a_few_points_are_a_cloud_too(grounder: Grounder, count: int) -> None:
    cloud = PointCloud(np.eye(3, dtype=np.float32)[:count], np.zeros((count, 3), np.uint8))
    assert len(points(encode(grounder, cloud), VOXEL_M).xyz) == count


# ---- walls


def room() -> np.ndarray:
    """A box of 6 x 5 x 2.6 m, empty but for a block in the middle."""
    rng = np.random.default_rng(1)
    shell = rng.uniform((0, 0, 0), (6, 5, 2.6), (6000, 3))
    axis, side = rng.integers(0, 3, 6000), rng.integers(0, 2, 6000)
    shell[np.arange(6000), axis] = np.where(side, np.array([6, 5, 2.6])[axis], 0)
    return np.concatenate([shell, rng.uniform((2, 2, 0.5), (4, 3, 1.5), (4000, 3))])


def test_every_wall_is_known_and_the_block_is_inside() -> None:
    xyz = room()
    wall = walls(xyz)
    for side in range(6):
        axis, high = side % 3, side >= 3
        bound = np.array([6, 5, 2.6])[axis] if high else 0
        assert (np.abs(xyz[wall == side][:, axis] - bound) <= 0.3).all()
        middle = np.abs(xyz[:6000, axis] - bound) < 0.01
        assert (wall[:6000][middle] == side).mean() > 0.6, "but for its rim, which may belong to a neighbour"
    assert (wall[6000:] == -1).all()


def test_from_above_a_corner_the_ceiling_and_the_two_near_walls_are_in_the_way() -> None:
    xyz = room()
    camera, _ = overview(xyz, xyz[:0], 4, 3)
    assert walls_before(xyz, camera.cam_to_world[:3, 3]) == {0, 1, 5}
    assert walls_before(xyz, np.array([3.0, 2.5, 1.5])) == set(), "from inside, nothing is"
    assert walls_before(xyz, np.array([9.0, 2.5, -1])) == {2, 3}


def test_what_is_no_room_has_no_walls() -> None:
    table = room() * (0.2, 0.2, 0.2)
    assert (walls(table) == -1).all()
    facade = room()[:, [0, 2, 1]] * (1, 0.01, 1)
    assert (walls(facade) == -1).all(), "its front would be gone"
    wall = walls(room())
    corner = room()[np.isin(wall, (0, 1, 5))]
    assert (walls(corner) == -1).all(), "all of it would be gone"
