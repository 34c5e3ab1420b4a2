from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from segment_anything import SamAutomaticMaskGenerator, sam_model_registry

from liftgs.scene import BadInput
from liftgs.teachers.configs import MaskSettings, SegmentConfig, sam_card
from liftgs.teachers.evaluate_sam import InstanceScore, best_iou, summarise
from liftgs.teachers.sam import SamArchitecture, Segment, build_architecture, build_sam
from liftgs.teachers.sam_decoder import chosen_mask_logits, mask_logits, prompt_points
from liftgs.teachers.sam_masks import MaskGenerator

#: The layout of SAM ViT-B (relative positions, windows of an odd size, four global blocks) at a small width.
VIT_B_SHAPED = SamArchitecture(
    img_size=128,
    patch_size=16,
    embed_dim=48,
    depth=4,
    num_heads=4,
    mlp_ratio=4.0,
    window_size=5,
    global_attn_indexes=(1, 3),
    use_rel_pos=True,
    stem=(),
    prompt_dim=32,
    decoder_heads=4,
    decoder_mlp_dim=64,
    decoder_downsample=2,
    iou_head_dim=32,
)


def random_sam(architecture=VIT_B_SHAPED, seed=0):
    """Random weights, large enough that masks and predicted IoUs of different prompts differ."""
    torch.manual_seed(seed)
    sam = build_architecture(architecture)
    for name, parameter in sam.named_parameters():
        parameter.data += (0.3 if "mask_decoder" in name else 0.1) * torch.randn_like(parameter)
    return sam.eval().requires_grad_(False)


