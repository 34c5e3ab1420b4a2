"""One method, one labelled sample: instances by the names of classes, and the targets of expressions.

What comes out is small and is all that any score needs, so samples can be evaluated anywhere, in any order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import UInt8

from liftgs.model.liftgs import LiftGS
from liftgs.sample import Sample
from liftgs.scene import BadInput, Expression, SceneLabels
from liftgs.tasks.instances import MIN_POINTS, VOID, Overlaps, ScoredMasks, overlap
from liftgs.tasks.maps import beside, from_above, tint
from liftgs.tasks.phrases import Encode
from liftgs.tasks.proposals import ProposalConfig, SeenScene, on_points, propose, select
from liftgs.tasks.referral import Referral, box_iou, extremes, unique_or_multiple
from liftgs.tasks.zero_shot import LabelledCloud, class_phrases

#: What grounds: shown a sample, it answers queries about the sample's points.
Method = Callable[[Sample], SeenScene]


def _many_classes() -> ProposalConfig:
    """As `liftgs zero-shot` asks."""
    return ProposalConfig(queries_at_once=64, top_k=500, nms_iou=0.25)


@dataclass(frozen=True)
class ExamConfig:
    """What is asked, and how answers are counted.

    Attributes:
        min_points: smaller instances and predictions are ignored: 20 suits 5 cm voxels, 100 ScanNet's vertices.
        expressions_at_once: expressions that the method hears together, and that compete for the masks.
        proposals: how masks become a list of instances.
    """

    min_points: int = MIN_POINTS
    expressions_at_once: int = 8
    proposals: ProposalConfig = field(default_factory=_many_classes)


@dataclass(frozen=True, eq=False)
class Paper:
    """The answers of one method about one sample.

    Attributes:
        labelled: what was asked about.
        predictions: instances of the classes, best first.
        overlaps: their comparison with the truth.
        referrals: what became of each expression.
    """

    labelled: LabelledCloud
    predictions: ScoredMasks
    overlaps: Overlaps
    referrals: list[Referral]

    def picture(self) -> UInt8[np.ndarray, "h w 3"]:
        """The room from above | its instances | as many of the best answers; a class has one colour in both."""
        cloud, instances, labels = self.labelled.cloud, self.labelled.instances, self.labelled.labels
        ids, first = np.unique(np.where(labels != VOID, instances, 0), return_index=True)
        ids, first = ids[ids != 0], first[ids != 0]
        shown = self.predictions[: len(ids)]
        order = np.arange(len(shown))[::-1]  # the best is drawn last
        truth = tint(cloud.rgb, instances == ids[:, None], labels[first])
        answers = tint(cloud.rgb, shown.masks[shown.row[order]], shown.label[order])
        return beside(from_above(cloud.xyz), cloud.rgb, truth, answers)


def by_network(model: LiftGS) -> Method:
    """A network, in evaluation mode, as a method: it sees the cloud alone."""

    def see(sample: Sample) -> SeenScene:
        return SeenScene.by(model, model.encode([model.voxelise(sample.cloud)])[0])

    return see


@torch.inference_mode()
def examine(
    method: Method,
    sample: Sample,
    key: str,
    classes: Sequence[str],
    encode: Encode,
    config: ExamConfig,
    class_of: Mapping[str, str] | None = None,
    nyu40_of: Mapping[str, int] | None = None,
) -> Paper:
    """Ask for every class and every expression of a sample.

    Args:
        method: whose answers these are.
        sample: of a labelled corpus.
        key: of the sample.
        classes: what is evaluated; other kinds are void.
        encode: words -> queries of this method.
        config: see there.
        class_of: kind -> class, where kinds are called otherwise; "" is none.
        nyu40_of: ScanNet's raw label -> nyu40id, for the groups of ScanRefer.

    Raises:
        BadInput: the sample is damaged, or has no 3D labels.
    """
    labels, labelled = sample.labels, labelled_cloud(sample, key, classes, class_of or {})
    assert labels is not None  # else there were no cloud
    seen = method(sample)
    asked, how = encode(class_phrases(classes)), config.proposals
    candidates = propose(seen, asked, how.queries_at_once, how.part_m)
    predictions = on_points(select(candidates, how, seen.points), seen.of_point)
    found = overlap(predictions, labelled.labels, labelled.instances, config.min_points)
    referrals = refer(seen, labelled, labels, encode, config, nyu40_of)
    return Paper(labelled, predictions, found, referrals)


def labelled_cloud(sample: Sample, key: str, classes: Sequence[str], class_of: Mapping[str, str]) -> LabelledCloud:
    """A sample's cloud with the class of each point.

    Raises:
        BadInput: the sample is damaged, or has no 3D labels.
    """
    if sample.labels is None or sample.cloud.instances is None:
        raise BadInput(sample.uri, "has no 3D labels to evaluate on; build the corpus from a labelled source")
    ids = sample.cloud.instances
    label_of = np.full(int(ids.max(initial=0)) + 1, VOID)
    column = {name: number for number, name in enumerate(classes)}
    for row in sample.labels.instances:
        if row.id < len(label_of):
            label_of[row.id] = column.get(class_of.get(row.kind, row.kind), VOID)
    return LabelledCloud(key, sample.cloud, label_of[ids], ids)


def refer(
    seen: SeenScene,
    labelled: LabelledCloud,
    labels: SceneLabels,
    encode: Encode,
    config: ExamConfig,
    nyu40_of: Mapping[str, int] | None = None,
) -> list[Referral]:
    """The best answer to each expression against its target, box against box.

    Boxes are the extremes of points of the same cloud: of the best mask, and of the target's points (the paper's
    protocol, on sensor clouds). Expressions whose targets own no point are left out.
    """
    ids, xyz = labelled.instances, labelled.cloud.xyz
    there = set(np.unique(ids).tolist())
    asked = [one for one in labels.expressions if there.issuperset(one.target.instances)]
    if not asked:
        return []
    found = propose(seen, encode([one.text for one in asked]), config.expressions_at_once, config.proposals.part_m)
    kinds = {row.id: row.kind for row in labels.instances}
    records = []
    for number, expression in enumerate(asked):
        mine = np.flatnonzero(found.label == number)
        mask = found.masks[found.row[mine[0]]][seen.of_point] if len(mine) else np.zeros(len(ids), bool)
        truth = np.isin(ids, expression.target.instances)
        iou = box_iou(extremes(xyz, mask), extremes(xyz, truth))
        records.append(Referral(labelled.name, f"{number:04d}", iou, groups(expression, kinds, nyu40_of)))
    return records


def groups(
    expression: Expression, kinds: Mapping[int, str], nyu40_of: Mapping[str, int] | None = None
) -> tuple[str, ...]:
    """What an expression's accuracy is reported under, beside "all".

    ReferIt3D's by the tags of its reader: easy or hard, view-dependent or not. ScanRefer's by its reader's, too: unique
    or multiple, for which it takes ScanNet's label table. Of all others, whether anything of the target's kind is in
    the sample beside it, and the relation, if there is one.

    Args:
        expression: what was asked.
        kinds: of each instance of the sample.
        nyu40_of: see `examine`.
    """
    difficulty, view = expression.tag("difficulty"), expression.tag("view")
    if difficulty is not None and view is not None:
        return (difficulty, f"view-{view}")
    name, others = expression.tag("object_name"), expression.tag("others")
    if name is not None and others is not None and nyu40_of is not None:
        return (unique_or_multiple(name, filter(None, others.split(",")), nyu40_of),)
    kind = kinds.get(expression.target.instances[0])
    alone = sum(other == kind for other in kinds.values()) == 1
    which = "unique" if alone else "multiple"
    return (which, f"by {expression.relation}") if expression.relation else (which,)
