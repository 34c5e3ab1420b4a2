"""Which predictions of a scene are right, at every IoU threshold at once. Knows neither masks nor classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int


def judge(
    iou: Float[np.ndarray, "p g"],
    score: Float[np.ndarray, " p"],
    ignored: Float[np.ndarray, " p"],
    counts: Bool[np.ndarray, " g"],
    thresholds: Sequence[float],
) -> tuple[Int[np.ndarray, " v"], Int[np.ndarray, " v"], Bool[np.ndarray, " v"]]:
    """Match predictions with instances, in ScanNet's way.

    Below .5 a prediction may match several instances. As in the benchmark, instances choose in their order, and one
    that is the first choice of an instance is no longer there for the next; the losers of a choice still are. So a
    prediction may have no verdict at a threshold, or several.

    Args:
        iou: of each prediction with each instance; 0 where their classes differ.
        score: of each prediction; the highest that an instance is offered is right.
        ignored: share of the prediction that lies where nothing is evaluated.
        counts: whether the instance is to be found; what matches another has no verdict.
        thresholds: the lowest first, at least 0; an IoU must exceed them.

    Returns:
        Of each verdict: the prediction, the threshold's place, and whether the prediction is right there.
    """
    # All pairs that match at all, one row each, one column per threshold. By instance, then by
    # prediction, which is the order of choice.
    truth, prediction = np.nonzero((iou > thresholds[0]).T)
    matches = iou[prediction, truth][:, None] > thresholds
    matched = np.zeros((len(score), len(thresholds)), np.int64)
    np.add.at(matched, prediction, matches)
    wrong = (matched == 0) & (ignored[:, None] <= thresholds)

    found = matches & counts[truth][:, None]
    _withdraw_first_choices(found, truth, prediction, np.unique(truth[(matched[prediction] > 1).any(axis=1)]))
    rank = np.argsort(np.argsort(score, kind="stable"))[prediction][:, None]
    best = np.full((len(counts), len(thresholds)), -1)
    np.maximum.at(best, truth, np.where(found, rank, -1))

    pair, threshold = np.nonzero(found)
    false, false_threshold = np.nonzero(wrong)
    right = (rank == best[truth])[pair, threshold]
    return (
        np.concatenate([prediction[pair], false]),
        np.concatenate([threshold, false_threshold]),
        np.concatenate([right, np.zeros(len(false), bool)]),
    )


def _withdraw_first_choices(
    found: Bool[np.ndarray, "k t"],
    truth: Int[np.ndarray, " k"],
    prediction: Int[np.ndarray, " k"],
    contested: Int[np.ndarray, " c"],
) -> None:
    """Clear `found` where the prediction is already the first choice of an earlier instance.

    Only `contested` instances, which share a prediction with another, can be the poorer for it.
    """
    gone = np.zeros((prediction.max(initial=-1) + 1, found.shape[1]), bool)
    for instance in contested:
        rows = np.flatnonzero(truth == instance)
        still = found[rows] & ~gone[prediction[rows]]
        gone[prediction[rows]] |= still & (np.cumsum(still, axis=0) == 1)
        found[rows] = still
