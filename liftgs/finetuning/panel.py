"""A picture of how the network answers an item: the room from above, what was asked for, and the answers."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from liftgs.finetuning.items import LabelledItem, Question
from liftgs.model.liftgs import EncodedScene, LiftGS

#: What is higher above the floor than this is not drawn: it would hide the room.
CUT_M = 2.0
_WIDTH_PX = 256
_COLOURS = np.array(  # Okabe and Ito's, which the colour-blind tell apart
    [[230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [0, 114, 178], [213, 94, 0], [204, 121, 167]]
)


@torch.no_grad()
def panel(model: LiftGS, item: LabelledItem) -> UInt8[np.ndarray, "h w 3"]:
    """One row per question: the cloud from above | the instances asked for, a colour per query | the answers.

    The answers to a query are its best proposals, as many as it has targets. No target is looked at beyond that.
    """
    training = model.training
    model.eval()
    scene = model.encode([item.voxels])[0]
    rows = [_row(model, scene, item, question) for question in item.questions]
    model.train(training)
    return np.concatenate(rows)


def _row(model: LiftGS, scene: EncodedScene, item: LabelledItem, question: Question) -> UInt8[np.ndarray, "h w 3"]:
    last = model.decode(scene, question.queries[None])[-1]
    query = question.positives.argmax(1)
    masks = model.mask_logits(scene, last.mask_embeds[0]) > 0
    order = last.token_logits[0].softmax(-1)[:, :-1].argsort(0, descending=True)
    rank = [int((query[:row] == query[row]).sum()) for row in range(len(query))]
    proposal = torch.stack([order[min(r, len(order) - 1), q] for r, q in zip(rank, query, strict=True)])
    truth = item.instance == question.instances[:, None]
    seen = from_above(item.voxels.xyz)
    grey = (item.voxels.rgb.clamp(0, 1) * 255).cpu().numpy()
    tiles = [grey, *(_tint(grey, shown.cpu().numpy(), query.cpu().numpy()) for shown in (truth, masks[proposal]))]
    gap = np.full((seen.shape[0], 4, 3), 255, np.uint8)
    painted = [np.where(seen[..., None] >= 0, tile.astype(np.uint8)[seen], 24).astype(np.uint8) for tile in tiles]
    return np.concatenate([part for tile in painted for part in (tile, gap)][:-1], axis=1)


def _tint(rgb: Float[np.ndarray, "n 3"], masks: Bool[np.ndarray, "k n"], query: np.ndarray) -> Float[np.ndarray, "n 3"]:
    result = np.repeat(rgb.mean(1, keepdims=True), 3, axis=1)
    for mask, number in zip(masks, query, strict=True):
        result[mask] = 0.25 * result[mask] + 0.75 * _COLOURS[number % len(_COLOURS)]
    return result


def from_above(xyz: Float[Tensor, "n 3"], width: int = _WIDTH_PX) -> np.ndarray:
    """For each pixel of a square map of the room the highest voxel below `CUT_M`, or -1; int [width, width]."""
    points = xyz.cpu().numpy()
    low, high = points.min(0), points.max(0)
    side = max(float((high - low)[:2].max()), 1e-3)
    spread = int(np.ceil(width / max(1.0, np.sqrt(len(points)))))  # a voxel is drawn as a square without gaps
    column = ((points[:, :2] - low[:2]) / side * (width - 1)).astype(int)
    order = np.argsort(points[:, 2], kind="stable")
    order = order[points[order, 2] <= low[2] + CUT_M]
    seen = np.full((width, width), -1)
    for dx in range(spread):
        for dy in range(spread):
            x, y = np.minimum(column[order, 0] + dx, width - 1), np.minimum(column[order, 1] + dy, width - 1)
            deeper = seen[y, x] < 0
            higher = points[order, 2] >= np.where(deeper, -np.inf, points[seen[y, x], 2])
            seen[y[higher], x[higher]] = order[higher]
    return seen[::-1]
