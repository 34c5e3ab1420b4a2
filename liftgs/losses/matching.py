"""Hungarian matching of predicted masks to targets, in float32, for one supervised head and one query set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional

from liftgs.losses import fused
from liftgs.losses.grounding import bands
from liftgs.render import NotFinite


@dataclass(frozen=True)
class MatchingConfig:
    """Weights of the matching cost. The paper says "similarly to the loss but with different weights"; these are
    Mask3D's. UniVLG, whose decoder the paper takes, has 2, 0.2 and 0.2.

    Attributes:
        token: of the probability of the target's queries.
        mask: of the mask's mean binary cross-entropy.
        dice: of the dice loss.
    """

    token: float = 2.0
    mask: float = 5.0
    dice: float = 2.0


@torch.no_grad()
def match(
    mask_logits: Float[Tensor, "m p"],
    token_logits: Float[Tensor, "m t+1"],
    masks: Float[Tensor, "k p"],
    positives: Float[Tensor, "k t"],
    config: MatchingConfig = MatchingConfig(),
) -> Int[Tensor, " k"]:
    """The proposal of each target, all different, at the least total cost.

    Args:
        mask_logits: of the proposals, over pixels or points.
        token_logits: of the proposals; the last column is "no match".
        masks: targets, 0 or 1.
        positives: how a target's probability is spread over the queries that name it; rows sum to 1.
        config: weights.

    Raises:
        ValueError: more targets than proposals.
        NotFinite: costs that are not.
    """
    if len(masks) > len(mask_logits):
        raise ValueError(f"{len(masks)} targets but only {len(mask_logits)} proposals")
    device = mask_logits.device
    cost = pairwise_cost(mask_logits.float(), token_logits.float(), masks.float(), positives.float(), config)
    costs = cost.cpu().numpy()
    if not np.isfinite(costs).all():
        raise NotFinite("the matching cost is not finite")
    rows, columns = linear_sum_assignment(costs)
    proposal = torch.empty(len(masks), dtype=torch.long)
    proposal[torch.from_numpy(columns)] = torch.from_numpy(rows)
    return proposal.to(device)


def pairwise_cost(
    mask_logits: Float[Tensor, "m p"],
    token_logits: Float[Tensor, "m t+1"],
    masks: Float[Tensor, "k p"],
    positives: Float[Tensor, "k t"],
    config: MatchingConfig,
) -> Float[Tensor, "m k"]:
    """Cost of every proposal for every target.

    The cross-entropy of a pair is sum(softplus(x)) - sum(x over the mask): all pairs cost one product.
    """
    entropy, mass, overlap = _over_pixels(mask_logits, masks)
    cross_entropy = (entropy[:, None] - mask_logits @ masks.T) / masks.shape[1]
    dice = 1 - (2 * overlap + 1) / (mass[:, None] + masks.sum(1) + 1)
    token = -token_logits.softmax(-1)[:, :-1] @ positives.T
    return config.token * token + config.mask * cross_entropy + config.dice * dice


def _over_pixels(
    mask_logits: Float[Tensor, "m p"], masks: Float[Tensor, "k p"]
) -> tuple[Float[Tensor, " m"], Float[Tensor, " m"], Float[Tensor, "m k"]]:
    """Sums over the pixels: of softplus(x), of the probability, and of it on every mask."""
    nowhere = masks.new_zeros(1, masks.shape[1])
    if fused.readable(mask_logits[:, None], nowhere):
        entropy, _, mass = fused.sums(mask_logits[:, None], nowhere).squeeze(-1)
        return entropy, mass, mask_logits.sigmoid() @ masks.T
    entropy, mass = mask_logits.new_zeros(2, len(mask_logits))
    overlap = mask_logits.new_zeros(len(mask_logits), len(masks))
    for band in bands(mask_logits):
        x = mask_logits[:, band]
        probs = x.sigmoid()
        # softplus(x) as in the mask loss, max(p, 1 - p) being |p - 1/2| + 1/2
        entropy += x.clamp(min=0).sum(1) - _log_product((probs - 0.5).abs_().add_(0.5))
        mass += probs.sum(1)
        overlap += probs @ masks[:, band].T
    return entropy, mass, overlap


def _log_product(x: Float[Tensor, "m p"]) -> Float[Tensor, " m"]:
    """The log of each row's product, of numbers in 0.5..1; 64 of them are multiplied before one logarithm is taken."""
    x = functional.pad(x, (0, -x.shape[1] % 64), value=1.0)
    for _ in range(6):
        x = torch.mul(*x.chunk(2, dim=1))
    return x.log().sum(1)
