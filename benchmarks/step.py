"""A pretraining step by phase, `tiny` and `base`, and how it grows from 10,000 to 100,000 voxels.

What is timed is `Trainer.step`, with each network's own recipe: `tiny` two views of 128 pixels, `base` one of 512 as in
the paper, with its 256 proposals and 8 instances. Clouds are rooms side by side until there are enough voxels; the
views see the first. Phases are the calls named in `PHASES`; "other" is what of the forward pass lies between them.
There is no peer; `--device cuda` puts the same on a GPU, where memory is what PyTorch allocated at most.

The allocator keeps freed memory, as in the training jobs (else much of a step goes into the kernel's clearing of
pages).
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cache, wraps
from typing import Any
from unittest import mock

import numpy as np
import torch

from benchmarks._processes import in_child, peak_growth_bytes
from benchmarks._rooms import load_room, members
from benchmarks.common import Row, most_row, plain_row, report
from benchmarks.sparse_unet import KEEP_FREED_MEMORY
from liftgs.model import liftgs as network
from liftgs.model.decoder import Decoder
from liftgs.model.gaussians import GaussianHead
from liftgs.model.liftgs import LiftGS, LiftGSConfig
from liftgs.model.unet import SpUNet
from liftgs.model.voxels import Voxels, voxelise
from liftgs.pretraining import objective
from liftgs.pretraining.items import Item, ItemConfig, make_item
from liftgs.pretraining.objective import Objective, ObjectiveConfig
from liftgs.render.cuda import CudaRasterization
from liftgs.render.native import NativeRasterization
from liftgs.sample import Sample
from liftgs.scene import PointCloud
from liftgs.training.augment import AugmentConfig
from liftgs.training.trainer import OptimConfig, Trainer

THREADS = 2
REPEATS = 3
ROOMS = 4
SIZES = {"tiny": (10_000, 25_000, 50_000, 100_000), "base": (10_000, 50_000, 100_000)}
STILL = AugmentConfig(rotate=False, flip=False, scale=0, colour=0)
ITEMS = {
    "tiny": ItemConfig(views=2, image_px=128, same_query=0.85, augment=STILL),
    "base": ItemConfig(augment=STILL),
}
OBJECTIVES = {"tiny": ObjectiveConfig(match_px=64), "base": ObjectiveConfig()}
PHASES: tuple[tuple[str, Any, str], ...] = (
    ("voxel pyramid", network, "build_pyramid"),
    ("U-Net", SpUNet, "forward"),
    ("Gaussian head", GaussianHead, "forward"),
    ("decoder", Decoder, "forward"),
    ("rendering", objective, "rasterize"),
    ("rendering", NativeRasterization, "composite"),
    ("rendering", CudaRasterization, "composite"),
    ("matching", objective, "match"),
    ("losses", objective, "mask_losses"),
    ("losses", objective, "photometric_loss"),
    ("losses", objective, "contrastive_loss"),
    ("losses", objective, "token_loss"),
)


def measure(device: str) -> Iterator[Row]:
    """Each network in a process of its own, then the growth."""
    with mock.patch.dict(os.environ, KEEP_FREED_MEMORY | {"OMP_NUM_THREADS": str(THREADS)}):
        for name in SIZES:
            yield from in_child(measure_network, name, device)


def measure_network(name: str, device: str) -> list[Row]:
    """Rows of all sizes, and the growth."""
    torch.set_num_threads(THREADS)
    rows, seconds, sizes = [], [], SIZES[name]
    for size in sizes:
        of_size, step_s = measure_step(name, size, device)
        rows += of_size
        seconds.append(step_s)
    growth = f"{name}: a step of {sizes[-1]:,} voxels over one of {sizes[0]:,}"
    return [*rows, most_row(growth, seconds[-1] / seconds[0], sizes[-1] / sizes[0], "x")]


def measure_step(name: str, size: int, device: str) -> tuple[list[Row], float]:
    """Rows of one network and size, and the median seconds of a step."""
    torch.manual_seed(0)
    config = LiftGSConfig.named(name)
    batch = [room_item(config, ITEMS[name], size)]
    trainer = Trainer(LiftGS(config), Objective(OBJECTIVES[name]), OptimConfig(batch_size=1), device)
    trainer.step(batch)  # warm-up: kernels are built, memory is taken
    phases, steps = timed_steps(trainer, batch, PHASES)
    case = f"{name}, {size // 1000}k voxels"
    rows = [plain_row(f"{case}: {phase}", seconds * 1e3, "ms") for phase, seconds in phases.items()]
    rows.append(plain_row(f"{case}: the whole step", steps * 1e3, "ms"))
    rows.append(plain_row(f"{case}: memory above the weights", peak_bytes(trainer, batch) / 2**30, "GiB"))
    return rows, steps


def timed_steps(
    trainer: Trainer, batch: list[Any], named: Sequence[tuple[str, Any, str]]
) -> tuple[dict[str, float], float]:
    """Median seconds by phase, and of a step as a whole. Named phases are (name, module or class, function in it)."""
    recorded: dict[str, list[float]] = defaultdict(list)
    steps = []
    for _ in range(REPEATS):
        watch = Stopwatch(trainer.device)
        with ExitStack() as patches:
            for phase, owner, attribute in named:
                timed = watch.around(phase, getattr(owner, attribute))
                patches.enter_context(mock.patch.object(owner, attribute, timed))
            metrics, seconds = watch.clocked(lambda: trainer.step(batch))
        steps.append(seconds)
        phases = dict(watch.seconds)
        phases["other forward"] = metrics["forward_s"] - sum(phases.values())
        phases |= {"backward": metrics["backward_s"], "update": metrics["update_s"]}
        for phase, value in phases.items():
            recorded[phase].append(value)
    return {phase: statistics.median(values) for phase, values in recorded.items()}, statistics.median(steps)


class Stopwatch:
    """Adds up the seconds spent in functions; on a GPU it waits for the work before and after."""

    def __init__(self, device: torch.device):
        self.seconds: dict[str, float] = defaultdict(float)
        self._device = device

    def around(self, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed."""

        @wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            result, seconds = self.clocked(lambda: function(*args, **kwargs))
            self.seconds[phase] += seconds
            return result

        return timed

    def clocked(self, work: Callable[[], Any]) -> tuple[Any, float]:
        """Result and seconds."""
        start = self._now()
        result = work()
        return result, self._now() - start

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


