"""Items of two sorts in one batch: the mean is over all that counts in them, however they are mixed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import pytest
import torch

from liftgs.model.liftgs import LiftGS
from liftgs.training.mixed import MixedObjective
from liftgs.training.trainer import Losses


@dataclass
class Apple:
    loss: float
    count: int

    def __len__(self) -> int:
        return self.count

    @property
    def voxels(self) -> str:
        return f"{type(self).__name__} {self.loss}"


class Pear(Apple):
    """Of another sort, though derived."""


def mean(name: str) -> Any:
    def objective(model: LiftGS, items: Sequence[Apple], scenes: Sequence[Any] | None = None) -> Losses:
        assert scenes == [f"scene of {one.voxels}" for one in items], "each has its own"
        value = torch.tensor(sum(one.loss * one.count for one in items) / sum(one.count for one in items))
        return Losses(value, {name: value})

    return objective


MIXED = MixedObjective({Apple: ("", mean("a")), Pear: ("pear_", mean("a"))})


class Encoder:
    """Counts how often it is asked: workers with statistics in common must all ask as often."""

    asked = 0

    def encode(self, clouds: Sequence[str]) -> list[str]:
        self.asked += 1
        return [f"scene of {cloud}" for cloud in clouds]


def encoder() -> tuple[Encoder, LiftGS]:
    counting = Encoder()
    return counting, cast(LiftGS, counting)


def test_everything_counts_alike() -> None:
    counting, model = encoder()
    losses = MIXED(model, [Apple(1.0, 2), Pear(4.0, 1), Apple(5.0, 1)])
    assert counting.asked == 1, "whatever sorts there are"
    assert losses.total.item() == pytest.approx((1 + 1 + 4 + 5) / 4)
    assert {name: value.item() for name, value in losses.terms.items()} == pytest.approx({"a": 7 / 4, "pear_a": 4 / 4})


def test_a_batch_of_one_sort_is_what_its_own_objective_says() -> None:
    counting, model = encoder()
    losses = MIXED(model, [Pear(4.0, 1), Pear(2.0, 3)])
    assert counting.asked == 1
    assert losses.total.item() == 2.5
    assert losses.terms.keys() == {"pear_a"}
