from dataclasses import replace

import numpy as np
import pytest
import torch

from liftgs.teachers.configs import MaskSettings
from liftgs.teachers.sam import SamArchitecture, build_sam
from liftgs.teachers.train import sam_train
from liftgs.teachers.train.sam_data import RenderedRooms, RoomSet, sample_prompts
from liftgs.teachers.train.sam_train import SamTrainConfig, Stage, fit, train_sam

ARCHITECTURE = SamArchitecture(
    img_size=64,
    embed_dim=48,
    depth=2,
    num_heads=2,
    window_size=4,
    global_attn_indexes=(1,),
    stem=(8, 16, 32),
    prompt_dim=32,
    decoder_downsample=2,
    decoder_depth=1,
    decoder_heads=2,
    decoder_mlp_dim=32,
    iou_head_dim=16,
)
CONFIG = SamTrainConfig(
    architecture=ARCHITECTURE,
    masks=MaskSettings(points_per_side=4, pred_iou_thresh=0.0, stability_score_thresh=0.0),
    rooms=RoomSet(seed=3, rooms=1, views=1, size=64),
    held_out=RoomSet(seed=4, rooms=1, views=1, size=64),
    stages=(
        Stage(size=32, steps=3, images=2, prompts=4, lr=1e-3, balance=1.0),
        Stage(size=64, steps=3, images=2, prompts=4, lr=1e-3, balance=0.0),
    ),
    bf16=False,
    checkpoint_every=2,
)


class Painted:
    """Two frames of coloured rectangles; the ids are the colours."""

    def __len__(self):
        return 2

    def __getitem__(self, frame):
        ids = np.ones((96, 96), np.uint16)
        ids[20:70, 10 + 20 * frame : 50 + 20 * frame] = 2
        ids[50:90, 60:90] = 3
        palette = np.array([[0, 0, 0], [90, 90, 90], [220, 40, 40], [40, 60, 220]], np.uint8)
        return palette[ids], ids


def test_an_interrupted_training_ends_with_the_same_bytes(tmp_path, monkeypatch):
    train_sam(CONFIG, tmp_path / "whole", lambda _: None)
    steps = 0
    undisturbed = sam_train._step

    def killed_now_and_then(*args):
        nonlocal steps
        steps += 1
        if steps in (3, 6):
            raise KeyboardInterrupt
        return undisturbed(*args)

    monkeypatch.setattr(sam_train, "_step", killed_now_and_then)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train_sam(CONFIG, tmp_path / "killed", lambda _: None)
    train_sam(CONFIG, tmp_path / "killed", lambda _: None)
    for name in ("sam_tiny.safetensors", "sam_tiny.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    with pytest.raises(ValueError, match="other settings"):
        train_sam(replace(CONFIG, seed=1), tmp_path / "killed", lambda _: None)
    assert build_sam(str(tmp_path / "whole" / "sam_tiny.json")).image_encoder.img_size == 64


def test_training_learns_what_the_point_is_on(tmp_path):
    stage = Stage(size=32, steps=250, images=2, prompts=8, lr=3e-3, balance=1.0, warmup=20)
    config = replace(CONFIG, architecture=replace(ARCHITECTURE, img_size=32), stages=(stage,), checkpoint_every=1000)
    lines: list[str] = []
    fit(config, Painted(), tmp_path, lines.append)
    first, *_, last = (float(line.split("best_iou ")[1].split(",")[0]) for line in lines)
    assert last > first + 0.1


def test_each_prompt_lies_in_its_target():
    for seed in range(20):
        item = sample_prompts(Painted(), np.random.default_rng(seed), size=64, prompts=16, patch=8)
        assert max(item.rgb.shape[:2]) == 64
        assert item.targets.shape == (16, 32, 32)
        assert item.places.shape == (8, 8)
        columns, rows = np.clip(np.round(item.points).astype(int), 0, 63).T // 2
        # a point is drawn on a pixel and jittered by half of one; a mask pixel averages 2x2 of them
        assert (item.targets[torch.arange(16), rows, columns] > 0).float().mean() > 0.9


def test_prompts_depend_on_the_seed_alone():
    first, again = (sample_prompts(Painted(), np.random.default_rng(5), 64, 8, 8) for _ in range(2))
    np.testing.assert_array_equal(first.rgb, again.rgb)
    np.testing.assert_array_equal(first.points, again.points)
    assert torch.equal(first.targets, again.targets)


def test_rendered_rooms_survive_on_disk(tmp_path):
    rooms = RoomSet(seed=3, rooms=1, views=1, size=64)
    frames = RenderedRooms(rooms, tmp_path)
    frames.render(lambda _: None, worker=1, workers=2)
    assert len(list(tmp_path.iterdir())) == 1  # rooms 0, 1, 2: the second of two workers has one
    rgb, ids = frames[2]
    scene = rooms.scenes()[2]
    expected = scene.load(scene.frame_ids()[0])
    np.testing.assert_array_equal(rgb, expected.rgb)
    np.testing.assert_array_equal(ids, expected.instances)
    assert not list(tmp_path.glob("*.partial"))


def test_the_last_stage_must_fit_the_architecture():
    with pytest.raises(ValueError, match="img_size is 64"):
        replace(CONFIG, stages=CONFIG.stages[:1])
