"""The CLIP teacher: crops, embeddings, and the small one that ships."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from toy_clip import toy

from liftgs.teachers import crops
from liftgs.teachers.clip import ClipModel, Embed, EmbedConfig, mix_global
from liftgs.teachers.evaluate_clip import evaluate_clip, held_out_scenes

pytestmark = pytest.mark.usefixtures("toy_models")


@pytest.fixture
def photo() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)


@pytest.fixture
def semantics() -> np.ndarray:
    image = np.zeros((48, 64), np.uint16)
    image[4:40, 10:50] = 1
    image[8:20, 20:30] = 2
    image[25:30, 40:64] = 3
    return image


# ---- crops


def test_a_crop_is_the_segments_box(photo: np.ndarray, semantics: np.ndarray) -> None:
    found = list(crops.crop_segments(photo, semantics))
    assert np.array_equal(found[0], photo[4:40, 10:50])
    assert np.array_equal(found[2], photo[25:30, 40:64])


def test_background_options_change_only_pixels_outside_the_segment(photo: np.ndarray, semantics: np.ndarray) -> None:
    inside = semantics[4:40, 10:50] == 1
    for background in ("blur", "zero", "mean"):
        crop = next(crops.crop_segments(photo, semantics, background, mean_rgb=(10.0, 20.0, 30.0)))
        assert np.array_equal(crop[inside], photo[4:40, 10:50][inside])
        outside = crop[~inside]
        assert {"zero": (outside == 0).all(), "mean": (outside == (10, 20, 30)).all()}.get(background, True)
        assert not np.array_equal(outside, photo[4:40, 10:50][~inside])


def test_boxes_grow_by_padding_and_fraction_but_stay_inside() -> None:
    boxes = np.array([[10, 10, 20, 30], [0, 0, 5, 5]])
    assert crops.grow_boxes(boxes, (48, 64), pad_px=2, expand=0.5).tolist() == [[3, 0, 27, 42], [0, 0, 9, 9]]


def test_square_boxes_are_square_and_hold_the_box_wherever_the_image_allows() -> None:
    boxes = np.array([[0, 10, 40, 14], [50, 0, 64, 48], [0, 0, 64, 10]])
    grown = crops.grow_boxes(boxes, (48, 64), square=True)
    assert (grown[:, :2] <= boxes[:, :2]).all()
    assert (grown[:, 2:] >= boxes[:, 2:]).all()
    assert (grown[:, 2:] <= (64, 48)).all()
    assert (grown[:, 2:] - grown[:, :2]).tolist() == [[40, 40], [48, 48], [64, 48]]


@pytest.mark.parametrize("mode", ["shortest", "squash", "longest"])
@pytest.mark.parametrize("size", [(120, 90), (20, 90), (40, 17)])
def test_resizing_agrees_with_open_clips_own_transform(mode: crops.ResizeMode, size: tuple[int, int]) -> None:
    smooth = Image.fromarray(np.random.default_rng(2).integers(0, 256, (6, 6, 3), dtype=np.uint8))
    crop = np.asarray(smooth.resize((size[1], size[0]), Image.Resampling.BICUBIC))
    transform = open_clip.image_transform(32, is_train=False, mean=(0, 0, 0), std=(1, 1, 1), resize_mode=mode)
    theirs = transform(Image.fromarray(crop)) * 255
    ours = crops.resize_crop(crop, (32, 32), mode)
    assert (ours - theirs).abs().mean() < 0.5
    assert (ours - theirs).abs().max() < 8  # the two round overshoot of the filter at different moments


# ---- embeddings


def test_rows_are_what_open_clip_computes_for_the_crops(
    checkpoint: Path, photo: np.ndarray, semantics: np.ndarray
) -> None:
    rows = Embed(EmbedConfig("toy", str(checkpoint)))(photo, semantics)
    transform = open_clip.image_transform(32, is_train=False)
    pixels = torch.stack([transform(Image.fromarray(crop)) for crop in crops.crop_segments(photo, semantics)])
    with torch.no_grad():
        theirs = toy().encode_image(pixels, normalize=True)
    assert rows.dtype == np.float16
    assert np.abs(np.linalg.norm(rows.astype(np.float32), axis=1) - 1).max() < 2e-3
    assert np.abs(rows - theirs.numpy()).max() < 2e-2


def test_a_frame_without_segments_has_no_rows(checkpoint: Path, photo: np.ndarray) -> None:
    rows = Embed(EmbedConfig("toy", str(checkpoint)))(photo, np.zeros((48, 64), np.uint16))
    assert rows.shape == (0, 32)
    assert rows.dtype == np.float16


def test_batch_size_does_not_matter(checkpoint: Path, photo: np.ndarray, semantics: np.ndarray) -> None:
    all_at_once = Embed(EmbedConfig("toy", str(checkpoint)))(photo, semantics)
    one_by_one = Embed(EmbedConfig("toy", str(checkpoint), batch_size=1))(photo, semantics)
    assert np.abs(all_at_once.astype(np.float32) - one_by_one).max() < 2e-3


def test_lower_precision_gives_nearly_the_same_rows(checkpoint: Path, photo: np.ndarray, semantics: np.ndarray) -> None:
    full = Embed(EmbedConfig("toy", str(checkpoint)))
    half = Embed(EmbedConfig("toy", str(checkpoint), precision="bf16"))
    assert (full(photo, semantics).astype(np.float32) * half(photo, semantics)).sum(axis=1).min() > 0.999
    assert (full.encode_text(["a red chair"]) * half.encode_text(["a red chair"])).sum() > 0.999
    ends = half.encode_tokens(["a red chair"]).states[0, -1].numpy()
    assert (half.encode_text(["a red chair"])[0] * ends).sum() > 0.999


def test_global_mix_is_conceptfusions(checkpoint: Path, photo: np.ndarray, semantics: np.ndarray) -> None:
    plain, mixed = (
        Embed(EmbedConfig("toy", str(checkpoint), mix_global=mix))(photo, semantics).astype(np.float64)
        for mix in (False, True)
    )
    embedder = Embed(EmbedConfig("toy", str(checkpoint)))
    whole = embedder(photo, np.ones((48, 64), np.uint16))[0].astype(np.float64)
    weight = np.exp(plain @ whole) / np.exp(plain @ whole).sum()
    wanted = weight[:, None] * whole + (1 - weight[:, None]) * plain
    assert np.abs(mixed - wanted / np.linalg.norm(wanted, axis=1, keepdims=True)).max() < 3e-3
    assert mix_global(torch.eye(2), torch.tensor([1.0, 0.0])).norm(dim=1).allclose(torch.ones(2))


# ---- the small CLIP that ships


def test_tiny_is_open_clips_own_class_and_small(tiny: ClipModel) -> None:
    assert type(tiny.model) is open_clip.CLIP
    from liftgs.teachers.clip import TINY, WEIGHTS

    assert sum(path.stat().st_size for path in WEIGHTS.glob(f"{TINY}*")) < 7.5e6


def test_tiny_reads_any_text(tiny: ClipModel) -> None:
    tokens = tiny.encode_tokens(["ein großer Tisch ♥ 42", "", "the red chair left of the white table"])
    assert torch.isfinite(tokens.states).all()
    assert len(tokens.spans[2]) == 8 + 2  # every word of our own grammar is one token


def test_tiny_sees_kinds_and_colours_of_rooms_it_never_saw(tiny: ClipModel) -> None:
    scenes = held_out_scenes(3, seed=2_000_000, views=1)
    result = evaluate_clip(Embed(clip=tiny), scenes)
    assert result["crops"] > 20
    assert result["kind"] > 0.75
    assert result["colour"] > 0.75


@pytest.mark.slow
def test_tiny_keeps_what_it_reached_on_held_out_rooms(tiny: ClipModel) -> None:
    # The goal is 0.90 for both. Kinds are short of it: the network still underfits after the run that made it.
    result = evaluate_clip(Embed(clip=tiny), held_out_scenes(60, seed=1_000_000))
    assert result["kind"] >= 0.83
    assert result["colour"] >= 0.9
    assert result["expression_kind"] >= 0.9
    assert result["relation_probe"] >= 0.95
