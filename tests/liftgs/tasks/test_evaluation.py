"""The groups that an expression's accuracy is reported under."""

from __future__ import annotations

import pytest

from liftgs.scene import Expression, Mention
from liftgs.tasks.evaluation import groups

KINDS = {1: "chair", 2: "chair", 3: "lamp"}
NYU40 = {"chair": 5, "office chair": 5, "lamp": 35, "sofa": 6}


def said(instance: int, *tags: str, relation: str = "") -> Expression:
    return Expression("the thing", Mention((instance,), (0, 9), (0, 2)), relation=relation, tags=tags)


@pytest.mark.parametrize(
    ("expression", "named"),
    [
        (said(1), ("multiple",)),
        (said(3, relation="above"), ("unique", "by above")),
        (said(1, "difficulty=hard", "view=dependent"), ("hard", "view-dependent")),
        # ScanRefer counts what its file refers to, not what stands in the sample
        (said(1, "object_name=chair", "others=lamp,sofa"), ("unique",)),
        (said(1, "object_name=chair", "others=lamp,office_chair"), ("multiple",)),
        (said(3, "object_name=lamp", "others="), ("unique",)),
    ],
)
def test_groups_are_those_of_the_data_set(expression: Expression, named: tuple[str, ...]) -> None:
    assert groups(expression, KINDS, NYU40) == named


def test_without_scannet_s_table_the_sample_is_all_that_is_known() -> None:
    assert groups(said(1, "object_name=chair", "others=lamp"), KINDS) == ("multiple",)
