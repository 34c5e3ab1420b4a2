"""The loop around a training: samples in order, checkpoints, a log, and going on after anything died.

Knows nothing of what is trained, which is a `Task`, nor of Ray: `train` runs in any process, `training_ray` runs it in
a worker of Ray Train.
"""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic
from typing import Any, Literal

import numpy as np

from liftgs.formats import NewerFormat, check_format
from liftgs.scene import BadInput
from liftgs.training.world import ALONE, World
from liftgs_platform import checkpoints, storage
from liftgs_platform import spec as specs
from liftgs_platform.checkpoints import Cursor
from liftgs_platform.job import JobFailed
from liftgs_platform.loader import BadSamples, Loader
from liftgs_platform.mixture import Mixture
from liftgs_platform.training_log import Sink, TrainingLog
from liftgs_platform.training_task import Learner, Task, check, end_of

FORMAT = "liftgs-run/1"

#: Seconds between looks whether a node that trains is about to be taken away.
LOOK_EVERY_S = 2.0


class Preempted(RuntimeError):
    """A node that trains is about to be taken away; a checkpoint is committed. Go on from it elsewhere."""


@dataclass(frozen=True)
class LoopConfig:
    """How a run is kept, shown and fed. Nothing here changes what is learned.

    Attributes:
        checkpoint_every: steps between checkpoints; what a killed worker loses is less than that.
        keep_last: newest checkpoints that are kept.
        keep_every: checkpoints at multiples of so many steps are kept, too; 0 = no others.
        panel_every: steps between panels; 0 = none.
        panel_samples: samples in a panel.
        log_every: steps in a row of the log, which holds their means.
        loaders: threads that read samples and make items.
        prefetch: batches that may be ready or in the making.
        cache_mb: of samples' bytes that are kept in memory, read once; 0 = read them anew in every epoch.
        max_bad_rate: the run stops once more than this fraction of its samples (and more than 20) cannot be used.
    """

    checkpoint_every: int = 250
    keep_last: int = 2
    keep_every: int = 0
    panel_every: int = 250
    panel_samples: int = 2
    log_every: int = 1
    loaders: int = 1
    prefetch: int = 2
    cache_mb: int = 1024
    max_bad_rate: float = 0.01

    def __post_init__(self) -> None:
        at_least_1 = ("checkpoint_every", "keep_last", "panel_samples", "log_every", "loaders", "prefetch")
        if any(getattr(self, name) < 1 for name in at_least_1):
            raise ValueError(f"{', '.join(at_least_1)} must be at least 1")
        if min(self.keep_every, self.panel_every, self.cache_mb) < 0 or not 0 <= self.max_bad_rate < 1:
            raise ValueError(
                "keep_every, panel_every and cache_mb must not be negative, max_bad_rate from 0 to below 1"
            )


@dataclass(frozen=True)
class WorkerConfig:
    """The processes that train.

    Attributes:
        cpus: that each worker reserves, and threads it computes with; the last bits of a CPU's results depend on them.
        gpus: 1 = each worker trains on a GPU, 0 = on CPUs.
        least: workers that training starts with; with room for fewer it waits.
        most: workers that there are when the cluster has room; more join when nodes come.
        resize_every_s: how often it is looked whether more could join. Those that train commit a checkpoint then, and
            all go on from it.
        max_failures: so often they are started again from the newest checkpoint, after one died or raised, before a new
            checkpoint must have come; -1 = always. Nodes that are taken away with notice do not count.
    """

    cpus: int = 2
    gpus: Literal[0, 1] = 0
    least: int = 1
    most: int = 1
    resize_every_s: float = 60.0
    max_failures: int = 5

    def __post_init__(self) -> None:
        if self.cpus < 1 or self.max_failures < -1:
            raise ValueError("cpus must be at least 1, max_failures at least -1")
        if not 1 <= self.least <= self.most:
            raise ValueError(f"least must be from 1 to most ({self.most}), not {self.least}")


