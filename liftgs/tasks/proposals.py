"""Answers of the network -> scored masks, one list for all queries. Knows nothing of classes, scenes or pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property, partial

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import sparse
from scipy.spatial import cKDTree
from torch import Tensor

from liftgs.model.liftgs import EncodedScene, LiftGS, Prediction
from liftgs.tasks.instances import ScoredMasks

#: What `LiftGS.answer` is once its scene is given.
Answer = Callable[[Float[Tensor, "t f"]], Prediction]


@dataclass(frozen=True, eq=False)
class SeenScene:
    """A scene as a method has seen it, ready for questions. Masks are over its cells, say voxels.

    Attributes:
        answer: queries -> masks and correspondences.
        of_point: the cell of each point of the cloud; no cell is empty.
        xyz: where each cell is, metres.
    """

    answer: Answer
    of_point: Int[np.ndarray, " n"]
    xyz: Float[np.ndarray, "v 3"]

    @classmethod
    def by(cls, model: LiftGS, scene: EncodedScene) -> SeenScene:
        """A scene as a network has encoded it; cells are its voxels."""
        voxels = scene.voxels
        return cls(partial(model.answer, scene), voxels.of_point.cpu().numpy(), voxels.xyz.cpu().numpy())

    @cached_property
    def points(self) -> Int[np.ndarray, " v"]:
        """Of each cell, how many."""
        return np.bincount(self.of_point)


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
        part_m: a mask is cut down to its largest connected part: on cells of so many metres, each of which touches 26
            others. 0 keeps masks as they are. Mask3D splits its masks likewise (by DBSCAN).
    """

    queries_at_once: int = 8
    top_k: int = 100
    nms_iou: float = 1.0
    part_m: float = 0.15

    def __post_init__(self) -> None:
        if self.queries_at_once < 1 or self.top_k < 1:
            raise ValueError("queries_at_once and top_k must be at least 1")
        if not 0 <= self.nms_iou <= 1:
            raise ValueError(f"nms_iou must be in [0, 1], not {self.nms_iou}")
        if not self.part_m >= 0:
            raise ValueError(f"part_m must be at least 0, not {self.part_m}")


def propose(seen: SeenScene, queries: Float[Tensor, "t f"], queries_at_once: int, part_m: float) -> ScoredMasks:
    """Every pair of a proposal and a query that is possible at all, best first; the label is the query's row.

    A mask is where its probability exceeds one half, cut down to the largest part. The score is the probability of the
    query times the mean mask probability over the points of the mask; proposals with an empty mask are left out. So
    score Mask3D, PQ3D and UniVLG.

    Args:
        seen: the scene.
        queries: unit embeddings.
        queries_at_once: see `ProposalConfig`.
        part_m: likewise.
    """
    masks, rows, labels, scores = [], [], [], []
    first_row = 0
    for start in range(0, len(queries), queries_at_once):
        answered = seen.answer(queries[start : start + queries_at_once])
        logits = answered.mask_logits.cpu()
        mask = largest_parts((logits > 0).numpy(), seen.xyz, seen.points, part_m)
        kept = mask.any(axis=1)
        weight = mask[kept] * seen.points
        quality = (logits.sigmoid().numpy()[kept] * weight).sum(axis=1) / weight.sum(axis=1)
        score = answered.token_probs.cpu().numpy()[kept] * quality[:, None]
        row, label = np.indices(score.shape)
        masks.append(mask[kept])
        rows.append(row.ravel() + first_row)
        labels.append(label.ravel() + start)
        scores.append(score.ravel())
        first_row += len(score)
    candidates = ScoredMasks(*(np.concatenate(parts) for parts in (masks, rows, labels, scores)))
    candidates = candidates[candidates.score > 0]
    return candidates[np.argsort(-candidates.score, kind="stable")]


