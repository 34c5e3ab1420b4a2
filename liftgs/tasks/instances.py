"""ScanNet's instance segmentation score, from arrays. Knows nothing of networks, scenes or class names.

The protocol is that of ScanNet's own `evaluate_semantic_instance.py`, which ScanNet200, Mask3D, OpenMask3D and PQ3D
share: average precision (AP) of masks over points, at IoU .25 and at .50, .55, .. .90.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

#: IoU thresholds in the order of `InstanceScores.table`: .25, then the nine whose mean is AP. The benchmark steps in
#: floats, so its last two are .8500000000000003 and .9000000000000004; `>` is strict, and the rounding matters.
THRESHOLDS: tuple[float, ...] = (0.25, *np.arange(0.5, 0.95, 0.05).tolist())

#: A label that is not evaluated: unlabelled points, and structure such as walls and floors.
VOID = -1

#: Fewest points of an instance and of a prediction, at 5 cm voxels. ScanNet asks for 100 vertices of a mesh whose
#: vertices are about 2 cm apart, which is 0.04 m2 of surface: 16 voxels of 5 cm if it is aligned with the grid, and
#: half as many again if it slants.
MIN_POINTS = 20


@dataclass(frozen=True, eq=False)
class ScoredMasks:
    """Predicted instances of one scene. Several may share a mask, with different labels.

    Attributes:
        masks: over the points of the scene.
        row: of each prediction, its row of `masks`.
        label: its class, an index.
        score: its confidence, any scale; only the order counts.
    """

    masks: Bool[np.ndarray, "m n"]
    row: Int[np.ndarray, " p"]
    label: Int[np.ndarray, " p"]
    score: Float[np.ndarray, " p"]

    def __len__(self) -> int:
        return len(self.row)

    def __getitem__(self, index: Int[np.ndarray, " q"] | Bool[np.ndarray, " p"] | slice) -> ScoredMasks:
        """Some of the predictions, over the same masks."""
        return ScoredMasks(self.masks, self.row[index], self.label[index], self.score[index])


@dataclass(frozen=True, eq=False)
class Overlaps:
    """One scene reduced to what its score depends on, so that any number of scenes can be held.

    Attributes:
        truth_label: class of each instance.
        truth_points: points of each instance.
        label: class of each prediction.
        score: its confidence.
        points: points of its mask.
        void: those of them that belong to no evaluated instance.
        shared: points that prediction and instance have in common.
    """

    truth_label: Int[np.ndarray, " g"]
    truth_points: Int[np.ndarray, " g"]
    label: Int[np.ndarray, " p"]
    score: Float[np.ndarray, " p"]
    points: Int[np.ndarray, " p"]
    void: Int[np.ndarray, " p"]
    shared: Int[np.ndarray, "p g"]

    def iou(self) -> Float[np.ndarray, "p g"]:
        """Intersection over union."""
        union = self.points[:, None] + self.truth_points[None] - self.shared
        return self.shared / np.maximum(union, 1)


@dataclass(frozen=True, eq=False)
class InstanceScores:
    """AP by class and threshold.

    Attributes:
        table: one row per class, one column per entry of `THRESHOLDS`; NaN for a class without ground truth.
        instances: ground-truth instances of each class that counted.
    """

    table: Float[np.ndarray, "c t"]
    instances: Int[np.ndarray, " c"]

    @property
    def ap(self) -> float:
        """Mean over classes and over IoU .50 to .90."""
        return float(_mean(self.class_ap))

    @property
    def ap50(self) -> float:
        """Mean over classes, at IoU .50."""
        return float(_mean(self.table[:, THRESHOLDS.index(0.5)]))

    @property
    def ap25(self) -> float:
        """Mean over classes, at IoU .25."""
        return float(_mean(self.table[:, THRESHOLDS.index(0.25)]))

    @property
    def class_ap(self) -> Float[np.ndarray, " c"]:
        """Mean over IoU .50 to .90, of each class."""
        return self.table[:, 1:].mean(axis=1)


def overlap(
    predictions: ScoredMasks, labels: Int[np.ndarray, " n"], instances: Int[np.ndarray, " n"], min_points: int
) -> Overlaps:
    """Compare the predictions of a scene with its ground truth.

    Args:
        predictions: those with fewer than `min_points` points are left out.
        labels: class of each point, or `VOID`; the points of an instance have one label.
        instances: id of each point's instance, unique in the scene; 0 = none, which is void as well.
        min_points: at least 1.

    Raises:
        ValueError: arrays of different lengths.
    """
    if not predictions.masks.shape[1] == len(labels) == len(instances):
        raise ValueError(
            f"masks are over {predictions.masks.shape[1]} points, labels over {len(labels)}, instances {len(instances)}"
        )
    evaluated = (labels != VOID) & (instances != 0)
    ids, first, instance = np.unique(np.where(evaluated, instances, 0), return_index=True, return_inverse=True)
    # One column per id, 0 = void among them if there is any: a mask's histogram over ids holds all that is asked.
    shared = np.stack([np.bincount(instance[mask], minlength=len(ids)) for mask in predictions.masks] or [ids[:0]])
    shared = shared.reshape(len(predictions.masks), len(ids))
    points, is_truth = shared.sum(axis=1), ids != 0
    kept = points[predictions.row] >= max(1, min_points)
    row = predictions.row[kept]
    return Overlaps(
        truth_label=labels[first[is_truth]],
        truth_points=np.bincount(instance, minlength=len(ids))[is_truth],
        label=predictions.label[kept],
        score=predictions.score[kept],
        points=points[row],
        void=shared[row][:, ~is_truth].sum(axis=1),
        shared=shared[row][:, is_truth],
    )


def score_instances(scenes: Sequence[Overlaps], classes: int, min_points: int = MIN_POINTS) -> InstanceScores:
    """AP of every class over all scenes.

    An instance with fewer than `min_points` points is ignored: it need not be found, and what finds it costs nothing.
    A prediction that matches no instance of its class counts as false, unless the share of it that lies on void or on
    ignored instances of its class exceeds the IoU threshold. Of several predictions that match one instance, that with
    the highest score is right and the others are false. An IoU must exceed the threshold, not reach it.

    Args:
        scenes: from `overlap`, with the same `min_points`.
        classes: how many there are.
        min_points: see `MIN_POINTS`; states how fine the points are, so it goes with the voxel size.
    """
    table = np.full((classes, len(THRESHOLDS)), np.nan)
    instances = np.zeros(classes, np.int64)
    for label in range(classes):
        of_class = [_of_class(scene, label) for scene in scenes]
        of_class = [scene for scene in of_class if len(scene.label) or len(scene.truth_label)]
        instances[label] = sum(int((scene.truth_points >= min_points).sum()) for scene in of_class)
        if instances[label]:
            ious = [scene.iou() for scene in of_class]
            for column, threshold in enumerate(THRESHOLDS):
                outcomes = [
                    _match(scene, iou, threshold, min_points) for scene, iou in zip(of_class, ious, strict=True)
                ]
                right, scores, missed = zip(*outcomes, strict=True)
                table[label, column] = average_precision(np.concatenate(right), np.concatenate(scores), sum(missed))
    return InstanceScores(table, instances)


def average_precision(right: Bool[np.ndarray, " p"], score: Float[np.ndarray, " p"], missed: int) -> float:
    """The area under precision over recall, as ScanNet integrates it.

    Points of the curve are the cuts at each distinct score, and (recall 0, precision 1); each weighs half the recall
    between its neighbours, with the first recall standing in for what is left of it. 0 without predictions.

    Args:
        right: whether each prediction found an instance.
        score: its confidence.
        missed: instances that no prediction found at any score.
    """
    if not len(score):
        return 0.0
    order = np.argsort(score, kind="stable")
    _, cuts = np.unique(score[order], return_index=True)
    below = np.concatenate([[0], np.cumsum(right[order])])  # right ones before each position
    found = below[-1] - below[cuts]
    precision = np.append(found / (len(score) - cuts), 1.0)
    recall = np.append(found / max(1, below[-1] + missed), 0.0)
    neighbours = np.concatenate([recall[:1], recall, [0.0]])
    return float(precision @ (neighbours[:-2] - neighbours[2:]) / 2)


def _mean(values: Float[np.ndarray, " c"]) -> float:
    """Over those that are numbers; NaN if there is none."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")


