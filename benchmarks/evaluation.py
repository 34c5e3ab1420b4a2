"""Scoring instance segmentation as ScanNet200 does, against the usual evaluator's loops, on the same predictions.

100 scenes of 50,000 points and 60 instances; 100 predictions a scene, most of them an instance with ragged edges and
half of those under its right name; 200 classes. Masks are in memory, as they leave a network. Both sides must end with
the same table. Times are of the processor, which a busy machine distorts less; neither side has threads.

Counting the points that masks share with instances is linear in the points of all masks, on both sides. After that the
loops visit every scene once for every class and threshold. A bootstrap scores one choice of scenes after the other:
ours from the verdicts, the loops from the records.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np

from benchmarks import _instance_peer
from benchmarks.common import Row, cost_row, main, plain_row
from liftgs.tasks.instances import MIN_VERTICES, VOID, Overlaps, ScoredMasks, judge_instances, overlap
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
    ours: list[Overlaps] = []
    theirs: list[tuple[_instance_peer.Records, _instance_peer.Records]] = []
    ours_s = theirs_s = 0.0
    for number in range(SCENES + 1):  # one more, to warm up
        if number == 1:
            ours, theirs, ours_s, theirs_s = [], [], 0.0, 0.0
        found, labels, instances = make_scene(number)

        def count_ours() -> None:
            ours.append(overlap(found, labels, instances, MIN_VERTICES))  # noqa: B023  called in this turn

        def count_theirs() -> None:
            theirs.append(_instance_peer.assign(found, labels, instances, CLASSES, MIN_VERTICES))  # noqa: B023

        if number % 2:  # by turns each is the first to touch the new masks
            ours_s += seconds(count_ours)
            theirs_s += seconds(count_theirs)
        else:
            theirs_s += seconds(count_theirs)
            ours_s += seconds(count_ours)

    tables: list[np.ndarray] = []
    ours_ap_s = seconds(lambda: tables.append(judge_instances(ours, CLASSES, MIN_VERTICES).score().table))
    theirs_ap_s = seconds(lambda: tables.append(_instance_peer.evaluate(theirs, CLASSES, MIN_VERTICES)))
    np.testing.assert_allclose(*tables, rtol=0, atol=1e-12)
    yield cost_row(f"score {SCENES} scenes", ours_s + ours_ap_s, theirs_s + theirs_ap_s, PEER, "s")
    yield cost_row("of it: masks to shared points", ours_s, theirs_s, PEER, "s")
    yield cost_row("of it: shared points to AP", ours_ap_s, theirs_ap_s, PEER, "s")
    named = {f"scene{number:04d}": scene for number, scene in enumerate(ours)}
    draw_s = seconds(lambda: bootstrap(instance_scores(named, CLASSES, MIN_VERTICES), DRAWS)) / DRAWS
    yield cost_row(f"a bootstrap draw, of {DRAWS}", draw_s, theirs_ap_s, f"{PEER}, again", "s")
    yield plain_row("AP of these predictions", 100 * float(np.nanmean(tables[0][:, 1:])), "%")


def seconds(call: Callable[[], object]) -> float:
    """Of the processor."""
    start = time.process_time()
    call()
    return time.process_time() - start


def make_scene(seed: int) -> tuple[ScoredMasks, np.ndarray, np.ndarray]:
    """Predictions, labels and instance ids. Instances are runs of points of uneven length with void between them."""
    rng = np.random.default_rng(seed)
    bounds = np.sort(rng.choice(np.arange(1, POINTS), 2 * INSTANCES, replace=False)).reshape(-1, 2)
    labels, instances = np.full(POINTS, VOID), np.zeros(POINTS, np.int64)
    kinds = rng.integers(0, CLASSES, INSTANCES)
    for number, (start, stop) in enumerate(bounds):
        labels[start:stop], instances[start:stop] = kinds[number], 1000 * (kinds[number] + 1) + number
    masks = np.full((PREDICTIONS, POINTS), False)  # not zeros, whose memory comes into being when it is first read
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
