"""A CLIP of two layers, of open_clip's own class."""

from __future__ import annotations

import numpy as np
import open_clip
import torch

TOY = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 32},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}


def toy(quick_gelu: bool = False, seed: int = 0) -> open_clip.CLIP:
    torch.manual_seed(seed)
    return open_clip.CLIP(**TOY, quick_gelu=quick_gelu).eval()


def images(count: int = 3) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(1).integers(0, 256, (count, 3, 32, 32), dtype=np.uint8))