def peak_bytes(trainer: Trainer, batch: list[Any]) -> int:
    """Of one more step."""
    if trainer.device.type == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        trainer.step(batch)
        return torch.cuda.max_memory_allocated() - before
    return peak_growth_bytes(lambda: trainer.step(batch))


def room_item(config: LiftGSConfig, item_config: ItemConfig, size: int) -> Item:
    """Views of a room in a cloud of `size` voxels: that room, then others in a row beside it."""
    item = make_item(
        Sample(members(load_room(0), config.embed_dim), "room"), item_config, config.voxel_size_m, "", 0, 0
    )
    xyz, rgb, number, end = [item.voxels.xyz], [item.voxels.rgb], 1, float(item.voxels.xyz[:, 0].max())
    while sum(map(len, xyz)) < size:
        cloud = room_cloud(number % ROOMS)
        moved = torch.from_numpy(cloud.xyz + np.float32([end + 1 - cloud.xyz[:, 0].min(), 0, 0]))
        voxels = voxelise(moved, torch.from_numpy(cloud.rgb).float() / 255, config.voxel_size_m)
        xyz.append(voxels.xyz)
        rgb.append(voxels.rgb)
        number, end = number + 1, float(voxels.xyz[:, 0].max())
    return replace(item, voxels=_first(voxelise(torch.cat(xyz), torch.cat(rgb), config.voxel_size_m), size))


@cache
def room_cloud(index: int) -> PointCloud:
    """As a depth camera sees it."""
    return load_room(index).cloud


def _first(voxels: Voxels, size: int) -> Voxels:
    return Voxels(voxels.xyz[:size], voxels.rgb[:size], voxels.grid[:size], torch.arange(size))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one object {'rows': [...]} instead of a table")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    arguments = parser.parse_args()
    report(measure(arguments.device), parser.description or "", arguments.json)


if __name__ == "__main__":
    main()
