"""Stages on Ray: any number at once, as many as fit; what dies is done again, what fails blocks what needs it alone.

A stage runs in an actor that is called after its hash. Of two sweeps that want the same stage at the same time, in one
cluster, the second so finds the first one's actor, waits for it, and goes on with what it made. Clusters that share
nothing but a bucket do not see each other: they may both do a stage, which is safe where the outcome is the same to the
bit, as on CPUs of one kind. Elsewhere give one of them the stage first.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import ray
from ray.exceptions import ActorUnavailableError, RayError

from liftgs_platform.job import Job, JobFailed
from liftgs_platform.label_teachers import use_threads
from liftgs_platform.stages import Done, PoolSpec, Stage, Store, Work, here, run_stage
from liftgs_platform.training_ray import WORKER_ENV

State = Literal["waiting", "running", "done", "reused", "failed", "blocked"]

_NAMESPACE = "liftgs-stages"
_LOOK_EVERY_S = 1.0


@dataclass
class Progress:
    """Of one stage.

    Attributes:
        stage: which.
        state: of it.
        done: how it ended.
        reason: why it failed or is blocked.
        attempts: how often it was started here.
    """

    stage: Stage
    state: State = "waiting"
    done: Done | None = None
    reason: str = ""
    attempts: int = 0


@dataclass
class Pool:
    """Runs the stages of a sweep.

    Attributes:
        store: their folder.
        spec: how.
        job: that does it.
        changed: is told of every change of a stage's state, and every few moments with None.
    """

    store: Store
    spec: PoolSpec
    job: Job
    changed: Callable[[Progress | None], None] = lambda _: None
    _running: dict[Any, tuple[Progress, Any]] = field(default_factory=dict)

    def run(self, stages: Sequence[Stage]) -> dict[str, Progress]:
        """Do what is missing.

        Args:
            stages: each once, after those that it needs; see `stages.order`.

        Returns:
            What came of each, by hash. This process must be connected to Ray.
        """
        all_of = {stage.hash: Progress(stage) for stage in stages}
        for one in all_of.values():
            one.done = self.store.done(one.stage)
            if one.done:
                self._change(one, "reused")
        try:
            while any(one.state in ("waiting", "running") for one in all_of.values()):
                self._start_ready(all_of)
                self._collect()
                self.changed(None)
        finally:
            for _, actor in self._running.values():
                ray.kill(actor)
            self._running.clear()
        return all_of

    def _start_ready(self, all_of: dict[str, Progress]) -> None:
        for one in all_of.values():
            if one.state != "waiting":
                continue
            needs = [all_of[needed] for needed in one.stage.inputs]
            lost = next((need for need in needs if need.state in ("failed", "blocked")), None)
            if lost is not None:
                self._change(one, "blocked", f"needs {lost.stage.title}, which {lost.state}")
            elif all(need.done for need in needs) and len(self._running) < self._room():
                wanted = sum(other.state in ("waiting", "running") for other in all_of.values())
                self._start(one, min(self._room(), wanted))

    def _room(self) -> int:
        """Stages at once: what is asked for, which Ray lets wait for nodes, or what fits on those there are."""
        if self.spec.most:
            return self.spec.most
        there = ray.cluster_resources()
        fits = there.get("CPU", 0) // self.spec.cpus
        if self.spec.gpus:
            fits = min(fits, there.get("GPU", 0) // self.spec.gpus)
        return max(1, int(fits))

    def _start(self, one: Progress, sharers: int) -> None:
        """`sharers`: stages that may run at the same time, this one too."""
        one.attempts += 1
        reserved = {"num_cpus": 0} if self.spec.on_ray else {"num_cpus": self.spec.cpus, "num_gpus": self.spec.gpus}
        actor = _StageActor.options(  # type: ignore[attr-defined]
            name=one.stage.hash,
            namespace=_NAMESPACE,
            get_if_exists=True,
            runtime_env={"env_vars": WORKER_ENV},
            **reserved,
        ).remote(self.spec.cpus, self.spec.gpus > 0)
        sharers = sharers if self.spec.on_ray else 0
        self._running[actor.run.remote(self.store, one.stage, sharers, self.job)] = (one, actor)
        self._change(one, "running")

    def _collect(self) -> None:
        ended, _ = ray.wait(list(self._running), num_returns=1, timeout=_LOOK_EVERY_S) if self._running else ([], [])
        for reference in ended:
            one, actor = self._running.pop(reference)
            try:
                outcome = ray.get(reference)
            except ActorUnavailableError:  # its node does not answer, or it is stopped; it may well go on
                one.attempts -= 1
                time.sleep(_LOOK_EVERY_S)
                self._change(one, "waiting", "its process does not answer; it is asked again")
                continue
            except RayError as death:  # also where a node's memory monitor or its working_dir ended it
                with suppress(RayError):  # gives its name free, which the next one is to have
                    ray.kill(actor)
                time.sleep(_LOOK_EVERY_S)
                again = one.attempts <= self.spec.retries
                self._change(one, "waiting" if again else "failed", f"its process is lost: {_first_line(death)}")
                continue
            ray.kill(actor)  # a new process for the next stage: torch keeps what memory it has had
            if isinstance(outcome, Done):
                one.done = outcome
                self._change(one, "done")
            else:
                self._change(one, "failed", outcome)

    def _change(self, one: Progress, state: State, reason: str = "") -> None:
        one.state, one.reason = state, reason
        self.changed(one)


@ray.remote(max_restarts=0)
class _StageActor:
    """A process that does one stage; others that want it ask it too, and get what it made."""

    def __init__(self, threads: int, gpu: bool):
        self._threads, self._gpu = threads, gpu

    def run(self, store: Store, stage: Stage, sharers: int, job: Job) -> Done | str:
        """How it ended, or why it cannot be done. `sharers`: see `_on_ray`; 0 = in this process."""
        use_threads(self._threads)
        try:
            return run_stage(store, stage, _on_ray(sharers, job) if sharers else here(self._threads, self._gpu))
        except JobFailed as reason:
            return str(reason)
        except Exception as error:  # the sweep goes on with what does not need this
            traceback.print_exc()
            return f"{type(error).__name__}: {error}; the traceback is in the log of this stage's process"


def _on_ray(sharers: int, job: Job) -> Work:
    """Work in pools and workers of its own. Elastic stages leave room for as many others as may run beside them."""

    def work(stage: Stage, spec: Any) -> tuple[float, str]:
        start = time.monotonic()
        if hasattr(spec, "worker"):
            worker = spec.worker
            kind = "GPU" if worker.gpus else "CPU"
            workers = ray.cluster_resources().get(kind, 1) // (worker.gpus or worker.cpus)
            most = max(worker.least, min(worker.most, int(workers // sharers)))
            spec = replace(spec, worker=replace(worker, most=most))
        stage.module.run(spec, job)
        return time.monotonic() - start, ""

    return work


def _first_line(error: BaseException) -> str:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return lines[0].strip() if lines else type(error).__name__
