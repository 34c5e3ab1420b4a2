"""ScanNet: two cameras in one stream, axes that are aligned, objects on a mesh."""

import json

import numpy as np
import pytest
from box_room import CAMERAS, CRATE, POSES, K, assert_cameras, assert_cloud_projects_into_frames, colour, depth_m
from box_room import write_files as write
from scannet_files import (
    ALIGNMENT,
    DEPTH_SIZE,
    ID,
    annotation,
    groups,
    meta,
    room_mesh,
    scan,
    sens,
    turned,
)

from liftgs.chunks import load_chunk, plan_chunks
from liftgs.readers import ReaderOptions, list_scenes, open_scene
from liftgs.readers.scannet_labels import ScanNetLabel, read_label_table
from liftgs.sample import decode_sample, encode_chunk
from liftgs.scene import BadInput

IDS = ["frame-000000", "frame-000001", "frame-000002"]


def written(tmp_path, files):
    write(tmp_path / ID, files)
    return open_scene(str(tmp_path / ID))


def test_a_scan_reads_back_in_the_rooms_axes(tmp_path):
    """Fused depth: pose, both intrinsics, the half pixel and the alignment must all be right for colours to fit."""
    scene = written(tmp_path, scan())
    frames = assert_cameras(scene, IDS, camera_K=K)
    assert (scene.name, scene.gravity) == (ID, "z-up")
    assert scene.cloud() is None
    assert scene.labels() is None
    assert frames[1].uri == scene.frame_uri(IDS[1]) == f"{tmp_path}/{ID}/{ID}.sens#frame-000001"
    assert frames[1].jpeg is not None
    for frame in frames:  # of the photo's field of view, though the sensor's is wider
        assert frame.depth.shape == DEPTH_SIZE[::-1]
        assert np.median(np.abs(frame.depth - depth_m(frame.camera.resized(*DEPTH_SIZE)))) < 0.01
    assert_cloud_projects_into_frames(scene, colour_tolerance=8, share=0.98)


def test_without_the_half_pixel_depth_and_photo_would_not_meet(tmp_path):
    """The principal points of the stream count from the first pixel's centre; 160x120 and 128x96 pixels tell."""
    frame = written(tmp_path, scan()).load(IDS[0])
    np.testing.assert_allclose(frame.camera.K[:2, 2], K[:2, 2], atol=1e-4)


@pytest.mark.parametrize(
    "extrinsics",
    [
        {"depth_extrinsic": turned(2.0, (0.06, -0.01, 0.02))},
        {"photo_extrinsic": turned(-3.0, (0.05, 0.02, 0.0))},
        {"depth_extrinsic": turned(1.0, (0.04, 0, 0)), "photo_extrinsic": turned(-2.0, (-0.03, 0.01, 0))},
    ],
)
def test_two_cameras_side_by_side_agree(tmp_path, extrinsics):
    """The pose is the depth camera's; depth is moved to where the photo was taken."""
    scene = written(tmp_path, scan(**extrinsics))
    for frame in assert_cameras(scene, IDS):
        truth = depth_m(frame.camera.resized(*DEPTH_SIZE))
        seen = frame.depth > 0
        assert seen.mean() > 0.95  # the rest is hidden from the sensor
        assert np.mean(np.abs(frame.depth - truth)[seen] < 0.05) > 0.95
    assert_cloud_projects_into_frames(scene, colour_tolerance=8, share=0.95)


def test_alignment_is_applied_to_mesh_boxes_and_poses_alike(tmp_path):
    scene = written(tmp_path, scan() | annotation())
    xyz, rgb, segments = room_mesh()
    cloud = scene.cloud()
    np.testing.assert_allclose(cloud.xyz, xyz, atol=1e-5)
    np.testing.assert_array_equal(cloud.rgb, rgb)
    np.testing.assert_array_equal(cloud.instances, np.select([segments == 3, segments >= 15], [1, 5], 0))
    floor, crate = scene.labels().instances
    assert scene.labels().expressions == ()
    assert (floor.id, floor.kind, crate.id, crate.kind) == (1, "floor", 5, "cardboard box")
    seen = xyz[segments >= 15]
    np.testing.assert_allclose(crate.box_min, seen.min(0), atol=1e-5)
    np.testing.assert_allclose(crate.box_max, seen.max(0), atol=1e-5)
    assert np.abs(np.array(crate.box_max) - CRATE[1]).max() < 0.05
    assert_cloud_projects_into_frames(scene, colour_tolerance=4)


def test_a_labelled_chunk_becomes_a_labelled_sample(tmp_path):
    scene = written(tmp_path, scan() | annotation())
    [chunk] = plan_chunks(scene)
    loaded = load_chunk(scene, chunk)
    assert {instance.kind for instance in loaded.labels.instances} == {"floor", "cardboard box"}
    crate = loaded.cloud.xyz[loaded.cloud.instances == 5]
    assert len(crate) > 100
    assert ((crate > CRATE[0] - 0.05) & (crate < CRATE[1] + 0.05)).all()
    sample = decode_sample(encode_chunk(loaded, {}), "memory://sample")
    assert sample.labels == loaded.labels


