"""Answers of the network -> scored masks, one list for all queries. Knows nothing of classes, scenes or pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from liftgs.model.liftgs import Prediction
from liftgs.tasks.instances import ScoredMasks

#: What `LiftGS.answer` is once its scene is given.
Answer = Callable[[Float[Tensor, "t f"]], Prediction]


@dataclass(frozen=True)
class ProposalConfig:
    """How proposals become a list of instances.

    Attributes:
        queries_at_once: queries that the decoder hears together, and that compete for each proposal. In pretraining it
            hears up to 8 (paper, section 3.3), so many more at once are foreign to it.
        top_k: most instances of a scene. 100, as in PQ3D's evaluation, which the paper follows; Mask3D keeps 750.
        nms_iou: an instance is dropped if its mask overlaps a better one of the same query by more than this; 1 keeps
            all. The benchmark's own predictions are not thinned, but here each group of queries brings masks of its
            own.
    """

    queries_at_once: int = 8
    top_k: int = 100
    nms_iou: float = 1.0

    def __post_init__(self) -> None:
        if self.queries_at_once < 1 or self.top_k < 1:
            raise ValueError("queries_at_once and top_k must be at least 1")
        if not 0 <= self.nms_iou <= 1:
            raise ValueError(f"nms_iou must be in [0, 1], not {self.nms_iou}")


def propose(answer: Answer, queries: Float[Tensor, "t f"], queries_at_once: int) -> ScoredMasks:
    """Every pair of a proposal and a query that is possible at all, best first; the label is the query's row.

    The score is the probability of the query times the mean mask probability over the mask, which is where that exceeds
    one half; proposals with an empty mask are left out. So score Mask3D, PQ3D and UniVLG.
    """
    masks, rows, labels, scores = [], [], [], []
    first_row = 0
    for start in range(0, len(queries), queries_at_once):
        answered = answer(queries[start : start + queries_at_once])
        mask, quality = _masks(answered.mask_logits)
        kept = mask.any(dim=1).cpu()
        score = (answered.token_probs.cpu()[kept] * quality.cpu()[kept, None]).numpy()
        row, label = np.indices(score.shape)
        masks.append(mask.cpu()[kept].numpy())
        rows.append(row.ravel() + first_row)
        labels.append(label.ravel() + start)
        scores.append(score.ravel())
        first_row += len(score)
    candidates = ScoredMasks(*(np.concatenate(parts) for parts in (masks, rows, labels, scores)))
    candidates = candidates[candidates.score > 0]
    return candidates[np.argsort(-candidates.score, kind="stable")]


def select(candidates: ScoredMasks, config: ProposalConfig) -> ScoredMasks:
    """The best `top_k` of candidates that are sorted best first, after non-maximum suppression within each query."""
    if config.nms_iou >= 1:
        return candidates[: config.top_k]
    points = candidates.masks.sum(axis=1)
    kept: list[int] = []
    rows_of: dict[int, list[int]] = {}
    for index, (row, label) in enumerate(zip(candidates.row.tolist(), candidates.label.tolist(), strict=True)):
        better = rows_of.setdefault(label, [])
        if all(_iou(candidates.masks, points, row, other) <= config.nms_iou for other in better):
            better.append(row)
            kept.append(index)
            if len(kept) == config.top_k:
                break
    return candidates[np.array(kept, np.int64)]


def _masks(logits: Float[Tensor, "m n"]) -> tuple[Bool[Tensor, "m n"], Float[Tensor, " m"]]:
    """Masks, and the mean probability over each (0 for an empty one)."""
    mask = logits > 0
    inside = torch.where(mask, torch.sigmoid(logits), 0).sum(dim=1)
    return mask, inside / mask.sum(dim=1).clamp(min=1)


def _iou(masks: Bool[np.ndarray, "m n"], points: Int[np.ndarray, " m"], a: int, b: int) -> float:
    if a == b:
        return 1.0
    shared = np.count_nonzero(masks[a] & masks[b])
    return float(shared / (points[a] + points[b] - shared))
