"""Training on several nodes that die: scaling, goodput against Ray Train's defaults, and the time until work goes on.

`tiny` pretrains on a Ray cluster of one-core nodes on this machine. Scaling sets two workers that share a batch against
one, and against two trainings of one worker each at once, which is what the machine allows.

For goodput a node is killed (SIGKILL to all of its processes) every two minutes, and comes back half a minute later.
The peer is the loop of Ray Train's guide with the same network, data, batches and steps between checkpoints: a fixed
number of workers, checkpoints through `ray.train.report`, and everything else at its defaults, but for `max_failures`,
whose default of 0 would end it at the first kill. Both get what happened from their own logs: a step counts when it was
not done again later. "Goodput" is the time in steps that count over the time from the first step to the last. Steps on
fewer workers are slower, and yet count; "of the undisturbed speed" takes steps as long as they are on two workers.

Recovery is from a kill to the end of the first step after it that counts, while the workers that a node took with it
are gone. Last, the same lives in `liftgs_platform.simulation`, with what was measured.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks import _default_training
from benchmarks._processes import in_child
from benchmarks.common import Row, least_row, plain_row, rate_row, report
from benchmarks.shards import make_contents, write_ours
from liftgs.pretraining.items import ItemConfig
from liftgs.pretraining.objective import ObjectiveConfig
from liftgs.training.trainer import OptimConfig
from liftgs_platform import manifest, training_log
from liftgs_platform.mixture import CorpusSpec
from liftgs_platform.pretrain import Pretraining, Spec
from liftgs_platform.simulation import Nodes, TrainingModel, simulate
from liftgs_platform.training import LoopConfig, WorkerConfig

WORKERS, BATCH = 2, 4
KILL_EVERY_S, BACK_S = 120.0, 30.0
CHECKPOINT_EVERY = 10
SCALING_STEPS, WARM_UP = 30, 5
PHASES = ("wait_s", "forward_s", "backward_s", "update_s")


@dataclass(frozen=True)
class Done:
    """A step that was done, perhaps in vain.

    Attributes:
        step: its number.
        at: UNIX time of its end.
        seconds: it took.
        workers: that did it.
    """

    step: int
    at: float
    seconds: float
    workers: int


def measure(minutes: float) -> Iterator[Row]:
    """Scaling, goodput, recovery, simulation."""
    with tempfile.TemporaryDirectory() as scratch:
        corpus = Path(scratch, "corpus")
        write_ours(make_contents(), corpus)
        manifest.write(str(corpus))
        one, two, apart = scaling(corpus, Path(scratch))
        yield plain_row("one worker", one, "items/s")
        yield rate_row("two workers", two, 2 * one, "twice one worker", "items/s")
        yield rate_row("two workers", two, apart, "two trainings at once", "items/s")
        steps = round(minutes * 60 * two / BATCH)
        step_s = BATCH / two
        lives = {}
        for name, drive in (("ours", drive_ours), ("Ray Train's defaults", drive_default)):
            lives[name] = disturbed(drive, spec_of(corpus, Path(scratch, name.split("'")[0]), steps))
        ours, peer = lives.values()
        yield rate_row("goodput", goodput(ours.done), goodput(peer.done), "Ray Train's defaults", "", bound=1.0)
        yield least_row("goodput", goodput(ours.done), 0.9, "")
        yield rate_row(
            "of the undisturbed speed", speed(ours.done, step_s), speed(peer.done, step_s), "Ray Train's defaults", ""
        )
        recoveries = {name: recovery_s(life) for name, life in lives.items()}
        yield rate_row(
            "from a kill to the next step that counts, per s",
            1 / statistics.mean(recoveries["ours"]),
            1 / statistics.mean(recoveries["Ray Train's defaults"]),
            "Ray Train's defaults",
            "/s",
        )
        for name, seconds in recoveries.items():
            yield plain_row(f"{name}: from a kill to the next step that counts", statistics.mean(seconds), "s")
        expected = simulated(ours, steps, step_s)
        yield rate_row("simulated goodput", expected, goodput(ours.done), "measured", "")


def spec_of(corpus: Path, run: Path, steps: int, workers: int = WORKERS) -> Spec:
    """The same for all."""
    return Spec(
        str(run),
        corpora=(CorpusSpec(str(corpus)),),
        item=ItemConfig(views=2, image_px=128, same_query=0.85),
        objective=ObjectiveConfig(match_px=64),
        optim=OptimConfig(steps=steps, batch_size=BATCH, lr=1e-3),
        loop=LoopConfig(checkpoint_every=CHECKPOINT_EVERY, panel_every=0),
        worker=WorkerConfig(cpus=1, least=1, most=workers, resize_every_s=10, max_failures=-1),
    )


# ---- drivers, each in a process of its own


def drive_ours(address: str, spec: Spec) -> None:
    """As the job does."""
    import ray

    from liftgs_platform.training_ray import train_on_ray

    ray.init(address=address, log_to_driver=False)
    train_on_ray(Pretraining(spec), spec.output, spec.loop, spec.worker)


def drive_default(address: str, spec: Spec) -> None:
    """Ray Train as its guide has it."""
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    ray.init(address=address, log_to_driver=False)
    ray.cloudpickle.register_pickle_by_value(_default_training)
    Path(spec.output).mkdir(parents=True, exist_ok=True)
    TorchTrainer(
        _default_training.default_loop,
        train_loop_config={"spec": spec},
        scaling_config=ScalingConfig(num_workers=spec.worker.most, resources_per_worker={"CPU": 1}),
        run_config=RunConfig(name="run", storage_path=spec.output, failure_config=FailureConfig(max_failures=-1)),
    ).fit()


def done_by(spec: Spec) -> list[Done]:
    """From whichever log there is: each step as it was done last."""
    file = Path(spec.output, "done.jsonl")
    if file.exists():
        rows = [json.loads(line) for line in file.read_text().splitlines()]
    else:
        rows = [row | {"seconds": sum(row[phase] for phase in PHASES)} for row in measured(spec.output)]
    last = {row["step"]: Done(row["step"], row["at"], row["seconds"], int(row["workers"])) for row in rows}
    return [last[step] for step in sorted(last)]


def measured(run: str) -> list[dict[str, Any]]:
    """Rows of a log without events."""
    return [row for row in training_log.read(run) if "step_s" in row]


# ---- clusters


@contextmanager
def cluster(nodes: int) -> Iterator[tuple[Any, list[Any]]]:
    """A head that trains nothing, and nodes of one CPU."""
    from ray.cluster_utils import Cluster

    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    alert = {"health_check_initial_delay_ms": 2000, "health_check_period_ms": 1000, "health_check_failure_threshold": 4}
    made = Cluster(True, head_node_args={"num_cpus": 0, "include_dashboard": False, "_system_config": alert})
    try:
        yield made, [made.add_node(num_cpus=1) for _ in range(nodes)]
    finally:
        made.shutdown()


def scaling(corpus: Path, scratch: Path) -> tuple[float, float, float]:
    """Items/s of one worker, of two, and of two trainings of one at once."""

    def rate(name: str, workers: int, address: str) -> float:
        spec = spec_of(corpus, scratch / name, SCALING_STEPS, workers)
        spec = replace(spec, worker=replace(spec.worker, least=workers))
        in_child(drive_ours, address, spec)
        return BATCH / statistics.median(one.seconds for one in done_by(spec)[WARM_UP:])

    with cluster(2) as (made, _):
        one, two = rate("one", 1, made.address), rate("two", 2, made.address)
        with ThreadPoolExecutor(2) as pool:
            apart = sum(pool.map(lambda name: rate(name, 1, made.address), ("left", "right")))
    return one, two, apart


@dataclass(frozen=True)
class Life:
    """Steps that counted, and when nodes were killed."""

    done: list[Done]
    kills: list[float]


def disturbed(drive: Callable[[str, Spec], None], spec: Spec) -> Life:
    """A training whose nodes are killed in turn, here: Ray starts nodes in the main thread only."""
    kills: list[float] = []
    with cluster(WORKERS) as (made, nodes), ThreadPoolExecutor(1) as pool:
        training = pool.submit(in_child, drive, made.address, spec)

        def ended_within(seconds: float) -> bool:
            wait([training], seconds)
            return training.done()

        while not ended_within(0.5) and not done_by(spec):
            pass
        while not ended_within(KILL_EVERY_S - BACK_S * bool(kills)):
            made.remove_node(nodes.pop(0), allow_graceful=False)
            kills.append(time.time())
            if not ended_within(BACK_S):
                nodes.append(made.add_node(num_cpus=1))
        training.result()
    return Life(done_by(spec), kills)


# ---- what it says


def goodput(done: Sequence[Done]) -> float:
    """See the top."""
    return sum(one.seconds for one in done) / _wall_s(done)


def speed(done: Sequence[Done], step_s: float) -> float:
    """See the top."""
    return len(done) * step_s / _wall_s(done)


def _wall_s(done: Sequence[Done]) -> float:
    return done[-1].at - (done[0].at - done[0].seconds)


def recovery_s(life: Life) -> list[float]:
    """Per kill before the last step."""
    return [
        min(one.at for one in life.done if one.at - one.seconds > kill) - kill
        for kill in life.kills
        if kill < life.done[-1].at - life.done[-1].seconds
    ]


def simulated(life: Life, steps: int, step_s: float) -> float:
    """Mean goodput of many lives with as frequent failures as were seen."""
    wall_s = _wall_s(life.done)
    alone = [one.seconds for one in life.done if one.workers == 1]
    item_s = (statistics.median(alone) - step_s) / (BATCH - math.ceil(BATCH / WORKERS)) if alone else step_s / BATCH
    training = TrainingModel(
        steps=steps,
        item_s=item_s,
        batch_size=BATCH,
        overhead_s=max(0.0, step_s - math.ceil(BATCH / WORKERS) * item_s),
        checkpoint_every=CHECKPOINT_EVERY,
        restart_s=statistics.mean(recovery_s(life)) - step_s,
        resize_every_s=10,
        most=WORKERS,
    )
    mtbf_h = WORKERS * wall_s / max(1, len(life.kills)) / 3600
    nodes = Nodes(WORKERS, mtbf_h=mtbf_h, back_s=BACK_S)
    return statistics.mean(simulate(training, nodes, seed).goodput for seed in range(50))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Training on nodes that die")
    parser.add_argument("--json", action="store_true", help="one object {'rows': [...]} instead of a table")
    parser.add_argument("--minutes", type=float, default=8.0, help="of undisturbed training, for each of two")
    arguments = parser.parse_args()
    report(measure(arguments.minutes), parser.description or "", arguments.json)


if __name__ == "__main__":
    main()
