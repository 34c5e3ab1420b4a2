"""A picture of what the network makes of an item: photo, rendered colour, pseudo-labels and rendered masks."""

from __future__ import annotations

import colorsys

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from liftgs.model.decoder import LayerOutput
from liftgs.model.liftgs import EncodedScene, LiftGS
from liftgs.pretraining.items import Item, ItemView
from liftgs.render import rasterize


@torch.no_grad()
def panel(model: LiftGS, item: Item) -> UInt8[np.ndarray, "h w 3"]:
    """One row per view: photo | rendered colour | the segments asked for | the mask that answers each, rendered.

    The answer to a query is the proposal with the highest correspondence; targets that share a query are answered by
    as many proposals as they are. No target is looked at, so a panel shows what a user would get.
    """
    training = model.training
    model.eval()
    scene = model.encode([item.voxels])[0]
    rows = [_row(model, scene, view) for view in item.views]
    model.train(training)
    width = max(row.shape[1] for row in rows)
    return np.concatenate(
        [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=255) for row in rows]
    )


def _row(model: LiftGS, scene: EncodedScene, view: ItemView) -> UInt8[np.ndarray, "h w 3"]:
    raster = rasterize(scene.gaussians, view.camera)
    tiles = [view.photo, raster.composite(scene.colours)]
    grey = view.photo.mean(2, keepdim=True).expand(-1, -1, 3)
    if len(view.chosen):
        colours = _palette(len(view.chosen)).to(grey.device)
        tiles.append(paint(grey, view.masks(), colours))
        last = model.decode(scene, view.queries[None])[-1]
        embeds = last.mask_embeds[0, _answers(last, view.positives)]
        logits = raster.composite(model.mask_logits(scene, embeds).T)
        # Half opacity is enough: the picture shows where the network is sure, not how it is trained.
        shown = torch.sigmoid(logits / raster.alpha.clamp(min=1e-3)[..., None]) * (raster.alpha > 0.5)[..., None]
        tiles.append(paint(grey, shown.permute(2, 0, 1), colours))
    gap = grey.new_ones(grey.shape[0], 4, 3)
    row = torch.cat([part for tile in tiles for part in (tile, gap)][:-1], 1)
    return (row.clamp(0, 1) * 255).round().byte().cpu().numpy()


def _answers(last: LayerOutput, positives: Float[Tensor, "k t"]) -> Int[Tensor, " k"]:
    """For each target a proposal: the best ones of its query, in order."""
    probs = last.token_logits[0].softmax(-1)[:, :-1]
    query = positives.argmax(1)
    rank = [int((query[:row] == query[row]).sum()) for row in range(len(query))]
    order = probs.argsort(0, descending=True)
    return torch.stack([order[min(r, len(order) - 1), q] for r, q in zip(rank, query, strict=True)])


def paint(
    image: Float[Tensor, "h w 3"], masks: Float[Tensor, "k h w"], colours: Float[Tensor, "k 3"]
) -> Float[Tensor, "h w 3"]:
    """Blend masks over an image, each pixel in the colour of its strongest mask."""
    strength, which = masks.max(0)
    blend = 0.65 * (strength * (strength > 0.5))[..., None]
    return image * (1 - blend) + colours[which] * blend


def _palette(count: int) -> Float[Tensor, "k 3"]:
    """Distinct hues."""
    return torch.tensor([colorsys.hsv_to_rgb(index / max(1, count), 0.85, 1.0) for index in range(count)])
