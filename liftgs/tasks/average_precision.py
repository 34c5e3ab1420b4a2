"""The area under many curves of precision over recall at once. Knows neither masks nor classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped


@dataclass(frozen=True, eq=False)
class PrecisionCurves:
    """Verdicts on predictions, ranked, so that the areas under their curves cost a few sums whatever scenes count.

    A curve's points are the cuts at each distinct score, from (recall 0, precision 1) on; its area is that of the
    trapezoids between them. ScanNet's convolution of the recalls with (-.5, 0, .5) is the same sum in another order.

    Attributes:
        scene: of each verdict; verdicts are by curve, and in a curve the highest score comes first.
        right: 1 or 0.
        cut: position of the last verdict at each distinct score of each curve.
        curve: of each cut.
        starts: position in `cut` of the first one of each curve that has any.
        curves: how many there are.
    """

    scene: Int[np.ndarray, " v"]
    right: Int[np.ndarray, " v"]
    cut: Int[np.ndarray, " k"]
    curve: Int[np.ndarray, " k"]
    starts: Int[np.ndarray, " s"]
    curves: int

    @staticmethod
    def rank(
        curve: Int[np.ndarray, " v"],
        score: Float[np.ndarray, " v"],
        right: Bool[np.ndarray, " v"],
        scene: Int[np.ndarray, " v"],
        curves: int,
    ) -> PrecisionCurves:
        """Sort verdicts.

        Args:
            curve: which one each belongs to, 0 to `curves` - 1.
            score: confidence of the prediction; only its order within a curve counts.
            right: whether it found an instance.
            scene: index of its scene.
            curves: how many there are.
        """
        order = np.lexsort((-score, curve))
        curve, score = curve[order], score[order]
        last_of_curve = _last_of_runs(curve)
        cut = np.flatnonzero(last_of_curve | _last_of_runs(score))
        is_last = last_of_curve[cut]
        starts = np.flatnonzero(np.concatenate([[True], is_last[:-1]])[: len(cut)])
        return PrecisionCurves(scene[order], right[order].astype(np.int64), cut, curve[cut], starts, curves)

    def areas(self, weights: Int[np.ndarray, " n"]) -> Float[np.ndarray, " c"]:
        """Area under each curve times the number of instances that there are to find; 0 without predictions.

        Args:
            weights: how often each scene counts.
        """
        weight = weights[self.scene]
        seen = np.cumsum(weight)[self.cut]
        found = np.cumsum(weight * self.right)[self.cut]
        gained = np.diff(found, prepend=0)
        lengths = np.diff(np.append(self.starts, len(self.cut)))
        seen, found = (total - np.repeat(np.append(0, total)[self.starts], lengths) for total in (seen, found))
        precision = np.where(seen > 0, found / np.maximum(seen, 1), 1.0)
        before = np.append(1.0, precision)[: len(precision)]
        before[self.starts] = 1.0
        return np.bincount(self.curve, gained * (before + precision) / 2, self.curves)


def _last_of_runs(values: Shaped[np.ndarray, " v"]) -> Bool[np.ndarray, " v"]:
    """Whether each value differs from the next one."""
    return np.append(values[1:] != values[:-1], True)[: len(values)]