class Wishes:
    """Checkpoints that others ask of a training while it runs. Safe in threads."""

    def __init__(self) -> None:
        self._wanted, self._served, self._closed = 0, 0, False
        self._changed = threading.Condition()

    def checkpoint(self, patience_s: float) -> bool:
        """Ask for a checkpoint after the step that is under way, and wait until it is committed; False if it is not
        in time, or the training has ended."""
        with self._changed:
            self._wanted += 1
            mine = self._wanted
            self._changed.wait_for(lambda: self._served >= mine or self._closed, patience_s)
            return self._served >= mine

    @property
    def open(self) -> int:
        """What `served` gets once it is done; 0 if nothing is wished."""
        return self._wanted if self._wanted > self._served else 0

    def served(self, number: int) -> None:
        """Done, up to that wish."""
        with self._changed:
            self._served = max(self._served, number)
            self._changed.notify_all()

    def close(self) -> None:
        """The training has ended, well or not: nobody needs to wait any longer."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


@dataclass(frozen=True)
class Context:
    """Where a training runs.

    Attributes:
        device: of the model.
        sinks: that get the log's rows.
        world: this worker among those that train together. The first writes what the run leaves.
        wishes: of others; those of the first worker count.
        preempted: whether a node that trains is about to be taken away. All workers ask after the same steps.
    """

    device: str = "cpu"
    sinks: tuple[Sink, ...] = ()
    world: World = ALONE
    wishes: Wishes = field(default_factory=Wishes)
    preempted: Callable[[], bool] = lambda: False

    @property
    def writes(self) -> bool:
        """Whether this worker does."""
        return self.world.rank == 0


def train(task: Task, run: str, config: LoopConfig = LoopConfig(), context: Context = Context()) -> Cursor:
    """Train from the newest checkpoint of a run, or from the start, to the end: after all steps, or, where the task is
    validated, at a plateau.

    What is learned is a function of the task alone: the samples of a step by their positions, their randomness by their
    keys, torch's own by the step's number. So it does not matter where, or how often, a run was interrupted.

    Args:
        task: what to train.
        run: URI of the run's folder. It gets checkpoints/, log/, panels/, tensorboard/, report.html, and in the end the
            trained model itself: config.json and model.safetensors.
        config: of the loop.
        context: of this process.

    Returns:
        Where it ended.

    Raises:
        TooManyBadSamples: past `max_bad_rate`.
        BadInput: the newest checkpoint or a manifest is damaged.
        FileNotFoundError: a corpus is not there.
        Preempted: see `Context.preempted`.
    """
    mixture = task.mixture()
    places = [place for unit in context.world.places(task.batch_size) for place in unit]
    learner, cursor = resume(task, run, context)
    if cursor.step < end_of(task, cursor):
        loader = Loader(mixture, task.item, task.batch_size, config.loaders, config.prefetch, _one_thread, places)
        with loader, ExitStack() as stack:
            books = None
            if context.writes:
                writer = stack.enter_context(checkpoints.Writer(run, config.keep_last, config.keep_every))
                end = end_of(task, cursor)
                log = TrainingLog(run, end, cursor.step, config.log_every, context.sinks, context.world.size)
                books = _Books(task, config, stack.enter_context(log), writer, _shown(config, loader))
            cursor = _loop(task, config, context, learner, cursor, loader, books)
    if context.writes:
        publish(run, learner.model)
    return cursor


def _loop(
    task: Task,
    config: LoopConfig,
    context: Context,
    learner: Learner,
    cursor: Cursor,
    loader: Loader[Any],
    books: _Books | None,
) -> Cursor:
    """`books` is None in workers that write nothing."""
    bad = BadSamples(config.max_bad_rate, cursor.bad_samples)
    mark = looked = monotonic()
    for batch in loader.batches(cursor.step, task.steps):
        wait_s, step = monotonic() - mark, cursor.step + 1
        look = monotonic() - looked > LOOK_EVERY_S
        faults = [one for one in batch if one.bad is not None]
        told = context.world.gather((faults, context.wishes.open, look))
        _, wish, look = told[0]
        faults = [one for of_worker, _, _ in told for one in of_worker]
        news = bad.add(faults, step * task.batch_size)
        seed_torch(task.seed, cursor.step)
        values = dict(learner.step([one.item for one in batch]))
        skipped = cursor.skipped_steps + int(values.pop("skipped", 0.0))
        cursor = replace(
            cursor, step=step, samples_consumed=step * task.batch_size, bad_samples=bad.count, skipped_steps=skipped
        )
        cursor = check(task, learner, context.world, cursor)
        cursor = replace(cursor, seconds=round(cursor.seconds + monotonic() - mark, 3))
        preempted = False
        if look:
            preempted, looked = context.preempted(), monotonic()
        if books is not None:
            facts = _facts(cursor, loader.mixture) | {
                "checkpoint_age_s": books.writer.age_s,
                "commit_s": books.writer.commit_s,
            }
            books.enter(learner, cursor, facts, values | {"wait_s": wait_s}, news, task.batch_size - len(faults))
            if wish or preempted:
                books.save_now(learner, cursor)
        context.wishes.served(wish)
        if preempted:
            raise Preempted(f"after step {step}, whose checkpoint is committed")
        if step == end_of(task, cursor):
            break
        mark = monotonic()
    return cursor


@dataclass
class _Books:
    """What the first worker keeps of a run: log, panels, checkpoints.

    Attributes:
        task: that is trained.
        config: of the loop.
        log: open.
        writer: open.
        shown: items of the panels.
        saved: step of the newest checkpoint that was begun.
    """

    task: Task
    config: LoopConfig
    log: TrainingLog
    writer: checkpoints.Writer
    shown: list[Any]
    saved: int = -1

    def enter(
        self,
        learner: Learner,
        cursor: Cursor,
        facts: Mapping[str, float],
        values: Mapping[str, float],
        faults: Sequence[BadInput],
        items: int,
    ) -> None:
        """A step is done."""
        step = cursor.step
        last = step == end_of(self.task, cursor)
        for fault in faults:
            self.log.event(step - 1, "bad sample", str(fault))
        self.log.step(facts, dict(values) | _scores(cursor), items)
        if cursor.plateau == step:
            self.log.plateau(step)
        if self.shown and self.config.panel_every and (step % self.config.panel_every == 0 or last):
            self.log.picture(self.task.panel(learner, self.shown), step)
        if step % self.config.checkpoint_every == 0 or last:
            self._save(learner, cursor)

    def save_now(self, learner: Learner, cursor: Cursor) -> None:
        """Commit a checkpoint before anything else happens."""
        if self.saved != cursor.step:
            self._save(learner, cursor)
        self.writer.wait()

    def _save(self, learner: Learner, cursor: Cursor) -> None:
        self.log.end_row()
        self.writer.save(cursor, learner.model, learner.state_dict())
        self.log.flush()
        self.saved = cursor.step


def _shown(config: LoopConfig, loader: Loader[Any]) -> list[Any]:
    """The items of the panels."""
    return [one.item for one in map(loader.load, range(config.panel_samples)) if one.item is not None]


def _facts(cursor: Cursor, mixture: Mixture) -> dict[str, float]:
    return {
        "step": cursor.step,
        "samples": cursor.samples_consumed,
        "epoch": round(mixture.epochs(cursor.samples_consumed), 4),
        "skipped": cursor.skipped_steps,
        "bad_samples": cursor.bad_samples,
        "seconds": cursor.seconds,
    }


def _scores(cursor: Cursor) -> dict[str, float]:
    """Of the check that followed this step, if there was one."""
    if not cursor.checks or cursor.checks[-1][0] != cursor.step:
        return {}
    return {"score": cursor.checks[-1][1], "best_score": max(score for _, score in cursor.checks)}


def resume(task: Task, run: str, context: Context) -> tuple[Learner, Cursor]:
    """The learner and the cursor of a run's newest committed checkpoint, or new ones; the same on all workers.

    Raises:
        BadInput: that checkpoint is damaged.
    """
    uri = context.world.gather(checkpoints.newest(run) if context.writes else None)[0]
    seed_torch(task.seed)
    if uri is None:
        return task.learner(context.device, None, context.world), Cursor()
    with tempfile.TemporaryDirectory(prefix="liftgs-resume-") as scratch:
        found = checkpoints.load(uri, Path(scratch))
        learner = task.learner(context.device, found.folder, context.world)
    learner.load_state_dict(found.trainer)
    return learner, found.cursor


def seed_torch(*key: int) -> None:
    """Seed torch's own randomness by what it is for, so that no generator's state needs to be kept."""
    import torch  # noqa: PLC0415  only the worker needs it

    torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1))


def _one_thread() -> None:
    """Items are made beside the step, which has the CPUs; a loader's own pool of threads would fight it for them."""
    import torch  # noqa: PLC0415

    torch.set_num_threads(1)


