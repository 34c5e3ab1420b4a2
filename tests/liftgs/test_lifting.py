"""Labels of photos on points: what is hidden gets nothing, and segments of several photos become whole things."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from labelled_room import room_sample
from scipy.spatial.transform import Rotation

from liftgs.geometry import CloudConfig, sees
from liftgs.labels import SegmentMap
from liftgs.lifting import HIDDEN, UNLABELLED, LiftedInstances, LiftingConfig, Sightings, merge, pool, sight, visible
from liftgs.sample import Sample, decode_sample, encode_camera, encode_chunk, encode_cloud, encode_depth
from liftgs.scene import BadInput, Camera, Chunk, Frame, LoadedChunk, PointCloud

WIDTH, HEIGHT, DIM = 80, 60, 4
K = np.array([[60.0, 0, 40], [0, 60, 30], [0, 0, 1]])


@pytest.fixture(scope="module")
def room() -> Sample:
    return room_sample(views=6)


def wall_sample(points: np.ndarray, depth: bool = True) -> Sample:
    """A wall 2 m ahead, all of it one segment but for the left half of the photo, which has none."""
    y, x = np.mgrid[-1:1:0.05, -1.3:1.3:0.05]
    wall = np.stack([x.ravel(), y.ravel(), np.full(x.size, 2.0)], 1)
    xyz = np.concatenate([points, wall]).astype(np.float32)
    distance = np.full((HEIGHT, WIDTH), 2, np.float32) if depth else None
    frame = Frame("0", "0.jpg", Camera(K, np.eye(4), WIDTH, HEIGHT), np.zeros((HEIGHT, WIDTH, 3), np.uint8), distance)
    semantics = np.zeros((HEIGHT, WIDTH), np.uint16)
    semantics[:, WIDTH // 2 :] = 1
    chunk = Chunk("memory://wall", "wall", 0, ("0",), ("0",))
    cloud = PointCloud(xyz, np.zeros((len(xyz), 3), np.uint8))
    segments = SegmentMap(semantics, np.eye(1, DIM, dtype=np.float16))
    return decode_sample(encode_chunk(LoadedChunk(chunk, cloud, [frame], "unknown"), {}, [segments]), "memory://wall")


@pytest.mark.parametrize("depth", [True, False])
def test_what_is_behind_a_wall_gets_nothing(depth: bool) -> None:
    behind, behind_the_camera = [0.3, 0, 2.5], [0.3, 0, -2]
    sightings = sight(wall_sample(np.array([behind, behind_the_camera, [0.3, 0, 2.0], [-0.3, 0, 2.0]]), depth))
    assert sightings.segment[0, :4].tolist() == [HIDDEN, HIDDEN, 0, UNLABELLED]
    assert not pool(sightings)[[0, 1, 3]].any()
    assert pool(sightings)[2].tolist() == [1, 0, 0, 0]


def test_a_point_that_hangs_before_the_measured_surface_is_not_what_the_photo_shows_there() -> None:
    assert sight(wall_sample(np.array([[0.3, 0, 1.5]]))).segment[0, 0] == HIDDEN


def test_without_depth_a_floor_does_not_hide_itself_and_a_board_hides_the_wall_behind() -> None:
    rng = np.random.default_rng(0)
    floor = np.mgrid[-2:2:0.05, 1:1.01:1, 2:9:0.05].reshape(3, -1).T  # y is down: 1 m below the camera
    board = np.mgrid[-0.6:0.6:0.05, -0.8:0.8:0.05, 3:3.01:1].reshape(3, -1).T
    wall = np.mgrid[-0.4:0.4:0.05, -0.6:0.6:0.05, 3.4:3.41:1].reshape(3, -1).T
    (view,) = wall_sample(floor, depth=False).views

    def shown(*parts: np.ndarray) -> list[float]:
        xyz = np.concatenate(parts) + rng.uniform(-0.01, 0.01, (sum(map(len, parts)), 3))
        seen, looked_at = visible(view, xyz, LiftingConfig()), sees(view.camera, xyz, CloudConfig())
        of = np.repeat(np.arange(len(parts)), list(map(len, parts)))
        return [float(seen[looked_at & (of == part)].mean()) for part in range(len(parts))]

    (of_floor,) = shown(floor)
    assert of_floor > 0.95
    of_board, of_wall = shown(board, wall)
    assert of_board > 0.95
    assert of_wall == 0


def test_an_invalid_depth_shows_nothing(room: Sample) -> None:
    blind = {"00.depth.png": encode_depth(np.zeros((8, 8), np.float32))}
    sightings = sight(decode_sample({**room.members, **blind}, "memory://blind"))
    assert (sightings.segment[0] == HIDDEN).all()
    assert (sightings.segment[1] != HIDDEN).any()


def test_lifting_is_what_a_loop_over_points_and_photos_finds(room: Sample) -> None:
    config, sightings = LiftingConfig(), sight(room)
    pooled = pool(sightings)
    rng = np.random.default_rng(0)
    shown = 0
    for point in rng.choice(len(room.cloud), 300, replace=False):
        total = np.zeros(sightings.embeds.shape[1])
        for view in room.views:
            camera, depth, labels = view.camera, view.depth, view.segments
            assert depth is not None
            assert labels is not None
            assert labels.embeds is not None
            x, y, z = np.linalg.inv(camera.cam_to_world)[:3] @ np.append(room.cloud.xyz[point], 1)
            if z <= 0:
                continue
            column, row = (camera.K @ (x / z, y / z, 1))[:2].astype(int)
            if not (0 <= column < camera.width and 0 <= row < camera.height):
                continue
            if (
                abs(depth[row * len(depth) // camera.height, column * depth.shape[1] // camera.width] - z)
                > config.slack_m
            ):
                continue
            index = labels.semantics[row, column]
            if index > 0:
                embed = labels.embeds[index - 1].astype(float)
                total += embed / np.linalg.norm(embed)
                shown += 1
        length = np.linalg.norm(total)
        np.testing.assert_allclose(pooled[point], total / length if length else total, atol=1e-5)
    assert shown > 300


def ious(found: LiftedInstances, truth: np.ndarray) -> np.ndarray:
    """Of each true instance of 20 points or more, the IoU of what fits best."""
    ids, points = np.unique(truth, return_counts=True)
    shared = np.zeros((len(found.embeds) + 1, int(truth.max()) + 1))
    np.add.at(shared, (found.ids, truth), 1)
    union = shared.sum(1, keepdims=True) + shared.sum(0) - shared
    best = (shared / np.maximum(union, 1))[1:].max(axis=0)
    return best[ids[(ids > 0) & (points >= 20)]]


def test_perfect_segments_become_the_true_instances(room: Sample) -> None:
    truth, found = room.cloud.instances, merge(sight(room))
    assert truth is not None
    fits = ious(found, truth)
    assert len(fits) > 10
    assert fits.mean() > 0.85
    assert np.median(fits) > 0.95
    np.testing.assert_allclose(np.linalg.norm(found.embeds, axis=1), 1, atol=1e-5)
    assert set(np.unique(found.ids)) - {0} == set(range(1, len(found.embeds) + 1))


def test_an_instance_has_the_embedding_of_what_it_is(room: Sample) -> None:
    """`room_sample` gives each true instance its own."""
    truth, sightings = room.cloud.instances, sight(room)
    assert truth is not None
    found = merge(sightings)
    for number in range(1, len(found.embeds) + 1):
        photo, point = np.nonzero((sightings.segment >= 0) & (found.ids == number))
        most = np.bincount(sightings.segment[photo, point]).argmax()
        assert found.embeds[number - 1] @ sightings.embeds[most] > 0.9


def test_the_order_of_photos_does_not_matter(room: Sample) -> None:
    sightings = sight(room)
    order = np.random.default_rng(1).permutation(len(sightings.segment))
    place = np.argsort(order)
    other = Sightings(sightings.segment[order], sightings.embeds, place[sightings.photo])
    one, two = merge(sightings), merge(other)
    assert np.array_equal(one.ids, two.ids)


def seen(*photos: list[int], embeds: np.ndarray) -> Sightings:
    """Sightings written down by hand: a row of segments per photo."""
    segment = np.array(photos)
    photo = np.array([int(np.argwhere((segment == row).any(1))[0, 0]) for row in range(len(embeds))])
    return Sightings(segment, embeds.astype(np.float32), photo)


def test_overlap_is_measured_where_both_photos_look() -> None:
    """The second photo sees but two points of the first's six-point segment, and shows them as one segment."""
    twice = np.array([[1.0, 0], [1.0, 0]])
    config = LiftingConfig(min_points=1)
    part = seen([0] * 6 + [UNLABELLED] * 2, [HIDDEN] * 4 + [1] * 2 + [UNLABELLED] * 2, embeds=twice)
    assert merge(part, config).ids.tolist() == [1] * 6 + [0] * 2
    apart = seen([0] * 6 + [UNLABELLED] * 2, [UNLABELLED] * 4 + [1] * 2 + [1] * 2, embeds=twice)
    assert merge(apart, replace(config, overlap=0.5)).ids.tolist() == [1] * 6 + [2] * 2


