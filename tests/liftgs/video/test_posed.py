"""A video with poses beside it keeps them, and gets a cloud that lies on the true surfaces."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import films
import numpy as np
import pytest

from liftgs.chunks import ChunkingConfig, load_chunk, plan_chunks
from liftgs.geometry import project
from liftgs.readers import ReaderOptions, open_scene
from liftgs.readers.cameras import OPENGL_TO_OPENCV
from liftgs.readers.nerfstudio import NerfstudioScene
from liftgs.scene import BadInput, Frame
from liftgs.video import VideoConfig, convert
from liftgs.video.keyframes import KeyframeConfig

SMALL = VideoConfig(KeyframeConfig(min_motion=0.02))


@pytest.fixture(scope="module")
def tour() -> list[Frame]:
    return films.room(views=60, count=12)


@pytest.fixture(scope="module")
def film(tour: list[Frame], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return films.write(tmp_path_factory.mktemp("film") / "tour.mp4", [frame.rgb for frame in tour])


def transforms(tour: list[Frame], scale: float = 1.0, **more: Any) -> dict[str, Any]:
    camera = tour[0].camera
    frames = []
    for i, frame in enumerate(tour):
        pose = frame.camera.cam_to_world @ OPENGL_TO_OPENCV
        pose[:3, 3] *= scale
        frames.append({"frame": i, "transform_matrix": pose.tolist()})
    return {
        "fl_x": camera.K[0, 0],
        "fl_y": camera.K[1, 1],
        "cx": camera.K[0, 2],
        "cy": camera.K[1, 2],
        "w": camera.width,
        "h": camera.height,
        "frames": frames[::-1],
        **more,
    }


@pytest.fixture
def beside(film: Path, tmp_path: Path) -> Callable[[dict[str, Any] | str], Path]:
    """The video with this file of poses beside it."""

    def place(poses: dict[str, Any] | str) -> Path:
        (tmp_path / "tour.mp4").write_bytes(film.read_bytes())
        text = poses if isinstance(poses, str) else json.dumps(poses)
        (tmp_path / "tour.transforms.json").write_text(text)
        return tmp_path / "tour.mp4"

    return place


def distance_to_surfaces(xyz: np.ndarray, tour: list[Frame]) -> np.ndarray:
    """How far, in metres of depth, each point is from what is seen at its place, two pixels around included.

    Of the view where it fits best, since others may be blocked; and with a margin, since keypoints sit on edges.
    """
    off = np.full(len(xyz), np.inf)
    for frame in tour:
        assert frame.depth is not None
        height, width = frame.depth.shape
        pixels, z = project(xyz, frame.camera)
        inside = (z > 0) & (pixels >= 0).all(1) & (pixels < (width, height)).all(1)
        columns, rows = pixels[inside].astype(int).T
        for dx, dy in np.ndindex(5, 5):
            there = frame.depth[(rows + dy - 2).clip(0, height - 1), (columns + dx - 2).clip(0, width - 1)]
            off[inside] = np.minimum(off[inside], np.abs(there - z[inside]))
    return off


@pytest.mark.parametrize(("scale", "long_side_px"), [(1.0, 384), (0.25, 256)])
def test_poses_are_kept_and_points_lie_on_surfaces(
    tour: list[Frame], beside: Callable[..., Path], tmp_path: Path, scale: float, long_side_px: int
) -> None:
    """Also when photos are made smaller and the world has been scaled."""
    more = {} if scale == 1 else {"applied_scale": scale}
    video = beside(transforms(tour, scale, **more))
    convert(str(video), tmp_path / "tour", VideoConfig(SMALL.keyframes, long_side_px))
    assert {path.name for path in (tmp_path / "tour").iterdir()} == {
        *("images", "transforms.json", "points3D.ply", "video.json")
    }
    scene = open_scene(str(tmp_path / "tour"))
    assert isinstance(scene, NerfstudioScene)
    assert scene.gravity == "z-up"
    cloud = scene.cloud()
    assert cloud is not None
    for frame_id in scene.frame_ids():
        frame, true = scene.load(frame_id), tour[int(Path(frame_id).stem.removeprefix("frame-"))]
        assert frame.camera.width == long_side_px
        np.testing.assert_allclose(frame.camera.cam_to_world, true.camera.cam_to_world, atol=1e-9)
        np.testing.assert_allclose(frame.camera.K, true.camera.resized(*frame.rgb.shape[1::-1]).K, atol=1e-6)
    assert len(cloud) > 200
    off = distance_to_surfaces(cloud.xyz.astype(float), tour)
    assert np.median(off) < 0.02
    assert np.percentile(off, 80) < 0.25
    moved = distance_to_surfaces(cloud.xyz + np.float64(0.1), tour)
    assert np.median(moved) > 2 * np.median(off), "what is measured tells right points from wrong ones"
    assert cloud.rgb.std() > 10
    assert len(load_chunk(scene, plan_chunks(scene, ChunkingConfig(frames_per_chunk=99))[0]).cloud) > 100


def test_only_frames_with_a_pose_are_used(tour: list[Frame], beside: Callable[..., Path], tmp_path: Path) -> None:
    poses = transforms(tour)
    poses["frames"] = [entry for entry in poses["frames"] if entry["frame"] % 2]
    convert(str(beside(poses)), tmp_path / "tour", SMALL)
    numbers = [int(Path(i).stem.removeprefix("frame-")) for i in open_scene(str(tmp_path / "tour")).frame_ids()]
    assert len(numbers) >= 5
    assert all(number % 2 for number in numbers)


def test_lost_tracking_costs_its_frame(tour: list[Frame], beside: Callable[..., Path], tmp_path: Path) -> None:
    poses = transforms(tour)
    poses["frames"][0]["transform_matrix"] = [[float("nan")] * 4] * 4
    lines: list[str] = []
    convert(str(beside(poses)), tmp_path / "tour", SMALL, lines.append)
    assert [line for line in lines if line.startswith("left out images/frame-000011.jpg: pose holds nan")]
    scene = open_scene(str(tmp_path / "tour"), ReaderOptions())
    with pytest.raises(BadInput, match="lost tracking"):
        scene.load("images/frame-000011.jpg")
    assert scene.load("images/frame-000000.jpg").rgb.any()


def test_other_poses_are_another_conversion(tour: list[Frame], beside: Callable[..., Path], tmp_path: Path) -> None:
    convert(str(beside(transforms(tour))), tmp_path / "tour", SMALL)
    with pytest.raises(BadInput, match="choose another folder"):
        convert(str(beside(transforms(tour, 2.0))), tmp_path / "tour", SMALL)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda poses: "{", "not valid JSON"),
        (lambda poses: "[]", 'has no list "frames"'),
        (lambda poses: {**poses, "frames": [{"file_path": "a.jpg"}]}, 'a frame has no "frame"'),
        (lambda poses: {**poses, "frames": poses["frames"][:1] * 2}, "names frame 11 twice"),
        (lambda poses: {**poses, "frames": [{**poses["frames"][0], "frame": 99}]}, "has a pose of frame 99, but"),
        (lambda poses: {**poses, "w": poses["h"], "h": poses["w"]}, "are for 288x384, but the video, upright"),
        (lambda poses: {**poses, "w": None}, "has no image size"),
        (lambda poses: {**poses, "fl_x": "400"}, "fl_x is '400', not a number"),
        (lambda poses: {**poses, "camera_model": "EQUIRECTANGULAR"}, "EQUIRECTANGULAR"),
        (
            lambda poses: {**poses, "frames": [{**f, "transform_matrix": np.eye(4).tolist()} for f in poses["frames"]]},
            "no point could be triangulated",
        ),
    ],
)
def test_poses_that_cannot_be_used_are_bad_input(
    tour: list[Frame], beside: Callable[..., Path], tmp_path: Path, change: Callable[..., Any], said: str
) -> None:
    video = beside(change(transforms(tour)))
    with pytest.raises(BadInput, match=said) as caught:
        convert(str(video), tmp_path / "tour", SMALL)
    assert caught.value.uri == str(tmp_path / "tour.transforms.json")
    assert not (tmp_path / "tour").exists()
