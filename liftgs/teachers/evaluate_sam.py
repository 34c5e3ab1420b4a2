"""How good automatic masks are on labelled scenes: for every visible instance, the IoU of the mask that fits best."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt16

from liftgs.labels import paint
from liftgs.procedural import STRUCTURE_KINDS
from liftgs.scene import Scene
from liftgs.teachers.sam import Segment


@dataclass(frozen=True)
class InstanceScore:
    """One visible instance in one frame.

    Attributes:
        kind: class name.
        area_px: visible pixels.
        mask_iou: IoU with the best of the automatic masks, 0 if there is none.
        segment_iou: IoU with the best of the segments that painting leaves.
    """

    kind: str
    area_px: int
    mask_iou: float
    segment_iou: float


def score_instances(
    segment: Segment, scenes: Iterable[Scene], progress: Callable[[str], None] = print
) -> list[InstanceScore]:
    """Segment every frame of labelled scenes and score every instance of at least the segmenter's `min_area_px`.

    Raises:
        ValueError: a scene without instance labels.
    """
    scores: list[InstanceScore] = []
    for scene in scenes:
        labels = scene.labels()
        if labels is None:
            raise ValueError(f"{scene.uri} has no labels to compare masks with")
        kinds = {instance.id: instance.kind for instance in labels.instances}
        for frame_id in scene.frame_ids():
            frame = scene.load(frame_id)
            if frame.instances is None:
                raise ValueError(f"{frame.uri} has no instance ids to compare masks with")
            scores += _score_frame(segment, frame.rgb, frame.instances, kinds)
        if scores:
            progress(f"{scene.name}: mean best IoU so far {np.mean([score.mask_iou for score in scores]):.3f}")
    return scores


def _score_frame(
    segment: Segment, rgb: np.ndarray, instances: UInt16[np.ndarray, "h w"], kinds: dict[int, str]
) -> list[InstanceScore]:
    found = segment.masks(rgb)
    least = segment.min_area_px(*instances.shape)
    semantics = paint(found.masks, least, found.predicted_iou, instances.shape)
    segments = semantics == np.arange(1, int(semantics.max()) + 1)[:, None, None]
    ids, areas = np.unique(instances, return_counts=True)
    visible = [(int(i), int(area)) for i, area in zip(ids, areas, strict=True) if i > 0 and area >= least]
    truth = instances == np.array([i for i, _ in visible], np.uint16)[:, None, None]
    by_mask, by_segment = best_iou(truth, found.masks), best_iou(truth, segments)
    return [
        InstanceScore(kinds[i], area, float(mask), float(painted))
        for (i, area), mask, painted in zip(visible, by_mask, by_segment, strict=True)
    ]


def best_iou(truth: Bool[np.ndarray, "n h w"], masks: Bool[np.ndarray, "m h w"]) -> Float[np.ndarray, " n"]:
    """For each true mask, the highest IoU with any of the others; 0 if there are none."""
    if len(truth) == 0 or len(masks) == 0:
        return np.zeros(len(truth))
    # float32 counts pixels exactly up to 2^24, a 4096x4096 image
    true, found = truth.reshape(len(truth), -1).astype(np.float32), masks.reshape(len(masks), -1).astype(np.float32)
    both = true @ found.T
    either = true.sum(axis=1)[:, None] + found.sum(axis=1) - both
    return np.asarray((both / np.maximum(either, 1)).max(axis=1), np.float64)


def evaluate_sam(
    segment: Segment, scenes: Iterable[Scene], progress: Callable[[str], None] = print
) -> dict[str, float | int]:
    """Mean best IoU over visible instances (of at least `min_area_px`), each frame's instances counted anew.

    Returns:
        `mean_best_iou`: of the automatic masks, over all instances; `..._objects` and `..._structures`: over objects
        and over floors, walls and ceilings; `..._painted`: of the segments that painting leaves; `recall_50` and
        `recall_75`: share of instances whose best mask has at least that IoU; `instances`: how many.
    """
    return summarise(score_instances(segment, scenes, progress))


def summarise(scores: list[InstanceScore]) -> dict[str, float | int]:
    """See `evaluate_sam`. NaN where there is nothing to average."""
    masks = np.array([score.mask_iou for score in scores])
    painted = np.array([score.segment_iou for score in scores])
    structure = np.array([score.kind in STRUCTURE_KINDS for score in scores], bool)

    def mean(values: np.ndarray) -> float:
        return round(float(values.mean()), 4) if len(values) else float("nan")

    return {
        "mean_best_iou": mean(masks),
        "mean_best_iou_objects": mean(masks[~structure]),
        "mean_best_iou_structures": mean(masks[structure]),
        "mean_best_iou_painted": mean(painted),
        "mean_best_iou_painted_objects": mean(painted[~structure]),
        "recall_50": mean(masks >= 0.5),
        "recall_75": mean(masks >= 0.75),
        "instances": len(scores),
    }
