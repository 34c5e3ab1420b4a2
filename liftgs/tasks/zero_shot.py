"""Class names as queries: instance segmentation and referral of a network that never saw a 3D label or a class name.

`liftgs zero-shot` prints it, on embedded rooms that no corpus of the labelling job holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from liftgs.chunks import load_chunk, plan_chunks
from liftgs.model.liftgs import LiftGS
from liftgs.procedural import KINDS
from liftgs.scene import PointCloud, Scene
from liftgs.tasks.instances import (
    MIN_POINTS,
    THRESHOLDS,
    VOID,
    InstanceScores,
    Overlaps,
    ScoredMasks,
    overlap,
    score_instances,
)
from liftgs.tasks.phrases import class_phrase
from liftgs.tasks.proposals import ProposalConfig, SeenScene, on_points, propose, select

_DEFAULT_PROPOSALS = ProposalConfig()


@dataclass(frozen=True, eq=False)
class LabelledCloud:
    """A cloud and its ground truth, point by point.

    Attributes:
        name: for messages.
        cloud: one point per voxel.
        labels: index of the class, or `VOID` for points of no instance or of a class that is not evaluated.
        instances: id of the instance, 0 = none.
    """

    name: str
    cloud: PointCloud
    labels: Int[np.ndarray, " n"]
    instances: Int[np.ndarray, " n"]


@dataclass(frozen=True)
class ZeroShotScores:
    """How well class names find instances.

    Attributes:
        classes: names, in the order of `instances`.
        instances: AP of each class; see `tasks.instances`.
        referrals: pairs of a scene and a class that it holds.
        acc25: share of them in which the best mask of the class overlaps one of its instances by more than .25 IoU.
        acc50: by more than .50.
        best_iou: mean over instances of the IoU of the mask that fits best, whatever it was called. What naming cannot
            exceed.
        clouds: how many scenes.
    """

    classes: tuple[str, ...]
    instances: InstanceScores
    referrals: int
    acc25: float
    acc50: float
    best_iou: float
    clouds: int

    def summary(self) -> dict[str, float]:
        """The figures, in 0..1."""
        scores = self.instances
        return {
            "AP": scores.ap,
            "AP50": scores.ap50,
            "AP25": scores.ap25,
            "Acc@.25": self.acc25,
            "Acc@.5": self.acc50,
            "best IoU": self.best_iou,
        }

    def by_class(self) -> list[tuple[str, int, tuple[float, float, float]]]:
        """Name, instances, and (AP, AP50, AP25) of each class that has instances; the best first."""
        scores = self.instances
        columns = scores.class_ap, *(scores.table[:, THRESHOLDS.index(threshold)] for threshold in (0.5, 0.25))
        rows = zip(
            self.classes, scores.instances.tolist(), zip(*(c.tolist() for c in columns), strict=True), strict=True
        )
        return sorted(((n, k, (a, b, c)) for n, k, (a, b, c) in rows if k), key=lambda row: (-row[2][2], row[0]))


def labelled_clouds(scenes: Iterable[Scene], classes: Sequence[str] = KINDS) -> Iterator[LabelledCloud]:
    """The chunks of labelled scenes, made as the labelling job makes them: 5 cm voxels, whatever a network works in, so
    that all are measured on the same points.

    Args:
        scenes: with instance ids in their frames.
        classes: what is evaluated. Walls, floors and ceilings are not among `KINDS`: ScanNet leaves out the shell, too.

    Raises:
        ValueError: a scene without labels.
    """
    for scene in scenes:
        for chunk in plan_chunks(scene):
            loaded = load_chunk(scene, chunk)
            if loaded.labels is None or loaded.cloud.instances is None:
                raise ValueError(f"{scene.uri} has no labels to evaluate on")
            label_of = np.full(int(loaded.cloud.instances.max()) + 1, VOID)
            for instance in loaded.labels.instances:
                if instance.kind in classes:
                    label_of[instance.id] = classes.index(instance.kind)
            ids = loaded.cloud.instances
            yield LabelledCloud(chunk.key, loaded.cloud, label_of[ids], ids)


def evaluate_zero_shot(
    model: LiftGS,
    queries: Float[Tensor, "c f"],
    clouds: Iterable[LabelledCloud],
    classes: Sequence[str] = KINDS,
    config: ProposalConfig = _DEFAULT_PROPOSALS,
    min_points: int = MIN_POINTS,
    progress: Callable[[str], None] = print,
) -> ZeroShotScores:
    """Ask for every class in every cloud. A class that no cloud holds does not count.

    Args:
        model: in evaluation mode.
        queries: embedding of each class name; see `class_phrases`.
        clouds: from `labelled_clouds`, with the same `classes`.
        classes: their names.
        config: how proposals become instances.
        min_points: smaller instances are ignored.
        progress: told a line per cloud.
    """
    overlaps: list[Overlaps] = []
    best: list[float] = []
    nameless: list[float] = []
    for labelled in clouds:
        candidates = _ask(model, labelled.cloud, queries, config)
        best += best_overlaps(candidates, labelled, min_points)
        nameless += _nameless_overlaps(candidates, labelled, min_points)
        overlaps.append(overlap(select(candidates, config), labelled.labels, labelled.instances, min_points))
        progress(f"{labelled.name}: {len(labelled.cloud):,} points, Acc@.25 so far {_share(best, 0.25):.3f}")
    scores = score_instances(overlaps, len(classes), min_points)
    best_iou = float(np.mean(nameless)) if nameless else float("nan")
    return ZeroShotScores(
        tuple(classes), scores, len(best), _share(best, 0.25), _share(best, 0.5), best_iou, clouds=len(overlaps)
    )


def best_overlaps(candidates: ScoredMasks, labelled: LabelledCloud, min_points: int) -> list[float]:
    """For each class of the cloud: IoU of its best-scored mask with the instance that the mask fits best.

    Candidates are sorted best first. Instances with fewer than `min_points` points do not count.
    """
    result = []
    for label in np.unique(labelled.labels[labelled.labels != VOID]).tolist():
        ids, points = np.unique(labelled.instances[labelled.labels == label], return_counts=True)
        ids = ids[points >= min_points]
        if len(ids):
            mine = np.flatnonzero(candidates.label == label)
            mask = candidates.masks[candidates.row[mine[0]]] if len(mine) else np.zeros(len(labelled.labels), bool)
            result.append(max(_iou(mask, labelled.instances == i) for i in ids))
    return result


def _nameless_overlaps(candidates: ScoredMasks, labelled: LabelledCloud, min_points: int) -> list[float]:
    """For each instance of at least `min_points` points: IoU of the mask that fits best."""
    count = len(candidates.masks)
    each = ScoredMasks(candidates.masks, np.arange(count), np.zeros(count, np.int64), np.zeros(count))
    overlaps = overlap(each, labelled.labels, labelled.instances, min_points=1)
    best = overlaps.iou().max(axis=0, initial=0.0)
    return best[overlaps.truth_points >= min_points].tolist()


def class_phrases(classes: Sequence[str] = KINDS) -> list[str]:
    """What is asked for."""
    return [class_phrase(name) for name in classes]


def untrained_twin(model: LiftGS, seed: int) -> LiftGS:
    """A network of the same config with fresh weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LiftGS(model.config).eval().to(model.device)


@torch.inference_mode()
def _ask(model: LiftGS, cloud: PointCloud, queries: Float[Tensor, "c f"], config: ProposalConfig) -> ScoredMasks:
    scene = model.encode([model.voxelise(cloud)])[0]
    seen = SeenScene.by(model, scene)
    return on_points(propose(seen, queries, config.queries_at_once, config.part_m), seen.of_point)


def _iou(a: Bool[np.ndarray, " n"], b: Bool[np.ndarray, " n"]) -> float:
    return float((a & b).sum() / max(1, (a | b).sum()))


def _share(ious: Sequence[float], threshold: float) -> float:
    return float(np.mean(np.array(ious) > threshold)) if ious else float("nan")
