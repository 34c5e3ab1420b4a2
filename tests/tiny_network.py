"""A LIFT-GS network small enough for tests."""

from __future__ import annotations

import dataclasses

import torch

from liftgs.model.decoder import DecoderConfig
from liftgs.model.gaussians import GaussianConfig
from liftgs.model.liftgs import LiftGS, LiftGSConfig
from liftgs.model.unet import UNetConfig

CONFIG = LiftGSConfig(
    voxel_size_m=0.1,
    embed_dim=16,
    clip="tiny",
    clip_pretrained="",
    unet=UNetConfig(stem_channels=8, stem_kernel=3, channels=(8, 16, 16, 16), layers=(1, 1, 1, 1), norm="layer"),
    gaussians=GaussianConfig(features=12, hidden=16),
    decoder=DecoderConfig(
        layers=2, dim=16, heads=2, feedforward=32, dropout=0.0, proposals=12, proposal_start="sampled", scene_level=1
    ),
)


def network(seed: int = 0, **changes: object) -> LiftGS:
    torch.manual_seed(seed)
    return LiftGS(dataclasses.replace(CONFIG, **changes))  # type: ignore[arg-type]
