"""The 7-Scenes and OpenMask3D layouts: written analytically, read back, projected."""

from pathlib import Path

import fsspec
import numpy as np
import pytest
from box_room import (
    CAMERAS,
    HEIGHT,
    POSES,
    WIDTH,
    K,
    assert_cameras,
    assert_cloud_projects_into_frames,
    depth_m,
    depth_png,
    jpeg,
    matrix_text,
    photo,
    png,
    write_files,
)

from liftgs.chunks import load_chunk, plan_chunks
from liftgs.geometry import project
from liftgs.readers import ReaderOptions, open_scene
from liftgs.scene import BadInput, Camera

KITCHEN = Path(__file__).parents[3] / "../shared/data/7scenes-kitchen"


def seven_scenes(encode=png, suffix="png") -> dict[str, bytes]:
    files = {"camera-intrinsics.txt": matrix_text(K)}
    for i, camera in enumerate(CAMERAS):
        files[f"frame-{i:06d}.color.{suffix}"] = encode(photo(camera))
        files[f"frame-{i:06d}.depth.png"] = depth_png(depth_m(camera))
        files[f"frame-{i:06d}.pose.txt"] = matrix_text(camera.cam_to_world)
    return files


def openmask3d(units_per_m=1000.0, depth_camera=lambda camera: camera) -> dict[str, bytes]:
    K4 = np.eye(4)
    K4[:3, :3] = K
    files = {"intrinsic/intrinsic_color.txt": matrix_text(K4), "scene.ply": b"not read"}
    for i, camera in zip((0, 2, 10), CAMERAS, strict=True):
        files[f"color/{i}.png"] = png(photo(camera))
        files[f"depth/{i}.png"] = depth_png(depth_m(depth_camera(camera)), units_per_m)
        files[f"pose/{i}.txt"] = matrix_text(camera.cam_to_world)
    return files


def test_seven_scenes_reads_back(tmp_path):
    write_files(tmp_path, seven_scenes())
    scene = open_scene(str(tmp_path))
    frames = assert_cameras(scene, ["frame-000000", "frame-000001", "frame-000002"])
    assert frames[0].jpeg is None
    assert frames[0].uri == scene.frame_uri("frame-000000") == f"{tmp_path}/frame-000000.color.png"
    assert scene.gravity == "unknown"
    assert_cloud_projects_into_frames(scene)


def test_a_jpeg_photo_keeps_its_own_bytes(tmp_path):
    files = seven_scenes(jpeg, "jpg")
    write_files(tmp_path, files)
    scene = open_scene(str(tmp_path))
    assert scene.load("frame-000001").jpeg == files["frame-000001.color.jpg"]
    assert_cloud_projects_into_frames(scene, colour_tolerance=8)


def test_openmask3d_reads_back_in_natural_order(tmp_path):
    write_files(tmp_path, openmask3d())
    scene = open_scene(f"file://{tmp_path}")
    assert_cameras(scene, ["0", "2", "10"])
    assert_cloud_projects_into_frames(scene)


def test_depth_units_can_be_stated(tmp_path):
    write_files(tmp_path, openmask3d(units_per_m=6553.5))
    assert_cloud_projects_into_frames(open_scene(str(tmp_path), ReaderOptions(depth_units_per_m=6553.5)))


@pytest.mark.parametrize("size", [(80, 60), (200, 150)])
def test_depth_of_another_size_scales_the_intrinsics(tmp_path, size):
    write_files(tmp_path, openmask3d(depth_camera=lambda camera: camera.resized(*size)))
    assert_cloud_projects_into_frames(open_scene(str(tmp_path)), share=0.99)


def test_depth_of_a_camera_of_its_own_is_brought_into_the_photos_view(tmp_path):
    depth_K = np.array([[70.0, 0, 66.0], [0, 72.0, 49.0], [0, 0, 1]])  # wider than the photo
    files = openmask3d(depth_camera=lambda camera: Camera(depth_K, camera.cam_to_world, 128, 96))
    write_files(tmp_path, files | {"intrinsic/intrinsic_depth.txt": matrix_text(depth_K)})
    scene = open_scene(str(tmp_path))
    for frame in assert_cameras(scene, ["0", "2", "10"]):
        truth = depth_m(frame.camera.resized(128, 96))
        assert frame.depth.shape == (96, 128)
        assert (frame.depth > 0).all()
        assert np.median(np.abs(frame.depth - truth)) < 0.01
    assert_cloud_projects_into_frames(scene, colour_tolerance=8, share=0.98)


def test_depth_intrinsics_for_another_size_are_told(tmp_path):
    """Else a quarter of the map would be stretched over the photo."""
    depth_K = np.array([[140.0, 0, 256.0], [0, 144.0, 192.0], [0, 0, 1]])  # of a map of 512x384
    files = openmask3d(depth_camera=lambda camera: camera.resized(128, 96))
    write_files(tmp_path, files | {"intrinsic/intrinsic_depth.txt": matrix_text(depth_K)})
    with pytest.raises(
        BadInput, match=r"the image is 128x96, but the depth camera's file has its centre at \(256, 192\)"
    ):
        open_scene(str(tmp_path)).load("0")


