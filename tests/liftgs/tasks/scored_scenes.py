"""Small scenes with predictions, worked by hand or at random, and their scores."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from liftgs.tasks.instances import VOID, InstanceScores, ScoredMasks, overlap, score_instances

#: Predictions, class of each point, instance id of each point.
Scored = tuple[ScoredMasks, np.ndarray, np.ndarray]


def spans(n: int, *ranges: tuple[int, int]) -> np.ndarray:
    """Masks over n points, each true in a half-open range."""
    masks = np.zeros((len(ranges), n), bool)
    for mask, (start, stop) in zip(masks, ranges, strict=True):
        mask[start:stop] = True
    return masks


def predictions(masks: np.ndarray, scores: list[float], labels: list[int] | None = None) -> ScoredMasks:
    label = np.zeros(len(masks), np.int64) if labels is None else np.array(labels, np.int64)
    return ScoredMasks(masks, np.arange(len(masks)), label, np.array(scores, np.float64))


def truth(n: int, *instances: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Labels and ids over n points; each instance is (start, stop, label)."""
    labels, ids = np.full(n, VOID), np.zeros(n, np.int64)
    for number, (start, stop, label) in enumerate(instances, 1):
        labels[start:stop], ids[start:stop] = label, number
    return labels, ids


def perfect(labels: np.ndarray, ids: np.ndarray, rng: np.random.Generator) -> ScoredMasks:
    """Every evaluated instance, under its class, with random scores."""
    found = np.unique(ids[(labels != VOID) & (ids != 0)])
    masks = (ids == found[:, None]) & (labels != VOID)
    label = np.array([labels[np.argmax(mask)] for mask in masks], np.int64)
    return ScoredMasks(masks, np.arange(len(masks)), label, rng.random(len(masks)))


def evaluate(scenes: list[Scored], classes: int = 1, min_points: int = 1) -> InstanceScores:
    return score_instances([overlap(*scene, min_points) for scene in scenes], classes, min_points)


@st.composite
def random_scenes(draw: st.DrawFn) -> tuple[list[Scored], int]:
    """A few scenes of overlapping masks of 3 classes, with ties among scores, small instances, void and repeated masks,
    and the fewest points that count.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scenes = [random_scene(rng) for _ in range(draw(st.integers(1, 3)))]
    return scenes, draw(st.integers(1, 8))


def random_scene(rng: np.random.Generator) -> Scored:
    n = int(rng.integers(20, 60))
    ids = np.repeat(np.arange(n), rng.integers(1, 15, n))[:n]
    ids = np.where(rng.random(n)[ids] < 0.2, 0, ids)
    labels = rng.integers(VOID, 3, n)[ids]
    masks = np.array([_jitter(rng, ids) for _ in range(int(rng.integers(0, 9)))], bool).reshape(-1, n)
    count = int(rng.integers(0, 20)) if len(masks) else 0
    scores = rng.integers(0, 5, count) / 4
    return (
        ScoredMasks(masks, rng.integers(0, max(1, len(masks)), count), rng.integers(0, 3, count), scores),
        labels,
        ids,
    )


def _jitter(rng: np.random.Generator, ids: np.ndarray) -> np.ndarray:
    """About one or two of the instances."""
    chosen = rng.choice(ids, int(rng.integers(1, 3)))
    return np.isin(ids, chosen) ^ (rng.random(len(ids)) < 0.1)
