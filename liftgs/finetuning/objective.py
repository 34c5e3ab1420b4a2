"""Labelled items -> losses: the grounding loss of the paper, on Gaussian centres in place of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from liftgs.finetuning.items import LabelledItem, Question
from liftgs.losses.grounding import GroundingConfig, mask_losses, token_loss
from liftgs.losses.matching import MatchingConfig, match
from liftgs.model.decoder import LayerOutput
from liftgs.model.liftgs import EncodedScene, LiftGS
from liftgs.precision import without_autocast
from liftgs.training.trainer import Losses


@dataclass(frozen=True)
class GroundingObjectiveConfig:
    """Weights of the loss.

    Attributes:
        weight: of the grounding loss as a whole, which sums over the supervised heads.
        inner: weights and variants inside it; the paper finetunes with those of pretraining.
        matching: weights of the matching cost.
    """

    weight: float = 1.0
    inner: GroundingConfig = field(default_factory=GroundingConfig)
    matching: MatchingConfig = field(default_factory=MatchingConfig)


class GroundingObjective:
    """Mean loss of a batch over its questions."""

    def __init__(self, config: GroundingObjectiveConfig = GroundingObjectiveConfig()):
        self.config = config

    def __call__(
        self, model: LiftGS, items: Sequence[LabelledItem], scenes: Sequence[EncodedScene] | None = None
    ) -> Losses:
        """Args:
        model: in training mode, or not.
        items: on the model's device. Each seeds torch's random numbers for its own part.
        scenes: theirs, if the model has encoded them already.
        """
        sums: dict[str, Tensor] = {}
        for scene, item in zip(scenes or model.encode([item.voxels for item in items]), items, strict=True):
            torch.manual_seed(item.seed)
            answers = model.decode_sets(scene, [question.queries for question in item.questions])
            for question, heads in zip(item.questions, answers, strict=True):
                for name, value in self._question(model, scene, item, question, heads).items():
                    sums[name] = sums[name] + value if name in sums else value
        terms = {name: value / sum(map(len, items)) for name, value in sums.items()}
        return Losses(torch.stack(list(terms.values())).sum(), terms)

    @without_autocast
    def _question(
        self,
        model: LiftGS,
        scene: EncodedScene,
        item: LabelledItem,
        question: Question,
        heads: Sequence[LayerOutput],
    ) -> dict[str, Tensor]:
        inner, count = self.config.inner, len(heads[0].mask_embeds[0])
        # a cloud of a handful of voxels has no more proposals than those
        instances, positives = question.instances[:count], question.positives[:count]
        masks = (item.instance == instances[:, None]).float()
        proposals = self._match(model, scene, heads, masks, positives)
        # masks of all heads at once, and only those that a target has: others have no gradient
        embeds = torch.stack([head.mask_embeds[0, chosen] for head, chosen in zip(heads, proposals, strict=True)])
        entropy, dice = mask_losses(model.mask_logits(scene, embeds), masks, inner.mask_loss)
        tokens = [
            token_loss(head.token_logits[0], chosen, positives, inner)
            for head, chosen in zip(heads, proposals, strict=True)
        ]
        terms = {
            "mask": inner.mask * entropy.mean(1).sum(),
            "dice": inner.dice * dice.mean(1).sum(),
            "token": inner.token * torch.stack(tokens).sum(),
        }
        return {name: self.config.weight * value for name, value in terms.items()}

    @torch.no_grad()
    def _match(
        self,
        model: LiftGS,
        scene: EncodedScene,
        heads: Sequence[LayerOutput],
        masks: Float[Tensor, "k n"],
        positives: Float[Tensor, "k t"],
    ) -> list[Int[Tensor, " k"]]:
        """For each head the proposal of each target."""
        return [
            match(
                model.mask_logits(scene, head.mask_embeds[0]),
                head.token_logits[0],
                masks,
                positives,
                self.config.matching,
            )
            for head in heads
        ]
