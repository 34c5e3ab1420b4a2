"""The job that trains the small teachers, as it is submitted, with two steps of each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from clusters import ROOT, RayCluster

from liftgs.teachers.clip import load_shipped
from liftgs.teachers.sam import build_sam

STAGE = "{size: 64, steps: 2, images: 1, prompts: 4, lr: 0.001, balance: 1.0}"
FEW = [
    f"sam.stages=[{STAGE}]",
    *("sam.architecture.img_size=64", "sam.rooms.rooms=1", "sam.rooms.size=96"),
    *("sam.held_out.rooms=1", "sam.held_out.size=96"),
    *("clip.rooms.rooms=6", "clip.rooms.image_px=128", "clip.steps=2", "clip.eval_scenes=3"),
]


@pytest.mark.timeout(300)
def test_the_job_leaves_weights_that_load_and_cards_that_say_how(ray_cluster: RayCluster, tmp_path: Path) -> None:
    environment = {**os.environ, "RAY_ADDRESS": ray_cluster.address}
    command = [sys.executable, "-m", "liftgs_platform.job", str(ROOT / "jobs" / "teachers.yaml"), *FEW]
    done = subprocess.run(
        [*command, f"output={tmp_path}"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert build_sam(str(tmp_path / "sam_tiny.json")).image_encoder.img_size == 64
    load_shipped(tmp_path / "clip_tiny.json")
    card = json.loads((tmp_path / "sam_tiny.json").read_text())
    assert [stage["steps"] for stage in card["training"]["stages"]] == [2]
    assert card["training"]["stages"][0]["warmup"] == 100, "what a stage leaves open is the default"
