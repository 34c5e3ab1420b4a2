"""Items of two sorts in one batch: the mean is over all that counts in them, however they are mixed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import pytest
import torch
from torch import nn

from liftgs.model.liftgs import LiftGS
from liftgs.model.norm import BatchNorm
from liftgs.training.mixed import MixedObjective
from liftgs.training.trainer import Losses


@dataclass
class Apple:
    loss: float
    count: int

    def __len__(self) -> int:
        return self.count


class Pear(Apple):
    """Of another sort, though derived."""


def mean(name: str) -> Any:
    def objective(model: LiftGS, items: Sequence[Apple]) -> Losses:
        value = torch.tensor(sum(one.loss * one.count for one in items) / sum(one.count for one in items))
        return Losses(value, {name: value})

    return objective


MIXED = MixedObjective({Apple: ("", mean("a")), Pear: ("pear_", mean("a"))})
NO_MODEL = cast(LiftGS, nn.Identity())


def test_everything_counts_alike() -> None:
    losses = MIXED(NO_MODEL, [Apple(1.0, 2), Pear(4.0, 1), Apple(5.0, 1)])
    assert losses.total.item() == pytest.approx((1 + 1 + 4 + 5) / 4)
    assert {name: value.item() for name, value in losses.terms.items()} == pytest.approx({"a": 7 / 4, "pear_a": 4 / 4})


def test_a_batch_of_one_sort_is_what_its_own_objective_says() -> None:
    losses = MIXED(NO_MODEL, [Pear(4.0, 1), Pear(2.0, 3)])
    assert losses.total.item() == 2.5
    assert losses.terms.keys() == {"pear_a"}


def test_statistics_over_workers_are_refused_before_anybody_waits() -> None:
    norm = BatchNorm(4)
    assert MIXED(cast(LiftGS, norm), [Apple(1.0, 1)]).total.item() == 1
    norm.sum_over_workers = lambda own: own
    with pytest.raises(ValueError, match=r"on one worker only: set worker\.most=1"):
        MIXED(cast(LiftGS, norm), [Apple(1.0, 1)])
