"""The job that pretrains a network by rendered supervision, from the corpora of the labelling job and no 3D label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from liftgs.pretraining.items import Item, ItemConfig, make_item
from liftgs.pretraining.objective import Objective, ObjectiveConfig
from liftgs.pretraining.panel import panel
from liftgs.sample import Sample
from liftgs.training.trainer import Trainer
from liftgs.training.world import World
from liftgs_platform import learning
from liftgs_platform.job import Job
from liftgs_platform.learning import (
    SpecifiedTask,
    TrainingSpec,
    check_pseudo_labels,
    model_config,
    phrase_encoder,
    stacked,
    start_model,
)
from liftgs_platform.mixture import Draw
from liftgs_platform.names import captions_in, names_of
from liftgs_platform.training_task import Learner


@dataclass(frozen=True)
class Spec(TrainingSpec):
    """What to pretrain, on what, how, and where to.

    Attributes:
        item: what a step sees of a sample.
        objective: the losses.
    """

    job: str = "pretrain"
    item: ItemConfig = field(default_factory=ItemConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)


resolve = learning.resolve


def run(spec: Spec, job: Job) -> None:
    """See `learning.run`."""
    learning.run(spec, job, Pretraining(spec), check_pseudo_labels)


def run_here(spec: Spec) -> float:
    """See `learning.run_here`."""
    return learning.run_here(spec, Pretraining(spec), check_pseudo_labels)


@dataclass(frozen=True)
class Pretraining(SpecifiedTask):
    """The spec as a `training.Task`."""

    spec: Spec

    def learner(self, device: str, checkpoint: Path | None, world: World) -> Learner:
        """See `Task`."""
        model = start_model(self.spec.model, checkpoint)
        return Trainer(model, Objective(self.spec.objective), self.spec.optim, device, world)

    def item(self, sample: Sample, key: str, draw: Draw) -> Item:
        """See `Task`."""
        spec, config = self.spec, model_config(self.spec.model)
        encode = phrase_encoder(config)
        return make_item(sample, spec.item, config.voxel_size_m, key, spec.seed, draw.epoch, encode, self._names)

    @cached_property
    def _names(self) -> tuple[str, ...]:
        item = self.spec.item
        return names_of(self.mixture(), captions_in) if item.absent and item.queries == "captions" else ()

    def panel(self, learner: Learner, items: Sequence[Item]) -> UInt8[np.ndarray, "h w 3"]:
        """See `Task`."""
        device = learner.model.device
        rows = [panel(learner.model, item.to(device)) for item in items]
        return stacked(rows)
