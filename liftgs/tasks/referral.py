"""How well expressions are grounded: boxes, accuracy at IoU thresholds, and the groups that the data sets report.

Knows no networks and no files. Protocols: ScanRefer (Chen et al. 2020), ReferIt3D (Achlioptas et al. 2020) and LIFT-GS,
which scores the best answer's box alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from liftgs.tasks.scannet_classes import SCANNET20

#: IoU thresholds that the paper reports.
THRESHOLDS: tuple[float, ...] = (0.25, 0.5, 0.75)

#: ScanRefer's class of everything that is none of ScanNet's first 17.
OTHERS = "others"

#: Lower and upper corner, metres.
Box = Float[np.ndarray, "2 3"]


@dataclass(frozen=True)
class Referral:
    """What became of one expression.

    Attributes:
        scene: name.
        expression: id, unique in its scene.
        iou: of the best answer's box with the target's; 0 if the mask was empty.
        groups: those it is reported in beside "all", e.g. ("hard", "view-dependent").
    """

    scene: str
    expression: str
    iou: float
    groups: tuple[str, ...] = ()


@dataclass(frozen=True)
class GroupAccuracy:
    """A row of the table.

    Attributes:
        group: name; "all" is every expression.
        expressions: how many.
        accuracy: share of them at each threshold; NaN if there are none.
    """

    group: str
    expressions: int
    accuracy: tuple[float, ...]


def extremes(xyz: Float[np.ndarray, "n 3"], mask: Bool[np.ndarray, " n"]) -> Box | None:
    """The axis-aligned box around the masked points, or None if there are none.

    Raw extremes, as the paper says: one stray point blows the box up, and no quantile hides it.
    """
    points = xyz[mask].astype(np.float64)
    return np.stack([points.min(axis=0), points.max(axis=0)]) if len(points) else None


def box_iou(a: Box | None, b: Box | None) -> float:
    """Intersection over union of two axis-aligned boxes; 0 without a box, and for boxes without volume."""
    if a is None or b is None:
        return 0.0
    sides = np.minimum(a[1], b[1]) - np.maximum(a[0], b[0])
    shared = float(np.prod(np.maximum(sides, 0.0)))
    union = float(np.prod(a[1] - a[0]) + np.prod(b[1] - b[0])) - shared
    return shared / union if shared > 0 else 0.0


def is_hit(iou: float, threshold: float, inclusive: bool = False) -> bool:
    """Whether an answer is right at a threshold.

    Args:
        iou: of the boxes.
        threshold: in 0..1.
        inclusive: reaching it suffices, as in ScanRefer's evaluation; BUTD-DETR, UniVLG and Locate 3D ask for more.
    """
    return iou >= threshold if inclusive else iou > threshold


def groups_of(records: Iterable[Referral]) -> list[str]:
    """ "all", then the groups that occur, by name."""
    return ["all", *sorted({group for record in records for group in record.groups})]


def accuracy_table(
    records: Sequence[Referral], thresholds: Sequence[float] = THRESHOLDS, inclusive: bool = False
) -> list[GroupAccuracy]:
    """Accuracy of all expressions and of each group.

    Args:
        records: one per expression.
        thresholds: of IoU.
        inclusive: see `is_hit`.

    Raises:
        ValueError: an expression is there twice.
    """
    twice = [key for key, count in Counter((r.scene, r.expression) for r in records).items() if count > 1]
    if twice:
        raise ValueError(f"expression {twice[0][1]!r} of scene {twice[0][0]!r} is there twice")
    table = []
    for group in groups_of(records):
        ious = [record.iou for record in records if group == "all" or group in record.groups]
        hits = np.array([[is_hit(iou, threshold, inclusive) for iou in ious] for threshold in thresholds])
        accuracy = hits.mean(axis=1).tolist() if ious else [float("nan")] * len(thresholds)
        table.append(GroupAccuracy(group, len(ious), tuple(accuracy)))
    return table


def scanrefer_class(object_name: str, nyu40_of: Mapping[str, int]) -> str:
    """One of ScanNet's first 17 instance classes, or `OTHERS`.

    Args:
        object_name: as ScanRefer writes it, "_" for a space.
        nyu40_of: raw category -> nyu40id, from ScanNet's label table.
    """
    nyu40 = nyu40_of.get(object_name.replace("_", " "))
    names = dict(zip(SCANNET20.ids, SCANNET20.names, strict=True))
    del names[SCANNET20.ids[-1]]  # "otherfurniture" is with the others
    return names.get(nyu40, OTHERS) if nyu40 is not None else OTHERS


def unique_or_multiple(object_name: str, others: Iterable[str], nyu40_of: Mapping[str, int]) -> str:
    """ScanRefer's groups: "unique" if no other object that its file refers to in the scene is of the target's class.

    Objects that nobody describes do not count, though they stand in the scene; that is ScanRefer's rule.

    Args:
        object_name: of the target, as ScanRefer writes it.
        others: names of the other objects that the file refers to in the scene.
        nyu40_of: see `scanrefer_class`.
    """
    kind = scanrefer_class(object_name, nyu40_of)
    return "multiple" if any(scanrefer_class(other, nyu40_of) == kind for other in others) else "unique"
