"""The job that measures what corpora are worth: pretraining mixes x ratios x seeds, and the multiplier."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from statistics import median

from liftgs import codecs
from liftgs_platform import storage, sweep_plan
from liftgs_platform.job import Job, JobFailed
from liftgs_platform.progress import clock
from liftgs_platform.report import sweep as page
from liftgs_platform.spec import WHERE_ONLY
from liftgs_platform.stages import KINDS, PoolSpec, Stage, Store, order
from liftgs_platform.sweep_answers import answer
from liftgs_platform.sweep_collect import collect
from liftgs_platform.sweep_plan import CellPlan, PlanSpec
from liftgs_platform.sweep_results import cells_csv, multiplier_csv


@dataclass(frozen=True)
class Spec(PlanSpec):
    """What to compare, and where to.

    Attributes:
        output: the sweep's results: a folder or s3://bucket/name. Submitting again does what is missing.
        job: the kind of job.
        stages: folder of the stages, which sweeps share; "" = `stages` beside the output.
        metric: that the answer is about: AP25, AP50, AP, "Acc@.25 all", ...
        orderings: claims to test, each "best > next > none" of mixes.
        pool: how stages are run.
        dry_run: say what would be done and what is there already, how long it would take, and stop.
    """

    output: str = field(default="", metadata=WHERE_ONLY)
    job: str = "sweep"
    stages: str = field(default="", metadata=WHERE_ONLY)
    metric: str = "AP25"
    orderings: tuple[str, ...] = ()
    pool: PoolSpec = field(default_factory=PoolSpec, metadata=WHERE_ONLY)
    dry_run: bool = field(default=False, metadata=WHERE_ONLY)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.output:
            raise ValueError("needs an output")
        named = {name for claim in self.claims for name in claim} - {sweep_plan.SCRATCH, *self.mixes}
        if named:
            raise ValueError(f"orderings names {sorted(named)[0]!r}, which is no mix")

    @property
    def claims(self) -> tuple[tuple[str, ...], ...]:
        """The orderings, taken apart."""
        return tuple(tuple(name.strip() for name in claim.split(">")) for claim in self.orderings)


def resolve(spec: Spec, uri: Callable[[str], str], name_or_file: Callable[[str], str]) -> Spec:
    """The spec with absolute paths."""
    spec = sweep_plan.resolve(spec, uri, name_or_file)
    output = uri(spec.output)
    beside = storage.join(output.rstrip("/").rpartition("/")[0], "stages")
    return replace(spec, output=output, stages=uri(spec.stages) if spec.stages else beside)


def run(spec: Spec, job: Job) -> int:
    """Do what is missing, then write the report. Returns 1 if a stage failed.

    Raises:
        JobFailed: an input is missing, or no network could be evaluated.
    """
    cells = sweep_plan.plan(spec, job.file.parent)
    stages = order(stage for cell in cells for stage in cell.stages)
    store = Store(spec.stages)
    if spec.dry_run:
        print(forecast(spec, cells, stages, store))
        return 0
    job.connect()
    from liftgs_platform.stage_pool import Pool  # noqa: PLC0415  a dry run needs no Ray
    from liftgs_platform.sweep_view import View  # noqa: PLC0415

    folder = job.record(spec)
    for stage in stages:  # so that any may be done elsewhere
        store.describe(stage)
    reused = {stage.hash for stage in stages if store.done(stage)}
    with View(spec.output, store, stages, folder, lambda: write(spec, cells, store, reused)) as view:
        ends = Pool(store, spec.pool, job, view.changed).run(stages)
    uri = write(spec, cells, store, reused)
    failed = [one for one in ends.values() if one.state == "failed"]
    blocked = sum(one.state == "blocked" for one in ends.values())
    for one in failed:
        print(f"failed: {one.stage.title} ({one.stage.name}): {one.reason}")
    if failed:
        print(f"{len(failed)} stages failed, {blocked} wait for them; mend the cause and submit again")
    else:
        facts = {"stages": len(stages), "report": uri}
        storage.write_bytes(storage.join(folder, "result.json"), codecs.encode_json(facts))
    print(f"results: {spec.output}\nlook at it: {uri}")
    return 1 if failed else 0


def write(spec: Spec, cells: Sequence[CellPlan], store: Store, reused: frozenset[str] | set[str]) -> str:
    """Results, tables and the report of what is there so far; returns the report's URI.

    Raises:
        JobFailed: nothing is evaluated as yet.
    """
    results = collect(spec, cells, store, reused)
    if not results.cells:
        raise JobFailed(f"{spec.output}: no network is evaluated as yet; there is nothing to report")
    results = replace(results, name=storage.name_of(spec.output), task_metric=spec.metric, orderings=spec.claims)
    results.write(storage.join(spec.output, "results.json.gz"))
    found = answer(results)
    uri = storage.join(spec.output, "report.html")
    storage.write_bytes(storage.join(spec.output, "multiplier.csv"), multiplier_csv(found.multipliers).encode())
    storage.write_bytes(storage.join(spec.output, "cells.csv"), cells_csv(results).encode())
    storage.write_bytes(uri, page.render(results, found).encode())
    return uri


def forecast(spec: Spec, cells: Sequence[CellPlan], stages: Sequence[Stage], store: Store) -> str:
    """What `run` would do, what of it is there, and how long the rest takes, as far as finished stages tell."""
    known = store.all_done()
    there = {stage.hash for stage in stages if stage.name in known}
    lines = [f"{'output':<12}{spec.output}", f"{'stages':<12}{spec.stages}"]
    lines.append(f"{'networks':<12}{len(cells)}: {describe(spec)}")
    left_s, unknown = 0.0, False
    for kind in KINDS:
        mine = [stage for stage in stages if stage.kind == kind]
        missing = [stage for stage in mine if stage.hash not in there]
        took = [known[stage.name].seconds for stage in mine if stage.name in known]
        left_s += median(took) * len(missing) if took else 0.0
        unknown |= bool(missing) and not took
        alone = sum(kind == stage.kind for cell in cells for stage in cell.stages)
        pace = f", {clock(median(took))} each so far" if took else ""
        lines.append(
            f"{kind:<12}{len(mine)} stages ({alone} without sharing): {len(missing)} to run, "
            f"{len(mine) - len(missing)} reused{pace}"
        )
    at_once = f"; {spec.pool.most} at once" if spec.pool.most else ""
    lines.append(
        f"{'time':<12}{'more than ' if unknown else ''}{clock(left_s)} of stages, {spec.pool.cpus} CPUs each{at_once}"
    )
    return "\n".join([*lines, "dry run: nothing was done"])


def describe(spec: Spec) -> str:
    """The axes, in a line."""
    mixes = ", ".join([sweep_plan.SCRATCH, *spec.mixes])
    ratios = ", ".join(f"{ratio:g}" for ratio in spec.ratios)
    return f"mixes {mixes}; ratios {ratios}; {spec.seeds} seeds"