def publish(run: str, model: Any) -> None:
    """Write the model into the run's folder itself, which `from_pretrained` then opens; its config comes last."""
    with tempfile.TemporaryDirectory(prefix="liftgs-model-") as scratch:
        model.save(Path(scratch))
        for file in sorted(Path(scratch).iterdir(), key=lambda file: file.name == "config.json"):
            storage.write_bytes(storage.join(run, file.name), file.read_bytes())


def claim(run: str, identity: Mapping[str, Any], spec: type | None = None) -> None:
    """Begin a run in a folder, or go on with the one that is there: it must be the same.

    Args:
        run: URI of the run's folder.
        identity: everything that decides what is learned; JSON-able.
        spec: dataclass of the spec, by whose defaults a run goes on that was begun before it had all its fields.

    Raises:
        JobFailed: the folder holds another run; says what differs.
    """
    uri = storage.join(run, "run.json")
    wanted = json.loads(json.dumps(identity))
    try:
        begun = json.loads(storage.read_bytes(uri))
        check_format(begun.get("format", "liftgs-run/1"), FORMAT, uri)
    except FileNotFoundError:
        record = json.dumps({"format": FORMAT, **wanted}, indent=1, sort_keys=True)
        storage.write_bytes(uri, record.encode() + b"\n")
        return
    except NewerFormat as error:
        raise JobFailed(str(error)) from None
    except (ValueError, AttributeError, RecursionError) as error:
        raise JobFailed(f"{uri}: not the record of a run ({error}); delete it, or choose another output") from None
    begun.pop("format", None)
    different = specs.differences(specs.completed(begun, spec), wanted)
    if different:
        raise JobFailed(
            f"{run} holds a run of another spec ({'; '.join(different)}); choose another output, or submit with the "
            "settings it was begun with"
        )
