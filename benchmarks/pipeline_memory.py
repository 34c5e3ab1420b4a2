"""Memory of the labelling pipeline for a source, and for one of eight times the scenes: it should be flat.

Both are labelled on a Ray cluster of their own, each in a fresh process. Memory is the most that the job's process and
all its descendants took at one time: driver, Ray's own processes, actors, and the object store, in proportional set
sizes, so that shared pages count once. Shards in flight are those loaded and not yet committed.

The hardest case: a pool per stage, as on a cluster, photos and depth of noise, which make large shards, and a slow
segmenter, so that loading could run ahead and fill the memory. (At `scale=laptop` a process does all stages of a shard,
so it holds one.) The segmenter cuts a grid and the embedding is a mean colour, since models only add a constant.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float16, UInt8, UInt16
from PIL import Image

from benchmarks._labelling import Times, read_spec, run_on_ray
from benchmarks._processes import PeakOfTree, in_child
from benchmarks.common import Row, cost_row, main, plain_row
from liftgs_platform import label_stages, pseudolabel
from liftgs_platform.label_scale import PoolSpec, ScaleSpec
from liftgs_platform.label_stages import Stage
from liftgs_platform.pseudolabel import Spec
from liftgs_platform.shard_plan import Plan

#: Enough shards that the pipeline is full with the smaller source too.
SCENES = 16
TIMES = 8
VIEWS = 3
SCENES_PER_SHARD = 2
SIZE_PX = 512
SEGMENT_S = 0.15

#: One actor per stage, and Ray on two CPUs.
POOL = PoolSpec(num_cpus=0.4)
POOLS = dict.fromkeys(("load", "segment", "embed+caption", "commit"), POOL)


def measure() -> Iterator[Row]:
    """Memory, and what it should not grow with."""
    with tempfile.TemporaryDirectory() as folder:
        one = write_scene(Path(folder, "one"))
        small, small_lead, _ = run(one, Path(folder, "small"), SCENES)
        large, large_lead, stored = run(one, Path(folder, "large"), SCENES * TIMES)
    case = f"peak memory, {SCENES * TIMES} scenes"
    yield cost_row(case, large / 1e6, small / 1e6, f"pipeline, {SCENES} scenes", "MB")
    yield cost_row("shards in flight, at most", large_lead, small_lead, f"pipeline, {SCENES} scenes", "shards")
    yield plain_row(f"corpus of {SCENES * TIMES} scenes", stored / 1e6, "MB")


def write_scene(folder: Path) -> Path:
    """A 7-Scenes folder of noise before a noisy wall 2 m away."""
    folder.mkdir()
    K = np.array([[SIZE_PX, 0, SIZE_PX / 2], [0, SIZE_PX, SIZE_PX / 2], [0, 0, 1]])
    np.savetxt(folder / "camera-intrinsics.txt", K)
    for view in range(VIEWS):
        rng = np.random.default_rng(view)
        name = folder / f"frame-{view:06d}"
        Image.fromarray(rng.integers(0, 256, (SIZE_PX, SIZE_PX, 3), np.uint8)).save(f"{name}.color.jpg", quality=95)
        Image.fromarray(rng.integers(1900, 2100, (SIZE_PX, SIZE_PX)).astype(np.uint16)).save(f"{name}.depth.png")
        np.savetxt(f"{name}.pose.txt", np.eye(4))
    return folder


def run(scene: Path, folder: Path, scenes: int) -> tuple[int, int, int]:
    """Label `scenes` copies of a scene.

    Returns:
        Peak memory in bytes, the most shards in flight, the bytes of the tars.
    """
    for number in range(scenes):
        copy = folder / "scenes" / f"scene{number:04d}"
        copy.mkdir(parents=True)
        for file in scene.iterdir():
            os.link(file, copy / file.name)
    corpus = folder / "corpus"
    shard = f"chunks_per_shard={SCENES_PER_SHARD}"
    spec = read_spec(f"source={folder / 'scenes'}", f"output={corpus}", "teachers=none", shard)
    spec = replace(spec, scale=ScaleSpec(POOLS))
    with PeakOfTree() as memory:
        times: Times = in_child(run_on_ray, spec, quick_stages, ("load", "commit"), watch=memory.watch)
    return memory.peak_bytes, times.lead(), sum(file.stat().st_size for file in corpus.glob("shards/*.tar"))


def quick_stages(spec: Spec, plans: Sequence[Plan]) -> Mapping[str, Any]:
    """The job's stages with teachers that need no model."""
    return {**pseudolabel.factories(spec, plans), "segment": BuildGrid(SEGMENT_S), "embed": BuildMeanColour()}


@dataclass(frozen=True)
class BuildGrid:
    """Segments are the cells of a 4x4 grid; each photo takes `seconds`."""

    seconds: float

    def __call__(self, before: Mapping[str, Stage]) -> Stage:
        """See `label_pool.StageFactory`."""

        def segment(rgb: UInt8[np.ndarray, "h w 3"]) -> UInt16[np.ndarray, "h w"]:
            time.sleep(self.seconds)
            row, column = (np.arange(size) * 4 // size for size in rgb.shape[:2])
            return (1 + 4 * row[:, None] + column).astype(np.uint16)

        return label_stages.Segment(segment, "grid")


@dataclass(frozen=True)
class BuildMeanColour:
    """A segment's embedding is the direction of its mean colour."""

    def __call__(self, before: Mapping[str, Stage]) -> Stage:
        """See `label_pool.StageFactory`."""

        def embed(rgb: UInt8[np.ndarray, "h w 3"], semantics: UInt16[np.ndarray, "h w"]) -> Float16[np.ndarray, "s 3"]:
            sums = [np.bincount(semantics.ravel(), rgb[..., channel].ravel())[1:] for channel in range(3)]
            rows = np.stack(sums, axis=1) + 1.0
            unit: np.ndarray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
            return unit.astype(np.float16)

        return label_stages.Embed(embed, "mean-colour")


if __name__ == "__main__":
    from benchmarks import pipeline_memory  # noqa: PLW0406  under its real name, by which Ray finds its classes

    main(pipeline_memory.measure, "memory of the labelling pipeline")