def select(candidates: ScoredMasks, config: ProposalConfig, points: Int[np.ndarray, " v"] | None = None) -> ScoredMasks:
    """The best `top_k` of candidates that are sorted best first, after non-maximum suppression within each query.

    Args:
        candidates: from `propose`.
        config: see there.
        points: how much each cell of the masks counts in an overlap; all the same without.
    """
    if config.nms_iou >= 1:
        return candidates[: config.top_k]
    iou = cache(_iou(candidates.masks, points))
    kept: list[int] = []
    rows_of: dict[int, list[int]] = {}
    for index, (row, label) in enumerate(zip(candidates.row.tolist(), candidates.label.tolist(), strict=True)):
        better = rows_of.setdefault(label, [])
        if all(iou(other)[row] <= config.nms_iou for other in better):
            better.append(row)
            kept.append(index)
            if len(kept) == config.top_k:
                break
    return candidates[np.array(kept, np.int64)]


def on_points(candidates: ScoredMasks, of_point: Int[np.ndarray, " n"]) -> ScoredMasks:
    """The same with masks over the points of the cloud, and only those that somebody names."""
    rows, row = np.unique(candidates.row, return_inverse=True)
    return ScoredMasks(np.take(candidates.masks[rows], of_point, axis=1), row, candidates.label, candidates.score)


def largest_parts(
    masks: Bool[np.ndarray, "m v"],
    xyz: Float[np.ndarray, "v 3"],
    points: Int[np.ndarray, " v"],
    edge_m: float,
) -> Bool[np.ndarray, "m v"]:
    """Of each mask the connected part of most points; see `ProposalConfig.part_m`.

    Args:
        masks: over the cells of a scene.
        xyz: of those, metres.
        points: how many each stands for.
        edge_m: of the cubes of which a part is made; 0 changes nothing.
    """
    if not edge_m or not masks.any():
        return masks
    cubes, cube = np.unique(np.floor(xyz / edge_m).astype(np.int64), axis=0, return_inverse=True)
    a, b = cKDTree(cubes).query_pairs(1.8, output_type="ndarray").T  # the 26 around: sqrt(3) is 1.73
    beside = sparse.csr_array((np.ones(len(a), bool), (a, b)), shape=(len(cubes), len(cubes)))
    row, cell = np.nonzero(masks)
    filled = np.zeros((len(masks), len(cubes)), bool)
    filled[row, cube[cell]] = True
    number = np.cumsum(filled).reshape(filled.shape) - 1  # of each filled cube of each mask
    # Of each filled cube, a node, those of the cubes beside it that its mask fills too.
    node_row, node_cube = np.nonzero(filled)
    count = np.diff(beside.indptr)[node_cube]
    node = np.repeat(np.arange(len(node_cube)), count)
    place = np.arange(len(node)) - np.repeat(np.cumsum(count) - count - beside.indptr[node_cube], count)
    other = (node_row[node], beside.indices[place])
    linked = filled[other]
    ends = (node[linked], number[other][linked])
    graph = sparse.csr_array((np.ones(len(ends[0]), bool), ends), shape=(len(node_cube), len(node_cube)))
    part = sparse.csgraph.connected_components(graph, directed=False)[1][number[row, cube[cell]]]
    size = np.bincount(part, points[cell])
    order = np.lexsort((part, -size[part], row))  # the largest part of each row first, of equals the first
    rows, first = np.unique(row[order], return_index=True)
    best = np.zeros(len(masks), np.int64)
    best[rows] = part[order[first]]
    kept = part == best[row]
    result = np.zeros_like(masks)
    result[row[kept], cell[kept]] = True
    return result


def _iou(
    masks: Bool[np.ndarray, "m v"], points: Int[np.ndarray, " v"] | None
) -> Callable[[int], Float[np.ndarray, " m"]]:
    """Of a mask with every mask. Sums of whole numbers, so exact in single precision up to 16 million points.

    Not all at once: with a thousand classes there are ten thousands of masks, of which few are ever compared.
    """
    inside = sparse.csr_array(masks).astype(np.float32)
    weight = np.ones(masks.shape[1], np.float32) if points is None else points.astype(np.float32)
    size = inside @ weight

    def with_all(row: int) -> Float[np.ndarray, " m"]:
        shared = inside @ (masks[row] * weight)
        return shared / (size[row] + size - shared)

    return with_all
