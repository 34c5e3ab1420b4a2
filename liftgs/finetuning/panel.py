"""A picture of how the network answers an item: the room from above, what was asked for, and the answers."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import UInt8

from liftgs.finetuning.items import LabelledItem, Question
from liftgs.model.liftgs import EncodedScene, LiftGS
from liftgs.tasks.maps import beside, from_above, tint


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
    rgb = (item.voxels.rgb.clamp(0, 1) * 255).byte().cpu().numpy()
    tiles = [tint(rgb, shown.cpu().numpy(), query.cpu().numpy()) for shown in (truth, masks[proposal])]
    return beside(from_above(item.voxels.xyz.cpu().numpy()), rgb, *tiles)
