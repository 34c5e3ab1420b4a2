"""Phrases in scans: what is read, what comes back, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from untrained import untrained_model

from liftgs.ground import Grounder, Grounding, Scan, ground, load, open_scan
from liftgs.ground.scans import load_scan
from liftgs.procedural import ProceduralScene
from liftgs.readers import ReaderOptions
from liftgs.readers.ply import encode_ply
from liftgs.scene import BadInput, Camera, Frame, PointCloud, Scene

KITCHEN = Path(__file__).parents[4] / "shared/data/7scenes-kitchen"
ROOM = "procedural:apartments/000000?views=2&seed=1000000&width=48&height=48"
PHRASES = ("a chair", "the bed next to the window")


@pytest.fixture(scope="module")
def grounder() -> Grounder:
    model = untrained_model()
    return Grounder(model, model.clip())


@pytest.fixture(scope="module")
def found(grounder: Grounder) -> Grounding:
    return ground(grounder, ROOM, PHRASES, top=4)


def test_three_lines_of_python_ground_a_phrase(tmp_path: Path) -> None:
    untrained_model().save(tmp_path)
    model = load(tmp_path)
    found = ground(model, ROOM, ["the red chair"])
    best = found.best("the red chair")
    assert best is not None
    assert 0 < best.score < 1


def test_answers_come_phrase_by_phrase_best_first(found: Grounding) -> None:
    for phrase in PHRASES:
        answers = [match for match in found.matches if match.phrase == phrase]
        assert [match.rank for match in answers] == list(range(1, len(answers) + 1))
        assert 1 < len(answers) <= 4
        scores = [match.score for match in answers]
        assert scores == sorted(scores, reverse=True)
        assert found.best(phrase) is answers[0]


def test_a_box_is_the_extent_of_its_points(found: Grounding) -> None:
    for match in found.matches:
        xyz = found.scan.cloud.xyz[match.points]
        assert (match.box_min == xyz.min(axis=0)).all()
        assert (match.box_max == xyz.max(axis=0)).all()
        np.testing.assert_allclose(match.centre - match.size / 2, match.box_min, atol=1e-5)
        assert (np.diff(match.points) > 0).all()


def test_answers_to_a_phrase_differ(found: Grounding) -> None:
    for phrase in PHRASES:
        masks = [match.voxels for match in found.matches if match.phrase == phrase]
        for i, a in enumerate(masks):
            assert all((a & b).sum() <= 0.5 * (a | b).sum() for b in masks[:i])


def test_a_threshold_leaves_the_better_answers(grounder: Grounder, found: Grounding) -> None:
    scores = sorted(match.score for match in found.matches)
    threshold = (scores[0] + scores[-1]) / 2
    kept = ground(grounder, found.scan, PHRASES, top=4, threshold=threshold)
    assert [match.score for match in kept.matches] == [m.score for m in found.matches if m.score >= threshold]
    nothing = ground(grounder, found.scan, PHRASES, threshold=1.0)
    assert nothing.matches == []
    assert nothing.best(PHRASES[0]) is None


def test_equal_phrases_are_one(grounder: Grounder, found: Grounding) -> None:
    again = ground(grounder, found.scan, [PHRASES[0], PHRASES[1], PHRASES[0]], top=4)
    assert again.phrases == PHRASES
    assert [match.score for match in again.matches] == [match.score for match in found.matches]


def test_indices_are_those_of_the_cloud_that_was_given_however_dense(grounder: Grounder) -> None:
    rng = np.random.default_rng(0)
    dense = PointCloud(rng.random((20_000, 3), np.float32), rng.integers(0, 255, (20_000, 3)).astype(np.uint8))
    found = ground(grounder, dense, ["a ball"])
    voxel = np.floor(dense.xyz.astype(np.float64) / grounder.model.config.voxel_size_m).astype(int)
    _, of_point, counts = np.unique(voxel, axis=0, return_inverse=True, return_counts=True)
    assert found.matches
    for match in found.matches:
        inside = np.bincount(of_point[match.points], minlength=len(counts))
        assert set(np.unique(inside / counts)) <= {0.0, 1.0}, "a voxel is in a mask or not, with all of its points"
        assert len(match.voxels) == len(counts)
        assert match.voxels.sum() == (inside > 0).sum()


@pytest.mark.parametrize("phrases", [[], [""], ["a chair", "  "]])
def test_an_empty_phrase_is_refused(grounder: Grounder, phrases: list[str]) -> None:
    with pytest.raises(ValueError, match="phrase"):
        ground(grounder, ROOM, phrases)


def test_an_unknown_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"tinny.*ship"):
        load("tinny")
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        load(tmp_path)


def test_a_checkpoint_that_does_not_fit_its_clip_is_refused(tmp_path: Path) -> None:
    model = untrained_model()
    type(model)(dataclasses.replace(model.config, embed_dim=64)).save(tmp_path)
    with pytest.raises(BadInput, match=r"64 channels.*'tiny' gives 128"):
        load(tmp_path)


# ---- scans


def write_ply(path: Path, xyz: np.ndarray) -> str:
    path.write_bytes(encode_ply(xyz.astype(np.float32), np.full((len(xyz), 3), 128, np.uint8)))
    return str(path)


def test_a_ply_is_read_as_it_is_and_scaled_on_request(tmp_path: Path) -> None:
    xyz = np.random.default_rng(0).random((500, 3)) * 4000
    uri = write_ply(tmp_path / "Room.PLY", xyz)
    scan = open_scan(uri, 0.05, options=ReaderOptions(metres_per_unit=0.001))
    np.testing.assert_allclose(scan.cloud.xyz, xyz / 1000, rtol=1e-5)
    assert scan.frames == ()
    with pytest.raises(BadInput, match=r"Room\.PLY: the cloud is .* m wide.*--metres-per-unit"):
        open_scan(uri, 0.05)


def test_a_ply_beside_the_user_needs_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_ply(tmp_path / "room.ply", np.eye(3))
    monkeypatch.chdir(tmp_path)
    assert len(open_scan("room.ply", 0.05).cloud) == 3


def test_a_ply_that_is_empty_or_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"none\.ply: the cloud is empty"):
        open_scan(write_ply(tmp_path / "none.ply", np.zeros((0, 3))), 0.05)
    with pytest.raises(BadInput, match=r"nan\.ply: the cloud is empty"):
        open_scan(write_ply(tmp_path / "nan.ply", np.full((2, 3), np.nan)), 0.05)
    with pytest.raises(BadInput, match=r"gone\.ply: the file is missing"):
        open_scan(str(tmp_path / "gone.ply"), 0.05)


class Film(Scene):
    """A long video of a wall; remembers which frames were read."""

    uri = name = "film"

    def __init__(self, frames: int, depth_m: float | None = 2.0):
        self.count, self.depth_m = frames, depth_m
        self.read: list[str] = []

    def frame_ids(self) -> list[str]:
        return [str(i) for i in range(self.count)]

    def load(self, frame_id: str) -> Frame:
        self.read.append(frame_id)
        camera = Camera(np.array([[20.0, 0, 8], [0, 20, 8], [0, 0, 1]]), np.eye(4), 16, 16)
        depth = None if self.depth_m is None else np.full((16, 16), self.depth_m, np.float32)
        return Frame(frame_id, f"film#{frame_id}", camera, np.full((16, 16, 3), 99, np.uint8), depth)


@pytest.mark.parametrize(
    ("frames", "stride", "expected"),
    [(5, 1, ["0", "25", "50", "74", "99"]), (1000, 30, ["0", "30", "60", "90"]), (2, 30, ["0", "90"]), (1, 1, ["0"])],
)
def test_of_a_long_video_few_frames_are_read(frames: int, stride: int, expected: list[str]) -> None:
    film = Film(100)
    scan = load_scan(film, 0.05, frames, stride)
    assert film.read == expected
    assert [frame.id for frame in scan.frames] == expected


def test_a_scene_without_depth_says_so() -> None:
    with pytest.raises(BadInput, match="neither depth nor a point cloud"):
        load_scan(Film(3, depth_m=None), 0.05)
    with pytest.raises(BadInput, match="no frame"):
        load_scan(Film(0), 0.05)


def test_a_scan_of_a_room_is_its_fused_depth() -> None:
    scene = ProceduralScene("apartments", 0, seed=1_000_000, views=2, width=48, height=48)
    scan = open_scan(ROOM, 0.05)
    again = load_scan(scene, 0.05)
    assert scan.uri == ROOM
    np.testing.assert_array_equal(scan.cloud.xyz, again.cloud.xyz)
    assert len(scan.frames) == 2


@pytest.mark.skipif(not KITCHEN.is_dir(), reason="needs real frames in ../shared/data/7scenes-kitchen")
def test_a_real_kitchen_is_grounded_without_error(grounder: Grounder) -> None:
    scan = open_scan(str(KITCHEN), 0.05, frames=4)
    assert isinstance(scan, Scan)
    assert len(scan.cloud) > 5000
    assert ground(grounder, scan, ["a mug", "the red chair"]).matches
