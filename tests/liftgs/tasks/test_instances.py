"""ScanNet's instance AP: against a slow version written from the protocol's text, and against cases worked by hand."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from liftgs.tasks.instances import (
    MIN_POINTS,
    THRESHOLDS,
    VOID,
    InstanceScores,
    ScoredMasks,
    overlap,
    score_instances,
)

Scene = tuple[ScoredMasks, np.ndarray, np.ndarray]


def spans(n: int, *ranges: tuple[int, int]) -> np.ndarray:
    """Masks over n points, each true in a half-open range."""
    masks = np.zeros((len(ranges), n), bool)
    for mask, (start, stop) in zip(masks, ranges, strict=True):
        mask[start:stop] = True
    return masks


def predictions(masks: np.ndarray, scores: list[float], labels: list[int] | None = None) -> ScoredMasks:
    label = np.zeros(len(masks), np.int64) if labels is None else np.array(labels, np.int64)
    return ScoredMasks(masks, np.arange(len(masks)), label, np.array(scores, np.float64))


def truth(n: int, *instances: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Labels and ids over n points; each instance is (start, stop, label)."""
    labels, ids = np.full(n, VOID), np.zeros(n, np.int64)
    for number, (start, stop, label) in enumerate(instances, 1):
        labels[start:stop], ids[start:stop] = label, number
    return labels, ids


def evaluate(scenes: list[Scene], classes: int = 1, min_points: int = 1) -> InstanceScores:
    return score_instances([overlap(*scene, min_points) for scene in scenes], classes, min_points)


# ---- an independent version: dictionaries and loops, one threshold and one class at a time


def slow_table(scenes: list[Scene], classes: int, min_points: int) -> np.ndarray:
    thresholds = [0.25, *np.arange(0.5, 0.95, 0.05)]
    return np.array([[slow_ap(scenes, label, t, min_points) for t in thresholds] for label in range(classes)])


def slow_ap(scenes: list[Scene], label: int, threshold: float, min_points: int) -> float:
    outcomes: list[tuple[float, bool]] = []
    missed = total = 0
    for found, labels, ids in scenes:
        preds = [
            {"points": set(np.flatnonzero(found.masks[row]).tolist()), "score": score, "visited": False}
            for row, kind, score in zip(found.row, found.label, found.score, strict=True)
            if kind == label and found.masks[row].sum() >= min_points
        ]
        every = [set(np.flatnonzero((ids == i) & (labels == label)).tolist()) for i in np.unique(ids[ids > 0])]
        every = [points for points in every if points]
        void = set(np.flatnonzero((labels == VOID) | (ids == 0)).tolist())
        for points in every:
            if len(points) < min_points:
                continue
            total += 1
            holder: float | None = None
            for pred in preds:
                if pred["visited"] or not exceeds(pred["points"], points, threshold):
                    continue
                if holder is None:
                    holder, pred["visited"] = pred["score"], True
                else:
                    outcomes.append((min(holder, pred["score"]), False))
                    holder = max(holder, pred["score"])
            if holder is None:
                missed += 1
            else:
                outcomes.append((holder, True))
        small = void.union(*(points for points in every if len(points) < min_points))
        for pred in preds:
            matched = any(exceeds(pred["points"], points, threshold) for points in every)
            if not matched and len(pred["points"] & small) / len(pred["points"]) <= threshold:
                outcomes.append((pred["score"], False))
    if not total:
        return math.nan
    return slow_area(outcomes, missed)


def exceeds(a: set[int], b: set[int], threshold: float) -> bool:
    return len(a & b) / len(a | b) > threshold


def slow_area(outcomes: list[tuple[float, bool]], missed: int) -> float:
    curve = []
    for cut in sorted({score for score, _ in outcomes}):
        above = [right for score, right in outcomes if score >= cut]
        positives = sum(right for _, right in outcomes) + missed
        curve.append((sum(above) / len(above), sum(above) / positives))
    curve.append((1.0, 0.0))
    recalls = [curve[0][1], *(recall for _, recall in curve), 0.0]
    return sum(p * (recalls[i] - recalls[i + 2]) / 2 for i, (p, _) in enumerate(curve))


