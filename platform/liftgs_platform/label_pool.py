"""The stages of labelling on Ray Data: a pool of actors runs one or several stages on the shards that come by.

A row is a shard in the making: its number, and the draft. Drafts are pickled, like all that Ray moves between the
processes of one job. Imports no model; a pool's actors load theirs when they start.
"""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

# Read by Ray Data when it is first imported: a pool may run ahead of the next one by as many shards as that one has in
# hand (`configure`), however much room the object store has. By default it may fill half of the store first.
os.environ.setdefault("RAY_DATA_DOWNSTREAM_CAPACITY_OBJECT_STORE_BUDGET_UTIL_THRESHOLD", "0")

import pyarrow as pa
import ray
from ray.actor import ActorHandle
from ray.data import ActorPoolStrategy, DataContext, Dataset
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from liftgs.scene import Chunk
from liftgs_platform.faults import describe, device_is_broken
from liftgs_platform.label_stages import KilledHere, ShardDraft, Stage, Tally
from liftgs_platform.ledger import DEATHS_TO_CONVICT, DEATHS_TO_GIVE_UP, Ledger, Place
from liftgs_platform.monitoring import StageMetrics
from liftgs_platform.shard_plan import PlannedShard, QuarantineRow
from liftgs_platform.vllm_env import runtime_env

SCHEMA = pa.schema([("shard", pa.int64()), ("draft", pa.large_binary())])

#: Builds a stage inside an actor, given the stages before it in the same actor.
StageFactory = Callable[[Mapping[str, Stage]], Stage]


@dataclass(frozen=True)
class Pool:
    """A pool of actors.

    Attributes:
        name: its stages, joined by "+".
        factories: stage -> what builds it, in order.
        min: fewest actors.
        max: most actors.
        num_cpus: CPUs that one actor reserves.
        num_gpus: GPUs that one actor reserves; a fraction shares one.
        threads: of one actor's computation.
        python: another interpreter for the actors; "" = the driver's.
    """

    name: str
    factories: Mapping[str, StageFactory]
    min: int
    max: int
    num_cpus: float
    num_gpus: float = 0.0
    threads: int = 1
    python: str = ""

    def __str__(self) -> str:
        size = f"{self.min}" if self.max == self.min else f"{self.min}..{self.max}"
        return f"{self.name} x {size}" + (f" ({self.num_gpus:g} GPU)" if self.num_gpus else "")


@dataclass(frozen=True)
class Failure:
    """Something that ends the job: in which stage, where, what, and the traceback."""

    stage: str
    where: str
    error: str
    traceback: str

    def __str__(self) -> str:
        return f"stage {self.stage}, {self.where}: {self.error}" if self.where else f"stage {self.stage}: {self.error}"


@dataclass(frozen=True)
class Result:
    """What the driver learns about a shard: that it is committed, or why the job must end."""

    shard: int
    tallies: dict[str, Tally]
    quarantine: list[QuarantineRow]
    failure: Failure | None = None


