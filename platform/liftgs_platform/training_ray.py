"""A training in a worker of Ray Train, which is started again when it dies."""

from __future__ import annotations

import logging
import math
import os
import tempfile
from dataclasses import asdict
from typing import Any

import ray
from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import get_or_create_autoscaling_coordinator
from ray.exceptions import RayError
from ray.experimental import internal_kv
from ray.train.torch import TorchConfig
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError
from ray.train.v2._internal.execution.callback import ControllerCallback, WorkerGroupCallback
from ray.train.v2.api.config import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
from ray.train.v2.api.exceptions import TrainingFailedError
from ray.train.v2.torch.torch_trainer import TorchTrainer

from liftgs.scene import BadInput
from liftgs.training.world import World
from liftgs_platform import checkpoints, storage
from liftgs_platform.checkpoints import Cursor
from liftgs_platform.job import JobFailed
from liftgs_platform.label_teachers import use_threads
from liftgs_platform.loader import TooManyBadSamples
from liftgs_platform.training import Context, LoopConfig, Wishes, WorkerConfig, train
from liftgs_platform.training_log import RayMetrics
from liftgs_platform.training_task import Task

#: Kept from the start of a worker: torch on a CPU frees and asks for the same megabytes in every layer, and fresh pages
#: were most of a step before. glibc reads these once, before Python runs; see also `label_teachers.use_threads`.
WORKER_ENV = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "17179869184",
    "MALLOC_TOP_PAD_": "268435456",
    "MALLOC_ARENA_MAX": "1",  # other arenas give pages back; items are worked on in threads
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}


#: What Ray Train waits for. A node that died while workers were being placed costs no more than the first of these,
#: and whoever sets one of them in the environment of the job keeps it.
PATIENCE = {
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "15",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1",
    "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "2",
}

#: How long workers may take to commit a checkpoint before they are started anew with others.
RESIZE_PATIENCE_S = 120.0

_CONTROLLER = "ray.train.v2._internal.execution.controller.controller"

#: Of the training in this process, if there is one.
_WISHES = Wishes()


def train_on_ray(task: Task, run: str, config: LoopConfig, worker: WorkerConfig) -> Cursor:
    """`train` in workers of Ray Train; this process must be connected to Ray.

    Ray Train orchestrates, and is given no checkpoint to store: ours are in the run's folder.

    Raises:
        JobFailed: it cannot go on, or workers failed too often while no checkpoint was committed.
    """
    available = ray.cluster_resources()
    for kind, wanted in (("CPU", worker.cpus), ("GPU", worker.gpus)):
        if wanted > available.get(kind, 0):
            print(
                f"note: the worker reserves {wanted} {kind}s and the cluster has {available.get(kind, 0):g}; it waits"
            )
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")  # relative paths mean the same in the worker as here
    os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")  # which prints every line twice
    for name, seconds in PATIENCE.items():
        os.environ.setdefault(name, seconds)
    while True:
        before = checkpoints.newest(run)
        try:
            outcome = _fit(task, run, config, worker)
            break
        except TrainingFailedError as error:
            reason = f"the worker failed more than {worker.max_failures} times; at last: {_last_line(error)}"
            if checkpoints.newest(run) == before:
                raise JobFailed(reason) from error
            print(f"{reason}\ngoing on nevertheless, since there was progress", flush=True)
    if "stopped" in outcome:
        raise JobFailed(outcome["stopped"])
    return Cursor(**outcome)


def _fit(task: Task, run: str, config: LoopConfig, worker: WorkerConfig) -> dict[str, Any]:
    """What the first worker returned."""
    reserved = {"CPU": worker.cpus, "GPU": worker.gpus} if worker.gpus else {"CPU": worker.cpus}
    with tempfile.TemporaryDirectory(prefix="liftgs-ray-train-") as scratch:
        trainer = _Trainer(
            run,
            f"{worker.least} x {' and '.join(f'{count} {kind}' for kind, count in reserved.items())}",
            _work,
            train_loop_config={"task": task, "run": run, "config": config, "worker": worker},
            torch_config=TorchConfig(backend="nccl" if worker.gpus else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=worker.most if worker.least == worker.most else (worker.least, worker.most),
                elastic_resize_monitor_interval_s=worker.resize_every_s,
                use_gpu=bool(worker.gpus),
                resources_per_worker=reserved,
            ),
            run_config=RunConfig(
                name="run",
                storage_path=scratch,
                failure_config=FailureConfig(max_failures=worker.max_failures),
                worker_runtime_env={"env_vars": WORKER_ENV},
                logging_config=LoggingConfig("ERROR"),
            ),
        )
        result: Any = trainer.fit()
    outcome: dict[str, Any] = result.return_value
    return outcome


