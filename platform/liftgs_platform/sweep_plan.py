"""A sweep as a graph of stages: label(corpus) -> pretrain(mix, seed) -> finetune(mix, ratio, seed) -> evaluate."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from liftgs_platform import evaluate, finetune, job, pretrain, pseudolabel
from liftgs_platform import spec as specs
from liftgs_platform.finetune_replay import ReplayConfig
from liftgs_platform.mixture import CorpusSpec
from liftgs_platform.spec import SpecError
from liftgs_platform.stages import Stage
from liftgs_platform.sweep_results import COMPUTE, SCRATCH

#: What a network is called in the evaluation of a stage, which has only one.
NETWORK = "network"

#: A schedule that looks at validation is refused without; the corpora themselves are stages, and are put in later.
PLACE_OF_VALIDATION = "validation.corpora=[{uri: unused}]"

#: What makes the finetuning job learn from lifted pseudo-labels.
LIFTED = ("item.labels=lifted", "item.task=instances")

_MODULES: Mapping[str, Any] = {
    "pseudolabel": pseudolabel,
    "pretrain": pretrain,
    "finetune": finetune,
    "evaluate": evaluate,
}


@dataclass(frozen=True)
class SourceSpec:
    """A corpus of the sweep: one that is there, or one that is to be made.

    Attributes:
        uri: a finished corpus: a folder or s3://bucket/name.
        source: or what the labelling job makes it of: raw scans, or procedural:apartments?scenes=24.
        label: overrides for that job, as on its command line.
        share: of the scenes that are used. Of the labelled corpora: that ratio 1 means, so that there are scenes left
            for ratios above 1.
    """

    uri: str = ""
    source: str = ""
    label: tuple[str, ...] = ()
    share: float = 1.0

    def __post_init__(self) -> None:
        if bool(self.uri) == bool(self.source):
            raise ValueError("a corpus has either a uri or a source")
        if not 0 < self.share <= 1:
            raise ValueError(f"share must be above 0 and at most 1, not {self.share}")


@dataclass(frozen=True)
class MixSpec:
    """An arm of the sweep: how networks start before they are finetuned.

    Attributes:
        corpora: to pretrain on: name -> weight. None: from scratch, or from `checkpoint`.
        checkpoint: a network that is there already, instead of pretraining: "tiny", a run, a folder.
        by: what learns from the corpora: "rendering" is the pretraining job; "lifting", a baseline, is the finetuning
            job on their pseudo-labels, lifted to 3D.
        pretrain: overrides for that job; with "rendering" beside the sweep's own.
        finetune: overrides for the finetuning job.
        replay: share of finetuning's samples in which pretraining goes on, on the same corpora; 0 = none (the paper).
        zero_shot: also evaluate before finetuning.
    """

    corpora: dict[str, float] = field(default_factory=dict)
    checkpoint: str = ""
    by: Literal["rendering", "lifting"] = "rendering"
    pretrain: tuple[str, ...] = ()
    finetune: tuple[str, ...] = ()
    replay: float = 0.0
    zero_shot: bool = True

    def __post_init__(self) -> None:
        if self.corpora and self.checkpoint:
            raise ValueError("a mix has corpora to pretrain on, or a checkpoint, not both")
        if min(self.corpora.values(), default=1) <= 0:
            raise ValueError("weights of a mix' corpora must be positive; leave out those that it does not have")
        if self.replay and not (self.corpora and self.by == "rendering" and 0 < self.replay < 1):
            raise ValueError(
                f"replay must be from 0 to below 1, not {self.replay}, and is of corpora that were pretrained on: give "
                "the mix corpora, and leave by=rendering; or leave replay out"
            )

    @property
    def pretrained(self) -> bool:
        """Whether it starts from anything."""
        return bool(self.corpora or self.checkpoint)


@dataclass(frozen=True)
class FairnessSpec:
    """The row that shows what compute alone is worth: from scratch, for as many steps as both trainings together.

    Attributes:
        ratios: of labels, at which a control trains from scratch for as many steps as pretraining and finetuning take
            together; none = no control.
        step_cost: seconds of a pretraining step over those of a finetuning step, as measured.
        patience: of the control, in multiples of the others' `validation.patience`; stopping where they do would only
            repeat them.
    """

    ratios: tuple[float, ...] = ()
    step_cost: float = 1.0
    patience: int = 3

    def __post_init__(self) -> None:
        if min(self.ratios, default=1) <= 0 or self.step_cost <= 0 or self.patience < 1:
            raise ValueError("compute needs ratios and step_cost above 0, and a patience of at least 1")


@dataclass(frozen=True)
class PlanSpec:
    """What decides a sweep's stages.

    Attributes:
        corpora: by name, for the mixes.
        mixes: by name, the arms of the sweep; "none", from scratch, is always among them. Any field of the jobs is an
            axis to vary, by the overrides of mixes that are otherwise alike.
        labelled: corpora with 3D labels to finetune on.
        validation: corpora with 3D labels, to see when finetuning has reached its plateau; none = a fixed budget.
        held_out: corpora with 3D labels to evaluate on.
        ratios: shares of the labelled scenes.
        scratch_ratios: more of them, for scratch alone, above 1 if `share` leaves scenes for it: so that its curve
            reaches as high as pretraining does.
        seeds: how many; each decides the pretraining, the labelled subset and the finetuning.
        compute: a control.
        label: overrides for all labelling jobs, as on their command line.
        pretrain: overrides for all pretraining jobs.
        finetune: overrides for all finetuning jobs.
        evaluate: overrides for all evaluation jobs.
    """

    corpora: dict[str, SourceSpec] = field(default_factory=dict)
    mixes: dict[str, MixSpec] = field(default_factory=dict)
    labelled: tuple[SourceSpec, ...] = ()
    validation: tuple[SourceSpec, ...] = ()
    held_out: tuple[SourceSpec, ...] = ()
    ratios: tuple[float, ...] = (0.1, 0.2, 0.5, 1.0)
    scratch_ratios: tuple[float, ...] = ()
    seeds: int = 3
    compute: FairnessSpec = field(default_factory=FairnessSpec)
    label: tuple[str, ...] = ()
    pretrain: tuple[str, ...] = ()
    finetune: tuple[str, ...] = ()
    evaluate: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.labelled or not self.held_out:
            raise ValueError("needs labelled=[{source: ...}] to finetune on, held_out=[{source: ...}] to evaluate on")
        if self.seeds < 1 or not self.ratios or min(self.ratios) <= 0 or max(self.ratios) > 1:
            raise ValueError("needs at least one seed, and ratios above 0 and at most 1")
        if min(self.scratch_ratios, default=1) <= 0:
            raise ValueError("scratch_ratios must be above 0")
        largest = max(self.ratios + self.scratch_ratios + self.compute.ratios)
        if any(one.share * largest > 1 + 1e-9 for one in self.labelled):
            raise ValueError(
                "labelled.share times the largest of ratios, scratch_ratios and compute.ratios must be at most 1, or "
                "there are not enough labelled scenes"
            )
        for name, mix in self.mixes.items():
            unknown = mix.corpora.keys() - self.corpora.keys()
            if unknown:
                raise ValueError(f"mixes.{name} names {sorted(unknown)[0]!r}; corpora has {', '.join(self.corpora)}")


@dataclass(frozen=True)
class CellPlan:
    """One network of the sweep, and the stages behind it.

    Attributes:
        mix: of it.
        control: "" or `COMPUTE`.
        ratio: of labels; 0 = zero-shot.
        seed: of everything.
        stages: of all stages that it takes, in order.
    """

    mix: str
    control: str
    ratio: float
    seed: int
    stages: tuple[Stage, ...]

    @property
    def evaluation(self) -> Stage:
        """The last of them."""
        return self.stages[-1]

    @property
    def finetuning(self) -> Stage | None:
        """What made the network that is evaluated; None for zero-shot."""
        return (
            next((stage for stage in reversed(self.stages) if stage.kind == "finetune"), None) if self.ratio else None
        )


def plan(spec: PlanSpec, jobs: Path) -> list[CellPlan]:
    """All networks of a sweep, each with its stages; equal stages are equal objects' hashes, to be done once.

    Args:
        spec: with absolute paths.
        jobs: folder of the job files, with their groups.

    Raises:
        SpecError: an override does not suit its job.
        JobFailed: a corpus or a checkpoint that should be there is not.
    """
    return list(_Planner(spec, jobs).cells())


class _Planner:
    def __init__(self, spec: PlanSpec, jobs: Path):
        self.spec, self.jobs = spec, jobs
        self._loaded: dict[tuple[str, ...], Any] = {}
        self._labelled = [self._corpus(one, pseudo=False) for one in spec.labelled]
        self._validation = [self._corpus(one, pseudo=False) for one in spec.validation]
        self._held_out = [self._corpus(one, pseudo=False) for one in spec.held_out]

    def cells(self) -> Iterator[CellPlan]:
        arms = {SCRATCH: MixSpec(), **self.spec.mixes}
        for seed in range(self.spec.seeds):  # outermost, so that a sweep that is cut has some seeds whole
            for name, mix in arms.items():
                start = self._start(name, mix, seed)
                if mix.pretrained and mix.zero_shot:
                    yield self._cell(name, "", 0.0, seed, start, None)
                extra = () if mix.pretrained else self.spec.scratch_ratios
                for ratio in sorted({*self.spec.ratios, *extra}):
                    yield self._cell(name, "", ratio, seed, start, self._finetune(name, mix, ratio, seed, start))
        more = max(self._steps_more(mix) for mix in arms.values())
        if more:
            for ratio, seed in itertools.product(self.spec.compute.ratios, range(self.spec.seeds)):
                tuned = self._finetune(SCRATCH, arms[SCRATCH], ratio, seed, None, more)
                yield self._cell(SCRATCH, COMPUTE, ratio, seed, None, tuned)

    def _cell(
        self, mix: str, control: str, ratio: float, seed: int, start: _Start | None, tuned: Stage | None
    ) -> CellPlan:
        before = [*(start.stages if start else ()), *(self._made(self._labelled, self._validation) if tuned else ())]
        network = tuned.reference if tuned else start.uri if start else ""
        title = f"evaluate {mix}, " + (f"ratio {ratio:g}, seed {seed}" if tuned else f"zero-shot, seed {seed}")
        exam = self._load("evaluate", self.spec.evaluate)
        exam = replace(
            exam,
            checkpoints=(evaluate.CheckpointSpec(NETWORK, network),),
            corpora=tuple(corpus for corpus, _ in self._held_out),
        )
        stages = [*before, *([tuned] if tuned else []), *self._made(self._held_out), Stage("evaluate", title, exam)]
        return CellPlan(mix, control, ratio, seed, tuple(stages))

    def _start(self, name: str, mix: MixSpec, seed: int) -> _Start | None:
        """Where the networks of a mix start."""
        if mix.checkpoint:
            return _Start(mix.checkpoint, (), ReplayConfig())
        if not mix.corpora:
            return None
        corpora = {key: self._corpus(self.spec.corpora[key], pseudo=True) for key in mix.corpora}
        weighted = tuple(replace(corpora[key][0], weight=weight) for key, weight in mix.corpora.items())
        training = self._pretraining(mix)
        stage = Stage(training.job, f"pretrain {name}, seed {seed}", replace(training, corpora=weighted, seed=seed))
        replayed = ReplayConfig()  # of its settings none count, so they are not in the stage's hash
        if mix.replay:
            replayed = ReplayConfig(weighted, mix.replay, training.item, training.objective)
        return _Start(stage.reference, (*self._made(list(corpora.values())), stage), replayed)

    def _finetune(
        self, name: str, mix: MixSpec, ratio: float, seed: int, start: _Start | None, more_steps: int = 0
    ) -> Stage:
        tuning = self._load("finetune", (*self.spec.finetune, *mix.finetune, *self._seen))
        labelled = (
            replace(corpus, share=min(1.0, source.share * ratio), share_seed=seed)
            for (corpus, _), source in zip(self._labelled, self.spec.labelled, strict=True)
        )
        if self._validation:
            held_out = tuple(corpus for corpus, _ in self._validation)
            tuning = replace(tuning, validation=replace(tuning.validation, corpora=held_out))
        title = f"finetune {name}, ratio {ratio:g}, seed {seed}"
        if more_steps:
            patient = replace(tuning.validation, patience=self.spec.compute.patience * tuning.validation.patience)
            optim = replace(tuning.optim, steps=tuning.optim.steps + more_steps)
            tuning = replace(tuning, optim=optim, validation=patient)
            title += ", as much compute"
        model = replace(tuning.model, start=start.uri if start else "")
        replay = start.replay if start else ReplayConfig()
        tuning = replace(tuning, corpora=tuple(labelled), model=model, seed=seed, replay=replay)
        return Stage("finetune", title, tuning)

    def _steps_more(self, mix: MixSpec) -> int:
        """Steps of finetuning that take as long as what a mix does beside them: its pretraining, and its replay."""
        if not mix.corpora:
            return 0
        cost = self.spec.compute.step_cost
        tuning = self._load("finetune", (*self.spec.finetune, *mix.finetune, *self._seen))
        replay = mix.replay * (cost - 1) * tuning.optim.steps
        return math.ceil(self._pretraining(mix).optim.steps * cost + replay)

    @property
    def _seen(self) -> tuple[str, ...]:
        return (PLACE_OF_VALIDATION,) if self._validation else ()

    def _pretraining(self, mix: MixSpec) -> Any:
        if mix.by == "rendering":
            return self._load("pretrain", (*self.spec.pretrain, *mix.pretrain))
        lifted = self._load("finetune", (*LIFTED, *mix.pretrain))
        return replace(lifted, model=replace(lifted.model, start=""))

    def _corpus(self, source: SourceSpec, pseudo: bool) -> tuple[CorpusSpec, Stage | None]:
        """A corpus as jobs take it, and the stage that makes it, if one does."""
        if source.uri:
            return CorpusSpec(source.uri, share=source.share), None
        overrides = (f"source={source.source}", f"pseudo_labels={str(pseudo).lower()}", *self.spec.label, *source.label)
        stage = Stage("pseudolabel", f"label {source.source}", self._load("pseudolabel", overrides))
        return CorpusSpec(stage.reference, share=source.share), stage

    def _made(self, *groups: Sequence[tuple[CorpusSpec, Stage | None]]) -> list[Stage]:
        return [stage for group in groups for _, stage in group if stage is not None]

    def _load(self, kind: str, overrides: Sequence[str]) -> Any:
        key = (kind, *overrides)
        if key not in self._loaded:
            module = _MODULES[kind]
            try:
                spec = specs.load(self.jobs / f"{kind}.yaml", [*overrides, "output=unused"], module.Spec)
            except SpecError as fault:
                raise SpecError(f"{kind}: {fault}") from None
            self._loaded[key] = module.resolve(spec, job.resolve, job.resolve_if_file)
        return self._loaded[key]


@dataclass(frozen=True)
class _Start:
    """Attributes:
    uri: of the network.
    stages: that make it.
    replay: how its pretraining goes on in finetuning, if it does.
    """

    uri: str
    stages: tuple[Stage, ...]
    replay: ReplayConfig


P = TypeVar("P", bound=PlanSpec)


def resolve(spec: P, uri: Callable[[str], str], name_or_file: Callable[[str], str]) -> P:
    """The spec with absolute paths."""

    def place(one: SourceSpec) -> SourceSpec:
        return replace(one, uri=uri(one.uri) if one.uri else "", source=uri(one.source) if one.source else "")

    return replace(
        spec,
        corpora={name: place(one) for name, one in spec.corpora.items()},
        labelled=tuple(map(place, spec.labelled)),
        validation=tuple(map(place, spec.validation)),
        held_out=tuple(map(place, spec.held_out)),
        mixes={
            name: replace(mix, checkpoint=name_or_file(mix.checkpoint) if mix.checkpoint else "")
            for name, mix in spec.mixes.items()
        },
    )
