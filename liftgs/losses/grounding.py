"""The grounding loss of one supervised head: masks and correspondences of matched proposals.

The same functions serve rendered masks against 2D pseudo-labels (pixels) and masks on Gaussian centres against 3D
labels (points): both are logits [k, p] against targets [k, p].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from liftgs.losses import fused


@dataclass(frozen=True)
class GroundingConfig:
    """Weights and variants of the grounding loss.

    Attributes:
        mask: weight of the mask's cross-entropy; 15 in the paper, appendix A.1.
        dice: weight of the dice loss; 6.
        token: weight of the correspondence loss; 2.
        mask_loss: "bce" (appendix A.1) or "focal" (section 3.2.1 of the paper, which contradicts it).
        token_loss: "softmax" over queries and no-match (equation 5), or "sigmoid", a focal loss per query as in UniVLG,
            without no-match.
        no_match: weight of proposals that match nothing in the softmax loss; 0.1 in DETR and UniVLG.
    """

    mask: float = 15.0
    dice: float = 6.0
    token: float = 2.0
    mask_loss: Literal["bce", "focal"] = "bce"
    token_loss: Literal["softmax", "sigmoid"] = "softmax"
    no_match: float = 0.1


def mask_losses(
    logits: Float[Tensor, "*b k p"], masks: Float[Tensor, "k p"], kind: Literal["bce", "focal"] = "bce"
) -> tuple[Float[Tensor, "*b k"], Float[Tensor, "*b k"]]:
    """Per matched target: cross-entropy (or focal loss) averaged over the pixels, and dice loss.

    Source: Lin et al. 2017 (focal: alpha 0.25, gamma 2); Sudre et al. 2017 (dice, with +1 as MaskFormer smooths it).

    Args:
        logits: of several heads, say, over pixels or points. Fastest where they lie in memory as the masks do.
        masks: 0 or 1.
        kind: of the first loss.
    """
    if kind == "bce":
        return _BceAndDice.apply(logits, masks)
    entropy = functional.binary_cross_entropy_with_logits(logits, masks.expand_as(logits), reduction="none")
    probs = logits.sigmoid()
    overlap, mass = (probs * masks).sum(-1), probs.sum(-1) + masks.sum(-1)
    return (entropy * _focal_weight(logits, masks)).mean(-1), 1 - (2 * overlap + 1) / (mass + 1)


#: On a CPU, masks are worked on in bands of about so many numbers, which stay in the second-level cache.
BAND = 1 << 18


class _BceAndDice(torch.autograd.Function):
    """Both losses from one sigmoid, their gradients by formula: memory is read twice and the gradient written once,
    where autograd would keep and reread several copies. Rendered masks go through our kernels, others band by band."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        entropy, overlap, mass = (fused.sums if fused.readable(logits, masks) else _sums)(logits, masks)
        size = mass + masks.sum(-1) + 1
        ctx.save_for_backward(logits, masks, overlap, size)
        return entropy / logits.shape[-1], 1 - (2 * overlap + 1) / size

    @staticmethod
    def backward(ctx: Any, of_entropy: Tensor, of_dice: Tensor) -> tuple[Tensor, None]:
        logits, masks, overlap, size = ctx.saved_tensors
        everywhere, inside = (2 * overlap + 1) / size**2 * of_dice, 2 / size * of_dice
        slopes = fused.slopes if fused.readable(logits, masks) else _slopes
        return slopes(logits, masks, everywhere, inside, of_entropy / logits.shape[-1]), None


def _sums(logits: Tensor, masks: Tensor) -> Tensor:
    """As `fused.sums`, anywhere."""
    sums = logits.new_zeros(3, *logits.shape[:-1])
    entropy, overlap, mass = sums
    for band in bands(logits):
        x, truth = logits[..., band], masks[:, band]
        probs = x.sigmoid()
        # softplus(x) = max(x, 0) - log max(p, 1 - p): PyTorch's own takes four times as long on CPUs
        entropy += (x.relu() - torch.maximum(probs, 1 - probs).log_() - x * truth).sum(-1)
        overlap += (probs * truth).sum(-1)
        mass += probs.sum(-1)
    return sums


def _slopes(logits: Tensor, masks: Tensor, everywhere: Tensor, inside: Tensor, share: Tensor) -> Tensor:
    """As `fused.slopes`, anywhere."""
    everywhere, inside, share = everywhere[..., None], inside[..., None], share[..., None]
    slope = torch.empty_like(logits)
    for band in bands(logits):
        truth = masks[:, band]
        probs = logits[..., band].sigmoid()
        of_probs = torch.addcmul(everywhere, inside, truth, value=-1)
        slope[..., band] = (probs - probs * probs).mul_(of_probs).add_((probs - truth).mul_(share))
    return slope


def bands(logits: Tensor) -> list[slice]:
    """Slices of the last dimension, on a CPU of about `BAND` numbers each, all on a GPU."""
    pixels = logits.shape[-1]
    width = pixels if logits.is_cuda else max(1, BAND * pixels // max(1, logits.numel()))
    return [slice(start, start + width) for start in range(0, pixels, width)]


def token_loss(
    token_logits: Float[Tensor, "m t+1"],
    proposal: Int[Tensor, " k"],
    positives: Float[Tensor, "k t"],
    config: GroundingConfig = GroundingConfig(),
    judged: Bool[Tensor, " m"] | None = None,
) -> Float[Tensor, ""]:
    """The correspondence loss of one query set.

    Args:
        token_logits: of all proposals; the last column is "no match"; padded queries are -inf.
        proposal: of each target.
        positives: how each target spreads over the queries; rows sum to 1.
        config: which loss.
        judged: proposals that the labels can tell anything about; others count only if matched. All by default.

    Returns:
        Softmax: weighted mean over the proposals of the cross-entropy. Sigmoid: sum over (proposal, query), by the
        number of positive entries.
    """
    counts = torch.ones(len(token_logits), dtype=torch.bool, device=token_logits.device) if judged is None else judged
    target = token_logits.new_zeros(token_logits.shape, dtype=torch.float32)
    target[proposal, :-1] = positives.float()
    if config.token_loss == "sigmoid":
        logits, target = token_logits[:, :-1], (target[:, :-1] > 0).float()
        shown = logits > -torch.inf
        logits = torch.where(shown, logits, 0)
        entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
        rows = (counts | target.any(1))[:, None]
        return (entropy * _focal_weight(logits, target) * shown * rows).sum() / target.sum().clamp(min=1)
    matched = torch.zeros(len(token_logits), dtype=torch.bool, device=token_logits.device)
    matched[proposal] = True
    target[:, -1] = (~matched).float()
    weight = torch.where(matched, 1.0, config.no_match * counts)
    log_probs = token_logits.float().log_softmax(-1)
    entropy = -(target * torch.where(target > 0, log_probs, 0)).sum(-1)
    return (entropy * weight).sum() / weight.sum().clamp(min=1e-6)


def _focal_weight(logits: Tensor, target: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    probs = logits.sigmoid()
    miss = probs * (1 - target) + (1 - probs) * target
    return miss**gamma * (alpha * target + (1 - alpha) * (1 - target))
