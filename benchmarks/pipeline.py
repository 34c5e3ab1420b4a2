"""The labelling pipeline on Ray against a bare loop over the same stages on the same two cores.

Ours: `pseudolabel.label` at `scale=laptop` with the teachers that ship, on a Ray cluster of two CPUs. Peer: two plain
processes, one per core, each looping over half of the shards with `label_stages.run_in_process`, all stages in it, its
models loaded once, one thread. That is the fastest way to use two cores without a framework, and more than one loop in
one process, which would leave a core idle. Both label the same rooms with the same settings to the same bytes.

Shards are of one room, a quarter of the job's default, which is against us: Ray's work is per shard.

Steady state: a bare process is measured from its first committed shard to its last. The pipeline is measured between
its first commit and the end of loading, while all its stages have work; the lower of the frames loaded and the frames
committed then counts, so what was loaded ahead is not counted in our favour. Start-up is told apart: everything from
nothing to the first committed shard. The bare loop runs before and after ours, half of the rooms each time, since
machines drift.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing.synchronize import Barrier
from pathlib import Path
from statistics import fmean, harmonic_mean
from time import monotonic

from benchmarks._labelling import CPUS, Times, plan, read_spec, run_on_ray
from benchmarks._processes import in_child
from benchmarks.common import Row, cost_row, main, plain_row, rate_row
from liftgs_platform import pseudolabel
from liftgs_platform.label_stages import Stage, run_in_process
from liftgs_platform.pseudolabel import Spec
from liftgs_platform.shard_plan import PlannedShard

ROOMS = 32
VIEWS = 6

#: Fewer shards in the steady state than this make no rate.
LEAST_SHARDS = 8

_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


def measure() -> Iterator[Row]:
    """Frames per second, and start-up."""
    with tempfile.TemporaryDirectory() as folder:
        spec = partial(_spec, Path(folder))
        before = bare(spec("before"), slice(0, ROOMS // 2))
        ours = in_child(run_on_ray, spec("ray"), pseudolabel.factories, ("load", "commit"))
        after = bare(spec("after"), slice(ROOMS // 2, None))
    peer = harmonic_mean([sum(map(rate, halves)) for halves in (before, after)])
    yield rate_row("labelling, steady state", pipeline_rate(ours), peer, f"bare loop in {CPUS} processes", "frames/s")
    whole = ROOMS * VIEWS / (max(ours.ended["commit"].values()) - ours.started)
    bare_s = sum(max(max(t.ended["commit"].values()) for t in half) - half[0].started for half in (before, after))
    start_up = fmean(first_commit_s(times) for half in (before, after) for times in half)
    yield cost_row("start-up, to the first shard", first_commit_s(ours), start_up, "bare loop", "s")
    yield rate_row(
        f"labelling {ROOMS} rooms, start-up included",
        whole,
        ROOMS * VIEWS / (bare_s - start_up),
        "bare loop",
        "frames/s",
    )
    yield plain_row("shards in flight, at most", ours.lead(), "shards")


def _spec(folder: Path, name: str) -> Spec:
    source = f"source=procedural:apartments?scenes={ROOMS}&views={VIEWS}"
    return read_spec(source, f"output={folder / name}", "chunks_per_shard=1")


# ---- the bare loop

#: In a bare process: where it waits for the others, so that all start together.
_shared: list[Barrier] = []


def bare(spec: Spec, which: slice) -> list[Times]:
    """Label some of a corpus' shards in `CPUS` processes at once."""
    plans = plan(spec)
    wanted = plans[0].shards[which]
    context = multiprocessing.get_context("spawn")
    started = monotonic()
    with (
        _environment(_ONE_THREAD),  # before NumPy is imported there, which is when it looks
        ProcessPoolExecutor(CPUS, context, _share, (context.Barrier(CPUS),)) as processes,
    ):
        jobs = [processes.submit(_loop, started, spec, wanted[number::CPUS]) for number in range(CPUS)]
        return [job.result() for job in jobs]


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _share(barrier: Barrier) -> None:
    _shared.append(barrier)


def _loop(started: float, spec: Spec, wanted: Sequence[PlannedShard]) -> Times:
    stages: dict[str, Stage] = {}
    for name, build in pseudolabel.factories(spec, pseudolabel.open_plans(spec)).items():
        stages[name] = build(stages)
    _shared[0].wait()
    ended = {draft.shard.index: monotonic() for draft in run_in_process(list(stages.values()), wanted)}
    return Times(started, {"commit": ended})


# ---- rates


def first_commit_s(times: Times) -> float:
    """Seconds until the first shard."""
    return min(times.ended["commit"].values()) - times.started


def rate(times: Times) -> float:
    """Frames per second of one bare process, from its first commit to its last."""
    first, *_, last = sorted(times.ended["commit"].values())
    return (len(times.ended["commit"]) - 1) * VIEWS / (last - first)


def pipeline_rate(times: Times) -> float:
    """Frames per second while every stage has work; see the module.

    Raises:
        RuntimeError: there was no such time, or hardly any.
    """
    commits = sorted(times.ended["commit"].values())
    loaded = max(times.ended["load"].values())
    within = [t for t in commits if t <= loaded]
    if len(within) <= LEAST_SHARDS:
        raise RuntimeError(
            f"of {len(commits)} shards only {len(within)} were committed before the last was loaded: "
            "no steady state; make ROOMS larger, or bound what is in flight"
        )
    start, stop = within[0], within[-1]
    loads = sum(start < t <= stop for t in times.ended["load"].values())
    return min(len(within) - 1, loads) * VIEWS / (stop - start)


if __name__ == "__main__":
    main(measure, "Ray pipeline against a bare loop")
