"""ScanNet's prediction files: round trip, the very bytes, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scored_scenes import evaluate, predictions, spans, truth

from liftgs.scene import BadInput
from liftgs.tasks.benchmark_files import read_ground_truth, read_predictions, write_predictions
from liftgs.tasks.instances import VOID, ScoredMasks
from liftgs.tasks.scannet_classes import SCANNET20, SCANNET200

SCENE = "scene0707_00"


def write(folder: Path, lines: str | bytes, **masks: str | bytes) -> None:
    """A scene with 4 points."""
    (folder / "predicted_masks").mkdir(exist_ok=True)
    files = {f"{SCENE}.txt": lines} | {f"predicted_masks/{name}.txt": text for name, text in masks.items()}
    for path, text in files.items():
        (folder / path).write_bytes(text.encode() if isinstance(text, str) else text)


def refusal(folder: Path) -> str:
    with pytest.raises(BadInput) as caught:
        read_predictions(str(folder), SCENE, 4, SCANNET20)
    assert str(folder) in caught.value.uri
    return str(caught.value)


def test_the_files_are_as_the_benchmark_shows_them(tmp_path: Path) -> None:
    found = predictions(spans(4, (1, 3), (0, 4)), [0.7234, 1e-7], labels=[8, 16])
    write_predictions(str(tmp_path), SCENE, found, SCANNET20)
    assert (tmp_path / f"{SCENE}.txt").read_text() == (
        "predicted_masks/scene0707_00_000.txt 11 0.7234\npredicted_masks/scene0707_00_001.txt 36 1e-07\n"
    )
    assert (tmp_path / "predicted_masks" / f"{SCENE}_000.txt").read_bytes() == b"0\n1\n1\n0\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["predicted_masks", f"{SCENE}.txt"]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(0, 12), single=st.booleans())
def test_what_was_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, seed: int, count: int, single: bool
) -> None:
    rng = np.random.default_rng(seed)
    masks = rng.random((3, int(rng.integers(1, 40)))) < 0.4
    score = rng.normal(size=count).astype(np.float32 if single else np.float64)
    found = ScoredMasks(masks, rng.integers(0, 3, count), rng.integers(0, 198, count), score)
    folder = str(tmp_path_factory.mktemp("round"))
    write_predictions(folder, SCENE, found, SCANNET200)
    read = read_predictions(folder, SCENE, masks.shape[1], SCANNET200)
    np.testing.assert_array_equal(read.masks[read.row], masks[found.row])
    np.testing.assert_array_equal(read.label, found.label)
    np.testing.assert_array_equal(read.score, score, "to the last bit")


def test_predictions_that_share_a_mask_get_a_file_each(tmp_path: Path) -> None:
    """Evaluators know a prediction by the path of its mask, and would keep only the last of the two."""
    found = ScoredMasks(spans(4, (0, 2)), np.array([0, 0]), np.array([1, 2]), np.array([0.5, 0.25]))
    write_predictions(str(tmp_path), SCENE, found, SCANNET20)
    paths = [line.split()[0] for line in (tmp_path / f"{SCENE}.txt").read_text().splitlines()]
    assert len(set(paths)) == len(list((tmp_path / "predicted_masks").iterdir())) == 2


def test_a_scene_in_which_nothing_was_found_is_an_empty_file(tmp_path: Path) -> None:
    write_predictions(str(tmp_path), SCENE, predictions(spans(4), []), SCANNET20)
    assert (tmp_path / f"{SCENE}.txt").read_bytes() == b""
    assert len(read_predictions(str(tmp_path), SCENE, 4, SCANNET20)) == 0


def test_any_store_that_fsspec_knows_will_do() -> None:
    found = predictions(spans(4, (1, 3)), [0.5], labels=[3])
    write_predictions("memory://benchmark/run", SCENE, found, SCANNET20)
    assert read_predictions("memory://benchmark/run", SCENE, 4, SCANNET20).masks.tolist() == found.masks.tolist()


def test_files_of_other_programs_are_read(tmp_path: Path) -> None:
    """Any number but 0 is in the mask, lines may end as on Windows, and the last one without a break."""
    write(
        tmp_path,
        "predicted_masks/a.txt\t5  0.5\r\n\npredicted_masks/b.txt 39 1",
        a="0\r\n7\r\n-1\r\n00\r\n",
        b="1\n0\n0\n1",
    )
    found = read_predictions(str(tmp_path), SCENE, 4, SCANNET20)
    assert found.masks.tolist() == [[False, True, True, False], [True, False, False, True]]
    assert [SCANNET20.names[label] for label in found.label] == ["chair", "otherfurniture"]
    assert found.score.tolist() == [0.5, 1]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("predicted_masks/a.txt 5", "line 1 is not 'path label confidence'"),
        ("predicted_masks/a.txt 5 0.5 1", "line 1 is not"),
        ("predicted_masks/a.txt chair 0.5", "line 1 is not"),
        ("predicted_masks/a.txt 5.0 0.5", "line 1 is not"),
        ("predicted_masks/a.txt 5 high", "line 1 is not"),
        ("predicted_masks/a.txt 5 nan", "line 1 is not"),
        ("predicted_masks/a.txt 1 0.5", "line 1: label 1 is none of the 18 evaluated classes"),
        ("predicted_masks/c.txt 5 0.5", "c.txt: the file is missing"),
        ("predicted_masks 5 0.5", "predicted_masks: the file is missing"),
        ("predicted_masks/a.txt 5 inf", "line 1 is not"),
        ("\n\npredicted_masks/a.txt 5", "line 3 is not"),
        ("/etc/hostname 5 0.5", "not a path inside"),
        ("../a.txt 5 0.5", "not a path inside"),
        (
            "predicted_masks/a.txt 5 0.5\npredicted_masks/../predicted_masks/a.txt 5 0.4",
            "line 2: predicted_masks/a.txt was",
        ),
        (b"predicted_masks/\xff.txt 5 0.5", "not a text file"),
    ],
)
def test_a_line_that_is_wrong_is_named(tmp_path: Path, line: str | bytes, reason: str) -> None:
    write(tmp_path, line, a="0\n1\n1\n0\n")
    assert reason in refusal(tmp_path)


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        ("0\n1\n1\n", "has 3 lines, not one for each of the 4 vertices"),
        ("0\n1\n1\n0\n1\n", "has 5 or more lines, not one"),
        ("1\n" * 10_000, "or more lines, not one"),
        ("", "has 0 lines"),
        ("0\n1\n0.5\n0\n", "not one integer a line"),
        ("0\n1\nx\n0\n", "not one integer a line"),
        ("9" * 80, "not one integer a line"),
        (b"\x00\x01\xff\x00", "not one integer a line"),
    ],
)
def test_a_mask_that_is_wrong_is_named(tmp_path: Path, mask: str | bytes, reason: str) -> None:
    write(tmp_path, "predicted_masks/a.txt 5 0.5", a=mask)
    told = refusal(tmp_path)
    assert reason in told
    assert "a.txt" in told


def test_a_missing_scene_is_named(tmp_path: Path) -> None:
    assert f"{SCENE}.txt: the file is missing" in refusal(tmp_path)


@pytest.mark.parametrize("scene", ["", "a b", "../a", "a\\b"])
def test_a_name_that_the_format_cannot_hold_is_refused(tmp_path: Path, scene: str) -> None:
    with pytest.raises(ValueError, match="cannot be a scene's name"):
        write_predictions(str(tmp_path), scene, predictions(spans(4), []), SCANNET20)


@pytest.mark.parametrize(("label", "score"), [(18, 0.5), (-1, 0.5), (0, np.nan), (0, np.inf)])
def test_what_evaluators_cannot_read_is_not_written(tmp_path: Path, label: int, score: float) -> None:
    with pytest.raises(ValueError, match=r"must be (0 to 17|finite)"):
        write_predictions(str(tmp_path), SCENE, predictions(spans(4, (0, 2)), [score], [label]), SCANNET20)
    assert not list(tmp_path.iterdir())


# ---- ground truth


def test_ground_truth_and_predictions_from_files_score_as_from_memory(tmp_path: Path) -> None:
    labels, ids = truth(60, (0, 10, 3), (10, 30, 0), (40, 60, 3))
    gt = np.where(labels == VOID, 0, np.array([*SCANNET200.ids, 0])[labels] * 1000 + ids)
    gt[30:35] = 3000 + 9  # an instance of the floor, which is not evaluated
    (tmp_path / "gt.txt").write_text("".join(f"{value}\n" for value in gt))
    found = predictions(spans(60, (0, 8), (10, 30), (30, 35)), [0.5, 0.25, 0.75], labels=[3, 0, 0])
    write_predictions(str(tmp_path), SCENE, found, SCANNET200)
    read = read_predictions(str(tmp_path), SCENE, 60, SCANNET200), *read_ground_truth(f"{tmp_path}/gt.txt", SCANNET200)
    assert (read[1] == labels).all()
    np.testing.assert_array_equal(evaluate([read], 198).table, evaluate([(found, labels, ids)], 198).table)


@pytest.mark.parametrize(("text", "reason"), [("5001\n1.5\n", "not one integer a line"), (None, "the file is missing")])
def test_ground_truth_that_is_wrong_is_named(tmp_path: Path, text: str | None, reason: str) -> None:
    if text:
        (tmp_path / "gt.txt").write_text(text)
    with pytest.raises(BadInput, match=rf"gt\.txt: .*{reason}"):
        read_ground_truth(f"{tmp_path}/gt.txt", SCANNET20)