def photo(height, width, seed=0):
    """Rectangles on a shaded background."""
    rng = np.random.default_rng(seed)
    rgb = np.tile(np.linspace(60, 180, width)[None, :, None], (height, 1, 3))
    for _ in range(12):
        y, x = rng.integers(height - 10), rng.integers(width - 10)
        rgb[y : y + rng.integers(10, height // 2), x : x + rng.integers(10, width // 2)] = rng.integers(0, 255, 3)
    return np.clip(rgb + rng.normal(0, 3, rgb.shape), 0, 255).astype(np.uint8)


def stock_masks(sam, settings, rgb):
    generator = SamAutomaticMaskGenerator(
        sam,
        points_per_side=settings.points_per_side,
        points_per_batch=settings.points_per_batch,
        pred_iou_thresh=settings.pred_iou_thresh,
        stability_score_thresh=settings.stability_score_thresh,
        stability_score_offset=settings.stability_score_offset,
        box_nms_thresh=settings.box_nms_thresh,
        crop_n_layers=settings.crop_n_layers,
        crop_nms_thresh=settings.crop_nms_thresh,
        crop_n_points_downscale_factor=settings.crop_n_points_downscale_factor,
    )
    return generator.generate(rgb)


def assert_same_as_stock(sam, settings, rgb):
    ours, stock = MaskGenerator(sam, settings)(rgb), stock_masks(sam, settings, rgb)
    assert len(ours) == len(stock)
    assert len(ours) > 3, "a comparison of next to no masks shows nothing"
    masks = np.stack([record["segmentation"] for record in stock])
    # The order of floating-point sums differs, so a pixel whose logit is zero to rounding may fall on the other side.
    assert (ours.masks != masks).mean() < 1e-5
    np.testing.assert_allclose(ours.predicted_iou, [record["predicted_iou"] for record in stock], atol=1e-4)
    boxes = np.array([record["bbox"] for record in stock])
    boxes[:, 2:] += boxes[:, :2]
    assert (np.abs(ours.boxes - boxes) <= 1).all()


@pytest.mark.parametrize("size", [(128, 128), (96, 160), (200, 120)], ids=["square", "wide", "tall"])
@pytest.mark.parametrize("crops", [0, 1], ids=["whole", "crops"])
def test_lean_masks_are_those_of_the_stock_generator(size, crops):
    sam = random_sam()
    rgb = photo(*size)
    settings = MaskSettings(
        points_per_side=8,
        points_per_batch=24,
        pred_iou_thresh=0.0,
        stability_score_thresh=0.5,
        stability_score_offset=0.1,
        box_nms_thresh=1.0,  # off: random masks are large and their boxes alike; the tiny SAM tests suppression
        crop_n_layers=crops,
        crop_nms_thresh=0.99,
        crop_n_points_downscale_factor=2,
    )
    with torch.no_grad():
        assert_same_as_stock(sam, settings, rgb)


@pytest.mark.parametrize("stability", [0.0, 0.5], ids=["stability-off", "stability-on"])
def test_lean_masks_are_those_of_the_stock_generator_when_predicted_iou_filters(stability):
    sam = random_sam(seed=1)
    rgb = photo(128, 128, seed=1)
    everything = MaskGenerator(sam, MaskSettings(8, 64, 0.0, 0.0, box_nms_thresh=1.0))(rgb)
    median = float(np.median(everything.predicted_iou[everything.predicted_iou > 0]))
    assert_same_as_stock(sam, MaskSettings(8, 64, median, stability, 0.1, box_nms_thresh=1.0), rgb)


def test_no_mask_passes_an_impossible_threshold():
    found = MaskGenerator(random_sam(), MaskSettings(points_per_side=4, pred_iou_thresh=1e6))(photo(96, 128))
    assert found.masks.shape == (0, 96, 128)


def test_decoder_agrees_with_the_stock_decoder():
    sam = random_sam()
    embedding = torch.randn(1, 32, 8, 8)
    points = torch.rand(7, 2) * 128
    sparse, dense = sam.prompt_encoder((points[:, None], torch.ones(7, 1, dtype=torch.int)), None, None)
    with torch.no_grad():
        masks, iou = sam.mask_decoder.predict_masks(embedding, sam.prompt_encoder.get_dense_pe(), sparse, dense)
        prompted = prompt_points(sam, embedding, points)
        ours = mask_logits(sam.mask_decoder, prompted)
        prompt, mask = torch.tensor([1, 1, 4]), torch.tensor([0, 3, 2])
        chosen = chosen_mask_logits(sam.mask_decoder, prompted, prompt, mask)
    torch.testing.assert_close(ours, masks, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(prompted.iou, iou, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(chosen, masks[prompt, mask], atol=1e-4, rtol=1e-4)


def test_coarse_to_fine_prompts_only_what_is_not_covered():
    sam, rgb = build_sam("tiny"), photo(256, 256, seed=3)
    asked = []

    class Recording(MaskGenerator):
        def _candidates(self, embedding, points, view):
            asked.extend(map(tuple, points))
            return super()._candidates(embedding, points, view)

    own = MaskSettings(**sam_card()["masks"])
    Recording(sam, replace(own, points_per_side=12, coarse_points_per_side=4))(rgb)
    coarse, fine = asked[:16], asked[16:]
    assert len(coarse) == 16
    assert 0 < len(fine) < 144
    covered = MaskGenerator(sam, replace(own, points_per_side=4, coarse_points_per_side=None))(rgb).masks.any(axis=0)
    x, y = np.array(fine).astype(int).T
    assert covered[y, x].mean() < 0.1  # coverage is judged on the low-resolution masks


def checkpoint(path: Path, state) -> str:
    torch.save(state, path)
    return str(path)


@pytest.mark.slow
def test_official_vit_b_checkpoint_is_recognised_and_segments(tmp_path):
    torch.manual_seed(0)
    uri = checkpoint(tmp_path / "sam_vit_b.pth", sam_model_registry["vit_b"]().state_dict())
    sam = build_sam(uri)
    assert len(sam.image_encoder.blocks) == 12
    segment = Segment(SegmentConfig(uri, points_per_side=2, pred_iou_thresh=0.0, stability_score_thresh=0.0))
    semantics = segment(photo(120, 160))
    assert semantics.shape == (120, 160)
    assert semantics.dtype == np.uint16
    with pytest.raises(BadInput, match="vit_b, not the vit_h"):
        build_sam(uri, "vit_h")
    with pytest.raises(BadInput, match=r"partial\.pth.*not an official SAM vit_b"):
        build_sam(checkpoint(tmp_path / "partial.pth", {"image_encoder.pos_embed": torch.zeros(1, 64, 64, 768)}))


def test_wrong_and_corrupt_checkpoints_are_named(tmp_path):
    truncated = tmp_path / "truncated.pth"
    checkpoint(tmp_path / "whole.pth", {"a": torch.zeros(1000)})
    truncated.write_bytes((tmp_path / "whole.pth").read_bytes()[:700])
    with pytest.raises(BadInput, match=r"truncated\.pth.*download it again"):
        build_sam(str(truncated))
    with pytest.raises(BadInput, match=r"other\.pth.*pos_embed.*missing"):
        build_sam(checkpoint(tmp_path / "other.pth", {"weight": torch.zeros(3)}))
    with pytest.raises(BadInput, match=r"narrow\.pth.*is 192"):
        build_sam(checkpoint(tmp_path / "narrow.pth", {"image_encoder.pos_embed": torch.zeros(1, 2, 2, 192)}))
    with pytest.raises(BadInput, match=r"nothing\.pth"):
        build_sam(str(tmp_path / "nothing.pth"))


def test_code_in_a_checkpoint_does_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "sprung",))

    with pytest.raises(BadInput):
        build_sam(checkpoint(tmp_path / "trap.pth", {"trap": Trap()}))
    assert not (tmp_path / "sprung").exists()


def test_official_checkpoints_get_sams_own_defaults():
    settings = SegmentConfig(checkpoint="sam_vit_h.pth").mask_settings()
    assert settings == MaskSettings()
    stock = SamAutomaticMaskGenerator(random_sam())
    for name in ("points_per_batch", "pred_iou_thresh", "stability_score_thresh", "stability_score_offset"):
        assert getattr(settings, name) == getattr(stock, name)
    for name in ("box_nms_thresh", "crop_n_layers", "crop_nms_thresh", "crop_overlap_ratio"):
        assert getattr(settings, name) == getattr(stock, name)
    assert settings.points_per_side**2 == len(stock.point_grids[0])


def test_stated_settings_win_over_the_checkpoints_own():
    own = SegmentConfig().mask_settings()
    assert own == MaskSettings(**sam_card()["masks"])
    stated = SegmentConfig(points_per_side=5, pred_iou_thresh=0.1).mask_settings()
    assert (stated.points_per_side, stated.pred_iou_thresh) == (5, 0.1)
    assert stated.box_nms_thresh == own.box_nms_thresh
    assert stated.coarse_points_per_side is None  # a stated grid is the whole grid


def test_a_stem_makes_patches_of_the_same_size_and_order_as_sams_own():
    architecture = replace(VIT_B_SHAPED, stem=(4, 8, 8, 8))
    sam, stock = build_architecture(architecture), build_architecture(VIT_B_SHAPED)
    images = torch.zeros(2, 3, 128, 128)
    images[1, :, 40:56, 100:116] = 1.0  # across patches (2..3, 6..7) of 8 x 8
    patches = sam.image_encoder.patch_embed(images)
    assert patches.shape == stock.image_encoder.patch_embed(images).shape == (2, 8, 8, 48)
    changed = (patches[1] - patches[0]).abs().sum(dim=-1)
    assert changed[2:4, 6:8].min() > 10 * changed[6:, :2].max(), "rows are y, columns are x"
    with pytest.raises(ValueError, match="4 convolutions of stride 2 makes no patches of 8 pixels"):
        build_architecture(replace(architecture, patch_size=8))


def test_tiny_is_stock_sam_in_every_way_but_size():
    sam = build_sam("tiny")
    settings = MaskSettings(**{**sam_card()["masks"], "points_per_side": 8, "coarse_points_per_side": None})
    assert_same_as_stock(sam, settings, photo(256, 256, seed=3))


def test_segments_own_enough_pixels_at_any_size():
    segment = Segment(SegmentConfig())
    for height, width in ((512, 512), (240, 320)):
        semantics = segment(photo(height, width, seed=3))
        assert semantics.dtype == np.uint16
        areas = np.bincount(semantics.ravel())[1:]
        assert len(areas) > 1
        assert areas.min() >= round(1024 * height * width / 512**2)


def test_best_iou_of_known_masks():
    truth = np.zeros((2, 4, 4), bool)
    truth[0, :2], truth[1, 2:] = True, True
    masks = np.zeros((2, 4, 4), bool)
    masks[0, :3], masks[1, 0] = True, True
    np.testing.assert_allclose(best_iou(truth, masks), [8 / 12, 4 / 16])
    np.testing.assert_array_equal(best_iou(truth, masks[:0]), [0, 0])


def test_summary_keeps_objects_and_structures_apart():
    scores = [InstanceScore("wall", 9000, 1.0, 0.8), InstanceScore("chair", 2000, 0.5, 0.4)]
    summary = summarise(scores)
    assert summary["mean_best_iou"] == 0.75
    assert summary["mean_best_iou_objects"] == 0.5
    assert summary["mean_best_iou_structures"] == 1.0
    assert summary["mean_best_iou_painted"] == 0.6
    assert summary["instances"] == 2
