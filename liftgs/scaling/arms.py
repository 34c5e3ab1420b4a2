"""An arm: the scores of one way to train, at several ratios of the labelled scenes, with several seeds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int


@dataclass(frozen=True, eq=False)
class Arm:
    """Runs that differ in their share of the labels and in their seed.

    Attributes:
        ratios: of the labelled scenes, ascending; above 1 where there are extra labelled scenes.
        scores: `scores[..., 0]` is the score on all evaluation scenes, the rest those on bootstrap resamples of them,
            the same resamples for every network of every arm. Any unit; more is better. NaN throughout = no such run.
            Equal seeds of two arms have the same labels at a ratio. A resample on which some run has no score, as one
            without any object of a class, is left out everywhere.

    Raises:
        ValueError: shapes that do not fit, ratios that do not ascend, a ratio without any run, a run without a score on
            all scenes, or no resample.
    """

    ratios: Float[np.ndarray, " ratios"]
    scores: Float[np.ndarray, "ratios seeds draws"]

    def __post_init__(self) -> None:
        object.__setattr__(self, "ratios", np.asarray(self.ratios, np.float64))
        object.__setattr__(self, "scores", np.asarray(self.scores, np.float64))
        _check_shapes(self.ratios, self.scores)
        if not self.ran.any(axis=1).all():
            lacking = self.ratios[~self.ran.any(axis=1)]
            raise ValueError(f"no run at ratio {lacking[0]:g}; leave the ratio out")
        if np.isnan(self.scores[~np.isnan(self.scores).all(axis=2), 0]).any() or np.isinf(self.scores).any():
            raise ValueError("a run has resampled scores but none on all scenes, or one that is infinite")
        if not self.usable.any():
            raise ValueError("no resample of the scenes gives every run a score")

    @property
    def ran(self) -> Bool[np.ndarray, "ratios seeds"]:
        """Which runs there are."""
        return ~np.isnan(self.scores[..., 0])

    @property
    def seeds(self) -> Int[np.ndarray, " ratios"]:
        """How many runs there are of each ratio."""
        return self.ran.sum(axis=1)

    @property
    def usable(self) -> Bool[np.ndarray, " resamples"]:
        """The resamples on which every run has a score."""
        return ~np.isnan(self.scores[self.ran][:, 1:]).any(axis=0)

    @property
    def means(self) -> Float[np.ndarray, " ratios"]:
        """Score on all scenes, over the seeds."""
        return np.nanmean(self.scores[..., 0], axis=1)

    def has(self, ratio: float) -> bool:
        """Whether there are runs of a ratio."""
        return bool(np.isclose(self.ratios, ratio).any())

    def place(self, ratio: float) -> int:
        """The row of a ratio.

        Raises:
            ValueError: it has no run.
        """
        if not self.has(ratio):
            raise ValueError(f"no run at ratio {ratio:g}, only at {', '.join(f'{r:g}' for r in self.ratios)}")
        return int(np.argmax(np.isclose(self.ratios, ratio)))


def _check_shapes(ratios: np.ndarray, scores: np.ndarray) -> None:
    if ratios.ndim != 1 or scores.ndim != 3 or len(ratios) != len(scores) or not len(ratios):
        raise ValueError(f"{ratios.shape} ratios need scores of (ratios, seeds, draws), not {scores.shape}")
    if not (np.isfinite(ratios).all() and (ratios > 0).all() and (np.diff(ratios) > 0).all()):
        raise ValueError(f"ratios must be positive and ascend: {ratios.tolist()}")
    if scores.shape[2] < 2:
        raise ValueError("scores need at least one resample of the scenes beside those on all of them")
