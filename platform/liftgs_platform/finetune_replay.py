"""Pretraining that goes on while a network is finetuned, so that few labels do not wipe out what it has learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from liftgs.pretraining.items import ItemConfig
from liftgs.pretraining.objective import ObjectiveConfig
from liftgs_platform.mixture import CorpusSpec


@dataclass(frozen=True)
class ReplayConfig:
    """Samples of pretraining between the labelled ones.

    Attributes:
        corpora: with pseudo-labels, each with a uri and a weight, as in pretraining. None: the network sees labels
            alone, as in the paper.
        share: of all samples drawn, those that are drawn from them.
        item: what a step sees of such a sample.
        objective: the losses.
    """

    corpora: tuple[CorpusSpec, ...] = ()
    share: float = 0.5
    item: ItemConfig = field(default_factory=ItemConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError(f"share must be above 0 and below 1, not {self.share}; no corpora, no replay")

    def after(self, labelled: Sequence[CorpusSpec]) -> tuple[CorpusSpec, ...]:
        """The labelled corpora, then these, with weights that give these their share."""
        if not self.corpora:
            return tuple(labelled)
        weights = [sum(corpus.weight for corpus in corpora) for corpora in (labelled, self.corpora)]
        factor = self.share / (1 - self.share) * weights[0] / weights[1]
        return (*labelled, *(replace(corpus, weight=corpus.weight * factor) for corpus in self.corpora))
