"""Items -> losses: encode the clouds, answer the queries, render what the losses look at, compare with the photos.

The network's 512 features and 256 masks per head are never rendered as such. Compositing is linear in the channels, so
what a loss needs is contracted first: features become one cosine per unique embedding, and of the masks only those
matched to a target are rendered at full size. Matching itself looks at all masks, through one small render of the mask
features without gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from liftgs.losses.grounding import GroundingConfig, mask_losses, token_loss
from liftgs.losses.matching import MatchingConfig, match
from liftgs.losses.pixels import contrastive_loss, photometric_loss
from liftgs.model.decoder import LayerOutput
from liftgs.model.liftgs import EncodedScene, LiftGS
from liftgs.pretraining.items import Item, ItemView
from liftgs.render import Pinhole, Rasterization, rasterize


@dataclass(frozen=True)
class ObjectiveConfig:
    """Which losses, with which weights. A weight of 0 switches a term off, and what only it needs is not computed.

    Attributes:
        grounding: weight of the grounding loss as a whole; its inner weights are the paper's.
        photometric: weight of L1 + SSIM; 1.0 in the paper.
        features: weight of the contrastive feature loss; 0.1 in the paper.
        temperature: of the contrastive loss. The paper states none; 0.07 is CLIP's own.
        background_logit: mask logit of what no Gaussian covers; far below 0, so that empty pixels are background.
        match_px: longer side of the image at which masks are matched.
        inner: weights and variants inside the grounding loss.
        matching: weights of the matching cost.
    """

    grounding: float = 1.0
    photometric: float = 1.0
    features: float = 0.1
    temperature: float = 0.07
    background_logit: float = -10.0
    match_px: int = 128
    inner: GroundingConfig = field(default_factory=GroundingConfig)
    matching: MatchingConfig = field(default_factory=MatchingConfig)

    def __post_init__(self) -> None:
        if self.grounding == self.photometric == self.features == 0:
            raise ValueError("all losses are switched off")
        if self.temperature <= 0:
            raise ValueError(f"temperature must be positive, not {self.temperature}")


@dataclass(frozen=True, eq=False)
class Losses:
    """Attributes:
    total: what is minimised.
    terms: its parts, weighted, by name; they add up to it.
    """

    total: Float[Tensor, ""]
    terms: dict[str, Float[Tensor, ""]]


class Objective:
    """Mean loss of a batch. Every view counts alike, so the mean over a batch does not depend on how it is split."""

    def __init__(self, config: ObjectiveConfig = ObjectiveConfig()):
        self.config = config

    def __call__(self, model: LiftGS, items: Sequence[Item]) -> Losses:
        """Args:
        model: in training mode, or not.
        items: on the model's device.
        """
        sums: dict[str, Tensor] = {}
        views = 0
        for scene, item in zip(model.encode([item.voxels for item in items]), items, strict=True):
            answers = self._answers(model, scene, item)
            for number, view in enumerate(item.views):
                views += 1
                for name, value in self._view(model, scene, view, [_of_set(a, number) for a in answers]).items():
                    sums[name] = sums[name] + value if name in sums else value
        terms = {name: value / views for name, value in sums.items()}
        return Losses(torch.stack(list(terms.values())).sum(), terms)

    def _answers(self, model: LiftGS, scene: EncodedScene, item: Item) -> list[LayerOutput]:
        """One query set per view."""
        if self.config.grounding == 0:
            return []
        queries = pad_sequence([view.queries for view in item.views], batch_first=True)
        counts = torch.tensor([len(view.queries) for view in item.views], device=queries.device)
        return model.decode(scene, queries, torch.arange(queries.shape[1], device=queries.device) >= counts[:, None])

    def _view(
        self, model: LiftGS, scene: EncodedScene, view: ItemView, answers: Sequence[LayerOutput]
    ) -> dict[str, Tensor]:
        config = self.config
        raster = rasterize(scene.gaussians, view.camera)
        channels = [scene.colours] if config.photometric else []
        if config.features:
            channels.append(scene.features @ model.project_embeds(view.embeds).T)
        proposals: list[Tensor] = []
        if answers and len(view.chosen):
            proposals = self._match(model, scene, view, raster, answers)
            embeds = torch.cat([a.mask_embeds[0, p] for a, p in zip(answers, proposals, strict=True)])
            channels.append(model.mask_logits(scene, embeds).T)
        images = iter(raster.composite(torch.cat(channels, 1)).split([c.shape[1] for c in channels], dim=2))
        terms: dict[str, Tensor] = {}
        if config.photometric:
            terms["photometric"] = config.photometric * photometric_loss(next(images), view.photo)
        if config.features:
            terms["features"] = config.features * contrastive_loss(next(images), view.segment, config.temperature)
        if proposals:
            logits = next(images) + (1 - raster.alpha[..., None]) * config.background_logit
            terms |= self._grounding(logits.permute(2, 0, 1).flatten(1), view, answers, proposals)
        elif answers:  # a view without a segment to ask for: every proposal should say "no match"
            nothing = torch.zeros(0, dtype=torch.long, device=view.chosen.device)
            terms |= self._token(view, answers, [nothing] * len(answers))
        return terms

    @torch.no_grad()
    def _match(
        self,
        model: LiftGS,
        scene: EncodedScene,
        view: ItemView,
        raster: Rasterization,
        answers: Sequence[LayerOutput],
    ) -> list[Int[Tensor, " k"]]:
        """For each head the proposal of each target."""
        small = _within(view.camera, self.config.match_px)
        if (small.width, small.height) != (view.camera.width, view.camera.height):
            raster = rasterize(scene.gaussians, small)
        features, alpha = raster.composite(scene.tokens.mask_features).flatten(0, 1), raster.alpha.flatten()
        rows = ((torch.arange(small.height, device=alpha.device) + 0.5) * view.camera.height / small.height).long()
        columns = ((torch.arange(small.width, device=alpha.device) + 0.5) * view.camera.width / small.width).long()
        masks = view.masks()[:, rows][:, :, columns].flatten(1)
        background = (1 - alpha) * self.config.background_logit
        logits = (torch.cat([answer.mask_embeds[0] for answer in answers]) @ features.T + background).chunk(
            len(answers)
        )
        return [
            match(of_head, _tokens(answer, view), masks, view.positives, self.config.matching)
            for of_head, answer in zip(logits, answers, strict=True)
        ]

    def _grounding(
        self,
        logits: Float[Tensor, "hk p"],
        view: ItemView,
        answers: Sequence[LayerOutput],
        proposals: Sequence[Int[Tensor, " k"]],
    ) -> dict[str, Tensor]:
        inner = self.config.inner
        masks = view.masks().flatten(1).repeat(len(answers), 1)
        entropy, dice = mask_losses(logits, masks, inner.mask_loss)
        targets = len(view.chosen)
        return {
            "mask": self.config.grounding * inner.mask * entropy.sum() / targets,
            "dice": self.config.grounding * inner.dice * dice.sum() / targets,
            **self._token(view, answers, proposals),
        }

    def _token(
        self, view: ItemView, answers: Sequence[LayerOutput], proposals: Sequence[Int[Tensor, " k"]]
    ) -> dict[str, Tensor]:
        inner = self.config.inner
        positives = view.positives
        each = [
            token_loss(_tokens(a, view), p, positives[: len(p)], inner) for a, p in zip(answers, proposals, strict=True)
        ]
        return {"token": self.config.grounding * inner.token * torch.stack(each).sum()}


def _of_set(answer: LayerOutput, number: int) -> LayerOutput:
    return LayerOutput(answer.mask_embeds[number, None], answer.token_logits[number, None])


def _tokens(answer: LayerOutput, view: ItemView) -> Float[Tensor, "m t+1"]:
    """Token logits without the padding."""
    logits = answer.token_logits[0]
    return torch.cat((logits[:, : len(view.queries)], logits[:, -1:]), 1)


def _within(camera: Pinhole, longest_px: int) -> Pinhole:
    """The camera with its image no larger than that."""
    shrink = min(1.0, longest_px / max(camera.width, camera.height))
    width, height = max(1, round(camera.width * shrink)), max(1, round(camera.height * shrink))
    scale = torch.tensor([[width / camera.width], [height / camera.height], [1.0]], device=camera.K.device)
    return Pinhole(camera.viewmat, camera.K * scale, width, height)
