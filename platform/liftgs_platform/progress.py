"""What a person sees while a job runs: a live bar in a terminal, a plain line every few seconds in a job's log."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as RichProgress

from liftgs_platform.label_stages import STAGES, Tally

#: Seconds between plain lines.
LINE_EVERY_S = 5.0
_BAR_EVERY_S = 0.5


@dataclass
class State:
    """How far a job is.

    Attributes:
        total: frames to do in this run.
        done: frames that are committed or in quarantine.
        quarantined: of these, how many are in quarantine.
    """

    total: int
    done: int = 0
    quarantined: int = 0


class Progress:
    """Shows a `State` that its owner keeps current, and what the stages have done. Use as a context."""

    def __init__(self, state: State, tallies: Callable[[], Mapping[str, Tally]], out: TextIO | None = None):
        """`tallies` is asked every few seconds, from a thread."""
        self.state = state
        self._tallies = tallies
        self._out = out or sys.stdout
        self._started = monotonic()
        self._first: tuple[float, int] | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._show, name="progress", daemon=True)

    def __enter__(self) -> Progress:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(timeout=10)

    def advance(self, frames: int, quarantined: int) -> None:
        """A shard is done."""
        if self._first is None:  # what came before was start-up: processes, models, the first shard
            self._first = (monotonic(), frames)
        self.state.done += frames
        self.state.quarantined += quarantined

    @property
    def frames_per_s(self) -> float | None:
        """Rate since the first shard, or None before the second."""
        if self._first is None:
            return None
        at, frames = self._first
        seconds, more = monotonic() - at, self.state.done - frames
        return more / seconds if more and seconds > 0 else None

    def line(self) -> str:
        """The state in one line."""
        state, rate = self.state, self.frames_per_s
        parts = [f"{state.done}/{state.total} frames"]
        if rate is not None:
            parts.append(f"{rate:.2f} frames/s")
            parts.append(f"about {clock((state.total - state.done) / rate)} left")
        busy = dict(self._tallies())
        if busy:
            seconds = (f"{stage} {busy[stage].seconds:.0f}" for stage in STAGES if stage in busy)
            parts.append("busy s: " + " ".join(seconds))
        else:
            parts.append("starting workers and loading models")
        parts.append(f"{state.quarantined} in quarantine")
        return " | ".join(parts)

    def _show(self) -> None:
        with suppress(Exception):  # to show less is no reason to fail
            if self._out.isatty():
                self._show_bar()
            else:
                while not self._stop.wait(LINE_EVERY_S):
                    print(f"[{clock(monotonic() - self._started)}] {self.line()}", file=self._out, flush=True)

    def _show_bar(self) -> None:
        columns = (BarColumn(bar_width=24), MofNCompleteColumn(), TextColumn("{task.description}"))
        with RichProgress(*columns, console=Console(file=self._out), transient=True) as bars:
            task = bars.add_task("", total=self.state.total)
            while not self._stop.wait(_BAR_EVERY_S):
                bars.update(task, completed=self.state.done, description=self.line().partition(" | ")[2])


def clock(seconds: float) -> str:
    """Seconds as 0:07, 12:34 or 3:00:00."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
