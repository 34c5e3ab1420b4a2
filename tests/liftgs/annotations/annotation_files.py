"""Writes annotation files in the official schemas, with one good row that a test changes."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SCENE = "scene0011_00"

SCANREFER: dict[str, Any] = {
    "scene_id": SCENE,
    "object_id": "7",
    "object_name": "office_chair",
    "ann_id": "2",
    "description": "the black office chair is by the coffee table. it has wheels.",
    "token": ["the", "black", "office", "chair", "is", "by", "the", "coffee", "table", ".", "it", "has", "wheels", "."],
}

LOCATE3D: dict[str, Any] = {
    "object_id": 48,
    "object_name": "shelf",
    "ann_id": 0,
    "description": "white moving trolley is between the grey sofa ",
    "token": ["white", "moving", "trolley", "is", "between", "the", "grey", "sofa", ""],
    "entities": [[[6, 7], ["5_sofa"]], [[0, 1, 2], ["48_shelf"]]],
    "primary_key": "1102644611063036",
    "scene_id": "5656608266",
    "frames_used": [5280, 5310],
    "scene_dataset": "ScanNet++",
}

#: the 16 columns of nr3d.csv, in order
NR3D: dict[str, Any] = {
    "assignmentid": "4321",
    "stimulus_id": f"{SCENE}-coffee_table-3-7-9-12",
    "utterance": "The lower Coffee table, left of the sofa",
    "correct_guess": "True",
    "speaker_id": "1",
    "listener_id": "2",
    "scan_id": SCENE,
    "instance_type": "coffee table",
    "target_id": "7",
    "tokens": "['the', 'lower', 'coffee', 'table', ',', 'left', 'of', 'the', 'sofa']",
    "dataset": "nr3d",
    "mentions_target_class": "True",
    "uses_object_lang": "True",
    "uses_spatial_lang": "True",
    "uses_color_lang": "False",
    "uses_shape_lang": "False",
}

#: the columns of sr3d.csv, in order
SR3D: dict[str, Any] = {
    "scan_id": SCENE,
    "target_id": "7",
    "distractor_ids": "[9]",
    "utterance": "the table that is closest to the coffee table",
    "stimulus_id": f"{SCENE}-table-2-7-9",
    "coarse_reference_type": "horizontal",
    "reference_type": "closest",
    "instance_type": "table",
    "anchors_types": "['coffee table']",
    "anchor_ids": "[12]",
    "tokens": "['the', 'table', 'that', 'is', 'closest', 'to', 'the', 'coffee', 'table']",
    "dataset": "sr3d",
    "mentions_target_class": "True",
}


def write_json(path: Path, rows: Sequence[Any]) -> str:
    """A list of rows."""
    path.write_text(json.dumps(rows, indent=2))
    return str(path)


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> str:
    """Rows under the columns of the first."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def without(row: dict[str, Any], *names: str) -> dict[str, Any]:
    """The row with some columns less."""
    return {name: value for name, value in row.items() if name not in names}
