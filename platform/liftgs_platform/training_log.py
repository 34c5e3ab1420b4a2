"""What a training says of itself: rows in `log/`, TensorBoard, Ray metrics, a progress line, panels, a report.

A row is the mean of what the steps since the last row returned. Rows are kept as JSON lines in files of a thousand
steps, since an object store cannot append. All of it is for people and dashboards; training reads nothing back. A run
that is resumed from a checkpoint drops the rows after it, so that the log is that of one run.
"""

from __future__ import annotations

import io
import json
import math
import tempfile
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from time import monotonic, time
from types import TracebackType
from typing import Any, Protocol

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from liftgs_platform import storage
from liftgs_platform.metrics import instrument
from liftgs_platform.progress import clock
from liftgs_platform.report import training as report

#: Seconds between progress lines, and between rewrites of the files that others read meanwhile.
LINE_EVERY_S, FLUSH_EVERY_S = 10.0, 30.0
_LINES_OF_RATE = 20

#: Steps in a file of the log.
FILE_STEPS = 1000

Row = dict[str, Any]


class Sink(Protocol):
    """Gets every row, when it is made."""

    def write(self, row: Row) -> None:
        """`row`: "step" and numbers; see `TrainingLog`."""

    def picture(self, name: str, image: UInt8[np.ndarray, "h w 3"], step: int) -> None:
        """A panel."""

    def flush(self) -> None:
        """Make what was written visible."""

    def close(self) -> None:
        """No more rows."""


