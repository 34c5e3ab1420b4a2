"""The loss on 3D labels: it is a mean, and what it teaches is found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from labelled_room import room_sample
from tiny_network import network
from torch import Tensor

from liftgs.finetuning.items import LabelledItem, LabelledItemConfig, make_labelled_item
from liftgs.finetuning.objective import GroundingObjective, GroundingObjectiveConfig
from liftgs.finetuning.panel import panel
from liftgs.losses.grounding import GroundingConfig
from liftgs.model.liftgs import LiftGS
from liftgs.pretraining.items import ItemConfig, make_item
from liftgs.pretraining.objective import Objective, ObjectiveConfig
from liftgs.training.augment import AugmentConfig
from liftgs.training.trainer import OptimConfig, Trainer

STILL = AugmentConfig(rotate=False, flip=False, scale=0.0, colour=0.0)


def embeds(phrases: Sequence[str]) -> Tensor:
    """A fixed random direction for each phrase."""
    rows = [np.random.default_rng(list(phrase.encode())).standard_normal(16) for phrase in phrases]
    return torch.nn.functional.normalize(torch.tensor(np.array(rows)).float(), dim=1)


def take(epoch: int = 0, **config: object) -> LabelledItem:
    chosen = LabelledItemConfig(**({"augment": STILL} | config))  # type: ignore[arg-type]
    return make_labelled_item(room_sample(size=96), chosen, 0.1, [], embeds, "room-000", 0, epoch)


def test_a_batch_is_the_mean_over_its_questions() -> None:
    model, objective = network().eval(), GroundingObjective()
    one, two = take(0, task="instances", sets=1), take(1, task="both", sets=2)
    together = objective(model, [one, two])
    apart = [float(objective(model, [item]).total.detach()) for item in (one, two)]
    assert float(together.total.detach()) == pytest.approx((apart[0] + 2 * apart[1]) / 3, rel=1e-4)
    assert float(together.total.detach()) == pytest.approx(sum(float(v.detach()) for v in together.terms.values()))


def test_a_weight_of_nought_switches_a_term_off() -> None:
    config = GroundingObjectiveConfig(inner=GroundingConfig(dice=0.0))
    assert GroundingObjective(config)(network(), [take()]).terms["dice"] == 0


def test_more_instances_than_proposals_are_learned_as_far_as_they_go() -> None:
    item = take(task="instances", sets=1, queries=30, absent=0)
    assert len(item.questions[0].instances) > 12
    assert torch.isfinite(GroundingObjective()(network(), [item]).total)


def test_one_room_is_learned_by_heart() -> None:
    """Names and masks: the best answer to each name of a question is one of its instances."""
    torch.manual_seed(0)
    item = take(task="instances", sets=1, queries=4, absent=0, targets=6)
    model = network()
    optim = OptimConfig(steps=150, batch_size=1, lr=5e-3, warmup_steps=10, final_lr=0.05)
    trainer = Trainer(model, GroundingObjective(), optim)
    losses = [trainer.step([item])["loss"] for _ in range(150)]
    assert losses[-1] < 0.25 * losses[0]
    model.eval()
    question = item.questions[0]
    with torch.inference_mode():
        scene = model.encode([item.voxels])[0]
        last = model.decode(scene, question.queries[None])[-1]
        best = last.token_logits[0].softmax(-1)[:, :-1].argmax(0)
        masks = model.mask_logits(scene, last.mask_embeds[0])[best] > 0
    for column, mask in enumerate(masks):
        truths = [item.instance == i for i in question.instances[question.positives[:, column] > 0]]
        ious = [float((mask & truth).sum() / (mask | truth).sum()) for truth in truths]
        assert max(ious) > 0.7, (column, ious)
    picture = panel(model, item)
    assert picture.shape == (256, 3 * 256 + 2 * 4, 3)
    assert len(np.unique(picture[:, 260:516].reshape(-1, 3), axis=0)) > 20  # answers and truth are tinted


def test_finetuning_goes_on_from_an_encoder_that_was_pretrained_alone(tmp_path: Path) -> None:
    """As after `losses=ponder`: the U-Net has learned, the decoder is as it was made, and now all of it learns."""
    fresh, ponder = network(), Objective(ObjectiveConfig(grounding=0))
    view = make_item(room_sample(size=96), ItemConfig(image_px=32), 0.1, "room-000", 0, 0)
    trainer = Trainer(network(), ponder, OptimConfig(steps=1, batch_size=1, weight_decay=0.1, warmup_steps=0))
    trainer.step([view])
    trainer.model.save(tmp_path)
    start = LiftGS.from_pretrained(tmp_path).train()
    same = {name for name, value in start.state_dict().items() if torch.equal(value, fresh.state_dict()[name])}
    assert {name for name in fresh.state_dict() if name.startswith("decoder.blocks")} <= same
    assert not any(name.startswith("unet") for name in same)
    GroundingObjective()(start, [take(0, task="instances", sets=1)]).total.backward()
    idle = {name for name, weight in start.decoder.named_parameters() if weight.grad is None or not weight.grad.any()}
    assert not idle
