"""ScanNet's instance AP: against two slow versions written from the protocol's text, cases worked by hand, and laws."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scored_scenes import Scored, evaluate, perfect, predictions, random_scenes, spans, truth

from benchmarks import _instance_peer
from liftgs.tasks.instances import MIN_POINTS, THRESHOLDS, VOID, ScoredMasks, judge_instances, overlap, score_instances

# ---- an independent version: dictionaries and loops, one threshold and one class at a time


def slow_table(scenes: list[Scored], classes: int, min_points: int) -> np.ndarray:
    thresholds = [0.25, *np.arange(0.5, 0.95, 0.05)]
    return np.array([[slow_ap(scenes, label, t, min_points) for t in thresholds] for label in range(classes)])


def slow_ap(scenes: list[Scored], label: int, threshold: float, min_points: int) -> float:
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


@settings(max_examples=80, deadline=None)
@given(random_scenes())
def test_agrees_with_the_slow_version(case: tuple[list[Scored], int]) -> None:
    scenes, min_points = case
    table = evaluate(scenes, 3, min_points).table
    np.testing.assert_allclose(table, slow_table(scenes, 3, min_points), atol=1e-12)


@settings(max_examples=300, deadline=None)
@given(random_scenes())
def test_agrees_with_the_usual_loops(case: tuple[list[Scored], int]) -> None:
    scenes, min_points = case
    records = [_instance_peer.assign(*scene, classes=3, min_points=min_points) for scene in scenes]
    expected = _instance_peer.evaluate(records, 3, min_points)
    np.testing.assert_allclose(evaluate(scenes, 3, min_points).table, expected, rtol=1e-12, atol=0)


# ---- laws


@settings(max_examples=25, deadline=None)
@given(random_scenes())
def test_neither_the_order_of_scenes_nor_the_scale_of_scores_matters(case: tuple[list[Scored], int]) -> None:
    scenes, min_points = case
    scaled = [
        (ScoredMasks(found.masks, found.row, found.label, 3 * found.score + 1), labels, ids)
        for found, labels, ids in reversed(scenes)
    ]
    expected = evaluate(scenes, 3, min_points).table
    np.testing.assert_allclose(evaluate(scaled, 3, min_points).table, expected, atol=1e-12)


@settings(max_examples=50, deadline=None)
@given(random_scenes(), st.integers(0, 2**32 - 1))
def test_the_order_of_points_does_not_matter(case: tuple[list[Scored], int], seed: int) -> None:
    scenes, min_points = case
    rng = np.random.default_rng(seed)
    shuffled = []
    for found, labels, ids in scenes:
        order = rng.permutation(len(ids))
        moved = ScoredMasks(found.masks[:, order], found.row, found.label, found.score)
        shuffled.append((moved, labels[order], ids[order]))
    np.testing.assert_array_equal(
        evaluate(shuffled, 3, min_points).table, evaluate(scenes, 3, min_points).table, strict=True
    )


@settings(max_examples=50, deadline=None)
@given(random_scenes(), st.integers(0, 2**32 - 1))
def test_from_half_on_the_order_of_predictions_and_of_instances_does_not_matter(
    case: tuple[list[Scored], int], seed: int
) -> None:
    """At a quarter it does: which of two predictions an instance takes first is then a matter of order."""
    scenes, min_points = case
    rng = np.random.default_rng(seed)
    shuffled = [
        (found[rng.permutation(len(found))], labels, np.append(0, 1 + rng.permutation(ids.max()))[ids])
        for found, labels, ids in scenes
    ]
    np.testing.assert_allclose(
        evaluate(shuffled, 3, min_points).table[:, 1:], evaluate(scenes, 3, min_points).table[:, 1:], rtol=1e-12
    )


@settings(max_examples=50, deadline=None)
@given(random_scenes())
def test_perfect_predictions_score_one_in_every_class_that_is_there(case: tuple[list[Scored], int]) -> None:
    scenes, min_points = case
    rng = np.random.default_rng(0)
    scores = evaluate([(perfect(labels, ids, rng), labels, ids) for _, labels, ids in scenes], 3, min_points)
    np.testing.assert_array_equal(np.isnan(scores.table).all(axis=1), scores.instances == 0)
    assert (scores.table[scores.instances > 0] == 1).all()


@settings(max_examples=100, deadline=None)
@given(random_scenes(), st.data())
def test_taking_out_a_prediction_that_touches_nothing_right_never_hurts(
    case: tuple[list[Scored], int], data: st.DataObject
) -> None:
    scenes, min_points = case
    before = evaluate(scenes, 3, min_points).table
    at = data.draw(st.integers(0, len(scenes) - 1))
    found, labels, ids = scenes[at]
    reduced = overlap(found, labels, ids, min_points=1)
    same = reduced.label[:, None] == reduced.truth_label
    enough = found.masks[found.row].any(axis=1)
    false = np.flatnonzero(enough)[~((reduced.iou() > THRESHOLDS[0]) & same).any(axis=1)]
    if len(false):
        fewer = found[np.arange(len(found)) != data.draw(st.sampled_from(false.tolist()))]
        after = evaluate([*scenes[:at], (fewer, labels, ids), *scenes[at + 1 :]], 3, min_points).table
        assert (np.nan_to_num(after) >= np.nan_to_num(before) - 1e-12).all()


@settings(max_examples=50, deadline=None)
@given(random_scenes(), st.data())
def test_scenes_that_count_several_times_or_not_at_all_score_as_if_listed_so(
    case: tuple[list[Scored], int], data: st.DataObject
) -> None:
    scenes, min_points = case
    overlaps = [overlap(*scene, min_points) for scene in scenes]
    times = data.draw(st.lists(st.integers(0, 3), min_size=len(scenes), max_size=len(scenes)))
    listed = [scene for scene, count in zip(overlaps, times, strict=True) for _ in range(count)]
    expected = score_instances(listed, 3, min_points)
    scores = judge_instances(overlaps, 3, min_points).score(np.array(times))
    np.testing.assert_allclose(scores.table, expected.table, rtol=1e-12)
    np.testing.assert_array_equal(scores.instances, expected.instances)


@settings(max_examples=25, deadline=None)
@given(random_scenes())
def test_ids_may_be_as_the_benchmark_makes_them_or_far_apart_or_negative(case: tuple[list[Scored], int]) -> None:
    scenes, min_points = case
    expected = evaluate(scenes, 3, min_points).table
    for spread in (lambda ids: 1000 * ids + 1, lambda ids: ids * 10**15, lambda ids: ids - 10**9):
        spread_out = [(found, labels, np.where(ids == 0, 0, spread(ids))) for found, labels, ids in scenes]
        np.testing.assert_array_equal(evaluate(spread_out, 3, min_points).table, expected)


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


def test_below_half_an_instance_takes_the_first_prediction_that_it_is_offered_and_only_that_one() -> None:
    """Two instances of 10 points; A covers 5 of each and 1 more, B is the second instance and 9 others.

    At .25 (IoU of A with each 5/16, of B with the second 10/19): the first takes A, so the second is left B alone.
    With B first in the list nothing changes for the first, but the second takes B, and A, taken, is no loser there.
    """
    masks = spans(60, (5, 15), (10, 20))
    masks[0, 25] = masks[1, 30:39] = True
    labels, ids = truth(60, (0, 10, 0), (10, 20, 0))
    for order in ([0, 1], [1, 0]):
        found = predictions(masks, [0.9, 0.5])[np.array(order)]
        assert evaluate([(found, labels, ids)]).ap25 == 1
    # A is free when it loses at the first instance: there it is false, and at the second it is right
    lost = predictions(np.concatenate([spans(60, (0, 10)), masks[:1]]), [0.9, 0.5])
    # verdicts: 0.9 right, 0.5 false, 0.5 right: cuts (1, 1/2), (2/3, 1): 1/2 + (1 + 2/3) / 4
    assert evaluate([(lost, labels, ids)]).ap25 == pytest.approx(1 / 2 + 5 / 12)


def test_a_repeated_prediction_is_false_once_more() -> None:
    # scores .9, .8, .7 on one instance: right, false, false; recall is whole at the first cut
    masks = spans(40, (0, 10), (0, 10), (0, 10))
    assert evaluate([(predictions(masks, [0.7, 0.9, 0.8]), *truth(40, (0, 10, 0)))]).ap50 == 1
    # on two instances, one found thrice: cuts (1, 1/2), then no recall is gained
    two = truth(40, (0, 10, 0), (20, 30, 0))
    assert evaluate([(predictions(masks, [0.7, 0.9, 0.8]), *two)]).ap50 == pytest.approx(1 / 2)
    # and a later right one pays for the false ones: cuts (1, 1/2), (1/2, 1/2), (1/3, 1/2), (2/4, 1)
    later = predictions(spans(40, (0, 10), (0, 10), (0, 10), (20, 30)), [0.9, 0.8, 0.7, 0.6])
    assert evaluate([(later, *two)]).ap50 == pytest.approx(1 / 2 + (1 / 3 + 1 / 2) / 4)


def test_the_rounding_of_the_thresholds_is_part_of_the_protocol() -> None:
    """IoUs of exactly 17/20 and 18/20 do not exceed the 8th and the 9th step, whose floats lie above .85 and .9."""
    for points, steps in ((17, 7), (18, 8)):
        scores = evaluate([(predictions(spans(30, (0, points)), [1.0]), *truth(30, (0, 20, 0)))])
        assert scores.table[0].tolist() == [1] * (1 + steps) + [0] * (9 - steps)


def test_nothing_to_find_is_not_a_number() -> None:
    found = predictions(spans(10, (0, 5)), [0.5])
    assert math.isnan(evaluate([(found, *truth(10))]).ap)


@pytest.mark.parametrize("scores", [[0.5, 0.5, 0.5], [0.5, 0.5, 0.1]])
def test_equal_scores_are_one_cut(scores: list[float]) -> None:
    # one cut with precision 1/2 and recall 1, after (0, 1); what comes below changes no recall
    found = predictions(spans(60, (0, 10), (20, 30), (45, 55)), scores, labels=[0, 0, 1])
    assert evaluate([(found, *truth(60, (0, 10, 0), (20, 40, 1)))], classes=2).table[0, 1] == pytest.approx(0.75)


def test_no_scene_has_no_score() -> None:
    assert np.isnan(score_instances([], 2).table).all()


def test_predictions_of_no_class_of_the_benchmark_do_not_count() -> None:
    found = predictions(spans(40, (0, 10), (20, 30), (20, 30)), [0.5, 0.9, 0.9], labels=[0, VOID, 1])
    assert evaluate([(found, *truth(40, (0, 10, 0)))], classes=1).ap50 == 1


def test_a_score_that_is_not_a_number_is_refused() -> None:
    with pytest.raises(ValueError, match="score is NaN"):
        overlap(predictions(spans(10, (0, 5)), [math.nan]), *truth(10, (0, 5, 0)), 1)


def test_arrays_of_different_scenes_are_refused() -> None:
    labels, ids = truth(10, (0, 5, 0))
    with pytest.raises(ValueError, match="masks are over 20 points"):
        overlap(predictions(spans(20, (0, 5)), [0.5]), labels, ids, 1)
