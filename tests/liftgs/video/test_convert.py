"""From a video to a scene that the readers read, with the cameras that took it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import films
import numpy as np
import pytest
from PIL import Image

from liftgs import cli
from liftgs.chunks import ChunkingConfig, load_chunk, plan_chunks
from liftgs.geometry import project
from liftgs.readers import list_scenes, open_scene
from liftgs.scene import BadInput, Frame, Scene
from liftgs.video import VideoConfig, convert
from liftgs.video.keyframes import KeyframeConfig
from liftgs.video.sfm import pairs

KITCHEN = Path(__file__).parents[4] / "shared/data/7scenes-kitchen"
SMALL = VideoConfig(KeyframeConfig(min_motion=0.02))


class Stopped(Exception):
    """As if killed."""


@pytest.fixture(scope="module")
def tour() -> list[Frame]:
    """The first third of a tour of a furnished room."""
    return films.room(views=60, count=20)


@pytest.fixture(scope="module")
def film(tour: list[Frame], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return films.write(tmp_path_factory.mktemp("film") / "tour.mp4", [frame.rgb for frame in tour])


@pytest.fixture(scope="module")
def converted(film: Path) -> Path:
    out = film.parent / "scenes" / "tour"
    convert(str(film), out, SMALL)
    return out


def number(frame_id: str) -> int:
    return int(Path(frame_id).stem.removeprefix("frame-"))


def compare(scene: Scene, true: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Distances (m) and angles (degrees) of the scene's cameras from the true ones, by number of the frame."""
    ids = scene.frame_ids()
    found = np.array([scene.load(frame_id).camera.cam_to_world for frame_id in ids])
    return films.pose_errors(found, np.array([true[number(frame_id)] for frame_id in ids]))


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_cameras_are_those_that_filmed(converted: Path, tour: list[Frame]) -> None:
    scene = open_scene(str(converted))
    assert len(scene.frame_ids()) >= 15
    distance, angle = compare(scene, [frame.camera.cam_to_world for frame in tour])
    assert np.median(distance) < 0.03
    assert distance.max() < 0.1
    assert angle.max() < 2
    K = scene.load(scene.frame_ids()[0]).camera.K
    assert K[0, 0] == pytest.approx(tour[0].camera.K[0, 0], rel=0.05)


def test_the_world_is_upright_and_about_as_large_as_a_room(converted: Path, tour: list[Frame]) -> None:
    scene = open_scene(str(converted))
    assert scene.gravity == "estimated"
    ids = scene.frame_ids()
    found = [scene.load(frame_id).camera.cam_to_world for frame_id in ids]
    ups = [tour[number(i)].camera.cam_to_world[:3, :3].T @ (0, 0, 1) for i in ids]  # in camera axes
    tilts = [np.degrees(np.arccos((pose[:3, :3] @ up)[2])) for pose, up in zip(found, ups, strict=True)]
    assert max(tilts) < 8
    np.testing.assert_allclose(np.mean([pose[:3, 3] for pose in found], 0), 0, atol=1e-6)
    cloud = scene.cloud()
    assert cloud is not None
    in_view = [z[z > 0] for z in (project(cloud.xyz.astype(float), scene.load(i).camera)[1] for i in ids)]
    assert 1.5 < np.median(np.concatenate(in_view)) < 3.5
    said = json.loads((converted / "sparse/0/world.json").read_text())
    assert said["placed"] == len(ids)
    assert "2.5 m" in said["scale"]


def test_every_chunk_has_a_cloud_in_the_colours_of_its_photos(converted: Path) -> None:
    scene = open_scene(str(converted))
    for chunk in plan_chunks(scene, ChunkingConfig(frames_per_chunk=6)):
        loaded = load_chunk(scene, chunk)
        assert len(loaded.cloud) > 100
        for frame in loaded.frames:
            pixels, z = project(loaded.cloud.xyz.astype(float), frame.camera)
            inside = (z > 0) & (pixels >= 0).all(1) & (pixels < (frame.camera.width, frame.camera.height)).all(1)
            columns, rows = pixels[inside].astype(int).T
            off = np.abs(frame.rgb[rows, columns].astype(float) - loaded.cloud.rgb[inside]).mean(1)
            assert np.median(off) < 30


def test_nothing_but_the_scene_is_left_and_a_second_call_does_nothing(converted: Path, film: Path) -> None:
    before = files(converted)
    assert {path.split("/")[0] for path in before} == {"images", "sparse", "video.json"}
    assert not converted.with_name("tour.partial").exists()
    lines: list[str] = []
    convert(str(film), converted, SMALL, lines.append)
    assert lines == [f"{converted} is finished already"]
    assert list_scenes(str(converted.parent)) == [str(converted)]
    with pytest.raises(BadInput, match=r"was not made from .* in this way; choose another folder"):
        convert(str(film), converted, VideoConfig(SMALL.keyframes, median_distance_m=5))


@pytest.mark.parametrize("at", ["matches", "structure from motion"])
def test_a_stopped_conversion_goes_on_and_ends_with_the_same_bytes(
    converted: Path, film: Path, tmp_path: Path, at: str
) -> None:
    lines: list[str] = []

    def stop(line: str) -> None:
        lines.append(line)
        if line.startswith(at):
            raise Stopped

    with pytest.raises(Stopped):
        convert(str(film), tmp_path / "tour", SMALL, stop)
    assert not (tmp_path / "tour").exists()
    convert(str(film), tmp_path / "tour", SMALL, lines.append)
    assert len([line for line in lines if "choosing" in line]) == 1, "the keyframes were kept"
    assert files(tmp_path / "tour") == files(converted)


