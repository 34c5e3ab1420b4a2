"""What a job will take on a cluster, in words: for `dry_run`. From simulated lives of the job."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from liftgs_platform.progress import clock
from liftgs_platform.simulation import (
    LabellingModel,
    Nodes,
    Outcome,
    TrainingModel,
    best_interval,
    simulate,
    simulate_labelling,
)

LIVES = 20


def of_training(training: TrainingModel, nodes: Nodes) -> dict[str, str]:
    """Time, cost, and advice on checkpoints."""
    if nodes.count < training.least:
        return {"time": f"never: {training.least} workers are needed, on as many nodes, and nodes.count={nodes.count}"}
    lives = _lives(lambda seed: simulate(training, nodes, seed))
    goodput = np.mean([life.goodput for life in lives])
    best = best_interval(training, nodes, lives=5)
    return {
        **_time_and_cost(lives, nodes),
        "goodput": f"{goodput:.1%}, with {np.mean([life.restarts for life in lives]):.1f} restarts",
        "advice": f"checkpoint every {best:,} steps (now {training.checkpoint_every:,})"
        if nodes.mtbf_h or nodes.preempted_h
        else "no failures are expected; checkpoint as seldom as you like",
    }


def of_labelling(job: LabellingModel, nodes: Nodes) -> dict[str, str]:
    """Time, cost, and what limits it."""
    lives = _lives(lambda seed: simulate_labelling(job, nodes, seed))
    wanted = job.shard_mb * nodes.count / job.shard_s
    storage = f"{wanted:,.1f} MB/s of {nodes.storage_mb_per_s:,.0f}"
    return {
        **_time_and_cost(lives, nodes),
        "traffic": storage if wanted <= nodes.storage_mb_per_s else f"{storage}: the object store is the limit",
    }


def _lives(live: Callable[[int], Outcome]) -> list[Outcome]:
    return [live(seed) for seed in range(LIVES)]


def _time_and_cost(lives: Sequence[Outcome], nodes: Nodes) -> dict[str, str]:
    low, middle, high = np.quantile([life.wall_s for life in lives], [0.1, 0.5, 0.9])
    where = f"{nodes.count} node{'s' * (nodes.count > 1)}"
    told = f"about {clock(middle)} on {where}"
    if high > 1.02 * low:
        told += f", {clock(low)} to {clock(high)} in 8 of 10 lives"
    usd = np.mean([life.usd(nodes) for life in lives])
    return {"time": told} | ({"cost": f"about ${usd:,.0f}"} if nodes.usd_per_h else {})
