"""Instance AP the usual way: records of each prediction and instance in dictionaries, by scene and class name.

A straightforward writing of ScanNet's protocol, in the shape that the evaluators of the field share: one record per
pair that overlaps, then loops over thresholds, classes, scenes, instances and predictions. It is leaner than those it
stands for: they clear the marks on their predictions once for every pair of classes, which is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import numpy as np

from liftgs.tasks.instances import THRESHOLDS, VOID, ScoredMasks

#: Class -> records.
Records = dict[int, list[dict[str, Any]]]


def assign(
    found: ScoredMasks, labels: np.ndarray, instances: np.ndarray, classes: int, min_points: int
) -> tuple[Records, Records]:
    """Ground truth with the predictions that touch each instance, and predictions with the instances they touch."""
    truth: Records = {label: [] for label in range(classes)}
    for instance in np.unique(instances):
        member = instances == instance
        label = int(labels[np.argmax(member)])
        if instance != 0 and label != VOID:
            truth[label].append({"instance": instance, "points": int(np.count_nonzero(member))})
    with_predictions = deepcopy(truth)
    for records in with_predictions.values():
        for record in records:
            record["predictions"] = []
    predictions: Records = {label: [] for label in range(classes)}
    void = (labels == VOID) | (instances == 0)
    for number in range(len(found)):
        label, mask = int(found.label[number]), found.masks[found.row[number]]
        points = int(np.count_nonzero(mask))
        if label not in predictions or points < min_points:
            continue
        prediction: dict[str, Any] = {
            "number": number,
            "points": points,
            "score": float(found.score[number]),
            "void": int(np.count_nonzero(void & mask)),
        }
        touched = []
        for instance, record in zip(truth[label], with_predictions[label], strict=True):
            shared = int(np.count_nonzero((instances == instance["instance"]) & mask))
            if shared:
                touched.append({**instance, "shared": shared})
                record["predictions"].append({**prediction, "shared": shared})
        predictions[label].append({**prediction, "instances": touched})
    return with_predictions, predictions


def evaluate(scenes: Sequence[tuple[Records, Records]], classes: int, min_points: int) -> np.ndarray:
    """AP by class and threshold."""
    table = np.zeros((classes, len(THRESHOLDS)))
    for column, threshold in enumerate(THRESHOLDS):
        visited = {
            (number, prediction["number"]): False
            for number, (_, predictions) in enumerate(scenes)
            for records in predictions.values()
            for prediction in records
        }
        for label in range(classes):
            right, score = np.empty(0), np.empty(0)
            missed, has_truth, has_predictions = 0, False, False
            for number, (truth, predictions) in enumerate(scenes):
                counting = [record for record in truth[label] if record["points"] >= min_points]
                has_truth |= bool(counting)
                has_predictions |= bool(predictions[label])
                scene_right, scene_score, scene_missed = _match(number, counting, threshold, visited)
                for prediction in predictions[label]:
                    if _is_false(prediction, threshold, min_points):
                        scene_right = np.append(scene_right, 0)
                        scene_score = np.append(scene_score, prediction["score"])
                right, score = np.append(right, scene_right), np.append(score, scene_score)
                missed += scene_missed
            if not has_truth:
                table[label, column] = np.nan
            elif has_predictions:
                table[label, column] = _area(right, score, missed)
    return table


def _match(
    scene: int, truth: list[dict[str, Any]], threshold: float, visited: dict[tuple[int, int], bool]
) -> tuple[np.ndarray, np.ndarray, int]:
    """Instances choose among predictions. What is right, the scores, and how many instances found nothing."""
    right, score = np.ones(len(truth)), np.full(len(truth), -np.inf)
    has_match = np.zeros(len(truth), bool)
    missed = 0
    for index, instance in enumerate(truth):
        is_found = False
        for prediction in instance["predictions"]:
            if visited[scene, prediction["number"]] or _iou(instance, prediction, prediction["shared"]) <= threshold:
                continue
            confidence = prediction["score"]
            if has_match[index]:
                right, has_match = np.append(right, 0), np.append(has_match, True)
                score = np.append(score, min(score[index], confidence))
                score[index] = max(score[index], confidence)
            else:
                is_found = has_match[index] = visited[scene, prediction["number"]] = True
                score[index] = confidence
        missed += not is_found
    return right[has_match], score[has_match], missed


def _is_false(prediction: dict[str, Any], threshold: float, min_points: int) -> bool:
    for instance in prediction["instances"]:
        if _iou(instance, prediction, instance["shared"]) > threshold:
            return False
    ignored = prediction["void"]
    for instance in prediction["instances"]:
        if instance["points"] < min_points:
            ignored += instance["shared"]
    return ignored / prediction["points"] <= threshold


def _iou(instance: dict[str, Any], prediction: dict[str, Any], shared: int) -> float:
    return shared / (instance["points"] + prediction["points"] - shared)


def _area(right: np.ndarray, score: np.ndarray, missed: int) -> float:
    """Precision over recall, cut at each distinct score; step widths by convolution of the recalls."""
    order = np.argsort(score)
    right, score = right[order], score[order]
    below = np.append(np.cumsum(right), 0)
    _, cuts = np.unique(score, return_index=True)
    total = below[-2] if len(right) else 0
    precision, recall = np.zeros(len(cuts) + 1), np.zeros(len(cuts) + 1)
    for index, cut in enumerate(cuts):
        true = total - below[cut - 1]
        precision[index] = true / (len(right) - cut)
        recall[index] = true / (total + missed)
    precision[-1] = 1.0
    padded = np.concatenate([recall[:1], recall, [0.0]])
    return float(precision @ np.convolve(padded, [-0.5, 0, 0.5], "valid"))
