"""A plateau is where scores have not risen often enough."""

from __future__ import annotations

from liftgs.training.plateau import on_plateau
from liftgs.training.trainer import OptimConfig


def test_it_is_the_check_that_was_not_better_often_enough() -> None:
    checks = [(10, 0.2), (20, 0.5), (30, 0.4), (40, 0.5), (50, 0.45)]
    found = [on_plateau(checks[: count + 1], patience=3) for count in range(5)]
    assert found == [False, False, False, False, True], "as good is not better"
    assert not on_plateau([*checks[:4], (50, 0.51)], patience=3)
    assert not on_plateau(checks, patience=4)
    assert not on_plateau([], patience=1)


def test_fresh_weights_that_find_nothing_yet_are_on_no_plateau() -> None:
    assert not on_plateau([(step, 0.0) for step in range(10, 500, 10)], patience=3)


def test_scores_of_the_warm_up_do_not_count() -> None:
    lucky = [(10, 0.9), (20, 0.1), (30, 0.1), (40, 0.2), (50, 0.3)]
    assert not any(on_plateau(lucky[: count + 1], patience=2, earliest=30) for count in range(5))
    assert on_plateau([*lucky, (60, 0.3), (70, 0.3)], patience=2, earliest=30)


def test_the_rate_warms_up_and_stays() -> None:
    optim = OptimConfig(steps=1000, lr=2.0, warmup_steps=100, schedule="plateau")
    assert [optim.lr_at(step) for step in (0, 49)] == [0.02, 1.0]
    assert {optim.lr_at(step) for step in range(99, 1000)} == {2.0}
