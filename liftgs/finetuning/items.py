"""One labelled chunk -> one finetuning item: augmented voxels, and what is asked about them, mostly in words."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from liftgs.lifting import merge, sight
from liftgs.model.voxels import Voxels
from liftgs.sample import Sample
from liftgs.scene import BadInput, Expression, NothingToLearn, SceneLabels
from liftgs.tasks.phrases import Encode, class_phrase
from liftgs.training.augment import AugmentConfig, Change
from liftgs.training.queries import share_queries

T = TypeVar("T")


@dataclass(frozen=True)
class LabelledItemConfig:
    """What is asked about a chunk in one visit.

    Attributes:
        labels: "human": the source's 3D labels. "lifted": instances that are joined from the pseudo-labels of the
            photos, as a rival of rendering (paper, Table 8); their own embeddings take the place of names, so there are
            no `absent` ones, and no `structure` to leave out.
        task: "instances": names of kinds, each of which names all its instances. "referral": expressions, each of which
            names its target. "both": half of the questions are of either sort.
        sets: questions asked; each is a set of names, or of expressions, that compete for the masks.
        queries: at most so many names or expressions in a question. Evaluation asks for 64 classes at once.
        absent: of the names in a question, at most so many are of kinds that the chunk does not hold.
        targets: at most so many instances in a question; kinds with more than are left are not asked for.
        same_query: lifted instances whose embeddings have at least this cosine share one query, as they would share a
            name; 1 gives each its own.
        min_voxels: smaller instances are not asked for; their voxels still belong to nobody else.
        structure: kinds that are never asked for, as ScanNet's benchmark leaves out the shell of a room.
        augment: random changes. Words for left and right are about what faces what, so a mirrored room would make them
            wrong: chunks are not mirrored for expressions.
    """

    labels: Literal["human", "lifted"] = "human"
    task: Literal["instances", "referral", "both"] = "both"
    sets: int = 2
    queries: int = 8
    absent: int = 2
    targets: int = 48
    same_query: float = 1.0
    min_voxels: int = 3
    structure: tuple[str, ...] = ("wall", "floor", "ceiling")
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def __post_init__(self) -> None:
        if min(self.sets, self.queries, self.targets, self.min_voxels) < 1 or not 0 <= self.absent < self.queries:
            raise ValueError(
                "sets, queries, targets and min_voxels must be at least 1, absent from 0 to less than queries"
            )
        if self.labels == "lifted" and self.task != "instances":
            raise ValueError(f"lifted labels have no expressions, so task={self.task} cannot be; set task=instances")


@dataclass(frozen=True, eq=False)
class Question:
    """Queries about a chunk, and the instances that they name.

    Attributes:
        queries: unit embeddings.
        instances: ids of the k targets.
        positives: which query names which target; rows sum to 1.
    """

    queries: Float[Tensor, "t f"]
    instances: Int[Tensor, " k"]
    positives: Float[Tensor, "k t"]


#: Asks one question: its number, the instances that are large enough, and what is random -> None if there is none.
Ask = Callable[[int, set[int], np.random.Generator], Question | None]


@dataclass(frozen=True, eq=False)
class LabelledItem:
    """A chunk as one visit sees it.

    Attributes:
        key: of the sample.
        voxels: what the network gets.
        instance: id of each voxel's instance, 0 = none.
        questions: what it is asked.
        seed: of what the network itself draws for it (dropout), on whichever worker it is.
    """

    key: str
    voxels: Voxels
    instance: Int[Tensor, " n"]
    questions: tuple[Question, ...]
    seed: int = 0

    def __len__(self) -> int:
        """Questions, each of which counts as much as any other of a batch."""
        return len(self.questions)

    def to(self, device: torch.device | str) -> LabelledItem:
        """On another device."""
        questions = tuple(
            Question(*(value.to(device) for value in (one.queries, one.instances, one.positives)))
            for one in self.questions
        )
        return LabelledItem(self.key, self.voxels.to(device), self.instance.to(device), questions, self.seed)


def make_labelled_item(
    sample: Sample,
    config: LabelledItemConfig,
    voxel_size_m: float,
    kinds: Sequence[str],
    encode: Encode,
    key: str,
    seed: int,
    epoch: int,
    class_of: Mapping[str, str] | None = None,
) -> LabelledItem:
    """Take an item from a sample: a pure function of its arguments, whoever calls it and when.

    Args:
        sample: of a labelled corpus.
        config: what to ask.
        voxel_size_m: of the network.
        kinds: those that some chunk holds; what this one does not hold is asked for, too.
        encode: the words' embeddings.
        key: of the sample; with `seed` and `epoch` it decides every random choice.
        seed: of the run.
        epoch: which visit.
        class_of: what the sample calls a kind -> what is asked for, where that differs; "" is never asked for.

    Raises:
        BadInput: a member is broken, or the sample has no labels, or none of the sort that the task needs.
    """
    rng = np.random.default_rng([seed, epoch, zlib.crc32(key.encode())])
    change = Change.draw(_augment(config), rng)
    if config.labels == "lifted":
        ids, ask = _lifted(sample, config)
    else:
        ids, ask = _human(sample, config, kinds, encode, class_of or {})
    voxels = change.voxels(sample.cloud, voxel_size_m, sample.uri)
    instance = majority(torch.from_numpy(ids.astype(np.int64)), voxels.of_point, len(voxels))
    found, sizes = torch.unique(instance, return_counts=True)
    there = {i for i, size in zip(found.tolist(), sizes.tolist(), strict=True) if i != 0 and size >= config.min_voxels}
    asked = [ask(number, there, rng) for number in range(config.sets)]
    questions = [question for question in asked if question is not None]
    if not questions:
        raise NothingToLearn(sample.uri, f"holds nothing to ask for by {config.task}")
    return LabelledItem(key, voxels, instance, tuple(questions), int(rng.integers(2**63)))


def _human(
    sample: Sample, config: LabelledItemConfig, kinds: Sequence[str], encode: Encode, class_of: Mapping[str, str]
) -> tuple[Int[np.ndarray, " p"], Ask]:
    labels, ids = sample.labels, sample.cloud.instances
    if labels is None or ids is None:
        raise BadInput(sample.uri, "has no 3D labels; build the corpus from a labelled source")
    if class_of:
        rows = tuple(replace(row, kind=class_of.get(row.kind, row.kind)) for row in labels.instances)
        labels = replace(labels, instances=rows)

    def ask(number: int, there: set[int], rng: np.random.Generator) -> Question | None:
        sorts = {"instances": (_name,), "referral": (_refer,), "both": (_name, _refer)}[config.task]
        alone = number == config.sets - 1 and config.sets % len(sorts)  # the last has no partner of the other sort
        one = sorts[rng.integers(2) if alone else number % len(sorts)]
        return one(labels, there, config, kinds, encode, rng)

    return ids, ask


def _lifted(sample: Sample, config: LabelledItemConfig) -> tuple[Int[np.ndarray, " p"], Ask]:
    found = merge(sight(sample))
    embeds = torch.from_numpy(found.embeds)
    return found.ids, lambda number, there, rng: _resemble(embeds, there, config, rng)


def _augment(config: LabelledItemConfig) -> AugmentConfig:
    """Without mirrors, where there are expressions."""
    return replace(config.augment, flip=config.augment.flip and config.task == "instances")


def majority(instances: Int[Tensor, " p"], of_point: Int[Tensor, " p"], voxels: int) -> Int[Tensor, " n"]:
    """The instance of most points of each voxel, of ids from 0; of equals the lowest."""
    span = int(instances.max()) + 1 if len(instances) else 1
    pairs, counts = torch.unique(of_point * span + instances, return_counts=True)  # by voxel, then by id
    order = torch.argsort(counts, stable=True, descending=True)  # ids ascend within equal counts
    order = order[torch.argsort(pairs[order] // span, stable=True)]
    voxel = pairs[order] // span
    first = torch.ones(len(voxel), dtype=torch.bool)
    first[1:] = voxel[1:] != voxel[:-1]
    result = torch.zeros(voxels, dtype=torch.long)
    result[voxel[first]] = pairs[order[first]] % span
    return result


def _name(
    labels: SceneLabels,
    there: set[int],
    config: LabelledItemConfig,
    kinds: Sequence[str],
    encode: Encode,
    rng: np.random.Generator,
) -> Question | None:
    """Kinds of the chunk, each with all its instances, and some that it does not hold."""
    of_kind: dict[str, list[int]] = {}
    for row in labels.instances:
        if row.id in there and row.kind and row.kind not in config.structure:
            of_kind.setdefault(row.kind, []).append(row.id)
    asked: list[str] = []
    room = config.targets
    for kind in _shuffled(sorted(of_kind), rng):
        if len(asked) < config.queries - config.absent and len(of_kind[kind]) <= room:
            asked.append(kind)
            room -= len(of_kind[kind])
    if not asked:
        return None
    out = {row.kind for row in labels.instances} | set(config.structure)
    asked += _shuffled([kind for kind in kinds if kind not in out], rng)[: int(rng.integers(config.absent + 1))]
    asked = _shuffled(asked, rng)
    targets = [(i, column) for column, kind in enumerate(asked) for i in of_kind.get(kind, [])]
    return _question(encode([class_phrase(kind) for kind in asked]), targets)


def _refer(
    labels: SceneLabels,
    there: set[int],
    config: LabelledItemConfig,
    kinds: Sequence[str],
    encode: Encode,
    rng: np.random.Generator,
) -> Question | None:
    """Expressions whose targets the chunk holds."""
    usable = [one for one in labels.expressions if there.issuperset(one.target.instances)]
    asked: list[Expression] = []
    room = config.targets
    for expression in _shuffled(usable, rng):
        if len(asked) < config.queries and len(expression.target.instances) <= room:
            asked.append(expression)
            room -= len(expression.target.instances)
    if not asked:
        return None
    targets = [(i, column) for column, expression in enumerate(asked) for i in expression.target.instances]
    return _question(encode([expression.text for expression in asked]), targets)


def _resemble(
    embeds: Float[Tensor, "k f"], there: set[int], config: LabelledItemConfig, rng: np.random.Generator
) -> Question | None:
    """Embeddings of some instances, each of which names all that are like it."""
    order = _shuffled(sorted(there), rng)
    if not order:
        return None
    queries, positives = share_queries(embeds[torch.tensor(order) - 1], config.same_query)
    targets = [(i, column) for i, column in zip(order, positives.argmax(1).tolist(), strict=True)]
    return _question(queries[: config.queries], [t for t in targets if t[1] < config.queries][: config.targets])


def _question(queries: Float[Tensor, "t f"], targets: Sequence[tuple[int, int]]) -> Question:
    """From pairs of an instance and the query that names it."""
    instances = list(dict.fromkeys(instance for instance, _ in targets))
    positives = torch.zeros(len(instances), len(queries))
    for instance, column in targets:
        positives[instances.index(instance), column] = 1
    return Question(queries, torch.tensor(instances), positives / positives.sum(1, keepdim=True))


def _shuffled(values: Sequence[T], rng: np.random.Generator) -> list[T]:
    return [values[i] for i in rng.permutation(len(values))]
