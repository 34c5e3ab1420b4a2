"""CLIP as a teacher: open_clip models, and segments of photos -> embeddings. Knows nothing of where masks come from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from jaxtyping import Float16, Float32, UInt8, UInt16
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import load_file
from torch import Tensor, nn

from liftgs.teachers import crops
from liftgs.teachers.checkpoints import file_digest
from liftgs.teachers.clip_checkpoint import create_open_clip, image_dtype
from liftgs.teachers.clip_text import TextTokens, encode_tokens
from liftgs.teachers.configs import DEFAULT_EMBED, WEIGHTS, EmbedConfig

TINY = "clip_tiny"


@dataclass(frozen=True, eq=False)
class ClipModel:
    """An open_clip model and what belongs to it.

    Attributes:
        model: in evaluation mode, on its device.
        tokenizer: texts -> int64 [n, context length].
        image_size: (height, width) of its input.
        mean: per channel, for pixels in 0..1.
        std: likewise.
        interpolation: "bicubic" or "bilinear".
        resize_mode: how a crop is brought to `image_size`; see `crops.resize_crop`.
        fill: grey level of what resizing leaves empty.
        revision: which weights these are; equal revisions give equal embeddings.
    """

    model: nn.Module
    tokenizer: Any
    image_size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str
    resize_mode: crops.ResizeMode
    fill: int
    revision: str

    @cached_property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    @cached_property
    def width(self) -> int:
        """F, the length of an embedding."""
        return int(self.encode_text(["a"]).shape[1])

    @torch.inference_mode()
    def encode_images(self, images: UInt8[Tensor, "n 3 h w"]) -> Float32[Tensor, "n f"]:
        """Images of `image_size` -> unit rows."""
        dtype = image_dtype(self.model.visual)  # type: ignore[arg-type]
        mean = torch.tensor(self.mean, device=self.device).view(3, 1, 1)
        std = torch.tensor(self.std, device=self.device).view(3, 1, 1)
        pixels = (images.to(self.device).float() / 255 - mean) / std
        pixels = pixels.to(dtype, memory_format=torch.channels_last)
        features = self.model.encode_image(pixels)  # type: ignore[operator]
        return nn.functional.normalize(features.float(), dim=-1)

    @torch.inference_mode()
    def encode_text(self, texts: Sequence[str], batch_size: int = 256) -> Float32[Tensor, "n f"]:
        """Texts -> unit rows."""
        if not texts:
            return torch.zeros(0, self.width, device=self.device)
        rows = []
        for start in range(0, len(texts), batch_size):
            tokens = self.tokenizer(list(texts[start : start + batch_size])).to(self.device)
            features = self.model.encode_text(tokens)  # type: ignore[operator]
            rows.append(nn.functional.normalize(features.float(), dim=-1))
        return torch.cat(rows)

    def encode_tokens(self, texts: Sequence[str]) -> TextTokens:
        """Texts -> the projected state of every token; see `clip_text`."""
        return encode_tokens(self.model, self.tokenizer, texts)

    def preprocess(self, crop: UInt8[np.ndarray, "ch cw 3"]) -> UInt8[Tensor, "3 h w"]:
        """Bring a crop of any size to `image_size`."""
        return crops.resize_crop(crop, self.image_size, self.resize_mode, self.interpolation, self.fill)


def build_clip(config: EmbedConfig, device: str | torch.device = "cpu") -> ClipModel:
    """Load the model that `config` names.

    Raises:
        ValueError: no such model or tag.
        BadInput: a checkpoint that is missing, damaged, or of another architecture.
    """
    if config.model == "tiny":
        return load_shipped(WEIGHTS / f"{TINY}.json", device)
    model, name, revision = create_open_clip(config.model, config.pretrained, config.precision, str(device))
    tokenizer = open_clip.get_tokenizer(name)
    return _assemble(model, tokenizer, open_clip.get_model_preprocess_cfg(model), revision)


def load_shipped(path: Path, device: str | torch.device = "cpu") -> ClipModel:
    """Load a model in our own layout: NAME.json (an `open_clip_config.json`), NAME.safetensors, and BPE merges.

    Args:
        path: of the JSON file.
        device: a torch device.
    """
    config = json.loads(path.read_text())
    model = open_clip.CLIP(**config["model_cfg"])
    weights = path.with_suffix(".safetensors")
    model.load_state_dict({key: value.float() for key, value in load_file(weights).items()})
    model = model.eval().to(device)
    tokenizer = SimpleTokenizer(str(path.parent / config["merges"]), context_length=model.context_length)
    preprocess = {**config["preprocess_cfg"], "size": model.visual.image_size}
    return _assemble(model, tokenizer, preprocess, f"{path.stem}:sha256-{file_digest(weights)}")


def _assemble(model: nn.Module, tokenizer: Any, preprocess: dict[str, Any], revision: str) -> ClipModel:
    model.requires_grad_(False)
    model.visual.to(memory_format=torch.channels_last)  # a third faster on CPUs
    size = preprocess["size"]
    return ClipModel(
        model=model,
        tokenizer=tokenizer,
        image_size=(size, size) if isinstance(size, int) else (size[0], size[1]),
        mean=tuple(preprocess["mean"]),
        std=tuple(preprocess["std"]),
        interpolation=preprocess["interpolation"],
        resize_mode=preprocess["resize_mode"],
        fill=preprocess["fill_color"],
        revision=revision,
    )


class Embed:
    """Segments of a photo -> embeddings."""

    def __init__(
        self,
        config: EmbedConfig = DEFAULT_EMBED,
        device: str | torch.device = "cpu",
        clip: ClipModel | None = None,
    ):
        """Load the model that `config` names, unless it is given."""
        self.config = config
        self.clip = build_clip(config, device) if clip is None else clip

    @property
    def revision(self) -> str:
        """Which weights these are."""
        return self.clip.revision

    def __call__(
        self, rgb: UInt8[np.ndarray, "h w 3"], semantics: UInt16[np.ndarray, "h w"]
    ) -> Float16[np.ndarray, "s f"]:
        """One unit row per segment.

        Args:
            rgb: the photo.
            semantics: as in `labels.SegmentMap`.
        """
        images = [self.clip.preprocess(crop) for crop in self._crops(rgb, semantics)]
        if not images:
            return np.zeros((0, self.clip.width), np.float16)
        if self.config.mix_global:
            images.append(self.clip.preprocess(rgb))
        size = self.config.batch_size
        batches = [torch.stack(images[start : start + size]) for start in range(0, len(images), size)]
        rows = torch.cat([self.clip.encode_images(batch) for batch in batches])
        if self.config.mix_global:
            rows = mix_global(rows[:-1], rows[-1])
        return rows.cpu().numpy().astype(np.float16)

    def encode_text(self, texts: Sequence[str]) -> Float32[np.ndarray, "n f"]:
        """One unit row per text."""
        return self.clip.encode_text(texts).cpu().numpy()

    def encode_tokens(self, texts: Sequence[str]) -> TextTokens:
        """The projected state of every token; see `clip_text`."""
        return self.clip.encode_tokens(texts)

    def _crops(self, rgb: np.ndarray, semantics: np.ndarray) -> list[np.ndarray]:
        config = self.config
        red, green, blue = self.clip.mean
        mean = (255 * red, 255 * green, 255 * blue)
        return list(
            crops.crop_segments(
                rgb, semantics, config.background, config.pad_px, config.expand, config.square, mean_rgb=mean
            )
        )


def mix_global(rows: Float32[Tensor, "s f"], whole: Float32[Tensor, " f"]) -> Float32[Tensor, "s f"]:
    """ConceptFusion's pixel features: each segment's embedding with some of the whole photo's, of unit length again.

    Source: Jatavallabhula et al. 2023, section 3.2, as in Locate-3D: the weights are a softmax over the segments of
    their cosine with the whole, without a temperature.
    """
    weight = torch.softmax(rows @ whole, dim=0)[:, None]
    return nn.functional.normalize(weight * whole + (1 - weight) * rows, dim=-1)
