"""What `--out` writes can be read again, and says the same."""

from __future__ import annotations

import json
from pathlib import Path

import fsspec
import numpy as np
import pytest
from untrained import untrained_model

from liftgs.ground import Grounding, Match, Scan
from liftgs.ground.files import JSON_NAME, PLY_NAME, describe, phrase_colours, write
from liftgs.readers.files import Folder
from liftgs.readers.ply import read_ply
from liftgs.scene import PointCloud

PHRASES = ("a table", "the mug on it", "a unicorn")


@pytest.fixture(scope="module")
def found() -> Grounding:
    """A table, a mug whose mask lies within the table's, a second table, and no unicorn."""
    model = untrained_model()
    rng = np.random.default_rng(0)
    cloud = PointCloud(rng.random((300, 3), np.float32), rng.integers(0, 255, (300, 3)).astype(np.uint8))
    voxels = model.voxelise(cloud)

    def match(phrase: str, rank: int, start: int, stop: int) -> Match:
        xyz = cloud.xyz[start:stop]
        mask = np.zeros(len(voxels), bool)
        return Match(phrase, rank, 0.9 / rank, np.arange(start, stop), mask, xyz.min(axis=0), xyz.max(axis=0))

    matches = [match(PHRASES[0], 1, 0, 100), match(PHRASES[0], 2, 100, 150), match(PHRASES[1], 1, 40, 60)]
    return Grounding(Scan("room", cloud), PHRASES, matches, model.encode([voxels])[0])


@pytest.mark.parametrize("remote", [False, True])
def test_files_say_what_was_found(found: Grounding, tmp_path: Path, remote: bool) -> None:
    folder = f"memory://{tmp_path.name}/deep/out" if remote else str(tmp_path / "deep" / "out")
    assert write(found, folder, "tiny", 0.05) == [f"{folder}/{PLY_NAME}", f"{folder}/{JSON_NAME}"]
    cloud = read_ply(Folder(folder), PLY_NAME)
    np.testing.assert_array_equal(cloud.xyz, found.scan.cloud.xyz)
    with fsspec.open(f"{folder}/{JSON_NAME}") as stream:
        said = json.load(stream)
    assert said == describe(found) | {"checkpoint": "tiny", "voxel_size_m": 0.05}
    assert [entry["phrase"] for entry in said["phrases"]] == list(PHRASES)
    assert [len(entry["matches"]) for entry in said["phrases"]] == [2, 1, 0]
    assert said["num_points"] == 300
    for entry in said["phrases"]:
        for plain in entry["matches"]:
            xyz = cloud.xyz[plain["points"]]
            np.testing.assert_allclose(plain["box_min_m"], xyz.min(axis=0), atol=1e-4)
            np.testing.assert_allclose(plain["box_max_m"], xyz.max(axis=0), atol=1e-4)


def test_each_phrases_best_mask_has_its_colour_and_the_rest_keeps_its_own(found: Grounding, tmp_path: Path) -> None:
    write(found, str(tmp_path), "tiny", 0.05)
    rgb = read_ply(Folder(str(tmp_path)), PLY_NAME).rgb
    table, mug, _ = (np.array(entry["colour"]) for entry in describe(found)["phrases"])
    assert (rgb[40:60] == mug).all(), "the smaller mask lies on top"
    assert (rgb[:40] == table).all()
    assert (rgb[60:100] == table).all()
    np.testing.assert_array_equal(rgb[100:], found.scan.cloud.rgb[100:])


def test_colours_of_phrases_are_all_different() -> None:
    colours = phrase_colours(40).astype(int)
    distance = np.abs(colours[:, None] - colours[None]).sum(axis=2) + 1000 * np.eye(40)
    assert distance.min() > 10
    np.testing.assert_array_equal(phrase_colours(3), colours[:3])
