"""Scoring instance segmentation as ScanNet200 does, against the usual evaluator's loops, on the same predictions.

100 scenes of 50,000 points and 60 instances; 100 predictions a scene, most of them an instance with ragged edges and
half of those under its right name; 200 classes. Masks are in memory, as they leave a network. Both sides take each
scene in turn, and must end with the same table.

Reducing a scene to counts of shared points is linear in the points of all masks; judging and ranking are not linear in
anything large, while the loops visit every scene for every class and threshold. A bootstrap scores a thousand choices
of scenes: ours from the verdicts, the peer's again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from benchmarks import _instance_peer
from benchmarks.common import Row, cost_row, main, plain_row
from liftgs.tasks.instances import MIN_VERTICES, VOID, ScoredMasks, judge_instances, overlap
from liftgs.tasks.intervals import bootstrap, instance_scores

SCENES = 100
POINTS = 50_000
INSTANCES = 60
PREDICTIONS = 100
CLASSES = 200
DRAWS = 1000
PEER = "the usual loops"


def measure() -> Iterator[Row]:
    """Seconds for all scenes, in all and by part."""
    ours, theirs = [], []
    seconds = {"ours, reduce": 0.0, "theirs, reduce": 0.0}
    for number in range(-1, SCENES):  # the first is a warm-up
        found, labels, instances = make_scene(number + 1)
        start = time.process_time()
        reduced = overlap(found, labels, instances, MIN_VERTICES)
        middle = time.process_time()
        assigned = _instance_peer.assign(found, labels, instances, CLASSES, MIN_VERTICES)
        if number >= 0:
            seconds["theirs, reduce"] += time.process_time() - middle
            seconds["ours, reduce"] += middle - start
            ours.append(reduced)
            theirs.append(assigned)

    start = time.process_time()
    judged = judge_instances(ours, CLASSES, MIN_VERTICES)
    scores = judged.score()
    middle = time.process_time()
    table = _instance_peer.evaluate(theirs, CLASSES, MIN_VERTICES)
    ours_score, theirs_score = middle - start, time.process_time() - middle
    np.testing.assert_allclose(scores.table, table, rtol=0, atol=1e-12)

    ours_s, theirs_s = seconds["ours, reduce"], seconds["theirs, reduce"]
    yield cost_row(f"score {SCENES} scenes", ours_s + ours_score, theirs_s + theirs_score, PEER, "s")
    yield cost_row("of it: masks to shared points", ours_s, theirs_s, PEER, "s")
    yield cost_row("of it: shared points to AP", ours_score, theirs_score, PEER, "s")
    start = time.process_time()
    bootstrap(instance_scores({str(i): scene for i, scene in enumerate(ours)}, CLASSES, MIN_VERTICES), DRAWS)
    again = (time.process_time() - start) / DRAWS
    yield cost_row("a bootstrap draw of these scenes", again, theirs_score, f"{PEER} again", "s")
    yield plain_row("AP of these predictions", 100 * scores.ap, "%")


def make_scene(seed: int) -> tuple[ScoredMasks, np.ndarray, np.ndarray]:
    """Predictions, labels and instance ids. Instances are runs of points of uneven length with void between them."""
    rng = np.random.default_rng(seed)
    bounds = np.sort(rng.choice(np.arange(1, POINTS), 2 * INSTANCES, replace=False)).reshape(-1, 2)
    labels, instances = np.full(POINTS, VOID), np.zeros(POINTS, np.int64)
    kinds = rng.integers(0, CLASSES, INSTANCES)
    for number, (start, stop) in enumerate(bounds):
        labels[start:stop], instances[start:stop] = kinds[number], 1000 * (kinds[number] + 1) + number
    masks = np.zeros((PREDICTIONS, POINTS), bool)
    target = rng.integers(0, INSTANCES, PREDICTIONS)
    for mask, (start, stop) in zip(masks, bounds[target], strict=True):
        reach = max(50, (stop - start) // 3)
        first, last = start + rng.integers(-reach, reach), stop + rng.integers(-reach, reach)
        ragged = mask[max(0, first) : max(0, last)]
        ragged[:] = rng.random(len(ragged)) < 0.95
    label = np.where(rng.random(PREDICTIONS) < 0.5, kinds[target], rng.integers(0, CLASSES, PREDICTIONS))
    return ScoredMasks(masks, np.arange(PREDICTIONS), label, rng.random(PREDICTIONS)), labels, instances


if __name__ == "__main__":
    main(measure, "instance segmentation scores against the usual evaluator")
