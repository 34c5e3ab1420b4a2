"""What may be set about SAM and CLIP as teachers. Imports neither torch nor a model: a job reads its spec without."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from liftgs.scene import BadInput
from liftgs.teachers.checkpoints import local_checkpoint

#: the folder of the small teachers that ship with the package
WEIGHTS = Path(__file__).parent / "weights"


@dataclass(frozen=True)
class MaskSettings:
    """Settings of automatic mask generation; names, defaults and meanings of `SamAutomaticMaskGenerator`.

    Attributes:
        points_per_side: prompts form a grid of this many points along each side of the image.
        points_per_batch: prompts decoded at a time.
        pred_iou_thresh: a mask's predicted IoU must exceed this.
        stability_score_thresh: least IoU between the mask cut at logits above and below the threshold.
        stability_score_offset: how far above and below.
        box_nms_thresh: of two masks whose boxes overlap more (IoU), the one with the lower predicted IoU goes.
        crop_n_layers: extra rounds on 4, 16, ... crops of the image.
        crop_nms_thresh: box overlap allowed between masks of different crops; those of smaller crops win.
        crop_overlap_ratio: overlap of crops, as a fraction of the image's shorter side.
        crop_n_points_downscale_factor: by which the grid of points is thinned in each layer of crops.
        coarse_points_per_side: prompt a coarser grid first, and then only those points of the full grid that no mask
            found so far covers. Meant for a SAM that knows whole things and no parts, whose masks nearly tile the
            image; saves most of the prompts. None: every point, as the stock generator does.
    """

    points_per_side: int = 32
    points_per_batch: int = 64
    pred_iou_thresh: float = 0.88
    stability_score_thresh: float = 0.95
    stability_score_offset: float = 1.0
    box_nms_thresh: float = 0.7
    crop_n_layers: int = 0
    crop_nms_thresh: float = 0.7
    crop_overlap_ratio: float = 512 / 1500
    crop_n_points_downscale_factor: int = 1
    coarse_points_per_side: int | None = None

    def __post_init__(self) -> None:
        if self.points_per_side < 1 or self.points_per_batch < 1 or self.crop_n_layers < 0:
            raise ValueError(
                f"points_per_side {self.points_per_side} and points_per_batch {self.points_per_batch} must be "
                f"positive, crop_n_layers {self.crop_n_layers} not negative"
            )
        if self.coarse_points_per_side is not None and not 1 <= self.coarse_points_per_side < self.points_per_side:
            raise ValueError(
                f"coarse_points_per_side {self.coarse_points_per_side} is not below "
                f"points_per_side {self.points_per_side}"
            )


@dataclass(frozen=True)
class SegmentConfig:
    """How photos are segmented. None means the checkpoint's own: SAM's defaults for official checkpoints (the values of
    `MaskSettings`), those on its card for a small one.

    Attributes:
        checkpoint: "tiny" ships with the package; else a path or URL: of an official SAM checkpoint, or of the card
            (.json) that the training of another small SAM wrote.
        model_type: vit_b, vit_l or vit_h; None = read off the checkpoint.
        points_per_side: prompts form a grid of so many points along each side. Of this and the seven below, null = the
            checkpoint's own.
        points_per_batch: prompts that are decoded at a time.
        pred_iou_thresh: a mask's predicted IoU must exceed this.
        stability_score_thresh: least IoU between the mask cut at logits above and below the threshold.
        box_nms_thresh: of two masks whose boxes overlap more (IoU), the one of lower predicted IoU goes.
        crop_n_layers: extra rounds on 4, 16, ... crops of the image.
        crop_n_points_downscale_factor: by which the grid is thinned in each layer of crops.
        coarse_points_per_side: prompt a coarser grid first, then only the points that no mask so far covers.
        min_area_px: smallest segment, in pixels of a 512x512 image and scaled with the image's area (LIFT-GS,
            appendix A.1).
    """

    checkpoint: str = "tiny"
    model_type: str | None = None
    points_per_side: int | None = None
    points_per_batch: int | None = None
    pred_iou_thresh: float | None = None
    stability_score_thresh: float | None = None
    box_nms_thresh: float | None = None
    crop_n_layers: int | None = None
    crop_n_points_downscale_factor: int | None = None
    coarse_points_per_side: int | None = None
    min_area_px: int = 1024

    def mask_settings(self) -> MaskSettings:
        """The settings of mask generation, with the checkpoint's own where this config has None.

        Raises:
            ValueError: settings that contradict each other.
        """
        defaults = sam_card(self.checkpoint)["masks"] if is_small_sam(self.checkpoint) else {}
        names = {field.name for field in fields(MaskSettings)}
        stated = {name: value for name, value in asdict(self).items() if name in names and value is not None}
        if "points_per_side" in stated and "coarse_points_per_side" not in stated:
            defaults = {**defaults, "coarse_points_per_side": None}
        return MaskSettings(**{**defaults, **stated})


def is_small_sam(checkpoint: str) -> bool:
    """Whether this names a small SAM of ours, the shipped one or the card of another."""
    return checkpoint == "tiny" or checkpoint.endswith(".json")


def small_sam_weights(checkpoint: str) -> str:
    """Path or URL of the .safetensors beside the card of a small SAM."""
    return (
        str(WEIGHTS / "sam_tiny.safetensors")
        if checkpoint == "tiny"
        else f"{checkpoint.removesuffix('.json')}.safetensors"
    )


def sam_card(checkpoint: str = "tiny") -> dict[str, Any]:
    """What lies beside the weights of a small SAM: `architecture`, `masks` (settings), `training` and `evaluation`.

    Args:
        checkpoint: "tiny", or the path or URL of a card that `train_sam` wrote.

    Raises:
        BadInput: no such file, or not a card.
    """
    path = WEIGHTS / "sam_tiny.json" if checkpoint == "tiny" else local_checkpoint(checkpoint)
    try:
        card: dict[str, Any] = json.loads(path.read_text())
        if not isinstance(card["architecture"], dict) or not isinstance(card["masks"], dict):
            raise TypeError
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(checkpoint, "is not the card of a small SAM; give the .json that train_sam wrote") from error
    return card


def split_weights(pretrained: str) -> tuple[str, str]:
    """Tag and path of "TAG@PATH"; of anything else no tag, and itself."""
    found = re.fullmatch(r"([A-Za-z0-9_.-]+)@(.+)", pretrained)
    return (found[1], found[2]) if found else ("", pretrained)


@dataclass(frozen=True)
class EmbedConfig:
    """How segments become embeddings.

    The defaults are Locate-3D's, which comes from the same lab and, unlike the paper, says how it crops: the plain
    bounding box with its background (`preprocessing/image_features/mask_embedding.py`).

    Attributes:
        model: "tiny" ships with the package; else any model name of open_clip's.
        pretrained: weights of such a model: a tag, or the path or URL of a checkpoint; the paper has
            model="ViT-L-14-quickgelu", pretrained="openai". Weights known to need QuickGELU get it, whatever the name.
            Where a model's tags want photos prepared in different ways, a path needs its tag: "TAG@PATH".
        background: what the crop shows outside the segment: "keep" it, "blur" it, or paint it black ("zero") or in the
            model's "mean".
        pad_px: pixels of surroundings on every side (ConceptGraphs: 20).
        expand: surroundings on every side as a fraction of the box (OpenMask3D: 0.1 per level).
        square: grow the box to a square instead of leaving that to the model's own resize mode (LangSplat).
        mix_global: mix in the whole photo's embedding, the more the more a segment resembles it (ConceptFusion).
        batch_size: crops per forward pass.
        precision: "fp32", "fp16" or "bf16".
    """

    model: str = "tiny"
    pretrained: str = ""
    background: Literal["keep", "blur", "zero", "mean"] = "keep"
    pad_px: int = 0
    expand: float = 0.0
    square: bool = False
    mix_global: bool = False
    batch_size: int = 64
    precision: Literal["fp32", "fp16", "bf16"] = "fp32"

    def __post_init__(self) -> None:
        if self.model == "tiny" and self.pretrained:
            raise ValueError(f"model 'tiny' has weights of its own; name the open_clip model of {self.pretrained!r}")
        if self.model != "tiny" and not self.pretrained:
            raise ValueError(f"pretrained is empty: give a tag, path or URL of weights for {self.model}")
        if self.pad_px < 0 or self.expand < 0 or self.batch_size < 1:
            raise ValueError("pad_px and expand must not be negative, and batch_size at least 1")


DEFAULT_EMBED = EmbedConfig()
