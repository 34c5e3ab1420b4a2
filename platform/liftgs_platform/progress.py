"""What a person sees while a job runs: a live bar in a terminal, a plain line every few seconds in a job's log."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as RichProgress

from liftgs_platform.label_stages import STAGES
from liftgs_platform.ledger import Seen

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

    def __init__(self, state: State, seen: Callable[[], Seen], out: TextIO | None = None):
        """`seen` is asked every few seconds, from a thread."""
        self.state = state
        self._seen = seen
        self._out = out or sys.stdout
        self._started = monotonic()
        self._advanced = self._started
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
        self.state.done += frames
        self.state.quarantined += quarantined
        self._advanced = monotonic()

    def frames_per_s(self, seen: Seen) -> float | None:
        """Rate from when work began, after start-up, to the last finished shard; None before the first.

        What is at work in unfinished shards does not count, so this errs on the low side.
        """
        if seen.began is None or not self.state.done or self._advanced <= seen.began:
            return None
        return self.state.done / (self._advanced - seen.began)

    def line(self) -> str:
        """The state in one line."""
        state, seen = self.state, self._seen()
        rate = self.frames_per_s(seen)
        parts = [f"{state.done}/{state.total} frames"]
        if rate is not None:
            parts.append(f"{rate:.2f} frames/s")
            left_s = (state.total - state.done) / rate - (monotonic() - self._advanced)
            parts.append(f"about {clock(max(0.0, left_s))} left")
        if seen.tallies:
            seconds = (f"{stage} {seen.tallies[stage].seconds:.0f}" for stage in STAGES if stage in seen.tallies)
            parts.append("busy s: " + " ".join(seconds))
        elif seen.began is not None:
            parts.append("at work on the first shards")
        else:
            parts.append("starting workers and loading models")
        parts.append(f"{state.quarantined} in quarantine")
        return " | ".join(parts)

    def _show(self) -> None:
        if self._out.isatty():
            with suppress(Exception):
                self._show_bar()
        while not self._stop.wait(LINE_EVERY_S):
            with suppress(Exception):  # to show less for once is no reason to fail, nor to show nothing ever after
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
