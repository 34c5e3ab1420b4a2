"""When a training has learned what it can: its scores have stopped rising. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Sequence

#: The step after which a score was taken, and the score; higher is better, 0 is the worst.
Check = tuple[int, float]


def on_plateau(checks: Sequence[Check], patience: int, earliest: int = 0) -> bool:
    """Whether the last `patience` scores in a row were not above the best before them.

    Nor is it a plateau where nothing was right as yet: fresh weights score 0 for many checks before they rise.

    Args:
        checks: all so far, in order.
        patience: at least 1.
        earliest: scores of steps before it do not count: those of the warm-up.
    """
    scores = [score for step, score in checks if step >= earliest]
    return bool(scores) and max(scores) > 0 and len(scores) - 1 - scores.index(max(scores)) >= patience
