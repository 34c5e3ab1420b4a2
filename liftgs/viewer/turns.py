"""One thing at a time, once the asking has paused. Knows not what is asked."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Turns:
    """Runs one action on a thread of its own, some time after the last of its calls.

    Whoever types or drags calls often; only the last call counts, and calls during a run lead to one more.
    """

    def __init__(self, action: Callable[[], None], quiet_s: float):
        self._action = action
        self._quiet_s = quiet_s
        self._changed = threading.Condition()
        self._due: float | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="turns", daemon=True)
        self._thread.start()

    def __call__(self, wait: bool = True) -> None:
        """Ask for a run, after a pause or at once."""
        with self._changed:
            self._due = time.monotonic() + (self._quiet_s if wait else 0)
            self._changed.notify()

    def close(self, timeout_s: float = 10) -> None:
        """Run no more; waits for a run that is on its way."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while self._await_turn():
            self._action()

    def _await_turn(self) -> bool:
        """Whether there is one, or it is time to end."""
        with self._changed:
            while not self._closed:
                left = None if self._due is None else self._due - time.monotonic()
                if left is not None and left <= 0:
                    self._due = None
                    return True
                self._changed.wait(left)
            return False
