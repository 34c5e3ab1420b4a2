"""ScanNet's instance segmentation score, from arrays. Knows nothing of networks, scenes or class names.

The protocol is that of ScanNet's own `evaluate_semantic_instance.py`, which ScanNet200, Mask3D, OpenMask3D and PQ3D
share: average precision (AP) of masks over points, at IoU .25 and at .50, .55, .. .90.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from liftgs.tasks.average_precision import PrecisionCurves
from liftgs.tasks.verdicts import judge

#: IoU thresholds in the order of `InstanceScores.table`: .25, then the nine whose mean is AP. The benchmark steps in
#: floats, so its last two are .8500000000000003 and .9000000000000004; `>` is strict, and the rounding matters.
THRESHOLDS: tuple[float, ...] = (0.25, *np.arange(0.5, 0.95, 0.05).tolist())

#: A label that is not evaluated: unlabelled points, and structure such as walls and floors.
VOID = -1

#: Fewest points of an instance and of a prediction, at 5 cm voxels. ScanNet asks for 100 vertices of a mesh whose
#: vertices are about 2 cm apart, which is 0.04 m2 of surface: 16 voxels of 5 cm if it is aligned with the grid, and
#: half as many again if it slants.
MIN_POINTS = 20

#: The same as the benchmark has it, for masks over the vertices of its own meshes.
MIN_VERTICES = 100

#: Instance ids below this are looked up in a table, larger ones sorted. ScanNet200's reach 1,192,000.
_TABLE_IDS = 1 << 22


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

    def __getitem__(self, classes: Int[np.ndarray, " k"]) -> InstanceScores:
        """Of some of the classes."""
        return InstanceScores(self.table[classes], self.instances[classes])

    @property
    def ap(self) -> float:
        """Mean over classes and over IoU .50 to .90."""
        return _mean(self.class_ap)

    @property
    def ap50(self) -> float:
        """Mean over classes, at IoU .50."""
        return _mean(self.table[:, THRESHOLDS.index(0.5)])

    @property
    def ap25(self) -> float:
        """Mean over classes, at IoU .25."""
        return _mean(self.table[:, THRESHOLDS.index(0.25)])

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
        instances: id of each point's instance, unique in the scene; 0 = none, which is void as well. Instances of a
            class choose among predictions in the order of their ids.
        min_points: at least 1.

    Raises:
        ValueError: arrays of different lengths, or a score that is not a number.
    """
    if not predictions.masks.shape[1] == len(labels) == len(instances):
        raise ValueError(
            f"masks are over {predictions.masks.shape[1]} points, labels over {len(labels)}, instances {len(instances)}"
        )
    if np.isnan(predictions.score).any():
        raise ValueError("a prediction's score is NaN")
    evaluated = (labels != VOID) & (instances != 0)
    ids, instance = _compact(np.where(evaluated, instances, 0))
    # One column per id, 0 = void among them if there is any: a mask's histogram over ids holds all that is asked.
    # Picking a mask's points is most of the work, so it pays that they are small.
    shared = np.stack([np.bincount(instance[mask], minlength=len(ids)) for mask in predictions.masks] or [ids[:0]])
    shared = shared.reshape(len(predictions.masks), len(ids))
    points, is_truth = shared.sum(axis=1), ids != 0
    label_of, instance = np.full(len(ids), VOID), instance.astype(np.intp)
    label_of[instance] = labels
    kept = points[predictions.row] >= max(1, min_points)
    row = predictions.row[kept]
    return Overlaps(
        truth_label=label_of[is_truth],
        truth_points=np.bincount(instance, minlength=len(ids))[is_truth],
        label=predictions.label[kept],
        score=predictions.score[kept],
        points=points[row],
        void=shared[row][:, ~is_truth].sum(axis=1),
        shared=shared[row][:, is_truth],
    )