class TrainingLog:
    """The log of a run's folder. Use as a context.

    Rows hold "step", "samples", "epoch", "items_per_s", "items_per_s_per_worker", "wait_s" (per step, for data),
    "wait_share" (of the step), "step_s" (per step, in all), "skipped" and "bad_samples" (since the run began),
    "checkpoint_age_s", "commit_s" (that the last checkpoint took), "workers", "restarts" (since the run began),
    "goodput" (the share of the time since the run began that went into steps which count), "at" (UNIX time), and the
    mean of each finite value that the steps returned. A row ends with each check, and holds its "score" and the
    "best_score" so far. Events, such as a bad sample, are rows with "event"; "start" is one for each time that workers
    began, with "workers" and "at".
    """

    def __init__(
        self,
        run: str,
        total_steps: int,
        first_step: int = 0,
        log_every: int = 1,
        sinks: Sequence[Sink] = (),
        workers: int = 1,
    ):
        """Args:
        run: URI of the run's folder.
        total_steps: at which training ends, at the latest.
        first_step: steps done before; rows of later steps are dropped.
        log_every: steps in a row.
        sinks: beside the files and TensorBoard.
        workers: that train together.
        """
        self.run, self.total_steps, self.log_every, self.workers = run, total_steps, log_every, workers
        self.rows: list[Row] = [row for row in read(run) if row["step"] <= first_step]
        self._unwritten = _file_number(first_step)  # files from this number on are to be written
        for uri in _files(run)[self._unwritten + 1 :]:
            storage.delete(uri)
        self._sinks = [TensorBoard(storage.join(run, "tensorboard"), first_step), *sinks]
        self._first_step = first_step
        self._told = deque([(first_step, monotonic())], maxlen=_LINES_OF_RATE)  # steps and times of the last lines
        self._pending: list[Mapping[str, float]] = []
        self._last: Row = {}
        self._printed = self._flushed = self._since = monotonic()
        self._items = 0
        starts = [row for row in self.rows if row.get("event") == "start"]
        self._began, self._restarts = (starts[0]["at"] if starts else time()), len(starts)
        self.event(first_step, "start", f"{workers} worker{'s' * (workers > 1)}", workers=workers, at=time())
        self._write()

    def __enter__(self) -> TrainingLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end_row()
        self.flush()
        for sink in self._sinks:
            sink.close()

    def step(self, facts: Mapping[str, float], values: Mapping[str, float], items: int) -> None:
        """A step is done.

        Args:
            facts: "step", "samples", "epoch", "skipped", "bad_samples" and "seconds", all since the run began.
            values: of this step; their means make the row. With a "score", the row ends here.
            items: used by it.
        """
        self._pending.append(values)
        self._items += items
        self._last = dict(facts)
        if facts["step"] % self.log_every == 0 or facts["step"] == self.total_steps or "score" in values:
            self.end_row()
        now = monotonic()
        tell = "score" in values or facts["step"] in (self._first_step + 1, self.total_steps)
        if now - self._printed >= LINE_EVERY_S or tell:
            print(self.line(values), flush=True)
            self._told.append((int(facts["step"]), now))
            self._printed = now
        if now - self._flushed >= FLUSH_EVERY_S:
            self.flush()

    def event(self, step: int, event: str, what: str, **more: float) -> None:
        """Something that a person should know of, such as a bad sample."""
        self.rows.append({"step": step, "event": event, "what": what, **more})
        print(f"step {step}: {event}: {what}", flush=True)

    def plateau(self, step: int) -> None:
        """Scores have stopped rising, so training ends here."""
        self.total_steps = step
        self.event(step, "plateau", "validation has not improved for as many checks as it may, so training ends")

    def picture(self, image: UInt8[np.ndarray, "h w 3"], step: int) -> None:
        """Store a panel as `panels/step-000500.png`, and show it to the sinks."""
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG")
        storage.write_bytes(storage.join(self.run, "panels", f"step-{step:06d}.png"), buffer.getvalue())
        for sink in self._sinks:
            sink.picture("panel", image, step)

    def flush(self) -> None:
        """Write everything that others read."""
        self._write()
        for sink in self._sinks:
            sink.flush()
        report.write(self.run, self.rows, self.total_steps)
        self._flushed = monotonic()

    def _write(self) -> None:
        """Files that changed."""
        changed = [row for row in self.rows if _file_number(row["step"]) >= self._unwritten]
        for number, rows in groupby(changed, lambda row: _file_number(row["step"])):
            data = b"".join(json.dumps(row, allow_nan=False).encode() + b"\n" for row in rows)
            storage.write_bytes(storage.join(self.run, "log", f"{number:06d}.jsonl"), data)
            self._unwritten = number

    def line(self, values: Mapping[str, float]) -> str:
        """Progress in one line. The rate is that of the last minutes: a pause, or a slow hour, is soon forgotten."""
        step = int(self._last["step"])
        step_then, then = self._told[0]
        each_s = (monotonic() - then) / max(1, step - step_then)
        parts = [f"step {step}/{self.total_steps}", f"epoch {self._last['epoch']:.2f}"]
        parts += [f"{name} {values[name]:.4g}" for name in _SHOWN if name in values]
        parts += [f"{each_s:.2f} s/step", f"about {clock((self.total_steps - step) * each_s)} left"]
        parts += [f"{self._last[name]:g} {word}" for name, word in _COUNTED if self._last.get(name)]
        return " | ".join(parts)

    def end_row(self) -> None:
        """Close the row here, as before a checkpoint, so that rows do not depend on where a run was resumed."""
        if not self._pending:
            return
        now = monotonic()
        seconds = max(now - self._since, 1e-9)
        values = means(self._pending)
        rates = {
            "items_per_s": self._items / seconds,
            "items_per_s_per_worker": self._items / seconds / self.workers,
            "step_s": seconds / len(self._pending),
            "wait_share": values.get("wait_s", 0.0) * len(self._pending) / seconds,
            "at": time(),
            "workers": self.workers,
            "restarts": self._restarts,
            "goodput": self._last.pop("seconds") / max(time() - self._began, 1e-9),
        }
        row = {**self._last, **values, **rates}
        self.rows.append(row)
        for sink in self._sinks:
            sink.write(row)
        self._pending, self._since, self._items = [], now, 0


_SHOWN = ("loss", "lr", "score", "best_score")
_COUNTED = (("skipped", "steps skipped"), ("bad_samples", "bad samples"))


