"""The simulated cluster: against what can be reckoned by hand, Young's formula, and a slow twin going by seconds."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from statistics import fmean

import numpy as np
import pytest

from liftgs_platform import forecast
from liftgs_platform.simulation import (
    LabellingModel,
    Nodes,
    TrainingModel,
    best_interval,
    mean_goodput,
    simulate,
    simulate_labelling,
    young_s,
)

TRAINING = TrainingModel(
    steps=1000, item_s=1.0, checkpoint_every=100, checkpoint_s=2.0, commit_s=5.0, restart_s=30.0, resize_every_s=60.0
)


def test_without_failures_it_is_the_sum_of_its_parts() -> None:
    calm = simulate(TRAINING, Nodes(mtbf_h=0))
    assert calm.wall_s == pytest.approx(30 + 1000 + 10 * 2 + 5)
    assert (calm.useful_s, calm.restarts, calm.lost_steps) == (1000, 0, 0)
    assert calm.node_s == pytest.approx(calm.wall_s)


def test_workers_share_a_batch_by_whole_items() -> None:
    shared = replace(TRAINING, batch_size=8, overhead_s=0.5, most=3)
    assert [shared.step_s(workers) for workers in (1, 2, 3)] == [8.5, 4.5, 3.5]
    assert simulate(shared, Nodes(4, mtbf_h=0)).useful_s == 3500, "no more than it can use"


def test_a_life_is_a_function_of_its_seed() -> None:
    nodes = Nodes(3, mtbf_h=0.2, back_s=60)
    elastic = replace(TRAINING, batch_size=3, most=3)
    assert simulate(elastic, nodes, 4) == simulate(elastic, nodes, 4)
    assert simulate(elastic, nodes, 4) != simulate(elastic, nodes, 5)


def test_what_is_announced_loses_nothing() -> None:
    sudden = simulate(TRAINING, Nodes(mtbf_h=0.1, back_s=10))
    announced = simulate(TRAINING, Nodes(mtbf_h=0, preempted_h=0.1, notice_s=60, back_s=10))
    too_late = simulate(TRAINING, Nodes(mtbf_h=0, preempted_h=0.1, notice_s=5.9, back_s=10))
    assert sudden.lost_steps > 50
    assert announced.lost_steps == 0
    assert announced.restarts > 1
    assert too_late.lost_steps > 50


def test_it_grows_when_nodes_come_back() -> None:
    elastic = replace(TRAINING, steps=20_000, batch_size=2, most=2)
    grown, alone = (simulate(elastic, Nodes(2, mtbf_h=3, back_s=back_s), 1) for back_s in (60, 1e9))
    assert grown.restarts > alone.restarts
    assert grown.wall_s < 0.8 * alone.wall_s


def test_it_waits_where_too_few_are_left() -> None:
    whole = replace(TRAINING, batch_size=2, least=2, most=2)
    waits, goes_on = (simulate(one, Nodes(2, mtbf_h=0.5, back_s=600), 3) for one in (whole, replace(whole, least=1)))
    assert waits.goodput < goes_on.goodput
    with pytest.raises(ValueError, match="1 nodes, and the training needs 2"):
        simulate(whole, Nodes(1))


def by_seconds(training: TrainingModel, mtbf_s: float, back_s: int, rng: np.random.Generator) -> float:
    """Goodput of a training on one node, second after second: an independent, slow account of the same story."""
    clock = useful = 0
    saved = 0
    while True:
        wait, done, since_start, commits = int(training.restart_s), saved, 0, []
        fails_in = max(1, round(rng.exponential(mtbf_s)))
        while True:
            clock += 1
            since_start += 1
            saved = max([saved, *(step for at, step in commits if at <= clock)])
            if since_start >= fails_in:
                clock += back_s
                break
            if wait:
                wait -= 1
                continue
            if done == training.steps:
                useful = training.steps
                return useful / clock
            done += 1  # a step takes a second
            if done % training.checkpoint_every == 0:
                wait = int(training.checkpoint_s)
                commits.append((clock + training.commit_s, done))


def test_goodput_is_that_of_a_slow_twin() -> None:
    rng = np.random.default_rng(0)
    for every in (20, 100, 500):
        training = replace(TRAINING, steps=3000, checkpoint_every=every)
        slow = fmean(by_seconds(training, 1200.0, 60, rng) for _ in range(60))
        fast = mean_goodput(training, Nodes(mtbf_h=1200 / 3600, back_s=60), lives=60)
        assert fast == pytest.approx(slow, rel=0.07), every


def test_the_best_interval_is_about_youngs() -> None:
    training = replace(TRAINING, steps=50_000, commit_s=0.0)
    for mtbf_h in (1.0, 10.0):
        found = best_interval(training, Nodes(mtbf_h=mtbf_h, back_s=0), lives=10)
        assert 0.4 < found / young_s(training.checkpoint_s, mtbf_h * 3600) < 2.5
    assert math.isclose(young_s(2.0, 3600), 120)


# ---- labelling

SHARDS = LabellingModel(shards=100, shard_s=60.0, start_s=30.0)


def test_labelling_without_failures_is_shards_over_nodes() -> None:
    calm = simulate_labelling(SHARDS, Nodes(8, mtbf_h=0))
    assert calm.wall_s == pytest.approx(30 + math.ceil(100 / 8) * 60)
    assert (calm.useful_s, calm.lost_steps) == (6000, 0)


def test_a_slow_object_store_is_the_limit() -> None:
    job = replace(SHARDS, shard_mb=1000)
    slow = simulate_labelling(job, Nodes(10, mtbf_h=0, storage_mb_per_s=50))
    assert slow.wall_s > 0.9 * 100 * 1000 / 50
    assert "the object store is the limit" in forecast.of_labelling(job, Nodes(10, storage_mb_per_s=50))["traffic"]


def test_lost_nodes_cost_their_shards_and_nothing_else() -> None:
    nodes = Nodes(8, mtbf_h=0.2, back_s=60)
    lives = [simulate_labelling(SHARDS, nodes, seed) for seed in range(30)]
    assert all(life.useful_s == 6000 for life in lives)
    lost, failures = fmean(life.lost_steps for life in lives), fmean(life.wall_s for life in lives) * 8 / 720
    assert 0.5 * failures < lost < failures, "most nodes are at work when they die"


# ---- in words


def test_a_forecast_tells_time_cost_and_how_often_to_checkpoint() -> None:
    training = replace(TRAINING, steps=20_000, batch_size=8, most=8, checkpoint_every=2000)
    told = forecast.of_training(training, Nodes(8, mtbf_h=10, usd_per_h=4))
    assert re.fullmatch(r"about \d:\d\d:\d\d on 8 nodes, \d:\d\d:\d\d to \d:\d\d:\d\d in 8 of 10 lives", told["time"])
    assert told["cost"].startswith("about $")
    assert "(now 2,000)" in told["advice"]
    assert int(told["advice"].split()[2].replace(",", "")) < 500
    assert "never" in forecast.of_training(replace(training, least=9, most=9), Nodes(8))["time"]
