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
from jaxtyping import Bool, Float, Int
from torch import Tensor

from liftgs.losses.grounding import GroundingConfig, mask_losses, token_loss
from liftgs.losses.matching import MatchingConfig, match
from liftgs.losses.pixels import contrastive_loss, photometric_loss
from liftgs.model.decoder import LayerOutput
from liftgs.model.liftgs import EncodedScene, LiftGS
from liftgs.precision import without_autocast
from liftgs.pretraining.items import Item, ItemView
from liftgs.render import Rasterization, rasterize
from liftgs.training.trainer import Losses


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


class Objective:
    """Mean loss of a batch. Every view counts alike, so the mean over a batch does not depend on how it is split."""

    def __init__(self, config: ObjectiveConfig = ObjectiveConfig()):
        self.config = config

    def __call__(self, model: LiftGS, items: Sequence[Item], scenes: Sequence[EncodedScene] | None = None) -> Losses:
        """Args:
        model: in training mode, or not.
        items: on the model's device. Each seeds torch's random numbers for its own part.
        scenes: theirs, if the model has encoded them already.
        """
        sums: dict[str, Tensor] = {}
        views = 0
        for scene, item in zip(scenes or model.encode([item.voxels for item in items]), items, strict=True):
            torch.manual_seed(item.seed)
            for view, answers in zip(item.views, self._answers(model, scene, item), strict=True):
                views += 1
                for name, value in self._view(model, scene, view, answers).items():
                    sums[name] = sums[name] + value if name in sums else value
        terms = {name: value / views for name, value in sums.items()}
        return Losses(torch.stack(list(terms.values())).sum(), terms)

    def _answers(self, model: LiftGS, scene: EncodedScene, item: Item) -> list[list[LayerOutput]]:
        """One query set per view, one answer per head."""
        if self.config.grounding == 0:
            return [[] for _ in item.views]
        return model.decode_sets(scene, [view.queries for view in item.views])

    @without_autocast
    def _view(
        self, model: LiftGS, scene: EncodedScene, view: ItemView, answers: Sequence[LayerOutput]
    ) -> dict[str, Tensor]:
        config = self.config
        if answers:  # a cloud of a handful of voxels has no more proposals than those
            view = view.at_most(answers[0].mask_embeds.shape[1])
        raster = rasterize(scene.gaussians, view.camera)
        channels = [scene.colours] if config.photometric else []
        if config.features:
            channels.append(scene.features @ model.project_embeds(view.embeds).T)
        proposals, judged = self._match(scene, view, raster, answers) if answers else ([], [])
        if answers and len(view.chosen):
            embeds = torch.cat([a.mask_embeds[0, p] for a, p in zip(answers, proposals, strict=True)])
            channels.append(model.mask_logits(scene, embeds).T)
        counts = [channel.shape[1] for channel in channels]
        wide = raster.composite(torch.cat(channels, 1)) if sum(counts) else raster.alpha[..., None][..., :0]
        images = iter(wide.split(counts, dim=2) if channels else ())
        terms: dict[str, Tensor] = {}
        if config.photometric:
            terms["photometric"] = config.photometric * photometric_loss(next(images), view.photo)
        if config.features:
            terms["features"] = config.features * contrastive_loss(next(images), view.segment, config.temperature)
        if answers and len(view.chosen):
            logits = next(images) + (1 - raster.alpha[..., None]) * config.background_logit
            terms |= self._masks(logits.flatten(0, 1).T.unflatten(0, (len(answers), -1)), view)
        if answers:
            terms["token"] = self._token(view, answers, proposals, judged)
        return terms

    @torch.no_grad()
    def _match(
        self,
        scene: EncodedScene,
        view: ItemView,
        raster: Rasterization,
        answers: Sequence[LayerOutput],
    ) -> tuple[list[Int[Tensor, " k"]], list[Bool[Tensor, " m"]]]:
        """For each head the proposal of each target, and which proposals the view sees.

        Of a mask that lies elsewhere in the scene a photo cannot tell whether a query names it.
        """
        small = view.camera.within(self.config.match_px)
        if (small.width, small.height) != (view.camera.width, view.camera.height):
            raster = rasterize(scene.gaussians, small)
        features, alpha = raster.composite(scene.tokens.mask_features).flatten(0, 1), raster.alpha.flatten()
        masks = view.masks(small.height, small.width).flatten(1)
        background = (1 - alpha[:, None]) * self.config.background_logit
        embeds = torch.cat([answer.mask_embeds[0] for answer in answers])
        logits = (features @ embeds.T + background).T.chunk(len(answers))  # in memory pixel by pixel
        proposals = [
            match(of_head, answer.token_logits[0], masks, view.positives, self.config.matching)
            for of_head, answer in zip(logits, answers, strict=True)
        ]
        return proposals, [(of_head > 0).any(1) for of_head in logits]

    def _masks(self, logits: Float[Tensor, "heads k p"], view: ItemView) -> dict[str, Tensor]:
        """Summed over the heads, averaged over the targets."""
        inner = self.config.inner
        entropy, dice = mask_losses(logits, view.masks().flatten(1), inner.mask_loss)
        share = self.config.grounding / len(view.chosen)
        return {"mask": share * inner.mask * entropy.sum(), "dice": share * inner.dice * dice.sum()}

    def _token(
        self,
        view: ItemView,
        answers: Sequence[LayerOutput],
        proposals: Sequence[Int[Tensor, " k"]],
        judged: Sequence[Bool[Tensor, " m"]],
    ) -> Float[Tensor, ""]:
        """Summed over the heads."""
        inner = self.config.inner
        each = [
            token_loss(answer.token_logits[0], proposal, view.positives, inner, seen)
            for answer, proposal, seen in zip(answers, proposals, judged, strict=True)
        ]
        return self.config.grounding * inner.token * torch.stack(each).sum()