def means(values: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean of each name over the steps where it is finite; a name that never is is left out."""
    names = dict.fromkeys(name for one in values for name in one)
    finite = {name: [one[name] for one in values if name in one and math.isfinite(one[name])] for name in names}
    return {name: sum(found) / len(found) for name, found in finite.items() if found}


def read(run: str) -> list[Row]:
    """The rows of a run's log, in order; none if there is no log."""
    return [json.loads(line) for uri in _files(run) for line in storage.read_bytes(uri).splitlines()]


def newest(run: str) -> Row | None:
    """The last row of a run's log that is of a step; None if there is none as yet."""
    files = _files(run)
    rows = [json.loads(line) for line in storage.read_bytes(files[-1]).splitlines()] if files else []
    return next((row for row in reversed(rows) if "event" not in row), None)


def _files(run: str) -> list[str]:
    return sorted(uri for uri in storage.list_files(storage.join(run, "log")) if uri.endswith(".jsonl"))


def _file_number(step: int) -> int:
    return max(0, step - 1) // FILE_STEPS


class TensorBoard:
    """Event files. On a disk TensorBoard can follow them live; elsewhere they are copied, whole, at each flush, and so
    hold no pictures: the run's `panels/` has them."""

    def __init__(self, folder: str, first_step: int):
        """`first_step`: TensorBoard hides what earlier attempts wrote after it."""
        from tensorboardX import SummaryWriter  # noqa: PLC0415  heavy, and only trainings need it

        local = storage.local_path(folder)
        self._remote, self._scratch = "" if local else folder, None if local else tempfile.TemporaryDirectory()
        self._folder = Path(local or (self._scratch.name if self._scratch else ""))
        self._writer = SummaryWriter(str(self._folder), purge_step=first_step + 1 if first_step else None)

    def write(self, row: Row) -> None:
        """See `Sink`."""
        for name, value in row.items():
            if name not in ("step", "at"):
                self._writer.add_scalar(f"{report.group_of(name)}/{name}", value, row["step"])

    def picture(self, name: str, image: UInt8[np.ndarray, "h w 3"], step: int) -> None:
        """See `Sink`."""
        if not self._remote:
            self._writer.add_image(name, image, step, dataformats="HWC")

    def flush(self) -> None:
        """See `Sink`."""
        self._writer.flush()
        if self._remote:
            for file in self._folder.iterdir():
                storage.write_bytes(storage.join(self._remote, file.name), file.read_bytes())

    def close(self) -> None:
        """See `Sink`."""
        self._writer.close()
        if self._scratch is not None:
            self._scratch.cleanup()


class RayMetrics:
    """Gauges that each node exports to Prometheus; see `metrics.METRICS`."""

    def __init__(self, run: str):
        """`run`: value of the tag."""
        self._value = instrument("liftgs_training_value")
        self._gauges = {
            "step": instrument("liftgs_training_step"),
            "items_per_s": instrument("liftgs_training_items_per_second"),
            "skipped": instrument("liftgs_training_skipped_steps"),
            "bad_samples": instrument("liftgs_training_bad_samples"),
            "workers": instrument("liftgs_training_workers"),
            "restarts": instrument("liftgs_training_restarts"),
            "goodput": instrument("liftgs_training_goodput"),
            "checkpoint_age_s": instrument("liftgs_training_checkpoint_age_seconds"),
            "wait_share": instrument("liftgs_training_wait_share"),
        }
        self._run = run

    def write(self, row: Row) -> None:
        """See `Sink`."""
        for name, value in row.items():
            if name in self._gauges:
                self._gauges[name].set(value, tags={"run": self._run})
            else:
                self._value.set(value, tags={"run": self._run, "name": name})

    def picture(self, name: str, image: UInt8[np.ndarray, "h w 3"], step: int) -> None:
        """Prometheus takes none."""

    def flush(self) -> None:
        """Ray does it."""

    def close(self) -> None:
        """See `Sink`."""
        for gauge in (self._value, *self._gauges.values()):
            gauge.close()
