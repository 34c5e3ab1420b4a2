"""SAM: a photo becomes an index image of segments. `segment_anything`'s own classes, any official checkpoint of theirs.

`checkpoint="tiny"` is a small SAM of our own (`weights/sam_tiny.*`), trained on procedural images by
`liftgs.teachers.train.sam_train` for machines without an accelerator. It answers single-point prompts.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8, UInt16
from safetensors import SafetensorError
from safetensors.torch import load_file
from segment_anything import sam_model_registry
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from torch import Tensor, nn

from liftgs.labels import paint
from liftgs.scene import BadInput
from liftgs.teachers.checkpoints import local_checkpoint
from liftgs.teachers.configs import SegmentConfig, is_small_sam, sam_card, small_sam_weights
from liftgs.teachers.sam_masks import MaskGenerator, Masks

#: Widths of the image encoders of the official checkpoints.
_MODEL_TYPE_OF_WIDTH = {768: "vit_b", 1024: "vit_l", 1280: "vit_h"}
#: The image size at which `min_area_px` is meant.
_REFERENCE_AREA_PX = 512 * 512


@dataclass(frozen=True)
class SamArchitecture:
    """A SAM of any size, in the terms of `segment_anything`'s own classes.

    Attributes:
        img_size: side of the square that images are fitted into, pixels.
        patch_size: side of an image patch; masks come out at 4 x `img_size / patch_size`.
        embed_dim: width of the image encoder.
        depth: its number of blocks.
        num_heads: its attention heads.
        mlp_ratio: its MLPs' width over `embed_dim`.
        window_size: side of its attention windows, in patches.
        global_attn_indexes: its blocks that attend to the whole image.
        use_rel_pos: decomposed relative positions in its attention, as in the official models.
        stem: channels of the convolutions that make patches, see `ConvStem`; empty: SAM's own single convolution.
        prompt_dim: width of prompts, mask decoder and image embedding.
        decoder_depth: two-way transformer layers.
        decoder_heads: their attention heads.
        decoder_mlp_dim: their MLPs' width.
        decoder_downsample: `prompt_dim` over the width of the decoder's cross-attention.
        iou_head_dim: width of the head that predicts IoU.
    """

    img_size: int = 256
    patch_size: int = 8
    embed_dim: int = 192
    depth: int = 6
    num_heads: int = 4
    mlp_ratio: float = 3.0
    window_size: int = 8
    global_attn_indexes: tuple[int, ...] = (2, 5)
    use_rel_pos: bool = False
    stem: tuple[int, ...] = (24, 48, 96)
    prompt_dim: int = 96
    decoder_depth: int = 2
    decoder_heads: int = 4
    decoder_mlp_dim: int = 256
    decoder_downsample: int = 3
    iou_head_dim: int = 64


def build_sam(checkpoint: str = "tiny", model_type: str | None = None, device: torch.device | str = "cpu") -> Sam:
    """Load a SAM, ready for inference.

    Args:
        checkpoint: "tiny"; the path or URL of another small SAM's card (.json, its .safetensors beside it); or the path
            or URL of an official checkpoint. What is remote is downloaded once per machine.
        model_type: vit_b, vit_l or vit_h; None = read off the checkpoint. Not for small ones.

    Raises:
        BadInput: no such file, not a SAM checkpoint, or one of another model type.
    """
    sam = _build_small(checkpoint) if is_small_sam(checkpoint) else _build_official(checkpoint, model_type)
    return sam.eval().requires_grad_(False).to(device)


def _build_small(checkpoint: str) -> Sam:
    sam = build_architecture(architecture_from_json(sam_card(checkpoint)["architecture"]))
    state = {name: value.float() for name, value in _read_state_dict(small_sam_weights(checkpoint)).items()}
    _load(sam, state, checkpoint, "the card of the weights beside it")
    return sam


def _build_official(checkpoint: str, model_type: str | None) -> Sam:
    state = _read_state_dict(checkpoint)
    found = _model_type(checkpoint, state)
    if model_type is not None and model_type != found:
        raise BadInput(checkpoint, f"holds a {found}, not the {model_type} that model_type asks for; set it to {found}")
    sam = sam_model_registry[found]()
    _load(sam, state, checkpoint, f"an official SAM {found} checkpoint")
    return sam


def _load(sam: Sam, state: dict[str, torch.Tensor], checkpoint: str, expected: str) -> None:
    try:
        sam.load_state_dict(state)
    except RuntimeError as error:
        problem = " ".join(str(error).split())[:300]
        raise BadInput(checkpoint, f"is not {expected} ({problem})") from error


def _read_state_dict(checkpoint: str) -> dict[str, torch.Tensor]:
    path = local_checkpoint(checkpoint)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError, SafetensorError) as error:
        problem = " ".join(str(error).split())[:200]
        raise BadInput(
            checkpoint, f"is not a readable checkpoint; download it again, it may be cut short ({problem})"
        ) from error
    if not isinstance(state, dict):
        raise BadInput(checkpoint, f"holds a {type(state).__name__}, not the state dict of a SAM")
    return state


def _model_type(checkpoint: str, state: dict[str, torch.Tensor]) -> str:
    position = state.get("image_encoder.pos_embed")
    width = position.shape[-1] if isinstance(position, torch.Tensor) and position.ndim else 0
    if width not in _MODEL_TYPE_OF_WIDTH:
        raise BadInput(
            checkpoint,
            "is not an official SAM checkpoint: image_encoder.pos_embed should be 768, 1024 or 1280 wide "
            f"and {f'is {width}' if width else 'is missing'}; give one of sam_vit_b, sam_vit_l, sam_vit_h",
        )
    return _MODEL_TYPE_OF_WIDTH[width]


def architecture_from_json(values: dict[str, Any]) -> SamArchitecture:
    """Undo `dataclasses.asdict` and JSON."""
    lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    return SamArchitecture(**{**values, **lists})


class ConvStem(nn.Sequential):
    """Patches by 3x3 convolutions of stride 2 instead of one big one (Xiao et al. 2021, "Early convolutions help
    transformers see better"): a small transformer then learns in a fraction of the steps.

    Takes [b, 3, h, w], returns [b, h / 2^n, w / 2^n, dim], as `segment_anything`'s `PatchEmbed` does.

    Args:
        channels: of each of the n convolutions.
        dim: of the patches.
    """

    def __init__(self, channels: tuple[int, ...], dim: int):
        layers: list[nn.Module] = []
        for before, after in pairwise((3, *channels)):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False), nn.GroupNorm(1, after), nn.GELU()]
        super().__init__(*layers, nn.Conv2d(channels[-1], dim, 1))

    def forward(self, input: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b gh gw dim"]:
        """Patches, channels last."""
        return super().forward(input).permute(0, 2, 3, 1)


def build_architecture(architecture: SamArchitecture) -> Sam:
    """A SAM with random weights."""
    a = architecture
    if a.stem and 2 ** len(a.stem) != a.patch_size:
        raise ValueError(f"a stem of {len(a.stem)} convolutions of stride 2 makes no patches of {a.patch_size} pixels")
    grid = a.img_size // a.patch_size
    sam = Sam(
        image_encoder=ImageEncoderViT(
            img_size=a.img_size,
            patch_size=a.patch_size,
            embed_dim=a.embed_dim,
            depth=a.depth,
            num_heads=a.num_heads,
            mlp_ratio=a.mlp_ratio,
            out_chans=a.prompt_dim,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            qkv_bias=True,
            use_rel_pos=a.use_rel_pos,
            window_size=a.window_size,
            global_attn_indexes=a.global_attn_indexes,
        ),
        prompt_encoder=PromptEncoder(
            embed_dim=a.prompt_dim,
            image_embedding_size=(grid, grid),
            input_image_size=(a.img_size, a.img_size),
            mask_in_chans=16,
        ),
        mask_decoder=MaskDecoder(
            num_multimask_outputs=3,
            transformer=TwoWayTransformer(
                depth=a.decoder_depth,
                embedding_dim=a.prompt_dim,
                num_heads=a.decoder_heads,
                mlp_dim=a.decoder_mlp_dim,
                attention_downsample_rate=a.decoder_downsample,
            ),
            transformer_dim=a.prompt_dim,
            iou_head_depth=3,
            iou_head_hidden_dim=a.iou_head_dim,
        ),
    )
    if a.stem:
        sam.image_encoder.patch_embed = ConvStem(a.stem, a.embed_dim)
    return sam


class Segment:
    """Photos to segments: SAM's automatic masks, painted into one index image."""

    def __init__(self, config: SegmentConfig, device: torch.device | str = "cpu"):
        self.config = config
        self.generator = MaskGenerator(build_sam(config.checkpoint, config.model_type, device), config.mask_settings())

    def masks(self, rgb: UInt8[np.ndarray, "h w 3"]) -> Masks:
        """The automatic masks of at least `min_area_px` pixels, best first; they may overlap."""
        found = self.generator(rgb)
        keep = np.count_nonzero(found.masks, axis=(1, 2)) >= self.min_area_px(*rgb.shape[:2])
        return Masks(found.masks[keep], found.predicted_iou[keep], found.boxes[keep])

    def __call__(self, rgb: UInt8[np.ndarray, "h w 3"]) -> UInt16[np.ndarray, "h w"]:
        """Segment index per pixel, 0 = none, as in `liftgs.labels.SegmentMap.semantics`."""
        height, width = rgb.shape[:2]
        found = self.masks(rgb)
        return paint(found.masks, self.min_area_px(height, width), found.predicted_iou, (height, width))

    def min_area_px(self, height: int, width: int) -> int:
        """Smallest segment of an image of this size, in its own pixels."""
        return max(1, round(self.config.min_area_px * height * width / _REFERENCE_AREA_PX))
