"""Evaluation on Ray Data: a pool of actors, each with one network at a time."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import cast

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy

from liftgs_platform.evaluate_work import Examiner, Sheet, marked
from liftgs_platform.job import JobFailed
from liftgs_platform.label_pool import configure, gave_up
from liftgs_platform.label_teachers import use_threads

#: Sheets of one network that an actor gets in a row, so that it loads networks seldom.
_TOGETHER = 4
_NO_PROGRESS_S = 1800.0
#: Processes that may die of one group of sheets before the job ends.
_DEATHS = 5


class _Actor:
    def __init__(self, examiner: Examiner, threads: int, gpu: bool):
        use_threads(threads)
        self.examiner = replace(examiner, device="cuda" if gpu else "cpu")

    def __call__(self, batch: pa.Table) -> pa.Table:
        sheets: list[Sheet] = pickle.loads(batch["sheets"][0].as_buffer())
        for sheet in sheets:
            self.examiner(sheet)
        return pa.table({"done": [len(sheets)]})


def examine_all(
    examiner: Examiner, sheets: Sequence[Sheet], least: int, most: int, cpus: int, gpus: float
) -> Iterator[int]:
    """Examine them, in any order; yields how many are done so far. This process must be connected to Ray.

    Raises:
        JobFailed: a sheet kills each process that examines it, or nothing goes on.
    """
    by_network: dict[str, list[Sheet]] = {}
    for sheet in sheets:
        by_network.setdefault(sheet.checkpoint, []).append(sheet)
    rows = [
        {"sheets": pickle.dumps(group[start : start + _TOGETHER], protocol=5)}
        for group in by_network.values()
        for start in range(0, len(group), _TOGETHER)
    ]
    configure(_NO_PROGRESS_S)
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        _Actor,
        fn_constructor_args=(examiner, cpus, gpus > 0),
        batch_size=1,
        batch_format="pyarrow",
        zero_copy_batch=True,
        compute=ActorPoolStrategy(min_size=least, max_size=most, max_tasks_in_flight_per_actor=2),
        num_cpus=cpus,
        num_gpus=gpus,
        max_task_retries=_DEATHS,
    )
    done = 0
    try:
        for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            done += sum(cast(pa.Table, batch)["done"].to_pylist())
            yield done
    except ray.exceptions.RayError as error:
        there = marked(examiner.output)
        left = [f"{sheet.key} by {sheet.name}" for sheet in sheets if sheet.path not in there]
        told = f"{len(left)} of {len(sheets)} could not be examined, {', '.join(left[:_TOGETHER])} among them"
        raise JobFailed(f"{examiner.output}: {told}; {gave_up(error)}") from error
