"""Windows cover a scene, and what is wrong with a frame costs that frame only."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from walls import AHEAD, Listed, posed, wall_frame

from liftgs.chunks import ChunkingConfig, load_chunk, plan_chunks
from liftgs.geometry import CloudConfig, sees
from liftgs.scene import BadInput, Chunk, Expression, Instance, Mention, PointCloud, SceneLabels, scene_of_key


class Unread(Listed):
    def __init__(self, count):
        super().__init__([None] * count)

    def load(self, frame_id):
        raise AssertionError("planning must not load a frame")

    cloud = labels = load


@settings(max_examples=300, deadline=None)
@given(count=st.integers(1, 300), stride=st.integers(1, 7), size=st.integers(1, 20), overlap=st.integers(0, 19))
def test_windows_cover_every_keyframe_and_the_last_is_no_rest(count, stride, size, overlap):
    overlap = min(overlap, size - 1)
    chunks = plan_chunks(Unread(count), ChunkingConfig(stride, size, overlap))
    keyframes = [str(i) for i in range(0, count, stride)]
    assert [chunk.index for chunk in chunks] == list(range(len(chunks)))
    assert all(chunk.view_ids == chunk.frame_ids for chunk in chunks)
    lengths = [len(chunk.frame_ids) for chunk in chunks]
    assert max(lengths) <= size
    assert max(lengths) - min(lengths) <= 1
    if len(chunks) > 1:
        assert min(lengths) >= size // 2
    seen = list(chunks[0].frame_ids)
    for before, after in pairwise(chunks):
        assert before.frame_ids[len(before.frame_ids) - overlap :] == after.frame_ids[:overlap]
        seen += after.frame_ids[overlap:]
    assert seen == keyframes


def test_sixty_frames_make_ten_chunks_of_six_and_seven_make_two():
    assert [len(chunk.frame_ids) for chunk in plan_chunks(Unread(60))] == [6] * 10
    assert [len(chunk.frame_ids) for chunk in plan_chunks(Unread(7))] == [4, 3]
    assert plan_chunks(Unread(7))[1].key == "scene-001"


@pytest.mark.parametrize("scene", ["kitchen", "scene0000_00", "apartments-00012", "k-1234-retry1"])
def test_a_key_tells_its_scene(scene: str) -> None:
    for index, retry in ((0, 0), (7, 3), (1234, 12)):
        assert scene_of_key(Chunk("file:///x", scene, index, (), (), retry).key) == scene


def test_a_scene_without_frames_is_bad_input():
    with pytest.raises(BadInput, match="no frame"):
        plan_chunks(Unread(0))


@pytest.mark.parametrize("bad", [{"frame_stride": 0}, {"frames_per_chunk": 0}, {"overlap_frames": 6}])
def test_impossible_windows_are_refused(bad):
    with pytest.raises(ValueError, match="frame"):
        ChunkingConfig(**bad)


def test_every_frame_is_loaded_once_and_a_bad_one_costs_only_itself():
    bad = BadInput("memory://scene/1.jpg", "truncated")
    scene = Listed([wall_frame("0", 2), bad, wall_frame("2", 3), wall_frame("3", 4)])
    loaded = load_chunk(scene, plan_chunks(scene)[0])
    assert scene.loads == ["0", "1", "2", "3"]
    assert [frame.id for frame in loaded.frames] == ["0", "2", "3"]
    assert loaded.failures == [("1", bad)]
    np.testing.assert_allclose(np.unique(loaded.cloud.xyz[:, 2]), [2, 3, 4], atol=1e-6)


def test_a_retry_stores_only_its_views_but_its_cloud_is_that_of_the_window():
    scene = Listed([wall_frame("0", 2), wall_frame("1", 3)])
    chunk = plan_chunks(scene)[0]
    whole = load_chunk(scene, chunk)
    part = load_chunk(scene, replace(chunk, view_ids=("1",), retry=1))
    assert [frame.id for frame in part.frames] == ["1"]
    np.testing.assert_array_equal(part.cloud.xyz, whole.cloud.xyz)


def test_a_frame_whose_depth_is_all_zero_is_bad_input():
    scene = Listed([wall_frame("0"), wall_frame("1", 0.0)])
    loaded = load_chunk(scene, plan_chunks(scene)[0])
    [(frame_id, fault)] = loaded.failures
    assert (frame_id, fault.uri, fault.reason) == ("1", "1.jpg", "depth has no valid pixel")


def test_a_camera_in_geographic_coordinates_is_bad_input():
    scene = Listed([wall_frame("0"), wall_frame("1", camera=posed((0, 0, 0), (4e6, 5e5, 0)))])
    [(_, fault)] = load_chunk(scene, plan_chunks(scene)[0]).failures
    assert "4000 km from the origin" in fault.reason


def test_a_chunk_of_which_nothing_is_left_says_why():
    dead = Listed([BadInput("a.jpg", "the file is missing"), BadInput("b.jpg", "truncated")])
    with pytest.raises(BadInput, match=r"no view could be loaded; first of 2 failures: a\.jpg: the file is missing"):
        load_chunk(dead, plan_chunks(dead)[0])
    far = Listed([wall_frame("0", 50.0)])
    with pytest.raises(BadInput, match=r"no reliable depth within 0\.1 to 10 m"):
        load_chunk(far, plan_chunks(far)[0])
    flat = Listed([replace(wall_frame("0"), depth=None)])
    with pytest.raises(BadInput, match="neither depth nor a point cloud"):
        load_chunk(flat, plan_chunks(flat)[0])
    behind = PointCloud(np.array([[0, 0, -2]], np.float32), np.zeros((1, 3), np.uint8))
    blind = Listed([replace(wall_frame("0"), depth=None)], behind)
    with pytest.raises(BadInput, match="no frame sees any of the scene's 1 points"):
        load_chunk(blind, plan_chunks(blind)[0])


def test_only_points_that_a_frame_sees_are_kept_of_the_scenes_own_cloud():
    xyz = np.array(
        [[0, 0, 2], [0, 0, -2], [9, 0, 2], [0, 0, 50], [0, 0, 2.9], [1.3, 0, 2.0], [1.4, 0, 2.0]], np.float32
    )
    own = PointCloud(xyz, np.arange(21, dtype=np.uint8).reshape(7, 3), np.arange(7, dtype=np.int32))
    photo_only = Listed([replace(wall_frame(), depth=None)], own)
    assert load_chunk(photo_only, plan_chunks(photo_only)[0]).cloud.instances.tolist() == [0, 4, 5]
    with_depth = Listed([wall_frame(distance_m=2.0)], own)  # the wall hides the point at 2.9 m
    assert load_chunk(with_depth, plan_chunks(with_depth)[0]).cloud.instances.tolist() == [0, 5]
    np.testing.assert_array_equal(sees(AHEAD, xyz, CloudConfig()), [1, 0, 0, 0, 1, 1, 0])


def test_labels_are_cut_to_what_the_cloud_holds():
    def instance(i):
        return Instance(i, "chair", "red", "", (0, 0, 0), (1, 1, 1))

    def expression(target, *anchors):
        mentions = [Mention((i,), (0, 3), (0, 1)) for i in (target, *anchors)]
        return Expression("the chair", mentions[0], tuple(mentions[1:]))

    labels = SceneLabels(
        (instance(1), instance(2), instance(3)),
        (expression(1), expression(3), expression(1, 2), expression(2, 3), expression(2)),
    )
    scene = Listed([wall_frame("0", 2, instance=1), wall_frame("1", 3, instance=2)], labels=labels)
    loaded = load_chunk(scene, plan_chunks(scene)[0])
    assert [i.id for i in loaded.labels.instances] == [1, 2]
    assert [(e.target.instances[0], *(a.instances[0] for a in e.anchors)) for e in loaded.labels.expressions] == [
        (1,),
        (1, 2),
        (2,),
    ]
    unlabelled = Listed([wall_frame("0", 2)])
    assert load_chunk(unlabelled, plan_chunks(unlabelled)[0]).labels is None


def test_an_expression_made_for_some_frames_is_not_told_of_others():
    class Filmed(Listed):
        def frame_ids(self):
            return [frame.id for frame in self._frames]

        def load(self, frame_id):
            return super().load(self.frame_ids().index(frame_id))

    def told(kinds, *frames):
        instances = tuple(Instance(i, kind, "", "", (0, 0, 0), (1, 1, 1)) for i, kind in enumerate(kinds, 1))
        walls = [wall_frame(f"frame_{number:06}", 2 + i, instance=1 + i) for i, number in enumerate(frames)]
        scene = Filmed(walls, labels=SceneLabels(instances, ()))
        said = Expression("the chair", Mention((1,), (0, 3), (0, 1)), tags=("frames_used=10,20",))
        return load_chunk(scene, plan_chunks(scene)[0], expressions=[said]).labels.expressions

    assert told(["chair", "chair"], 10, 15)
    assert not told(["chair", "chair"], 10, 21)
    assert told(["chair", "table"], 10, 21)


def test_a_frame_that_is_no_bad_input_but_cannot_be_used_costs_only_itself():
    class Odd(Listed):
        def load(self, frame_id):
            if frame_id == "1":
                raise OverflowError("int too large to convert to float")
            return super().load(frame_id)

    scene = Odd([wall_frame("0", 2), wall_frame("1", 2)])
    loaded = load_chunk(scene, plan_chunks(scene)[0])
    assert [frame.id for frame in loaded.frames] == ["0"]
    assert [(frame_id, str(fault)) for frame_id, fault in loaded.failures] == [
        ("1", f"{scene.frame_uri('1')}: int too large to convert to float")
    ]


def test_expressions_from_elsewhere_are_cut_like_the_scenes_own():
    def expression(text, *mentioned):
        mentions = [Mention((i,), (0, 3), (0, 1)) for i in mentioned]
        return Expression(text, mentions[0], tuple(mentions[1:]))

    instances = tuple(Instance(i, "chair", "", "", (0, 0, 0), (1, 1, 1)) for i in (1, 2))
    labels = SceneLabels(instances, (expression("own", 1), expression("own, unseen", 2)))
    scene = Listed([wall_frame("0", 2, instance=1)], labels=labels)
    (chunk,) = plan_chunks(scene)
    more = [expression("more", 1), expression("unseen", 2), expression("unseen anchor", 1, 2), expression("unknown", 9)]
    loaded = load_chunk(scene, chunk, expressions=more)
    assert [e.text for e in loaded.labels.expressions] == ["own", "more"]
    with pytest.raises(BadInput, match="its labels have none of the targets of its 1 expressions"):
        load_chunk(scene, chunk, expressions=more[3:])
    with pytest.raises(BadInput, match="has no instance labels for its 4 expressions"):
        load_chunk(Listed([wall_frame("0", 2)]), chunk, expressions=more)
