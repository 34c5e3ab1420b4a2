"""Typing fast asks once; asking during a run asks once more."""

from __future__ import annotations

import threading
import time

from liftgs.viewer.turns import Turns


def test_many_calls_are_one_run_after_a_pause() -> None:
    ran: list[float] = []
    turns = Turns(lambda: ran.append(time.monotonic()), quiet_s=0.3)
    for _ in range(10):
        turns()
        last = time.monotonic()
        time.sleep(0.01)
    assert ran == []
    time.sleep(0.8)
    turns.close()
    assert len(ran) == 1
    assert ran[0] - last >= 0.3


def test_enter_does_not_wait() -> None:
    ran = threading.Event()
    turns = Turns(ran.set, quiet_s=60)
    turns()
    turns(wait=False)
    assert ran.wait(10)
    turns.close()


def test_runs_never_overlap_and_the_last_call_is_not_lost() -> None:
    started, go = threading.Semaphore(0), threading.Semaphore(0)
    running: list[int] = []

    def action() -> None:
        running.append(1)
        assert len(running) == 1
        started.release()
        assert go.acquire(timeout=10)
        running.pop()

    turns = Turns(action, quiet_s=0)
    turns()
    assert started.acquire(timeout=10)
    for _ in range(5):
        turns()
    go.release()
    assert started.acquire(timeout=10), "what was asked during a run is answered after it"
    go.release()
    assert not started.acquire(timeout=0.2), "five calls are one"
    turns.close()


def test_closing_leaves_no_run_and_no_thread() -> None:
    ran: list[int] = []
    before = threading.active_count()
    turns = Turns(lambda: ran.append(1), quiet_s=0.2)
    turns()
    turns.close()
    assert threading.active_count() == before
    time.sleep(0.4)
    assert ran == []