class PoolActor:
    """One actor of a pool. Never raises for a reason that a person must read: that travels on as a `Failure`."""

    def __init__(self, pool: Pool, ledger: ActorHandle, last: bool):
        # Before torch or a BLAS is first imported here, which is when they look.
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            os.environ[name] = str(pool.threads)
        self.pool, self.ledger, self.last = pool, ledger, last
        self.metrics = StageMetrics()
        self.stages: dict[str, Stage] = {}
        self.failure: Failure | None = None
        for name, build in pool.factories.items():
            try:
                self.stages[name] = build(self.stages)
            except Exception as fault:
                where, error, trace = describe(fault, "")
                self.failure = Failure(name, where, error, trace)
                return

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Run the stages on one row."""
        shard = batch["shard"][0].as_py()
        item = pickle.loads(batch["draft"][0].as_buffer())
        draft = ShardDraft(item) if isinstance(item, PlannedShard) else item
        if isinstance(draft, ShardDraft):
            failure = self.failure or self._run(shard, draft)
            if failure is not None or self.last:
                draft = Result(shard, draft.tallies, draft.quarantine, failure)
        return row(shard, draft)

    def _run(self, shard: int, draft: ShardDraft) -> Failure | None:
        place = Place("", "", "")

        def watch(stage: str, chunk: Chunk, frame: str | None) -> None:
            nonlocal place
            place = Place(stage, chunk.key, frame or "")
            deaths: Any = ray.get(self.ledger.at.remote(self.pool.name, shard, place))
            if deaths >= DEATHS_TO_CONVICT:
                raise KilledHere(
                    f"the process died {deaths} times at this place: a crash, or more memory than there is"
                )

        died: Any = ray.get(self.ledger.begin.remote(self.pool.name, shard))
        if died >= DEATHS_TO_GIVE_UP:
            return Failure(
                "+".join(self.stages), f"shard {shard}", f"{died} processes died while they worked on it", ""
            )
        before = {name: vars(tally).copy() for name, tally in draft.tallies.items()}
        for name, stage in self.stages.items():
            try:
                stage(draft, watch)
            except Exception as fault:
                if device_is_broken(fault):
                    logging.getLogger(__name__).error("%s: %s; this process gives up its device", place, fault)
                    os._exit(1)  # a new one starts, and the ledger remembers the place
                where, error, trace = describe(fault, " ".join(filter(None, (place.chunk, place.frame))))
                return Failure(name, where, error, trace)
        done = {name: draft.tallies[name] for name in self.stages if name in draft.tallies and name not in before}
        self.metrics.add(done)
        self.ledger.end.remote(self.pool.name, shard, done)
        return None


def row(shard: int, item: PlannedShard | ShardDraft | Result) -> pa.Table:
    """One row of the dataset."""
    return pa.table({"shard": [shard], "draft": [pickle.dumps(item, protocol=5)]}, schema=SCHEMA)


def start_ledger() -> Any:
    """A ledger on this very node, which lives as long as this driver. If it is killed, a new one counts from nought."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options: dict[str, Any] = {"num_cpus": 0, "scheduling_strategy": here, "max_restarts": -1, "max_task_retries": -1}
    return ray.remote(Ledger).options(**options).remote()


def pipeline(planned: Sequence[PlannedShard], pools: Sequence[Pool], ledger: ActorHandle) -> Dataset:
    """Planned shards -> one `Result` each, in any order.

    Each pool takes two shards per actor, one at work and one waiting, and stops while as many wait for the next pool as
    that one has taken, so what is in flight depends on the number of actors, not on how many shards there are. Ray Data
    restarts dead actors and gives their shards out again without end; the ledger sets the bound.
    """
    rows = [{"shard": shard.index, "draft": pickle.dumps(shard, protocol=5)} for shard in planned]
    dataset: Dataset = ray.data.from_items(rows, override_num_blocks=len(rows))
    for pool in pools:
        options: dict[str, Any] = {"runtime_env": runtime_env(pool.python)} if pool.python else {}
        dataset = dataset.map_batches(
            PoolActor,
            fn_constructor_args=(pool, ledger, pool is pools[-1]),
            batch_size=1,
            batch_format="pyarrow",
            zero_copy_batch=True,
            compute=ActorPoolStrategy(min_size=pool.min, max_size=pool.max, max_tasks_in_flight_per_actor=2),
            num_cpus=pool.num_cpus,
            num_gpus=pool.num_gpus,
            **options,
        )
    return dataset


def configure(no_progress_timeout_s: float) -> None:
    """Ray Data's settings for this driver."""
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_no_progress_timeout_s = no_progress_timeout_s
    context.downstream_capacity_backpressure_ratio = 1.0
    context.target_max_block_size = 1  # a row is a block is a shard: what Ray moves, retries and counts
    context.max_consecutive_actor_init_deaths = 10  # an actor may be killed while it loads its model
    context.wait_for_min_actors_s = -1
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            handler.setLevel(logging.ERROR)  # the rest goes to Ray's own log files only


def results(dataset: Dataset) -> Any:
    """The results as they come."""
    for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        for draft in batch["draft"]:
            yield pickle.loads(draft.as_buffer())


def obituary(error: Exception, ledger: ActorHandle) -> str:
    """Why Ray gave up, naming the shard that workers died of, if there is one."""
    deaths: list[tuple[int, Place, int]] = []
    with suppress(ray.exceptions.RayError):  # a ledger that does not answer is no reason to hide the first fault
        deaths = ray.get(ledger.deadliest.remote(), timeout=10)
    where = "; ".join(
        f"shard {shard}, {place.chunk} {place.frame}, stage {place.stage}: {count} processes died there"
        for shard, place, count in deaths
    )
    return gave_up(error) + (f" ({where})" if where else "")


def gave_up(error: Exception) -> str:
    """What Ray said last, in a line."""
    return f"Ray gave up: {' '.join(str(error).split())[:500]}"
