"""How a training at a constant rate ends: after its scores have stopped rising, or with its budget. Pure arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

#: Fewest steps of a cool-down: the rate must come down gently however early a training stops.
LEAST_STEPS = 10

#: The step after which a score was taken, and the score; higher is better, 0 is the worst.
Check = tuple[int, float]


@dataclass(frozen=True)
class Cooldown:
    """The last part of a training, in which the rate falls linearly to 0.

    It begins at the check that finds the scores on a plateau, or else at `latest`; in what follows `start` is that
    check's step, None = there was none.

    Attributes:
        budget: steps of the whole training, at most.
        share: steps of the cool-down, as a share of those before it; at least `LEAST_STEPS`.
        earliest: step at which it may begin: the end of the warm-up.
    """

    budget: int
    share: float
    earliest: int = 0

    @property
    def latest(self) -> int:
        """Step at which it begins if no check made it, so that it ends with the budget."""
        return max(self.earliest, min(self.budget - LEAST_STEPS, math.floor(self.budget / (1 + self.share))))

    def end(self, start: int | None) -> int:
        """Steps of the whole training."""
        if start is None:
            return self.budget
        return min(self.budget, start + max(LEAST_STEPS, math.ceil(self.share * start)))

    def factor(self, step: int, start: int | None) -> float:
        """Share of the constant rate in the update number `step`, from 0: 1 until the cool-down, 0 at its end."""
        begin, end = self.latest if start is None else start, self.end(start)
        return min(1.0, max(0.0, (end - step) / (end - begin)))

    def start(self, checks: Sequence[Check], patience: int) -> int | None:
        """The newest check's step, if the cool-down should begin there: the last `patience` scores in a row were not
        above the best before them.

        Scores of the warm-up do not count. Nor is it a plateau where nothing was right as yet: fresh weights score 0
        for many checks before they rise.
        """
        scores = [score for step, score in checks if step >= self.earliest]
        step = checks[-1][0]
        if not scores or not max(scores) > 0 or step > self.latest:
            return None
        return step if len(scores) - 1 - scores.index(max(scores)) >= patience else None