def test_other_settings_start_afresh(film: Path, tmp_path: Path) -> None:
    def stop(line: str) -> None:
        if line.startswith("features"):
            raise Stopped

    for size in (384, 192):
        with pytest.raises(Stopped):
            convert(str(film), tmp_path / "a", VideoConfig(SMALL.keyframes, size), stop)
        sizes = {Image.open(path).size for path in (tmp_path / "a.partial/images").iterdir()}
        assert sizes == {(size, size * 3 // 4)}


def test_what_is_not_ours_is_not_removed(film: Path, tmp_path: Path) -> None:
    (tmp_path / "a.partial").mkdir()
    (tmp_path / "a.partial" / "thesis.txt").write_text("mine")
    with pytest.raises(BadInput, match="is in the way"):
        convert(str(film), tmp_path / "a", SMALL)
    assert (tmp_path / "a.partial" / "thesis.txt").exists()
    (tmp_path / "b").mkdir()
    with pytest.raises(BadInput, match="choose another folder"):
        convert(str(film), tmp_path / "b", SMALL)
    with pytest.raises(BadInput, match="must be a local folder"):
        convert(str(film), "s3://bucket/a", SMALL)


def test_every_pair_is_matched_in_a_short_video_and_a_bounded_number_in_a_long_one() -> None:
    assert len(list(pairs([str(i) for i in range(40)]))) == 40 * 39 / 2
    long = list(pairs([str(i) for i in range(1000)]))
    assert len(long) == len(set(long)) < 1000 * 8 + 48 * 48
    assert ("0", "987") in long, "a loop can close"


# ---- videos that cannot be used


def test_a_camera_at_rest_is_bad_input(tmp_path: Path) -> None:
    still = films.write(tmp_path / "still.mp4", films.pan([50] * 30))
    with pytest.raises(BadInput, match="has only 1 keyframes, not 5: the camera hardly moves"):
        convert(str(still), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_pictures_without_a_common_world_are_bad_input(tmp_path: Path) -> None:
    pictures = [films.texture((120, 160), seed) for seed in range(8)]
    video = films.write(tmp_path / "cuts.mp4", pictures)
    with pytest.raises(BadInput, match="only 0 of 8 keyframes could be placed; film slowly"):
        convert(str(video), tmp_path / "out", SMALL)


def test_opening_a_video_names_the_command(tmp_path: Path, film: Path) -> None:
    for opener in (open_scene, list_scenes):
        with pytest.raises(BadInput, match=r"make a scene of it first: liftgs video .*tour\.mp4 tour$"):
            opener(str(film))


@pytest.mark.parametrize("content", [b"", b"no video at all" * 99])
def test_the_command_ends_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes) -> None:
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(SystemExit) as ended:
        cli.main(["video", str(tmp_path / "a.mp4"), str(tmp_path / "out")])
    assert ended.value.code == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith(f"liftgs: {tmp_path}/a.mp4: ")


def test_a_store_is_no_place_for_a_conversion(film: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["video", str(film), "s3://bucket/tour"])
    assert ended.value.code == 1
    assert "s3://bucket/tour: must be a local folder" in capsys.readouterr().err


def test_a_missing_extra_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in [name for name in sys.modules if name.startswith("liftgs.video")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    with pytest.raises(SystemExit) as ended:
        cli.main(["video", "a.mp4", "out"])
    assert ended.value.code == 1
    assert "pip install 'liftgs[sfm]'" in capsys.readouterr().err


# ---- larger ones


@pytest.mark.slow
def test_a_whole_tour_closes(tmp_path: Path) -> None:
    tour = films.room(views=150, width=512, height=384)
    video = films.write(tmp_path / "tour.mp4", [frame.rgb for frame in tour])
    convert(str(video), tmp_path / "tour")
    scene = open_scene(str(tmp_path / "tour"))
    assert json.loads((tmp_path / "tour/sparse/0/world.json").read_text())["keyframes"] > 60
    assert len(scene.frame_ids()) > 60
    distance, angle = compare(scene, [frame.camera.cam_to_world for frame in tour])
    assert np.median(distance) < 0.05
    assert np.median(angle) < 2


@pytest.mark.slow
@pytest.mark.skipif(not KITCHEN.is_dir(), reason="needs real frames in ../shared/data/7scenes-kitchen")
def test_a_real_kitchen_is_posed(tmp_path: Path) -> None:
    """Its true poses come from a depth camera beside the colour camera, by KinectFusion: good to some centimetres."""
    photos = sorted(KITCHEN.glob("*.color.jpg"))
    true = [np.loadtxt(path.with_name(path.name.replace("color.jpg", "pose.txt"))) for path in photos]
    video = films.write(tmp_path / "kitchen.mp4", [np.asarray(Image.open(path)) for path in photos])
    convert(str(video), tmp_path / "kitchen", SMALL)
    scene = open_scene(str(tmp_path / "kitchen"))
    distance, angle = compare(scene, true)
    assert len(distance) >= 45
    assert np.median(distance) < 0.05
    assert np.median(angle) < 8
