"""The labelling job as a benchmark runs it: at `scale=laptop`, on a Ray cluster of its own."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from liftgs_platform import pseudolabel
from liftgs_platform import spec as specs
from liftgs_platform.job import resolve, resolve_if_file
from liftgs_platform.label_pool import StageFactory
from liftgs_platform.label_stages import ShardDraft, Stage, Watch, unwatched
from liftgs_platform.pseudolabel import Spec
from liftgs_platform.shard_plan import Plan, write_plan

JOB = Path(__file__).parents[1] / "jobs" / "pseudolabel.yaml"

#: The machine of the issue's figures; on a larger one, both sides of a comparison still use this many.
CPUS = 2

Build = dict[str, StageFactory]


def read_spec(*overrides: str) -> Spec:
    """What `jobs/pseudolabel.yaml` and overrides ask for."""
    return pseudolabel.resolve(specs.load(JOB, overrides, Spec), resolve, resolve_if_file)


def plan(spec: Spec) -> list[Plan]:
    """The plan of a new corpus, written into it."""
    plans = pseudolabel.open_plans(spec)
    write_plan(spec.output, plans[-1])
    return plans


@dataclass(frozen=True)
class Times:
    """When stages were done with shards; seconds of one clock that all processes of a machine share.

    Attributes:
        started: before anything was started.
        ended: stage -> shard -> when.
    """

    started: float
    ended: Mapping[str, Mapping[int, float]]

    def lead(self) -> int:
        """The most shards that were loaded and not yet committed at one time."""
        steps = [(t, 1) for t in self.ended["load"].values()] + [(t, -1) for t in self.ended["commit"].values()]
        lead = most = 0
        for _, step in sorted(steps):
            lead += step
            most = max(most, lead)
        return most


def run_on_ray(
    spec: Spec, stages: Callable[[Spec, Sequence[Plan]], Mapping[str, Any]], clocked: Sequence[str]
) -> Times:
    """Label a new corpus in this process, as its driver. For a process of its own: Ray leaves much behind.

    Args:
        spec: of the job.
        stages: the job's own `pseudolabel.factories`, or others.
        clocked: stages whose progress is wanted.
    """
    started = monotonic()
    import ray

    ray.init(address="local", num_cpus=CPUS, include_dashboard=False, logging_level=logging.WARNING)
    plans = plan(spec)
    with tempfile.TemporaryDirectory() as folder:
        build = dict(stages(spec, plans))
        build |= {name: Clocked(build[name], folder) for name in clocked}
        pseudolabel.label(spec, plans, plans[0].shards, build)
        ray.shutdown()
        ended: dict[str, dict[int, float]] = {name: {} for name in clocked}
        for file in Path(folder).iterdir():
            name, _, shard = file.name.partition("-")
            ended[name][int(shard)] = float(file.read_text())
    return Times(started, ended)


@dataclass(frozen=True)
class Clocked:
    """Builds a stage that notes, in a file, when it was done with each shard. Not for stages that others look for."""

    build: StageFactory
    folder: str

    def __call__(self, before: Mapping[str, Stage]) -> Stage:
        """See `label_pool.StageFactory`."""
        return _ClockedStage(self.build(before), Path(self.folder))


class _ClockedStage:
    def __init__(self, stage: Stage, folder: Path):
        self.stage, self.folder, self.name = stage, folder, stage.name

    def __call__(self, draft: ShardDraft, watch: Watch = unwatched) -> None:
        self.stage(draft, watch)
        (self.folder / f"{self.name}-{draft.shard.index}").write_text(repr(monotonic()))