def test_a_scan_without_alignment_stays_as_it_is(tmp_path):
    for name, text in {"no key": b"sceneType = Office\n", "no file": None}.items():
        files = scan() | annotation()
        del files[f"{ID}.txt"]
        write(tmp_path / name / ID, files | ({} if text is None else {f"{ID}.txt": text}))
        scene = open_scene(str(tmp_path / name / ID))
        assert scene.gravity == "unknown"
        assert_cameras(scene, IDS, poses=[np.linalg.inv(ALIGNMENT) @ pose for pose in POSES])
        np.testing.assert_allclose(
            scene.cloud().xyz, (room_mesh()[0] - ALIGNMENT[:3, 3]) @ ALIGNMENT[:3, :3], atol=1e-5
        )


def test_the_full_mesh_stands_in_for_the_thinned_one(tmp_path):
    names = {
        f"{ID}_vh_clean_2.ply": f"{ID}_vh_clean.ply",
        f"{ID}_vh_clean_2.0.010000.segs.json": f"{ID}_vh_clean.segs.json",
        f"{ID}.aggregation.json": f"{ID}_vh_clean.aggregation.json",
    }
    full = {names[name]: data for name, data in annotation().items()}
    scene = written(tmp_path, scan() | full)
    assert [instance.id for instance in scene.labels().instances] == [1, 5]
    # segments of one mesh say nothing about the other
    mixed = annotation()
    del mixed[f"{ID}.aggregation.json"]
    other = f"{ID}_vh_clean.aggregation.json"
    write(tmp_path / "mixed", scan() | mixed | {other: full[other]})
    scene = open_scene(str(tmp_path / "mixed"))
    assert scene.labels() is None
    assert scene.cloud().instances is None
    assert len(scene.cloud()) == len(room_mesh()[0])


@pytest.mark.parametrize(
    ("objects", "owners", "kinds"),
    [
        # the smaller object owns what both claim, whichever comes first
        (groups((0, "room", [1, 3, 15, 20]), (1, "half", [15])), {1: 1, 3: 1, 15: 2, 20: 1}, ["room", "half"]),
        (groups((0, "half", [15]), (1, "room", [1, 3, 15, 20])), {1: 2, 3: 2, 15: 1, 20: 2}, ["half", "room"]),
        # a list that is there twice, as in scene0217_00: the first copy keeps its vertices
        (groups((0, "a", [15]), (7, "a", [15])), {1: 0, 3: 0, 15: 1, 20: 0}, ["a", "a"]),
        # one object in two groups
        (groups((2, "a", [15]), (2, "a", [20])), {1: 0, 3: 0, 15: 3, 20: 3}, ["a"]),
        # segments that no vertex has
        (groups((0, "ghost", [999]), (1, "a", [3, 999])), {1: 0, 3: 2, 15: 0, 20: 0}, ["a"]),
        (groups((0, "empty", [])), {1: 0, 3: 0, 15: 0, 20: 0}, []),
        (groups(), {1: 0, 3: 0, 15: 0, 20: 0}, []),
    ],
)
def test_each_vertex_has_the_object_that_its_segment_belongs_to(tmp_path, objects, owners, kinds):
    scene = written(tmp_path, scan() | annotation(objects=objects))
    segments = room_mesh()[2]
    expected = np.select([segments == segment for segment in owners], list(owners.values()))
    np.testing.assert_array_equal(scene.cloud().instances, expected)
    assert [instance.kind for instance in scene.labels().instances] == kinds


