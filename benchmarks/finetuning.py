"""A finetuning step of `tiny` by phase, what making its item costs, and how the step grows with the cloud.

What is timed is `Trainer.step` on one item with the recipe of `jobs/finetuning/tiny.yaml`: two questions, one of names
and one of expressions. Clouds are rooms side by side until there are enough voxels; the questions are about the first.
The item is made from the members of a sample, as a loader does, with phrases that were met before; the last row is that
of the baseline, where labels are lifted from six photos. There is no peer.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import torch

from benchmarks._processes import in_child
from benchmarks._rooms import load_room, segment_map
from benchmarks.common import Row, interleaved_seconds, main, most_row, plain_row
from benchmarks.sparse_unet import KEEP_FREED_MEMORY
from benchmarks.step import PHASES, REPEATS, ROOMS, STILL, THREADS, peak_bytes, room_cloud, timed_steps
from liftgs.finetuning import objective
from liftgs.finetuning.items import LabelledItem, LabelledItemConfig, make_labelled_item
from liftgs.finetuning.objective import GroundingObjective, GroundingObjectiveConfig
from liftgs.geometry import voxelise
from liftgs.losses.matching import MatchingConfig
from liftgs.model.liftgs import LiftGS, LiftGSConfig
from liftgs.model.text import Phrases
from liftgs.model.voxels import Voxels
from liftgs.procedural import KINDS
from liftgs.sample import Members, Sample, encode_chunk
from liftgs.scene import PointCloud
from liftgs.training.trainer import OptimConfig, Trainer

SIZES = (10_000, 25_000, 50_000, 100_000)
ASKED = LabelledItemConfig(augment=STILL)
RECIPE = GroundingObjectiveConfig(weight=0.25, matching=MatchingConfig(token=0.5))
#: Of the network as in pretraining; the losses are called by another module.
OURS: tuple[tuple[str, Any, str], ...] = (
    *(phase for phase in PHASES if phase[0] in ("voxel pyramid", "U-Net", "Gaussian head", "decoder")),
    ("matching", objective, "match"),
    ("losses", objective, "mask_losses"),
    ("losses", objective, "token_loss"),
)


def measure() -> Iterator[Row]:
    """In a process of its own, whose allocator keeps freed memory, as in the training jobs."""
    with mock.patch.dict(os.environ, KEEP_FREED_MEMORY | {"OMP_NUM_THREADS": str(THREADS)}):
        yield from in_child(measure_all)


def measure_all() -> list[Row]:
    """Rows of all sizes, the growth, and a lifted item."""
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    model = LiftGS(LiftGSConfig.named("tiny"))
    trainer = Trainer(model, GroundingObjective(RECIPE), OptimConfig(batch_size=1))
    phrases = Phrases(model.clip())
    rows, seconds = [], []
    for size in SIZES:
        of_size, step_s = measure_size(trainer, phrases, size)
        rows += of_size
        seconds.append(step_s)
    growth = f"a step of {SIZES[-1]:,} voxels over one of {SIZES[0]:,}"
    rows.append(most_row(growth, seconds[-1] / seconds[0], SIZES[-1] / SIZES[0], "x"))
    config = replace(ASKED, labels="lifted", task="instances", same_query=0.85)
    return [*rows, item_row("one room: the item, lifted labels", labelled(1, model.config), config, model, phrases)]


def measure_size(trainer: Trainer, phrases: Phrases, size: int) -> tuple[list[Row], float]:
    """Rows of one size, and the median seconds of a step."""
    case, config = f"{size // 1000}k voxels", trainer.model.config
    members = labelled(size, config)
    rows = [item_row(f"{case}: the item", members, ASKED, trainer.model, phrases)]
    batch = [cut(make(members, ASKED, trainer.model, phrases), size)]
    trainer.step(batch)  # warm-up
    phases, step_s = timed_steps(trainer, batch, OURS)
    rows += [plain_row(f"{case}: {phase}", value * 1e3, "ms") for phase, value in phases.items()]
    rows.append(plain_row(f"{case}: the whole step", step_s * 1e3, "ms"))
    rows.append(plain_row(f"{case}: memory above the weights", peak_bytes(trainer, batch) / 2**30, "GiB"))
    return rows, step_s


def item_row(case: str, members: Members, config: LabelledItemConfig, model: LiftGS, phrases: Phrases) -> Row:
    """What making an item takes."""
    (seconds,) = interleaved_seconds(REPEATS, lambda: make(members, config, model, phrases))
    return plain_row(case, seconds * 1e3, "ms")


def make(members: Members, config: LabelledItemConfig, model: LiftGS, phrases: Phrases) -> LabelledItem:
    """An item from undecoded members."""
    sample = Sample(members, "room")
    return make_labelled_item(sample, config, model.config.voxel_size_m, tuple(KINDS), phrases, "room", 0, 0)


def labelled(size: int, config: LiftGSConfig) -> Members:
    """A labelled room, then others beside it without labels, until there are enough voxels."""
    room = load_room(0)
    assert room.cloud.instances is not None
    xyz, rgb, number = room.cloud.xyz, room.cloud.rgb, 1
    while len(voxelise(PointCloud(xyz, rgb), config.voxel_size_m)) < size:
        other = room_cloud(number % ROOMS)
        moved = other.xyz + np.float32([xyz[:, 0].max() + 1 - other.xyz[:, 0].min(), 0, 0])
        xyz, rgb, number = np.concatenate([xyz, moved]), np.concatenate([rgb, other.rgb]), number + 1
    nobody = np.zeros(len(xyz) - len(room.cloud), np.int32)
    cloud = PointCloud(xyz, rgb, np.concatenate([room.cloud.instances, nobody]))
    segments = [segment_map(room, frame, config.embed_dim) for frame in room.frames]
    return encode_chunk(replace(room, cloud=cloud), {}, segments)


def cut(item: LabelledItem, size: int) -> LabelledItem:
    """With its first voxels alone, which are those of the first rooms."""
    voxels = item.voxels
    first = Voxels(voxels.xyz[:size], voxels.rgb[:size], voxels.grid[:size], torch.arange(size))
    return replace(item, voxels=first, instance=item.instance[:size])


if __name__ == "__main__":
    main(measure, (__doc__ or "").splitlines()[0])
