"""One chunk is learned by heart: the whole of network, renderer, matching, losses and optimiser pulls one way."""

from __future__ import annotations

import math

import torch
from labelled_room import room_sample
from tiny_network import network

from liftgs.model.liftgs import LiftGS
from liftgs.pretraining.items import Item, ItemConfig, make_item
from liftgs.pretraining.objective import Objective, ObjectiveConfig
from liftgs.render import rasterize
from liftgs.training.augment import AugmentConfig
from liftgs.training.trainer import OptimConfig, Trainer

STILL = AugmentConfig(rotate=False, flip=False, scale=0.0, colour=0.0)


def learn(objective: ObjectiveConfig, steps: int, voxel_size_m: float = 0.05) -> tuple[LiftGS, Item]:
    config = ItemConfig(views=1, image_px=64, min_area=0.01, only_seen=True, augment=STILL)
    item = make_item(room_sample(views=1), config, voxel_size_m, "room-000", 0, 0)
    model = network(voxel_size_m=voxel_size_m)
    trainer = Trainer(
        model, Objective(objective), OptimConfig(steps=steps, batch_size=1, lr=4e-3, warmup_steps=20, final_lr=0.02)
    )
    for _ in range(steps):
        trainer.step([item])
    return model.eval(), item


@torch.no_grad()
def scores(model: LiftGS, item: Item) -> tuple[float, float]:
    """Mean IoU of the best-answering proposals' rendered masks, and PSNR."""
    view = item.views[0]
    scene = model.encode([item.voxels])[0]
    raster = rasterize(scene.gaussians, view.camera)
    last = model.decode(scene, view.queries[None])[-1]
    answer = last.token_logits[0].softmax(-1)[:, :-1].argmax(0)
    logits = raster.composite(model.mask_logits(scene, last.mask_embeds[0, answer]).T) - 10 * (
        1 - raster.alpha[..., None]
    )
    masks, truth = logits.permute(2, 0, 1) > 0, view.masks() > 0.5
    iou = (masks & truth).flatten(1).sum(1) / (masks | truth).flatten(1).sum(1)
    error = (raster.composite(scene.colours) - view.photo).square().mean()
    return float(iou.mean()), -10 * math.log10(float(error))


def test_one_chunk_is_overfitted_to_95_percent_iou_and_30_db() -> None:
    iou, psnr = scores(*learn(ObjectiveConfig(match_px=64), 300))
    assert iou > 0.95
    assert psnr > 30


def test_grounding_alone_learns_too() -> None:
    """The paper's Table 4, row 2: neither colours nor features are supervised."""
    iou, _ = scores(*learn(ObjectiveConfig(photometric=0, features=0, match_px=64), 150))
    assert iou > 0.9
