"""Masks' cross-entropy and dice on a CPU, by the compiled kernels: one pass over memory each way."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from liftgs.render import compile


def readable(logits: Float[Tensor, "*b k p"], masks: Float[Tensor, "k p"]) -> bool:
    """Whether the kernels can: float32 that lies in memory pixel by pixel, as rendered images do, and a compiler."""
    if logits.device.type != "cpu" or logits.dtype != torch.float32 or masks.dtype != torch.float32:
        return False
    return logits.numel() > 0 and logits[..., 0].is_contiguous() and compile.available()


def sums(logits: Float[Tensor, "*b k p"], masks: Float[Tensor, "k p"]) -> Float[Tensor, "3 *b k"]:
    """Over the pixels: cross-entropy, probability on the mask, and all probability."""
    totals = torch.empty(3, *logits.shape[:-1], dtype=torch.float64)
    masks = masks.contiguous()
    compile.load().liftgs_mask_sums(*_inputs(logits, masks), totals.data_ptr(), torch.get_num_threads())
    return totals.float()


def slopes(
    logits: Float[Tensor, "*b k p"],
    masks: Float[Tensor, "k p"],
    everywhere: Float[Tensor, "*b k"],
    inside: Float[Tensor, "*b k"],
    share: Float[Tensor, "*b k"],
) -> Float[Tensor, "*b k p"]:
    """With p the sigmoid of the logits: p (1 - p) (everywhere - inside * mask) + (p - mask) share."""
    slope = torch.empty(logits.shape[-1], *logits.shape[:-1])
    per_column = [t.float().contiguous() for t in (everywhere, inside, share)]
    masks = masks.contiguous()
    pointers = [t.data_ptr() for t in (*per_column, slope)]
    compile.load().liftgs_mask_slopes(*_inputs(logits, masks), *pointers, torch.get_num_threads())
    return slope.movedim(0, -1)


def _inputs(logits: Tensor, masks: Tensor) -> tuple[int, ...]:
    k, pixels = masks.shape
    return logits.data_ptr(), logits.stride(-1), logits[..., 0].numel() // k, k, masks.data_ptr(), pixels
