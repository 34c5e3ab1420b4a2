"""A rate stays, then falls to 0 in a straight line; when it does is decided by the scores, or by the budget."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liftgs.training.schedule import LEAST_STEPS, Cooldown
from liftgs.training.trainer import OptimConfig

cooldowns = st.builds(
    lambda budget, share, warm: Cooldown(budget, share, min(warm, budget // 2)),
    st.integers(1, 400),
    st.floats(0.01, 1.0),
    st.integers(0, 60),
)


@given(cooldowns, st.data())
def test_the_rate_stays_then_falls_in_a_straight_line_to_zero(cooldown: Cooldown, data: st.DataObject) -> None:
    start = data.draw(st.none() | st.integers(cooldown.earliest, cooldown.latest))
    begin, end = cooldown.latest if start is None else start, cooldown.end(start)
    rates = [cooldown.factor(step, start) for step in range(end + 1)]
    assert rates[: begin + 1] == [1.0] * (begin + 1)
    assert rates[-1] == 0.0
    assert min(rates[:-1]) > 0, "no update is for nothing"
    falls = [before - after for before, after in pairwise(rates[begin:])]
    assert falls == pytest.approx([1 / (end - begin)] * (end - begin))


@given(cooldowns, st.data())
def test_a_cool_down_takes_its_share_and_never_more_than_the_budget(cooldown: Cooldown, data: st.DataObject) -> None:
    start = data.draw(st.none() | st.integers(cooldown.earliest, cooldown.latest))
    begin, end = cooldown.latest if start is None else start, cooldown.end(start)
    assert 0 <= cooldown.earliest <= begin < end <= cooldown.budget
    assert start is not None or end == cooldown.budget
    wanted = max(LEAST_STEPS, cooldown.share * begin)
    assert end - begin >= min(wanted, cooldown.budget - cooldown.earliest) - 1e-9 or end == cooldown.budget
    assert begin == cooldown.earliest or end - begin <= wanted + 2


def test_a_start_is_the_check_that_was_not_better_often_enough() -> None:
    cooldown = Cooldown(1000, 0.25)
    checks = [(10, 0.2), (20, 0.5), (30, 0.4), (40, 0.5), (50, 0.45)]
    found = [cooldown.start(checks[: count + 1], patience=3) for count in range(5)]
    assert found == [None, None, None, None, 50], "as good is not better"
    assert cooldown.start([*checks[:4], (50, 0.51)], patience=3) is None
    assert cooldown.start(checks, patience=4) is None


def test_fresh_weights_that_find_nothing_yet_are_on_no_plateau() -> None:
    cooldown = Cooldown(1000, 0.25)
    assert cooldown.start([(step, 0.0) for step in range(10, 500, 10)], patience=3) is None


def test_scores_of_the_warm_up_do_not_count() -> None:
    cooldown = Cooldown(1000, 0.25, earliest=30)
    lucky = [(10, 0.9), (20, 0.1), (30, 0.1), (40, 0.2), (50, 0.3)]
    assert [cooldown.start(lucky[: count + 1], patience=2) for count in range(5)] == [None] * 5
    assert cooldown.start([*lucky, (60, 0.3), (70, 0.3)], patience=2) == 70


def test_once_the_budget_is_running_out_no_score_matters() -> None:
    cooldown = Cooldown(100, 0.25)
    assert cooldown.latest == 80
    flat = [(step, 0.5) for step in range(20, 101, 20)]
    assert cooldown.start(flat[:4], patience=3) == 80
    assert cooldown.start(flat[:5], patience=4) is None


def test_rates_warm_up_stay_and_cool_down() -> None:
    optim = OptimConfig(steps=1000, lr=2.0, warmup_steps=100, schedule="plateau", cooldown=0.25)
    assert optim.lr_at(0) == pytest.approx(0.02)
    assert {optim.lr_at(step) for step in range(99, 801)} == {2.0}
    assert optim.lr_at(900) == pytest.approx(1.0)
    assert optim.lr_at(1000) == 0
    assert {optim.lr_at(step, cool_from=400) for step in range(99, 401)} == {2.0}
    assert optim.lr_at(450, cool_from=400) == pytest.approx(1.0)
    assert optim.lr_at(500, cool_from=400) == 0


def test_a_cosine_knows_no_cool_down() -> None:
    optim = OptimConfig(steps=1000, warmup_steps=100)
    assert optim.cooling is None
    assert optim.lr_at(500, cool_from=300) == optim.lr_at(500)


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1])
def test_an_absurd_cool_down_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="cooldown"):
        OptimConfig(cooldown=share)
