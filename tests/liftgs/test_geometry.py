"""Laws of unprojection, fusion and voxels, on scenes whose geometry is known exactly."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from walls import AHEAD, posed, wall_frame

from liftgs.geometry import (
    CloudConfig,
    fuse,
    project,
    reliable_depth,
    unproject,
    voxelise,
)
from liftgs.scene import PointCloud

# --- unproject, project


def test_a_pixel_is_lifted_through_its_centre():
    depth = np.zeros((60, 80), np.float32)
    depth[0, 0], depth[59, 79] = 2, 4
    xyz, pixel = unproject(depth, AHEAD)
    assert pixel.tolist() == [0, 60 * 80 - 1]
    np.testing.assert_allclose(xyz[0], [2 * (0.5 - 40) / 60, 2 * (0.5 - 30) / 50, 2], rtol=1e-6)
    np.testing.assert_allclose(xyz[1], [4 * (79.5 - 40) / 60, 4 * (59.5 - 30) / 50, 4], rtol=1e-6)


def test_depth_is_along_the_axis_not_along_the_ray():
    xyz, _ = unproject(np.full((60, 80), 3, np.float32), AHEAD)
    np.testing.assert_allclose(xyz[:, 2], 3, rtol=1e-6)


@settings(max_examples=25, deadline=None)
@given(
    rotvec=st.tuples(*[st.floats(-3, 3)] * 3), position=st.tuples(*[st.floats(-9, 9)] * 3), seed=st.integers(0, 2**31)
)
def test_projection_undoes_unprojection_from_any_pose(rotvec, position, seed):
    camera = posed(rotvec, position)
    depth = np.random.default_rng(seed).uniform(0.2, 9, (60, 80)).astype(np.float32)
    xyz, pixel = unproject(depth, camera)
    uv, z = project(xyz.astype(np.float64), camera)
    rows, columns = np.divmod(pixel, 80)
    np.testing.assert_allclose(uv, np.stack([columns + 0.5, rows + 0.5], 1), atol=2e-3)
    np.testing.assert_allclose(z, depth.reshape(-1), atol=1e-5)


def test_moving_the_camera_moves_its_points_alike():
    depth = np.random.default_rng(0).uniform(1, 3, (60, 80)).astype(np.float32)
    camera = posed((0.2, -0.4, 0.7), (1, 2, 3))
    local, _ = unproject(depth, AHEAD)
    moved, _ = unproject(depth, camera)
    np.testing.assert_allclose(moved, local @ camera.cam_to_world[:3, :3].T + (1, 2, 3), atol=1e-5)


def test_invalid_depth_is_left_out():
    depth = np.ones((60, 80), np.float32)
    depth[0, :5] = 0, -1, np.nan, np.inf, -np.inf
    assert len(unproject(depth, AHEAD)[0]) == 60 * 80 - 5


def test_depth_of_another_size_covers_the_same_field_of_view():
    """Both maps show one slanted plane, so all points must satisfy its equation."""
    normal, offset = np.array([0.3, -0.2, 1.0]), 2.0
    for height, width in ((60, 80), (30, 40), (120, 160), (45, 80)):
        camera = AHEAD.resized(width, height)
        u, v = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
        rays = np.stack([(u - camera.K[0, 2]) / camera.K[0, 0], (v - camera.K[1, 2]) / camera.K[1, 1], 0 * u + 1], -1)
        xyz, _ = unproject((offset / (rays @ normal)).astype(np.float32), AHEAD)
        np.testing.assert_allclose(xyz @ normal, offset, atol=1e-5)


def test_colours_are_looked_up_at_the_same_place_when_sizes_differ():
    """Left half red, right half blue, at photo size; the depth map is a quarter of it, or four times."""
    frame = wall_frame()
    frame.rgb[:, :40], frame.rgb[:, 40:] = (200, 0, 0), (0, 0, 200)
    for shape in ((15, 20), (240, 320), (60, 80)):
        cloud = fuse([replace(frame, depth=np.full(shape, 2, np.float32))], CloudConfig(voxel_size_m=0.02))
        left, right = cloud[cloud.xyz[:, 0] < 0], cloud[cloud.xyz[:, 0] > 0]
        assert (left.rgb == (200, 0, 0)).all()
        assert (right.rgb == (0, 0, 200)).all()


# --- voxelise, fuse


def test_a_voxel_holds_the_mean_of_its_points_in_key_order():
    xyz = np.array([[0.06, 0, 0], [0.01, 0.01, 0.01], [0.03, 0.03, 0.03], [-0.01, 0, 0], [0.01, 0.06, 0]], np.float32)
    rgb = np.array([[9, 9, 9], [0, 10, 255], [2, 20, 254], [7, 7, 7], [5, 5, 5]], np.uint8)
    cloud = voxelise(PointCloud(xyz, rgb), 0.05)
    expected = [[-0.01, 0, 0], [0.02, 0.02, 0.02], [0.01, 0.06, 0], [0.06, 0, 0]]  # x first, then y, then z
    np.testing.assert_allclose(cloud.xyz, expected, atol=1e-7)
    assert cloud.rgb.tolist() == [[7, 7, 7], [1, 15, 254], [5, 5, 5], [9, 9, 9]]
    assert cloud.xyz.dtype == np.float32
    assert cloud.rgb.dtype == np.uint8
    assert cloud.instances is None


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_voxels_agree_with_a_plain_dictionary(seed):
    rng = np.random.default_rng(seed)
    xyz = rng.uniform(-0.2, 0.2, (200, 3)).astype(np.float32)
    rgb, ids = rng.integers(0, 256, (200, 3)).astype(np.uint8), rng.integers(0, 3, 200).astype(np.int32)
    voxels: dict[tuple, list[int]] = {}
    for i, key in enumerate(np.floor(xyz.astype(np.float64) / 0.1).astype(int).tolist()):
        voxels.setdefault(tuple(key), []).append(i)
    cloud = voxelise(PointCloud(xyz, rgb, ids), 0.1)
    assert len(cloud) == len(voxels)
    for point, key in zip(range(len(cloud)), sorted(voxels), strict=True):
        members = voxels[key]
        np.testing.assert_allclose(cloud.xyz[point], xyz[members].mean(0, dtype=np.float64), atol=1e-6)
        np.testing.assert_allclose(cloud.rgb[point], rgb[members].mean(0), atol=0.5001)
        counts = {i: ids[members].tolist().count(i) for i in set(ids[members].tolist())}
        assert cloud.instances[point] == min(counts, key=lambda i: (-counts[i], i == 0, i))


@pytest.mark.parametrize(
    ("ids", "winner"), [([3, 3, 5], 3), ([5, 3, 5], 5), ([7, 4], 4), ([0, 9], 9), ([0, 0, 9], 0), ([0, 2, 0, 1], 0)]
)
def test_the_most_frequent_instance_wins_and_ties_go_to_the_smallest_object(ids, winner):
    points = PointCloud(np.zeros((len(ids), 3), np.float32), np.zeros((len(ids), 3), np.uint8), np.array(ids, np.int32))
    assert voxelise(points, 0.05).instances.tolist() == [winner]


def test_votes_are_counted_over_all_frames():
    """Two frames say 0 and 6; a third says 6: per frame it is a draw, over all of them 6 wins even over 2."""
    frames = [wall_frame(str(i), instance=instance) for i, instance in enumerate([2, 6, 6])]
    assert set(fuse(frames).instances.tolist()) == {6}


def test_fusing_frame_by_frame_equals_voxelising_all_points_at_once():
    cameras = [posed((0, 0.1 * i, 0.05 * i), (0.03 * i, 0, 0)) for i in range(4)]
    rng = np.random.default_rng(1)
    frames = []
    for i, camera in enumerate(cameras):
        frame = wall_frame(str(i), 2 + 0.1 * i, camera, instance=0)
        frame.rgb[:] = rng.integers(0, 256, frame.rgb.shape)
        frame.instances[:] = rng.integers(0, 4, frame.instances.shape)
        frames.append(frame)
    points = [unproject(frame.depth, frame.camera)[0] for frame in frames]
    everything = PointCloud(
        np.concatenate(points),
        np.concatenate([frame.rgb.reshape(-1, 3) for frame in frames]),
        np.concatenate([frame.instances.reshape(-1) for frame in frames]).astype(np.int32),
    )
    expected = voxelise(everything, 0.05)
    cloud = fuse(iter(frames))
    np.testing.assert_allclose(cloud.xyz, expected.xyz, atol=1e-6)
    assert np.abs(cloud.rgb.astype(int) - expected.rgb).max() <= 1
    np.testing.assert_array_equal(cloud.instances, expected.instances)
    again = fuse(iter(frames))
    assert again.xyz.tobytes() == cloud.xyz.tobytes()
    assert again.rgb.tobytes() == cloud.rgb.tobytes()


def test_points_beyond_the_voxel_range_are_refused():
    rgb = np.zeros((1, 3), np.uint8)
    for bad in (1e6, np.nan, np.inf):
        with pytest.raises(ValueError, match="not finite or farther"):
            voxelise(PointCloud(np.full((1, 3), bad, np.float32), rgb), 0.05)


def test_an_empty_cloud_stays_empty():
    empty = PointCloud(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.uint8), np.zeros(0, np.int32))
    assert len(voxelise(empty, 0.05)) == 0
    assert len(fuse([])) == 0


def test_memory_of_fusion_does_not_grow_with_the_number_of_frames():
    def peak_bytes(count: int) -> int:
        tracemalloc.start()
        fuse(wall_frame(str(i), shape=(240, 320)) for i in range(count))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    peak_bytes(1)
    assert peak_bytes(24) < 1.2 * peak_bytes(3)


# --- unreliable depth


def test_a_clean_silhouette_and_a_thin_rod_survive_but_flying_pixels_do_not():
    depth = np.full((60, 80), 3, np.float32)
    depth[:, :30] = 1  # foreground
    depth[:, 60] = 1.5  # a rod, one pixel thick
    depth[20:40, 30] = 2  # flying pixels on the foreground's border
    kept = reliable_depth(depth, CloudConfig())
    expected = np.ones_like(kept)
    expected[20:40, 30] = False
    expected[[0, -1], 60] = False  # the ends of the rod have one neighbour only
    np.testing.assert_array_equal(kept, expected)


def test_speckle_goes_and_a_lone_hole_stays_harmless():
    depth = np.full((60, 80), 3, np.float32)
    depth[10, 10] = 1  # no neighbour within 5 %
    depth[30, 30] = 0
    kept = reliable_depth(depth, CloudConfig())
    assert not kept[10, 10]
    assert not kept[30, 30]
    assert kept.sum() == depth.size - 2
    assert reliable_depth(depth, CloudConfig(min_support=0))[10, 10]


def test_a_floor_seen_at_a_grazing_angle_is_kept():
    """1.5 m below the camera, 585 px: at 9 m depth grows by 1 % per row."""
    rows = np.arange(240, 480) + 0.5
    depth = np.repeat((1.5 * 585 / (rows - 240))[:, None], 64, 1).astype(np.float32)
    config = CloudConfig(depth_max_m=9)
    kept = reliable_depth(depth, config)
    within = (depth <= 9) & (depth >= 0.1)
    np.testing.assert_array_equal(kept[98:-1], within[98:-1])
    assert kept[within].mean() > 0.99


def test_depth_outside_the_range_is_left_out():
    depth = np.repeat(np.linspace(0.05, 12, 80, dtype=np.float32)[None], 60, 0)
    kept = reliable_depth(depth, CloudConfig(depth_min_m=1, depth_max_m=4, min_support=0, edge_ratio=1e9))
    np.testing.assert_array_equal(kept, (depth >= 1) & (depth <= 4))


def test_voxels_of_few_points_can_be_dropped():
    depth = np.full((60, 80), 2, np.float32)
    frame = replace(wall_frame(), depth=depth)
    all_voxels, dense = fuse([frame]), fuse([frame], CloudConfig(min_points=3))
    assert 0 < len(dense) < len(all_voxels)