SEGS, AGG, TXT = f"{ID}_vh_clean_2.0.010000.segs.json", f"{ID}.aggregation.json", f"{ID}.txt"


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        (SEGS, b"{", "not valid JSON"),
        (SEGS, b"[1, 2]", 'no list "segIndices"'),
        (SEGS, json.dumps({"segIndices": [1.5, 2]}).encode(), 'no list "segIndices" of whole numbers'),
        (SEGS, json.dumps({"segIndices": [[1], [2, 3]]}).encode(), 'no list "segIndices" of whole numbers'),
        (SEGS, json.dumps({"segIndices": [10**30]}).encode(), 'no list "segIndices" of whole numbers'),
        (SEGS, json.dumps({"segIndices": [1, 2, 3]}).encode(), "gives 3 vertices a segment, but the mesh has 12000"),
        (AGG, b'{"segGroups": 3}', 'no list "segGroups"'),
        (AGG, b"\xff\xfe", "not a text file"),
        (AGG, b'{"segGroups": [{"objectId": 1, "segments": [3]}]}', r"segGroups\[0\] is not an objectId"),
        (AGG, b'{"segGroups": [{"objectId": -1, "label": "a", "segments": [3]}]}', r"segGroups\[0\]"),
        (AGG, b'{"segGroups": [{"objectId": "1", "label": "a", "segments": [3]}]}', r"segGroups\[0\]"),
        (AGG, b'{"segGroups": [{"objectId": 1, "label": "a", "segments": ["x"]}]}', r"segGroups\[0\]"),
        (AGG, b"[" * 100_000, "not valid JSON"),
        (TXT, b"axisAlignment = 1 0 0", "axisAlignment is not 16 numbers"),
        (TXT, b"axisAlignment = " + b"nan " * 16, "axisAlignment is no rotation and translation"),
        (TXT, meta(np.diag([2.0, 2, 2, 1])), "axisAlignment is no rotation and translation"),
        (TXT, meta(np.diag([1.0, 1, -1, 1])), "axisAlignment is no rotation and translation"),
        (f"{ID}_vh_clean_2.ply", b"ply\n", "does not end"),
    ],
)
def test_a_broken_annotation_is_bad_input_that_names_its_file(tmp_path, name, data, reason):
    scene = written(tmp_path, scan() | annotation() | {name: data})
    with pytest.raises(BadInput, match=reason) as caught:
        scene.cloud()
    assert caught.value.uri == f"{tmp_path}/{ID}/{name}"


def test_a_source_lists_its_scans(tmp_path):
    for name in ("scene0000_01", "scene0000_00"):
        write(tmp_path / name, {f"{name}.sens": sens(), f"{name}.txt": meta()})
    write(tmp_path / "tasks", {"scannetv2_train.txt": b"scene0000_00"})
    assert list_scenes(str(tmp_path)) == [f"{tmp_path}/scene0000_00", f"{tmp_path}/scene0000_01"]
    assert list_scenes(str(tmp_path), ReaderOptions(format="scannet")) == list_scenes(str(tmp_path))
    write(tmp_path / "scene0000_00", {"scene0000_01.sens": sens()})
    with pytest.raises(BadInput, match=r"has 2 \.sens files"):
        open_scene(str(tmp_path / "scene0000_00")).frame_ids()


@pytest.mark.parametrize("name", ["frame-000003", "frame-0", "frame--00001", "000001", "nobody"])
def test_a_frame_that_is_not_there_is_bad_input(tmp_path, name):
    with pytest.raises(BadInput, match="there is no frame"):
        written(tmp_path, scan()).load(name)


def test_the_cloud_of_an_unannotated_mesh_tells_position(tmp_path):
    files = annotation()
    del files[AGG]
    cloud = written(tmp_path, scan() | files).cloud()
    assert cloud.instances is None
    assert np.abs(cloud.rgb - colour(cloud.xyz)).max() <= 1


TSV = (
    b"id\traw_category\tcategory\tcount\tnyu40id\teigen13id\tnyuClass\tnyu40class\n"
    b"1\twall\twall\t8277\t1\t12\twall\twall\n"
    b'1324\t6" pipe\tpipe\t3\t\t\t\t\n'
    b"17\tcardboard box\tbox\t9\t29\t7\tbox\tbox\n"
    b"27\tcardboard box\tcardboard box\t9\t29\t7\tbox\tbox\n"
)


def test_words_map_to_classes(tmp_path):
    """A quotation mark is a character like any other; a missing NYU class is 0; the last of two rows counts."""
    write(tmp_path, {"labels.tsv": TSV})
    assert read_label_table(str(tmp_path / "labels.tsv")) == {
        "wall": ScanNetLabel(1, 1, "wall"),
        '6" pipe': ScanNetLabel(1324, 0, "pipe"),
        "cardboard box": ScanNetLabel(27, 29, "cardboard box"),
    }


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (None, "the file is missing"),
        (b"", "empty"),
        (b"id\tlabel\n1\twall\n", "has no column raw_category, category, nyu40id"),
        (TSV.replace(b"1324", b"pipe"), "line 3: needs raw_category"),
        (TSV + b"99", "line 6: needs raw_category"),
    ],
)
def test_a_table_that_is_none_is_bad_input(tmp_path, data, reason):
    write(tmp_path, {} if data is None else {"labels.tsv": data})
    with pytest.raises(BadInput, match=reason) as caught:
        read_label_table(f"{tmp_path}/labels.tsv")
    assert caught.value.uri == f"{tmp_path}/labels.tsv"


def test_cameras_are_what_the_tests_take_them_for():
    """The helper itself: the stored poses differ from the room's by the alignment."""
    assert len(CAMERAS) == len(IDS)
    np.testing.assert_allclose(ALIGNMENT[:3, :3] @ ALIGNMENT[:3, :3].T, np.eye(3), atol=1e-8)
