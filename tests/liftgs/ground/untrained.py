"""A network with fresh weights whose masks are not all empty."""

from __future__ import annotations

import torch

from liftgs.model.liftgs import LiftGS, LiftGSConfig


def untrained_model(seed: int = 0) -> LiftGS:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LiftGS(LiftGSConfig.named("tiny")).eval()
    return model
