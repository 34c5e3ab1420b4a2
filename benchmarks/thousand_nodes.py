"""Goodput of a training on a cluster whose nodes die, against the steps between checkpoints, by simulation.

No clock is read: these are lives of `liftgs_platform.simulation`, which `benchmarks.elastic` holds against measured
ones. A step of `base` takes what it took on an H100; a node dies every 500 hours, which at a thousand nodes is every
half hour; a restart takes what it took on one machine, and half a minute more. A checkpoint stalls the steps for half a
second and is committed 20 s later: none can begin before, so very short intervals wait. The peer is Young's interval,
sqrt(2 x stall x MTBF), which knows neither that wait nor what a commit that comes late loses.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from benchmarks.common import Row, main, plain_row, rate_row
from liftgs_platform.simulation import Nodes, TrainingModel, best_interval, mean_goodput, young_s

MTBF_H = 500.0
LIVES = 8
TRAINING = TrainingModel(
    steps=20_000,
    item_s=0.2,
    batch_size=1024,
    overhead_s=0.05,
    checkpoint_s=0.5,
    commit_s=20.0,
    restart_s=50.0,
    most=1024,
)
INTERVALS = (20, 100, 500, 2000)


def measure() -> Iterator[Row]:
    """A block of rows per size of the cluster."""
    for count in (8, 64, 1024):
        nodes = Nodes(count, mtbf_h=MTBF_H, back_s=300.0)
        training = replace(TRAINING, batch_size=count, most=count)
        for every in INTERVALS:
            goodput = mean_goodput(replace(training, checkpoint_every=every), nodes, LIVES)
            yield plain_row(f"{count} nodes, checkpoint every {every} steps", 100 * goodput, "%")
        best = best_interval(training, nodes, LIVES)
        young = max(1, round(young_s(training.checkpoint_s, MTBF_H * 3600 / count) / training.step_s(count)))
        found, by_rule = (
            100 * mean_goodput(replace(training, checkpoint_every=every), nodes, LIVES) for every in (best, young)
        )
        yield rate_row(f"{count} nodes, every {best} steps, the best", found, by_rule, f"Young's {young} steps", "%")


if __name__ == "__main__":
    main(measure, "Goodput at a thousand nodes, by simulation")