def test_what_looks_unlike_is_not_joined() -> None:
    other = seen([0] * 6, [1] * 6, embeds=np.eye(2))
    assert len(merge(other, LiftingConfig(min_points=1, cosine=0.5)).embeds) == 1  # the first takes all points
    both = seen([0] * 6 + [HIDDEN] * 2, [1] * 8, embeds=np.eye(2))
    assert merge(both, LiftingConfig(min_points=1, cosine=0.5)).ids.tolist() == [1] * 6 + [2] * 2
    assert merge(both, LiftingConfig(min_points=1, cosine=-1)).ids.tolist() == [1] * 8


def test_small_segments_and_small_instances_are_dropped() -> None:
    sightings = seen([0] * 3 + [1] * 5, embeds=np.eye(2))
    found = merge(sightings, LiftingConfig(min_points=4))
    assert found.ids.tolist() == [0] * 3 + [1] * 5
    assert found.embeds.tolist() == [[0, 1]]
    unlabelled = seen([UNLABELLED] * 8, embeds=np.zeros((0, 2)))
    for nothing in (merge(sightings, LiftingConfig(min_points=9)), merge(unlabelled)):
        assert not nothing.ids.any()
        assert nothing.embeds.shape == (0, 2)
    assert not pool(unlabelled).any()


def test_a_cloud_turned_with_its_cameras_is_lifted_alike(room: Sample) -> None:
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_rotvec([0, 0, 1.0]).as_matrix()
    turn[:3, 3] = 3, -2, 0.5
    members = dict(room.members)
    members |= encode_cloud(
        PointCloud((room.cloud.xyz @ turn[:3, :3].T + turn[:3, 3]).astype(np.float32), room.cloud.rgb)
    )
    for view in room.views:
        moved = replace(view.camera, cam_to_world=turn @ view.camera.cam_to_world)
        members[f"{view.number:02d}.camera.json"] = encode_camera(moved)
    same = sight(decode_sample(members, "memory://turned")).segment == sight(room).segment
    assert same.mean() > 0.999


def test_a_sample_without_labels_is_refused() -> None:
    with pytest.raises(BadInput, match=r"memory://room.*pseudolabel"):
        sight(room_sample(labelled=False))
