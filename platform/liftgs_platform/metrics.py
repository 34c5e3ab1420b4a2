"""Every metric that our code exports: the one list that code, dashboard, alerts and documentation share.

Ray's agent on each node exports them to Prometheus, with `ray_` in front and with labels of its own, of which
`WorkerId` tells processes apart. A counter counts since a process started, and outlives it; a gauge is gone some twenty
seconds after its process, or after it was closed. Imports no Ray until an instrument is made.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

#: Seconds between repetitions of what gauges say; Ray collects every ten, as it comes.
REPEAT_EVERY_S = 1.0


@dataclass(frozen=True)
class Metric:
    """A metric as our code emits it.

    Attributes:
        name: as given to Ray.
        kind: counters only rise, gauges go up and down, histograms count observations by size.
        unit: of the value.
        meaning: in a sentence.
        labels: that our code sets.
        emitted_by: the module that does.
        buckets: upper bounds of a histogram's, in `unit`.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    unit: str
    meaning: str
    labels: tuple[str, ...]
    emitted_by: str
    buckets: tuple[float, ...] = ()

    @property
    def exported(self) -> str:
        """As Prometheus has it, but for a histogram's endings."""
        return f"ray_{self.name}"

    @property
    def series(self) -> tuple[str, ...]:
        """Names that may stand in a query."""
        if self.kind == "histogram":
            return tuple(f"{self.exported}_{ending}" for ending in ("bucket", "sum", "count"))
        return (self.exported,)


def _of_stage(name: str, unit: str, meaning: str) -> Metric:
    return Metric(name, "counter", unit, meaning, ("stage",), "liftgs_platform.monitoring")


def _of_run(name: str, unit: str, meaning: str, *labels: str) -> Metric:
    return Metric(name, "gauge", unit, meaning, ("run", *labels), "liftgs_platform.training_log")


#: The label `stage` is one of `label_stages.STAGES`; `corpus`, `run` and `sweep` are the names of the output's folder.
METRICS = (
    _of_stage("liftgs_frames_total", "frames", "Frames that a stage has labelled"),
    _of_stage("liftgs_masks_total", "masks", "Segments that a stage has made, embedded, captioned or stored"),
    _of_stage("liftgs_bytes_total", "bytes", "Bytes that a stage has made; for commit, the size of the tars"),
    _of_stage("liftgs_quarantined_total", "frames", "Frames that a stage has put into quarantine"),
    _of_stage("liftgs_stage_busy_seconds_total", "seconds", "Time that a stage has worked, over all its processes"),
    Metric(
        "liftgs_shard_seconds",
        "histogram",
        "seconds",
        "Time that a stage has worked on one shard; Ray keeps the count and the buckets exactly, the sum roughly",
        ("stage",),
        "liftgs_platform.monitoring",
        buckets=(0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0),
    ),
    Metric(
        "liftgs_labelling_frames_left",
        "gauge",
        "frames",
        "Frames of a labelling job that have not passed a stage",
        ("corpus", "stage"),
        "liftgs_platform.monitoring",
    ),
    _of_run(
        "liftgs_training_value",
        "by name",
        "What a step returned, as the mean over a row of the log: losses, norms, rates, seconds by phase",
        "name",
    ),
    _of_run("liftgs_training_step", "steps", "Optimiser steps that a training has done"),
    _of_run("liftgs_training_items_per_second", "items/s", "Items that a training uses"),
    _of_run("liftgs_training_skipped_steps", "steps", "Steps without an update, since something was not finite"),
    _of_run("liftgs_training_bad_samples", "samples", "Samples that could not be used since the run began"),
    _of_run("liftgs_training_workers", "workers", "Workers that train together"),
    _of_run("liftgs_training_restarts", "restarts", "How often workers began anew since the run began"),
    _of_run("liftgs_training_goodput", "share", "Of the time since the run began, what went into steps which count"),
    _of_run("liftgs_training_checkpoint_age_seconds", "seconds", "Since the newest checkpoint was committed"),
    _of_run("liftgs_training_wait_share", "share", "Of a step, what is spent waiting for data"),
    Metric(
        "liftgs_sweep_stages",
        "gauge",
        "stages",
        "Stages of a sweep that are in a state",
        ("sweep", "state"),
        "liftgs_platform.monitoring",
    ),
)

_BY_NAME = {metric.name: metric for metric in METRICS}


class Gauge:
    """A gauge that says its last values again and again until it is closed.

    Ray's own is gone when it was silent for two reports, and with it whatever would tell of a process that hangs.
    """

    def __init__(self, of_ray: Any):
        """`of_ray`: the gauge of `ray.util.metrics`."""
        self._gauge = of_ray
        self._last: dict[tuple[tuple[str, str], ...], float] = {}
        _KEPT.add(self)

    def set(self, value: float, tags: Mapping[str, str]) -> None:
        """The value from now on, for these labels."""
        with _LOCK:
            self._last[tuple(sorted(tags.items()))] = value
            self._gauge.set(value, tags=dict(tags))

    def repeat(self) -> None:
        """Say it again."""
        with _LOCK:
            for tags, value in self._last.items():
                self._gauge.set(value, tags=dict(tags))

    def close(self) -> None:
        """Say nothing again."""
        _KEPT.discard(self)


_KEPT: set[Gauge] = set()
_LOCK = threading.Lock()


def _repeat() -> None:
    while True:
        time.sleep(REPEAT_EVERY_S)
        for gauge in list(_KEPT):
            with suppress(Exception):  # Ray may be gone; the work is not to suffer from it
                gauge.repeat()


@cache
def _keep() -> None:
    threading.Thread(target=_repeat, name="metrics", daemon=True).start()


def instrument(name: str) -> Any:
    """The `Counter` or `Histogram` of `ray.util.metrics`, or the `Gauge` of ours, for a metric of the list.

    Raises:
        KeyError: there is no such metric.
    """
    import ray.util.metrics as of_ray  # noqa: PLC0415  the list is read without Ray

    metric = _BY_NAME[name]
    if metric.kind == "histogram":
        return of_ray.Histogram(name, metric.meaning, boundaries=list(metric.buckets), tag_keys=metric.labels)
    if metric.kind == "counter":
        return of_ray.Counter(name, description=metric.meaning, tag_keys=metric.labels)
    _keep()
    return Gauge(of_ray.Gauge(name, description=metric.meaning, tag_keys=metric.labels))


def table() -> str:
    """The list in Markdown."""
    rows = [
        f"| `{metric.exported}` | {metric.kind} | {metric.unit} | {', '.join(f'`{x}`' for x in metric.labels)} "
        f"| {metric.meaning} |"
        for metric in METRICS
    ]
    return "\n".join(["| name | type | unit | labels | meaning |", "| --- | --- | --- | --- | --- |", *rows])