def _of_class(scene: Overlaps, label: int) -> Overlaps:
    mine, truth = scene.label == label, scene.truth_label == label
    return Overlaps(
        scene.truth_label[truth],
        scene.truth_points[truth],
        scene.label[mine],
        scene.score[mine],
        scene.points[mine],
        scene.void[mine],
        scene.shared[np.ix_(mine, truth)],
    )


def _match(
    scene: Overlaps, iou: Float[np.ndarray, "p g"], threshold: float, min_points: int
) -> tuple[Bool[np.ndarray, " k"], Float[np.ndarray, " k"], int]:
    """One class in one scene: which predictions that count are right, their scores, and how many instances are missed.

    Below .5 a prediction may match several instances. As in the benchmark, instances choose in their order, and one
    that is the first choice of an instance is no longer there for the next; the losers of a choice still are.
    """
    matches = iou > threshold
    counts = scene.truth_points >= min_points
    taken = np.zeros(len(scene.label), bool)
    right: list[bool] = []
    scores: list[float] = []
    missed = 0
    for truth in np.flatnonzero(counts):
        found = np.flatnonzero(matches[:, truth] & ~taken)
        if not len(found):
            missed += 1
            continue
        taken[found[0]] = True
        ordered = np.sort(scene.score[found])[::-1]
        scores += ordered.tolist()
        right += [True] + [False] * (len(found) - 1)
    ignored = scene.void + scene.shared[:, ~counts].sum(axis=1)
    wrong = ~matches.any(axis=1) & (ignored / scene.points <= threshold)
    scores += scene.score[wrong].tolist()
    right += [False] * int(wrong.sum())
    return np.array(right, bool), np.array(scores, np.float64), missed
