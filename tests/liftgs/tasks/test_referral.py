"""Referential accuracy: boxes by hand, thresholds at their edges, and the data sets' own groups."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from liftgs.tasks.referral import (
    OTHERS,
    Referral,
    accuracy_table,
    box_iou,
    extremes,
    is_hit,
    scanrefer_class,
    unique_or_multiple,
)

NYU40 = {"chair": 5, "office chair": 5, "stool": 40, "trash can": 39, "lamp": 35, "sofa": 6, "wall": 1}

corners = st.lists(st.integers(0, 8), min_size=6, max_size=6).map(lambda sides: np.array(sides, float).reshape(2, 3))


def box(*sides: float) -> np.ndarray:
    """From the origin."""
    return np.array([(0, 0, 0), sides], float)


# ---- boxes


def test_the_box_is_that_of_the_extremes_with_a_stray_point_and_all() -> None:
    xyz = np.array([(0, 0, 0), (1, 2, 3), (9, -9, 1), (5, 5, 5)], np.float32)
    found = extremes(xyz, np.array([True, True, True, False]))
    assert found is not None
    assert found.tolist() == [[0, -9, 0], [9, 2, 3]]


def test_an_empty_mask_has_no_box_and_is_a_miss_at_every_threshold() -> None:
    found = extremes(np.zeros((4, 3)), np.zeros(4, bool))
    assert found is None
    iou = box_iou(found, box(1, 1, 1))
    assert iou == 0
    assert [row.accuracy for row in accuracy_table([Referral("a", "0", iou)], inclusive=True)] == [(0, 0, 0)]


def test_overlap_of_boxes_by_hand() -> None:
    # 1 of 8 + 8 - 1
    assert box_iou(box(2, 2, 2), box(2, 2, 2) + 1) == pytest.approx(1 / 15)
    # one inside the other
    assert box_iou(box(2, 2, 2), box(1, 1, 2)) == pytest.approx(1 / 4)
    # apart on two axes: the product of two negative sides is positive
    assert box_iou(box(1, 1, 1), box(1, 1, 1) + np.array([5, 5, 0])) == 0
    # flat ones have no volume
    assert box_iou(box(1, 1, 0), box(1, 1, 0)) == 0


def slow_iou(a: np.ndarray, b: np.ndarray) -> float:
    """By counting unit cells."""

    def cells(corners: np.ndarray) -> set[tuple[int, ...]]:
        ranges = [range(int(low), int(high)) for low, high in zip(*corners, strict=True)]
        return {(x, y, z) for x in ranges[0] for y in ranges[1] for z in ranges[2]}

    both, either = cells(a) & cells(b), cells(a) | cells(b)
    return len(both) / len(either) if both else 0.0


@given(corners, corners)
def test_overlap_of_boxes_is_that_of_their_cells(a: np.ndarray, b: np.ndarray) -> None:
    a, b = np.sort(a, axis=0), np.sort(b, axis=0)
    assert box_iou(a, b) == pytest.approx(slow_iou(a, b))
    assert box_iou(a, b) == box_iou(b, a)


# ---- the table


def test_a_threshold_must_be_exceeded_unless_reaching_it_is_said_to_suffice() -> None:
    half = box_iou(box(2, 1, 1), box(1, 1, 1))
    assert half == 0.5
    assert not is_hit(half, 0.5)
    assert is_hit(half, 0.5, inclusive=True)
    assert is_hit(0.5000001, 0.5)
    records = [Referral("a", "0", half), Referral("a", "1", 0.25)]
    assert accuracy_table(records)[0].accuracy == (0.5, 0, 0)
    assert accuracy_table(records, inclusive=True)[0].accuracy == (1, 0.5, 0)


def test_each_group_counts_its_own_expressions_and_all_counts_each_once() -> None:
    records = [
        Referral("a", "0", 0.9, ("hard", "view-dependent")),
        Referral("a", "1", 0.3, ("easy", "view-dependent")),
        Referral("b", "0", 0.1, ("easy", "view-independent")),
    ]
    table = {row.group: (row.expressions, row.accuracy) for row in accuracy_table(records, (0.25, 0.5))}
    assert list(table) == ["all", "easy", "hard", "view-dependent", "view-independent"]
    assert table["all"] == (3, (pytest.approx(2 / 3), pytest.approx(1 / 3)))
    assert table["easy"] == (2, (0.5, 0))
    assert table["hard"] == (1, (1, 1))
    assert table["view-dependent"] == (2, (1, 0.5))


def test_no_expression_is_no_accuracy_rather_than_zero() -> None:
    (row,) = accuracy_table([])
    assert (row.group, row.expressions) == ("all", 0)
    assert all(math.isnan(value) for value in row.accuracy)


def test_an_expression_that_is_there_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="'7' of scene 'a'"):
        accuracy_table([Referral("a", "7", 1.0), Referral("b", "7", 1.0), Referral("a", "7", 0.0)])


# ---- ScanRefer


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("office_chair", "chair"),
        ("sofa", "sofa"),
        ("trash_can", OTHERS),  # nyu40's otherfurniture
        ("lamp", OTHERS),  # outside the 18
        ("wall", OTHERS),  # among ScanNet's 20, not among the 18
        ("no_such_thing", OTHERS),
    ],
)
def test_scanrefer_knows_17_classes_and_others(name: str, kind: str) -> None:
    assert scanrefer_class(name, NYU40) == kind


@pytest.mark.parametrize(
    ("name", "others", "group"),
    [
        ("chair", ["lamp", "trash_can"], "unique"),
        ("lamp", ["chair", "trash_can"], "multiple"),  # both are others
        ("chair", ["office_chair"], "multiple"),
        ("chair", [], "unique"),  # whatever stands there undescribed
    ],
)
def test_unique_is_among_the_objects_that_are_referred_to(name: str, others: list[str], group: str) -> None:
    assert unique_or_multiple(name, others, NYU40) == group
