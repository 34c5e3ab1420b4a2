"""The job that pretrains a network by rendered supervision, from the corpora of the labelling job and no 3D label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from liftgs.labels import decode_embeds
from liftgs.model.liftgs import LiftGSConfig
from liftgs.pretraining.items import Item, ItemConfig, make_item
from liftgs.pretraining.objective import Objective, ObjectiveConfig
from liftgs.pretraining.panel import panel
from liftgs.sample import Sample
from liftgs.scene import BadInput
from liftgs.training.trainer import Trainer
from liftgs.training.world import World
from liftgs_platform import learning
from liftgs_platform.job import Job
from liftgs_platform.learning import SpecifiedTask, TrainingSpec, model_config, phrase_encoder, start_model
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
    learning.run(spec, job, Pretraining(spec), check_labels)


def run_here(spec: Spec) -> float:
    """See `learning.run_here`."""
    return learning.run_here(spec, Pretraining(spec), check_labels)


@dataclass(frozen=True)
class Pretraining(SpecifiedTask):
    """The spec as a `training.Task`."""

    spec: Spec

    def learner(self, device: str, checkpoint: Path | None, world: World) -> Learner:
        """See `Task`."""
        model = start_model(self.spec.model, checkpoint)
        return Trainer(model, Objective(self.spec.objective), self.spec.optim, device, world)

    def item(self, sample: Sample, key: str, epoch: int) -> Item:
        """See `Task`."""
        config = model_config(self.spec.model)
        encode = phrase_encoder(config)
        return make_item(sample, self.spec.item, config.voxel_size_m, key, self.spec.seed, epoch, encode, self._names)

    @cached_property
    def _names(self) -> tuple[str, ...]:
        return names_of(self.mixture(), captions_in) if self.spec.item.absent else ()

    def panel(self, learner: Learner, items: Sequence[Item]) -> UInt8[np.ndarray, "h w 3"]:
        """See `Task`."""
        device = learner.model.device
        rows = [panel(learner.model, item.to(device)) for item in items]
        width = max(row.shape[1] for row in rows)
        edges = [((0, 4), (0, width - row.shape[1]), (0, 0)) for row in rows]
        return np.concatenate([np.pad(row, edge, constant_values=255) for row, edge in zip(rows, edges, strict=True)])


def check_labels(sample: Sample, config: LiftGSConfig) -> None:
    """Raises:
    BadInput: a sample without labels, or labelled by another CLIP than the network knows.
    """
    embeds = [data for name, data in sample.members.items() if name.endswith(".embeds.npy")]
    if not embeds:
        raise BadInput(sample.uri, "has no labels to learn from; label the corpus with jobs/pseudolabel.yaml")
    width = decode_embeds(embeds[0], sample.uri).shape[1]
    if width != config.embed_dim:
        raise BadInput(
            sample.uri,
            f"is labelled with embeddings of {width} numbers and the network takes {config.embed_dim}, those of "
            f"{config.clip}: choose another model, or label with that teacher",
        )
