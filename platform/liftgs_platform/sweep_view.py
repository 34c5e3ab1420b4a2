"""A sweep while it runs: a line every half minute, an event a change, gauges, and a report now and then."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from statistics import median
from time import monotonic
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from liftgs_platform import storage
from liftgs_platform.monitoring import SweepMetrics
from liftgs_platform.progress import clock
from liftgs_platform.stage_pool import Progress
from liftgs_platform.stages import KINDS, Stage, Store
from liftgs_platform.training_log import newest

_LINE_EVERY_S = 30.0
_REPORT_EVERY_S = 300.0


class View:
    """Shows a sweep's stages, in a terminal as a live table, in a job's log as lines."""

    def __init__(self, sweep: str, store: Store, stages: Sequence[Stage], folder: str, report: Callable[[], Any]):
        """Args:
        sweep: URI of its folder.
        store: of the stages.
        stages: of the sweep.
        folder: of this run; gets events.jsonl.
        report: writes the report of what is there.
        """
        self._store, self._report = store, report
        self._states = {stage.hash: Progress(stage) for stage in stages}
        self._events: list[dict[str, Any]] = []
        self._uri = storage.join(folder, "events.jsonl")
        self._metrics = SweepMetrics(sweep)
        self._started = self._shown = self._reported = monotonic()
        self._began: dict[str, float] = {}
        self._fresh = False
        self._live = Live(console=Console(), auto_refresh=False) if sys.stdout.isatty() else None

    def __enter__(self) -> View:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._show()
        self._metrics.close()
        if self._live:
            self._live.stop()

    def changed(self, one: Progress | None) -> None:
        """See `stage_pool.Pool`."""
        now = monotonic()
        if one is not None:
            self._note(one, now)
        if now - self._shown > (1.0 if self._live else _LINE_EVERY_S):
            self._shown = now
            self._show()
        if self._fresh and now - self._reported > _REPORT_EVERY_S:
            self._fresh, self._reported = False, now
            try:
                self._report()
            except Exception as fault:  # hours of stages do not depend on a page; in the end it is written again
                self._say(f"no report this time: {type(fault).__name__}: {fault}")

    def _note(self, one: Progress, now: float) -> None:
        self._states[one.stage.hash] = one
        if one.state == "running":
            self._began[one.stage.hash] = now
        self._fresh |= one.state == "done" and one.stage.kind == "evaluate"
        event = {"stage": one.stage.name, "title": one.stage.title, "state": one.state}
        if one.reason:
            event["reason"] = one.reason
        self._events.append({"time": datetime.now(UTC).isoformat(timespec="seconds")} | event)
        storage.write_bytes(self._uri, "".join(json.dumps(row) + "\n" for row in self._events).encode())
        self._metrics.show(Counter(p.state for p in self._states.values()))
        if one.state in ("done", "failed", "blocked") or (one.state == "waiting" and one.reason):
            took = f" in {clock(one.done.seconds)}" if one.done else ""
            self._say(f"{one.state}: {one.stage.title}{took}{': ' + one.reason if one.reason else ''}")

    def _say(self, line: str) -> None:
        text = f"[{clock(monotonic() - self._started)}] {line}"
        if self._live:
            self._live.console.print(text, markup=False, highlight=False)
        else:
            print(text, flush=True)

    def _show(self) -> None:
        if self._live:
            self._live.update(self._table(), refresh=True)
        else:
            self._say(self._line())

    def _line(self) -> str:
        parts = []
        for kind in KINDS:
            states = [one.state for one in self._states.values() if one.stage.kind == kind]
            if states:
                over = sum(state in ("done", "reused") for state in states)
                more = ", ".join(f"{n} {s}" for s in ("running", "failed", "blocked") if (n := states.count(s)))
                parts.append(f"{kind} {over}/{len(states)}{f' ({more})' if more else ''}")
        return " | ".join([*parts, self._left()])

    def _left(self) -> str:
        """By what stages of the kind have taken, over the pace so far."""
        took: dict[str, list[float]] = {}
        for one in self._states.values():
            if one.done:
                took.setdefault(one.stage.kind, []).append(one.done.seconds)
        open_ = [one for one in self._states.values() if one.state in ("waiting", "running")]
        if any(one.stage.kind not in took for one in open_):
            return "time left is known once each kind of stage has ended"
        at_once = max(1, sum(one.state == "running" for one in open_))
        return f"about {clock(sum(median(took[one.stage.kind]) for one in open_) / at_once)} left"

    def _table(self) -> Table:
        table = Table(title=f"{self._line()}", title_justify="left", expand=True)
        for name in ("stage", "state", "for", "progress"):
            table.add_column(name)
        for one in self._states.values():
            if one.state in ("running", "failed"):
                since = clock(monotonic() - self._began.get(one.stage.hash, self._started))
                table.add_row(one.stage.title, one.state, since, one.reason or self._progress(one.stage))
        return table

    def _progress(self, stage: Stage) -> str:
        """How far a training is."""
        if stage.kind not in ("pretrain", "finetune"):
            return ""
        row = newest(self._store.folder(stage))
        return f"step {row['step']}" if row else ""
