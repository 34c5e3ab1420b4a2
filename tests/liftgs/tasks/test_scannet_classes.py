"""The benchmarks' class lists: counts, order and a few facts that are known from elsewhere."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from liftgs.tasks.instances import VOID, InstanceScores
from liftgs.tasks.scannet_classes import SCANNET20, SCANNET200, BenchmarkClasses


@pytest.mark.parametrize(("classes", "count"), [(SCANNET20, 18), (SCANNET200, 198)])
def test_ids_and_names_are_distinct_and_in_the_order_of_ids(classes: BenchmarkClasses, count: int) -> None:
    assert len(classes) == len(classes.names) == len(classes.groups) == count
    assert len(set(classes.ids)) == len(set(classes.names)) == count
    assert list(classes.ids) == sorted(classes.ids)
    assert all(name == " ".join(name.lower().split()) for name in classes.names)


def test_groups_are_as_large_as_without_wall_and_floor() -> None:
    assert Counter(SCANNET200.groups) == {"head": 66 - 2, "common": 68, "tail": 66}
    assert not {"wall", "floor"} & set(SCANNET200.names)
    assert not {1, 3} & set(SCANNET200.ids)
    assert list(SCANNET200.by_group()) == ["head", "common", "tail"]
    assert [len(places) for places in SCANNET200.by_group().values()] == [64, 68, 66]
    assert SCANNET20.by_group() == {}
    assert set(SCANNET20.groups) == {""}


def test_the_ids_of_scannet20_are_those_of_nyu40() -> None:
    assert SCANNET20.ids == (3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 24, 28, 33, 34, 36, 39)
    assert dict(zip(SCANNET20.ids, SCANNET20.names, strict=True))[39] == "otherfurniture"


@pytest.mark.parametrize(
    ("number", "name", "group"),
    [
        (2, "chair", "head"),
        (41, "ceiling", "head"),
        (82, "paper towel dispenser", "common"),
        (1181, "case of water bottles", "tail"),
        (1191, "mattress", "common"),
    ],
)
def test_names_that_break_across_lines_are_whole(number: int, name: str, group: str) -> None:
    place = SCANNET200.ids.index(number)
    assert (SCANNET200.names[place], SCANNET200.groups[place]) == (name, group)


def test_ids_become_places_and_what_is_not_evaluated_void() -> None:
    ids = np.array([[0, 1, 2], [1191, 5000, -3]])
    assert SCANNET200.index(ids).tolist() == [[VOID, VOID, 0], [197, VOID, VOID]]
    assert SCANNET200.index(np.array(SCANNET200.ids)).tolist() == list(range(198))


def test_scores_of_a_group_are_of_its_classes_alone() -> None:
    table = np.full((198, 10), np.nan)
    table[SCANNET200.by_group()["head"]] = 0.5
    table[SCANNET200.by_group()["tail"][0]] = 1.0
    scores = InstanceScores(table, np.where(np.isnan(table[:, 0]), 0, 1))
    assert scores[SCANNET200.by_group()["head"]].ap == 0.5
    assert scores[SCANNET200.by_group()["tail"]].ap50 == 1
    assert np.isnan(scores[SCANNET200.by_group()["common"]].ap25)