def test_zero_and_65535_are_no_depth(tmp_path):
    files = seven_scenes()
    raw = np.rint(depth_m(CAMERAS[0]) * 1000).astype(np.uint16)
    raw[:40], raw[40:50] = 65535, 0
    write_files(tmp_path, files | {"frame-000000.depth.png": png(raw)})
    frame = open_scene(str(tmp_path)).load("frame-000000")
    assert (frame.depth[:50] == 0).all()
    assert (frame.depth[50:] > 0).all()


def test_intrinsics_can_be_given_where_the_file_is_missing(tmp_path):
    files = seven_scenes()
    del files["camera-intrinsics.txt"]
    write_files(tmp_path, files)
    options = ReaderOptions(intrinsics=(K[0, 0], K[1, 1], K[0, 2], K[1, 2]))
    assert_cameras(open_scene(str(tmp_path), options), ["frame-000000", "frame-000001", "frame-000002"])


def test_a_rounded_rotation_is_made_orthonormal(tmp_path):
    rounded = {f"frame-{i:06d}.pose.txt": matrix_text(np.round(pose, 3)) for i, pose in enumerate(POSES)}
    write_files(tmp_path, seven_scenes() | rounded)
    R = open_scene(str(tmp_path)).load("frame-000001").camera.cam_to_world[:3, :3]
    np.testing.assert_allclose(R @ R.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(R, POSES[1][:3, :3], atol=2e-3)


def test_the_same_scene_streams_from_an_object_store(tmp_path):
    store = fsspec.filesystem("memory")
    for layout, files in {"seven": seven_scenes(), "om3d": openmask3d()}.items():
        for name, data in files.items():
            store.pipe_file(f"/bucket/{layout}/{name}", data)
        write_files(tmp_path / layout, files)
        remote, local = open_scene(f"memory://bucket/{layout}"), open_scene(str(tmp_path / layout))
        assert remote.name == local.name == layout
        assert_cloud_projects_into_frames(remote)
        [remote_chunk], [local_chunk] = plan_chunks(remote), plan_chunks(local)
        ours, theirs = load_chunk(remote, remote_chunk), load_chunk(local, local_chunk)
        assert ours.cloud.xyz.tobytes() == theirs.cloud.xyz.tobytes()
    store.rm("/bucket", recursive=True)


def test_only_the_frame_that_is_asked_for_is_read(tmp_path, monkeypatch):
    write_files(tmp_path, seven_scenes())
    scene = open_scene(str(tmp_path))
    read = []
    original = fsspec.implementations.local.LocalFileSystem.cat_file

    def counted(self, path, start=None, end=None, **kwargs):
        if end is None:  # not the first bytes of a photo, looked at for the size that the intrinsics are for
            read.append(Path(path).name)
        return original(self, path, start, end, **kwargs)

    monkeypatch.setattr(fsspec.implementations.local.LocalFileSystem, "cat_file", counted)
    scene.frame_ids()
    assert read == []
    scene.load("frame-000001")
    assert sorted(read) == [
        "camera-intrinsics.txt",
        "frame-000001.color.png",
        "frame-000001.depth.png",
        "frame-000001.pose.txt",
    ]


@pytest.mark.skipif(not KITCHEN.exists(), reason="the 7-Scenes kitchen is not on this machine")
def test_real_frames_agree_with_each_other():
    """Kinect frames: the cloud of six of them, projected into each, meets its depth and its colour."""
    scene = open_scene(str(KITCHEN))
    chunks = plan_chunks(scene)
    assert [len(chunk.frame_ids) for chunk in chunks] == [6] * 10
    loaded = load_chunk(scene, chunks[3])
    assert loaded.failures == []
    assert len(loaded.cloud) > 3000
    for frame in loaded.frames:
        assert frame.rgb.shape == (480, 640, 3)
        assert frame.depth.max() < 10
        pixels, z = project(loaded.cloud.xyz.astype(np.float64), frame.camera)
        inside = (z > 0.1) & (pixels >= 0).all(1) & (pixels < (640, 480)).all(1)
        column, row = pixels[inside].astype(int).T
        surface = frame.depth[row, column]
        agree = np.abs(z[inside] - surface) < 0.1
        assert agree[surface > 0].mean() > 0.75  # the rest is hidden, or on an edge
        difference = np.abs(frame.rgb[row, column].astype(int) - loaded.cloud.rgb[inside]).mean(1)
        assert np.median(difference[agree]) < 20


def test_sizes_are_as_written():
    """The helper itself: photos and depth are what the tests above take them for."""
    assert photo(CAMERAS[0]).shape == (HEIGHT, WIDTH, 3)
    assert depth_m(CAMERAS[0].resized(80, 60)).shape == (60, 80)
