"""Work in processes of its own, and how much memory processes take. Linux only: reads /proc."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

T = TypeVar("T")

_SAMPLE_EVERY_S = 0.25


def in_child(function: Callable[..., T], *args: Any, watch: Callable[[int], Any] | None = None) -> T:
    """The result of `function(*args)`, in a fresh interpreter, whose standard output goes to standard error.

    Args:
        function: found by its name, so of the top level of a module.
        args: pickled.
        watch: called with the child's process id before it begins.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _output_to_stderr) as child:
        if watch is not None:
            watch(child.submit(os.getpid).result())
        return child.submit(function, *args).result()


def _output_to_stderr() -> None:
    os.dup2(2, 1)


def peak_growth_bytes(work: Callable[[], Any]) -> int:
    """By how much this process' resident memory grew at most while it did `work`."""
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew
    before = _status_bytes("VmRSS")
    work()
    return max(0, _status_bytes("VmHWM") - before)


def _status_bytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":"))


def tree(pid: int) -> list[int]:
    """A process and all its descendants."""
    found, open_ = [], [pid]
    while open_:
        pid = open_.pop()
        found.append(pid)
        with suppress(OSError):
            for thread in Path(f"/proc/{pid}/task").iterdir():
                with suppress(OSError):
                    open_ += map(int, (thread / "children").read_text().split())
    return found


def tree_bytes(pid: int) -> int:
    """Memory of a process and its descendants: their proportional set sizes, so what they share counts once."""
    total = 0
    for process in tree(pid):
        with suppress(OSError):  # it ended
            for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total


class PeakOfTree:
    """Samples the memory of a process and its descendants while it is open.

    Attributes:
        peak_bytes: the most so far.
    """

    def __init__(self) -> None:
        self.peak_bytes = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def watch(self, pid: int) -> None:
        """Begin with this process."""
        self._thread = threading.Thread(target=self._sample, args=(pid,), daemon=True)
        self._thread.start()

    def __enter__(self) -> PeakOfTree:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _sample(self, pid: int) -> None:
        while not self._stop.wait(_SAMPLE_EVERY_S):
            self.peak_bytes = max(self.peak_bytes, tree_bytes(pid))