@dataclass(frozen=True, eq=False)
class JudgedScenes:
    """Scenes of which every prediction is judged, so that any choice of them can be scored in milliseconds.

    Attributes:
        instances: how many of each class count, by scene.
        curves: one per class and threshold.
    """

    instances: Int[np.ndarray, "s c"]
    curves: PrecisionCurves

    def score(self, times: Int[np.ndarray, " s"] | None = None) -> InstanceScores:
        """AP of every class.

        Args:
            times: how often each scene counts; all once by default.
        """
        times = np.ones(len(self.instances), np.int64) if times is None else times
        instances = times @ self.instances
        areas = self.curves.areas(times).reshape(-1, len(THRESHOLDS))
        table = np.where(instances[:, None] > 0, areas / np.maximum(instances, 1)[:, None], np.nan)
        return InstanceScores(table, instances)


def judge_instances(scenes: Sequence[Overlaps], classes: int, min_points: int = MIN_POINTS) -> JudgedScenes:
    """Judge every prediction of every scene; see `score_instances`."""
    instances = np.zeros((len(scenes), classes), np.int64)
    verdicts = []
    for number, scene in enumerate(scenes):
        counts = scene.truth_points >= min_points
        instances[number] = np.bincount(scene.truth_label[counts], minlength=classes)[:classes]
        same = scene.label[:, None] == scene.truth_label
        ignored = scene.void + (scene.shared * (same & ~counts)).sum(axis=1)
        iou = np.where(same, scene.iou(), 0.0)
        prediction, threshold, right = judge(iou, scene.score, ignored / scene.points, counts, THRESHOLDS)
        curve = scene.label[prediction] * len(THRESHOLDS) + threshold
        verdicts.append((curve, scene.score[prediction], right, np.full(len(right), number)))
    nothing = (np.zeros(0, np.int64), np.zeros(0), np.zeros(0, bool), np.zeros(0, np.int64))
    curve, score, right, of_scene = (np.concatenate(column) for column in zip(nothing, *verdicts, strict=True))
    known = (curve >= 0) & (curve < classes * len(THRESHOLDS))
    curves = PrecisionCurves.rank(curve[known], score[known], right[known], of_scene[known], classes * len(THRESHOLDS))
    return JudgedScenes(instances, curves)


def score_instances(scenes: Sequence[Overlaps], classes: int, min_points: int = MIN_POINTS) -> InstanceScores:
    """AP of every class over all scenes.

    An instance with fewer than `min_points` points is ignored: it need not be found, and what finds it costs nothing.
    A prediction that matches no instance of its class counts as false, unless the share of it that lies on void or on
    ignored instances of its class exceeds the IoU threshold. Of several predictions that match one instance, that with
    the highest score is right and the others are false. An IoU must exceed the threshold, not reach it.

    Args:
        scenes: from `overlap`, with the same `min_points`.
        classes: how many there are; predictions of other labels do not count.
        min_points: see `MIN_POINTS`; states how fine the points are, so it goes with the voxel size.
    """
    return judge_instances(scenes, classes, min_points).score()


def _mean(values: Float[np.ndarray, " c"]) -> float:
    """Over those that are numbers; NaN if there is none."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")


def _compact(ids: Int[np.ndarray, " n"]) -> tuple[Int[np.ndarray, " k"], Int[np.ndarray, " n"]]:
    """The ids that occur, sorted, and the place of each point's id among them, in as few bytes as hold it."""
    if ids.min(initial=0) < 0 or ids.max(initial=0) >= _TABLE_IDS:
        present, place = np.unique(ids, return_inverse=True)
        return present, place.astype(np.min_scalar_type(len(present)))
    occurs = np.zeros(int(ids.max(initial=0)) + 1, bool)
    occurs[ids] = True
    present = np.flatnonzero(occurs)
    table = np.zeros(len(occurs), np.min_scalar_type(len(present)))
    table[present] = np.arange(len(present))
    return present, table[ids]