class _Trainer(TorchTrainer):
    """With `_Orderly`; and without Ray's cleaner of placement groups: where no dashboard runs, it logs every second
    that it cannot ask one, and a placement group ends with the actor that made it anyway.
    """

    def __init__(self, run: str, wanted: str, *arguments: Any, **more: Any):
        self._run, self._wanted = run, wanted
        super().__init__(*arguments, **more)

    def _create_default_callbacks(self) -> list[Any]:
        made: list[Any] = super()._create_default_callbacks()
        kept = [callback for callback in made if type(callback).__name__ != "PlacementGroupCleanerCallback"]
        return [*kept, _Orderly(self._run, self._wanted)]


class _Waiting(logging.Filter):
    """A training that waits for others to leave says so once a minute; Ray Train prints a traceback each time."""

    def __init__(self, wanted: str) -> None:
        super().__init__()
        self._wanted, self._told = wanted, -math.inf

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it is printed."""
        if not record.exc_info or not isinstance(record.exc_info[1], WorkerGroupStartupTimeoutError):
            return True
        record.msg = f"waiting until the cluster has {self._wanted} free; `ray status` tells what is taken"
        record.args, record.exc_info = (), None
        due = record.created >= self._told + 60
        self._told = record.created if due else self._told
        return due


class _Orderly(ControllerCallback, WorkerGroupCallback):
    """Runs in Ray Train's controller, and mends two of its habits.

    It stops workers without a word when there is room for more of them: here they commit a checkpoint first. And what
    it has reserved stays reserved for three minutes after its driver was killed, so that the same job, submitted again,
    would find no room: here a run gives up what it had reserved before.
    """

    def __init__(self, run: str, wanted: str) -> None:
        self._key = f"liftgs-training:{run}".encode()
        self._wanted = wanted
        self._workers: list[Any] = []

    def after_controller_start(self, train_run_context: Any) -> None:
        """Take over from an earlier driver of this run."""
        before = internal_kv._internal_kv_get(self._key)
        if before is not None:
            ray.get(get_or_create_autoscaling_coordinator().cancel_request.remote(before.decode()), timeout=30)
        internal_kv._internal_kv_put(self._key, f"train-{train_run_context.run_id}".encode(), overwrite=True)
        logging.getLogger(_CONTROLLER).addFilter(_Waiting(self._wanted))

    def after_worker_group_start(self, worker_group: Any) -> None:
        """They are there."""
        self._workers = list(worker_group.get_workers())

    def before_worker_group_shutdown(self, worker_group: Any) -> None:
        """They are about to go, or gone."""
        self._workers = []

    def after_worker_group_abort(self, worker_group_context: Any) -> None:
        """They are gone."""
        self._workers = []

    def after_controller_state_update(self, previous_state: Any, current_state: Any) -> None:
        """Workers still train when the controller has decided that there will be another number of them."""
        if type(current_state).__name__ != "ResizingState":
            return
        for worker in self._workers:
            if worker.distributed_context.world_rank == 0:
                try:
                    ray.get(worker.execute_async(_checkpoint_now), timeout=RESIZE_PATIENCE_S + 10)
                except RayError as error:  # it died: the newest checkpoint has to do
                    logging.getLogger(__name__).warning("no checkpoint before the resize: %s", error)


def _checkpoint_now() -> bool:
    """Runs beside the training in the first worker's process."""
    return _WISHES.checkpoint(RESIZE_PATIENCE_S)


def _preempted() -> bool:
    return ray.train.get_preemption_info() is not None


def _work(config: dict[str, Any]) -> dict[str, Any]:
    """What the worker does. Where trying again would not help, it returns the reason instead of raising it."""
    task: Task = config["task"]
    worker: WorkerConfig = config["worker"]
    use_threads(worker.cpus)
    metrics = RayMetrics(storage.name_of(config["run"]))
    place = ray.train.get_context()
    world = World(place.get_world_rank(), place.get_world_size())
    context = Context("cuda" if worker.gpus else "cpu", (metrics,), world, _WISHES, _preempted)
    hopeless: tuple[type[Exception], ...] = (TooManyBadSamples, *task.hopeless)
    try:
        return asdict(train(task, config["run"], config["config"], context))
    except hopeless as reason:  # all workers meet these at the same step
        return {"stopped": str(reason)}
    except (BadInput, FileNotFoundError) as reason:
        if world.size > 1:  # perhaps this one's node alone, and returning would leave the others waiting for it
            raise
        return {"stopped": str(reason)}
    finally:
        _WISHES.close()


def _last_line(error: BaseException) -> str:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else repr(error)