@st.composite
def random_scenes(draw: st.DrawFn) -> tuple[list[Scene], int]:
    """A few scenes of overlapping masks, with ties among scores, small instances and void."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scenes = []
    for _ in range(draw(st.integers(1, 3))):
        n = int(rng.integers(20, 60))
        ids = np.repeat(np.arange(n), rng.integers(1, 15, n))[:n]
        ids = np.where(rng.random(n)[ids] < 0.2, 0, ids)
        labels = rng.integers(VOID, 3, n)[ids]
        masks = np.array([jitter(rng, ids) for _ in range(int(rng.integers(0, 9)))], bool).reshape(-1, n)
        count = int(rng.integers(0, 20)) if len(masks) else 0
        scores = rng.integers(0, 5, count) / 4
        found = ScoredMasks(masks, rng.integers(0, max(1, len(masks)), count), rng.integers(0, 3, count), scores)
        scenes.append((found, labels, ids))
    return scenes, draw(st.integers(1, 8))


def jitter(rng: np.random.Generator, ids: np.ndarray) -> np.ndarray:
    """About one or two of the instances."""
    chosen = rng.choice(ids, int(rng.integers(1, 3)))
    return np.isin(ids, chosen) ^ (rng.random(len(ids)) < 0.1)


@settings(max_examples=80, deadline=None)
@given(random_scenes())
def test_agrees_with_the_slow_version(case: tuple[list[Scene], int]) -> None:
    scenes, min_points = case
    table = evaluate(scenes, 3, min_points).table
    np.testing.assert_allclose(table, slow_table(scenes, 3, min_points), atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(random_scenes())
def test_neither_the_order_of_scenes_nor_the_scale_of_scores_matters(case: tuple[list[Scene], int]) -> None:
    scenes, min_points = case
    scaled = [
        (ScoredMasks(found.masks, found.row, found.label, 3 * found.score + 1), labels, ids)
        for found, labels, ids in reversed(scenes)
    ]
    expected = evaluate(scenes, 3, min_points).table
    np.testing.assert_allclose(evaluate(scaled, 3, min_points).table, expected, atol=1e-12)


# ---- worked by hand


def test_perfect_masks_score_one_at_every_threshold() -> None:
    masks = spans(40, (0, 10), (10, 30))
    scores = evaluate([(predictions(masks, [0.3, 0.9]), *truth(40, (0, 10, 0), (10, 30, 0)))])
    assert (scores.table == 1).all()
    assert (scores.ap, scores.ap50, scores.ap25) == (1, 1, 1)
    assert scores.instances.tolist() == [2]


def test_the_thresholds_are_the_nine_of_the_benchmark_and_a_quarter() -> None:
    assert len(THRESHOLDS) == 10
    assert THRESHOLDS[0] == 0.25
    np.testing.assert_allclose(THRESHOLDS[1:], [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9])
    assert Fraction(THRESHOLDS[-1]) > Fraction(0.9), "the rounding of np.arange is part of the protocol"


@pytest.mark.parametrize(("points", "ap50"), [(5, 0.0), (6, 1.0)])
def test_the_iou_must_exceed_the_threshold(points: int, ap50: float) -> None:
    # 5 of 10 points are an IoU of exactly one half
    scores = evaluate([(predictions(spans(20, (0, points)), [1.0]), *truth(20, (0, 10, 0)))])
    assert scores.ap50 == ap50
    assert scores.ap25 == 1


def test_an_iou_of_nine_tenths_misses_the_last_threshold() -> None:
    scores = evaluate([(predictions(spans(20, (0, 9)), [1.0]), *truth(20, (0, 10, 0)))])
    assert scores.table[0].tolist() == [1] * 9 + [0]
    assert scores.ap == pytest.approx(8 / 9)


@pytest.mark.parametrize("other", [0.9, 0.1])
def test_of_two_masks_on_one_instance_the_one_with_the_higher_score_is_right(other: float) -> None:
    # the curve: (1/2, 1) at the lower cut, (1, 1) at the higher, (1, 0); weights 0, 1/2, 1/2
    found = predictions(spans(40, (0, 10), (0, 9)), [other, 0.5])
    assert evaluate([(found, *truth(40, (0, 10, 0)))]).ap50 == 1


def test_a_false_mask_above_a_right_one_halves_precision() -> None:
    # cuts: 0.2 -> precision 1/2, recall 1; 0.8 -> precision 0, recall 0; then (1, 0). Weights 1/2, 1/2, 0.
    found = predictions(spans(40, (0, 10), (20, 30)), [0.2, 0.8])
    scores = evaluate([(found, *truth(40, (0, 10, 0), (20, 40, 1)))], classes=2)
    assert scores.table[0, 1] == pytest.approx(0.25)


def test_a_missed_instance_costs_recall() -> None:
    # one right of two: (1, 1/2), (1, 0); the first recall stands in for what is left of it: weights 1/4, 1/4
    found = predictions(spans(40, (0, 10)), [0.8])
    assert evaluate([(found, *truth(40, (0, 10, 0), (20, 30, 0)))]).ap50 == pytest.approx(0.5)


def test_a_mask_on_void_costs_nothing_and_one_on_another_class_does() -> None:
    good = (0, 10)
    labels, ids = truth(60, (0, 10, 0), (20, 40, 1))
    on_void = predictions(spans(60, good, (45, 60)), [0.5, 0.9])
    on_other = predictions(spans(60, good, (20, 40)), [0.5, 0.9])
    assert evaluate([(on_void, labels, ids)], 2).table[0, 1] == 1
    assert evaluate([(on_other, labels, ids)], 2).table[0, 1] == pytest.approx(0.25)


def test_a_mask_half_on_void_counts_as_false_where_half_is_not_more_than_the_threshold() -> None:
    labels, ids = truth(60, (0, 10, 0), (20, 40, 1))
    half = predictions(spans(60, (0, 10), (30, 50)), [0.5, 0.9])
    table = evaluate([(half, labels, ids)], 2).table
    assert table[0, THRESHOLDS.index(0.25)] == 1
    assert table[0, THRESHOLDS.index(0.5)] == pytest.approx(0.25)


def test_small_instances_are_ignored_and_so_is_what_finds_them() -> None:
    labels, ids = truth(80, (0, MIN_POINTS - 1, 0), (30, 60, 0))
    found = predictions(spans(80, (0, MIN_POINTS - 1), (0, MIN_POINTS), (30, 60)), [0.9, 0.8, 0.5])
    scores = evaluate([(found, labels, ids)], min_points=MIN_POINTS)
    assert scores.instances.tolist() == [1]
    assert (scores.table == 1).all()


def test_a_class_without_instances_does_not_count_and_one_without_predictions_is_zero() -> None:
    labels, ids = truth(40, (0, 10, 0), (10, 20, 1))
    found = predictions(spans(40, (0, 10), (0, 10)), [0.5, 0.5], labels=[0, 2])
    scores = evaluate([(found, labels, ids)], classes=3)
    assert scores.table[0, 1] == 1
    assert scores.table[1, 1] == 0
    assert np.isnan(scores.table[2]).all()
    assert scores.ap50 == 0.5


def test_nothing_to_find_is_not_a_number() -> None:
    found = predictions(spans(10, (0, 5)), [0.5])
    assert math.isnan(evaluate([(found, *truth(10))]).ap)


@pytest.mark.parametrize("scores", [[0.5, 0.5, 0.5], [0.5, 0.5, 0.1]])
def test_equal_scores_are_one_cut(scores: list[float]) -> None:
    # one cut with precision 1/2 and recall 1, after (0, 1); what comes below changes no recall
    found = predictions(spans(60, (0, 10), (20, 30), (45, 55)), scores, labels=[0, 0, 1])
    assert evaluate([(found, *truth(60, (0, 10, 0), (20, 40, 1)))], classes=2).table[0, 1] == pytest.approx(0.75)


def test_arrays_of_different_scenes_are_refused() -> None:
    labels, ids = truth(10, (0, 5, 0))
    with pytest.raises(ValueError, match="masks are over 20 points"):
        overlap(predictions(spans(20, (0, 5)), [0.5]), labels, ids, 1)
