"""Seconds to ground phrases in a scene, against its points and against the number of phrases.

What is timed is `liftgs.ground.ground` on a cloud in memory: voxels, U-Net, text encoder, decoder, masks, boxes. The
clouds are the points nearest to the middle of a large room, so that they are as dense as a scan; the network is `tiny`
with fresh weights, whose time is that of trained ones. The bound is the paper's "about 1 s" a scene, which it states
for its own, larger network on a GPU. The peer asks phrase by phrase, as models do that take one phrase with the scene:
it encodes the scene for each, where ours does so once.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch

from benchmarks.common import Row, cost_row, interleaved_seconds, main, most_row
from liftgs.ground import Grounder, ground, open_scan
from liftgs.model.liftgs import LiftGS, LiftGSConfig
from liftgs.procedural import COLOURS, KINDS
from liftgs.scene import PointCloud

ROOM = "procedural:warehouses/000000"
POINTS = (10_000, 25_000, 50_000, 100_000)
PHRASES = (8, 64)
PAPER_S = 1.0
REPEATS = 3


def measure() -> Iterator[Row]:
    """Against points with one phrase, then against phrases at 50,000 points."""
    grounder = fresh_tiny()
    room = open_scan(ROOM, grounder.model.config.voxel_size_m).cloud
    phrases = [f"the {colour} {kind}" for kind, colour in zip(KINDS, COLOURS * len(KINDS), strict=False)]
    phrases += [f"a {kind}" for kind in KINDS]
    by_points = interleaved_seconds(
        REPEATS, *(partial(ground, grounder, middle(room, count), phrases[:1]) for count in POINTS)
    )
    for count, seconds in zip(POINTS, by_points, strict=True):
        yield most_row(f"{count:,} points, 1 phrase", seconds, PAPER_S, "s")
    more_points = POINTS[-1] / POINTS[0]
    yield most_row(
        f"time of {POINTS[-1]:,} points over that of {POINTS[0]:,}", by_points[-1] / by_points[0], more_points, "x"
    )
    cloud = middle(room, 50_000)
    by_phrases = interleaved_seconds(REPEATS, *(partial(ground, grounder, cloud, phrases[:n]) for n in PHRASES))
    for count, seconds in zip(PHRASES, by_phrases, strict=True):
        yield most_row(f"50,000 points, {count} phrases", seconds, PAPER_S, "s")
    together, apart = interleaved_seconds(
        1,
        partial(ground, grounder, cloud, phrases[:8]),
        lambda: [ground(grounder, cloud, [phrase]) for phrase in phrases[:8]],
    )
    yield cost_row("50,000 points, 8 phrases", together, apart, "one call a phrase", "s")


def fresh_tiny() -> Grounder:
    """The network `tiny` with fresh weights."""
    torch.manual_seed(0)
    model = LiftGS(LiftGSConfig.named("tiny")).eval()
    return Grounder(model, model.clip())


def middle(cloud: PointCloud, count: int) -> PointCloud:
    """The points that are nearest to the middle of a cloud, in their order."""
    distance = np.linalg.norm(cloud.xyz - np.median(cloud.xyz, axis=0), axis=1)
    return cloud[np.sort(np.argpartition(distance, count - 1)[:count])]


if __name__ == "__main__":
    main(measure, "Grounding latency")
