"""The job that finetunes a network on 3D labels, or trains one from scratch on them.

The labels are a source's, or, as a baseline, lifted from the pseudo-labels of photos (`item.labels`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from liftgs.finetuning.items import LabelledItem, LabelledItemConfig, make_labelled_item
from liftgs.finetuning.objective import GroundingObjective, GroundingObjectiveConfig
from liftgs.finetuning.panel import panel
from liftgs.model.liftgs import LiftGSConfig
from liftgs.pretraining.items import Item
from liftgs.pretraining.objective import Objective
from liftgs.procedural import KINDS
from liftgs.readers.scannet_labels import read_label_table
from liftgs.sample import Sample
from liftgs.training.mixed import MixedObjective
from liftgs.training.trainer import Trainer
from liftgs.training.world import World
from liftgs_platform import learning, pretrain
from liftgs_platform.classes import benchmark, check_table, class_names, class_of_words
from liftgs_platform.finetune_replay import ReplayConfig
from liftgs_platform.finetune_validation import HeldOut, ValidationConfig
from liftgs_platform.job import Job
from liftgs_platform.learning import (
    SpecifiedTask,
    TrainingSpec,
    check_labels,
    check_pseudo_labels,
    model_config,
    phrase_encoder,
    stacked,
    start_model,
)
from liftgs_platform.mixture import CorpusSpec, Draw, Mixture
from liftgs_platform.names import kinds_in, names_of
from liftgs_platform.pretrain import Pretraining
from liftgs_platform.spec import ADDED
from liftgs_platform.training_task import Learner, Validation


@dataclass(frozen=True)
class Spec(TrainingSpec):
    """What to finetune, on which labels, how, and where to.

    Attributes:
        ratio: share of the labelled scenes that are used; smaller shares lie within larger ones.
        ratio_seed: of which scenes those are.
        kinds: all names of things that may be asked for though a scene does not hold them: the embedded corpora's by
            default, [scannet20], [scannet200], or your own. Training asks only for those that some labelled scene
            holds: a network that hears a name again and again and never finds it forgets what pretraining taught it
            about it.
        item: what is asked of a sample.
        objective: the loss.
        validation: on which scenes, and how often, it is checked. With optim.schedule=plateau that decides its end.
        replay: pretraining that goes on meanwhile.
        label_table: ScanNet's scannetv2-labels.combined.tsv: its raw labels are asked for as the benchmark's classes.
    """

    job: str = "finetune"
    ratio: float = 1.0
    ratio_seed: int = 0
    kinds: tuple[str, ...] = tuple(KINDS)
    item: LabelledItemConfig = field(default_factory=LabelledItemConfig)
    objective: GroundingObjectiveConfig = field(default_factory=GroundingObjectiveConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    label_table: str = field(default="", metadata=ADDED)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.ratio <= 1:
            raise ValueError(f"ratio must be above 0 and at most 1, not {self.ratio}")
        check_table(self.label_table, self.kinds, "kinds")

    @property
    def learned(self) -> tuple[CorpusSpec, ...]:
        """See `TrainingSpec`."""
        return self.replay.after(self.corpora)

    @property
    def held_out(self) -> tuple[CorpusSpec, ...]:
        """See `TrainingSpec`."""
        return self.validation.corpora


def resolve(spec: Spec, uri: Callable[[str], str], name_or_file: Callable[[str], str]) -> Spec:
    """The spec with absolute paths."""
    held_out, replayed = (
        tuple(replace(corpus, uri=uri(corpus.uri)) for corpus in corpora)
        for corpora in (spec.validation.corpora, spec.replay.corpora)
    )
    spec = replace(
        spec,
        validation=replace(spec.validation, corpora=held_out),
        replay=replace(spec.replay, corpora=replayed),
        label_table=uri(spec.label_table) if spec.label_table else "",
    )
    return learning.resolve(spec, uri, name_or_file)


def run(spec: Spec, job: Job) -> None:
    """See `learning.run`."""
    spec = settled(spec)
    learning.run(spec, job, Finetuning(spec), _check(spec))


def run_here(spec: Spec) -> float:
    """See `learning.run_here`."""
    spec = settled(spec)
    return learning.run_here(spec, Finetuning(spec), _check(spec))


def _check(spec: Spec) -> learning.Check:
    return check_labels if spec.item.labels == "human" else check_pseudo_labels


def settled(spec: Spec) -> Spec:
    """With the ratio as the share of each corpus, and without settings of a replay that there is none of."""
    if not spec.replay.corpora:
        spec = replace(spec, replay=ReplayConfig())
    if spec.ratio == 1:
        return spec
    shared = (one if one.share < 1 else replace(one, share_seed=spec.ratio_seed) for one in spec.corpora)
    corpora = tuple(replace(one, share=one.share * spec.ratio) for one in shared)  # lies within the corpus' own share
    return replace(spec, corpora=corpora, ratio=1.0, ratio_seed=0)


@dataclass(frozen=True)
class Finetuning(SpecifiedTask):
    """The spec as a `training.Task`.

    Attributes:
        spec: of the run.
        class_of: kind -> name, where samples call it otherwise. ScanNet's label table is read where the task is made,
            so that no worker needs to reach it.
    """

    spec: Spec
    class_of: Mapping[str, str] = field(init=False)

    def __post_init__(self) -> None:
        """Raises:
        BadInput: the label table is damaged; FileNotFoundError if it is missing.
        """
        table, known = self.spec.label_table, benchmark(self.spec.kinds)
        words = class_of_words(read_label_table(table), known) if table and known else {}
        object.__setattr__(self, "class_of", words)

    @cached_property
    def _config(self) -> LiftGSConfig:
        return model_config(self.spec.model)

    @cached_property
    def _labelled_kinds(self) -> tuple[str, ...]:
        labelled = {self.class_of.get(kind, kind) for kind in names_of(Mixture(self.spec.corpora, 0), kinds_in)}
        return tuple(kind for kind in class_names(self.spec.kinds) if kind in labelled)

    @cached_property
    def validation(self) -> Validation | None:
        """See `Task`."""
        spec, config = self.spec, self._config
        if not spec.validation.corpora:
            return None
        names = tuple(kind for kind in class_names(spec.kinds) if kind not in spec.item.structure)
        encode = phrase_encoder(config)
        score = HeldOut(spec.validation, spec.item.task, names, encode, spec.loop.cache_mb * 2**20, self.class_of)
        patience = spec.validation.patience if spec.optim.schedule == "plateau" else None
        return Validation(spec.validation.every, score, patience, spec.optim.warm)

    @cached_property
    def _pretraining(self) -> Pretraining:
        """What is done with the samples that are replayed."""
        spec, replay = self.spec, self.spec.replay
        return Pretraining(
            pretrain.Spec(
                spec.output,
                corpora=replay.corpora,
                model=spec.model,
                seed=spec.seed,
                loop=spec.loop,
                item=replay.item,
                objective=replay.objective,
            )
        )

    def learner(self, device: str, checkpoint: Path | None, world: World) -> Learner:
        """See `Task`."""
        spec = self.spec
        objective = MixedObjective(
            {
                LabelledItem: ("", GroundingObjective(spec.objective)),
                Item: ("replay_", Objective(spec.replay.objective)),
            }
        )
        return Trainer(start_model(spec.model, checkpoint), objective, spec.optim, device, world)

    def item(self, sample: Sample, key: str, draw: Draw) -> LabelledItem | Item:
        """See `Task`."""
        spec, config = self.spec, self._config
        if draw.corpus >= len(spec.corpora):
            return self._pretraining.item(sample, key, draw)
        encode, kinds = phrase_encoder(config), self._labelled_kinds
        return make_labelled_item(
            sample, spec.item, config.voxel_size_m, kinds, encode, key, spec.seed, draw.epoch, self.class_of
        )

    def panel(self, learner: Learner, items: Sequence[LabelledItem | Item]) -> UInt8[np.ndarray, "h w 3"]:
        """See `Task`."""
        model = learner.model
        return stacked(
            [
                panel(model, item.to(model.device))
                if isinstance(item, LabelledItem)
                else self._pretraining.panel(learner, [item])
                for item in items
            ]
        )
