"""Rates that a person plans by: of work, not of start-up, and not thrown off by shards that end together."""

from __future__ import annotations

import io
import threading

import pytest

from liftgs_platform import progress
from liftgs_platform.label_stages import Tally
from liftgs_platform.ledger import Ledger, Seen
from liftgs_platform.progress import Progress, State


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "monotonic", clock)
    return clock


def test_two_shards_that_end_together_do_not_look_fast(clock: Clock) -> None:
    seen = Seen(110.0, {"load": Tally(frames=48, seconds=7.0)})  # ten seconds of start-up
    shown = Progress(State(total=144), lambda: seen, io.StringIO())
    clock.now = 122.0
    shown.advance(24, 0)
    clock.now = 122.5
    shown.advance(24, 1)
    assert shown.frames_per_s(seen) == pytest.approx(48 / 12.5)
    assert shown.line() == "48/144 frames | 3.84 frames/s | about 0:25 left | busy s: load 7 | 1 in quarantine"
    clock.now = 130.0  # nothing new, but time goes by
    assert "3.84 frames/s | about 0:18 left" in shown.line()


def test_what_happens_before_the_first_shard_is_said(clock: Clock) -> None:
    state = State(total=24)
    assert "loading models" in Progress(state, lambda: Seen(None, {}), io.StringIO()).line()
    assert "at work on the first shards" in Progress(state, lambda: Seen(101.0, {}), io.StringIO()).line()


def test_an_answer_that_fails_to_come_is_not_the_last_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.01)
    asked, shown = 0, threading.Event()

    def seen() -> Seen:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise TimeoutError
        shown.set()
        return Seen(None, {})

    out = io.StringIO()
    with Progress(State(total=24), seen, out):
        assert shown.wait(30)
    assert "0/24 frames" in out.getvalue()


def test_the_ledger_notes_when_work_begins() -> None:
    ledger = Ledger()
    assert ledger.seen() == Seen(None, {})
    ledger.begin("pool", 0)
    began = ledger.seen().began
    ledger.begin("pool", 1)
    ledger.end("pool", 1, {"load": Tally(frames=3)})
    assert began is not None
    assert ledger.seen() == Seen(began, {"load": Tally(frames=3)})
