"""The driver that test_prometheus.py watches: labels, trains and tells of a sweep, for some ten seconds.

Usage: python watched_driver.py FOLDER, with RAY_ADDRESS set.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
import tiny
import tiny_corpora
import tiny_network
import torch

from liftgs.chunks import ChunkingConfig
from liftgs.pretraining.items import Item, ItemConfig
from liftgs.training.trainer import OptimConfig
from liftgs.training.world import World
from liftgs_platform import pseudolabel
from liftgs_platform.job import Job
from liftgs_platform.label_scale import PoolSpec, ScaleSpec
from liftgs_platform.learning import ModelSpec
from liftgs_platform.mixture import CorpusSpec
from liftgs_platform.monitoring import SweepMetrics
from liftgs_platform.pretrain import Pretraining, Spec
from liftgs_platform.training import Context, LoopConfig, train
from liftgs_platform.training_log import RayMetrics

SCENES, STEPS = 8, 30


class Slow(Pretraining):
    """Steps take a quarter of a second, to be there when somebody looks."""

    def learner(self, device: str, checkpoint: Path | None, world: World) -> Any:
        """A `Trainer` that waits before each step."""
        learner: Any = super().learner(device, checkpoint, world)
        step = learner.step

        def waiting(items: Sequence[Item | None]) -> Mapping[str, float]:
            time.sleep(0.25)
            found: Mapping[str, float] = step(items)
            return found

        learner.step = waiting
        return learner


def train_here(spec: Spec) -> None:
    """What a worker does, but without Ray Train, which takes long to start."""
    torch.set_num_threads(1)
    train(Slow(spec), spec.output, spec.loop, Context(sinks=(RayMetrics("base"),)))


def spec_of_training(folder: Path) -> Spec:
    """A few samples, and a network of a few thousand weights."""
    tiny_corpora.write(str(folder / "learned"), tiny_corpora.plan())
    tiny_network.network(embed_dim=tiny_corpora.DIM).save(folder / "start")
    return Spec(
        str(folder / "base"),
        corpora=(CorpusSpec(str(folder / "learned")),),
        model=ModelSpec(start=str(folder / "start")),
        item=ItemConfig(image_px=16),
        optim=OptimConfig(steps=STEPS, batch_size=1, lr=1e-3, warmup_steps=5),
        loop=LoopConfig(checkpoint_every=10, panel_every=0),
    )


def spec_of_labelling(folder: Path) -> pseudolabel.Spec:
    """Two shards a scene; every other scene has a photo that is torn."""
    source = tiny.write_scenes(folder / "scans", SCENES)
    for scene in range(0, SCENES, 2):
        photo = source / f"scene{scene:02d}" / f"{tiny.name(1)}.color.jpg"
        photo.write_bytes(photo.read_bytes()[:100])
    return pseudolabel.Spec(
        str(source),
        str(folder / "kitchens"),
        chunks_per_shard=1,
        chunking=ChunkingConfig(frames_per_chunk=2),
        max_quarantine_rate=0.5,
        scale=ScaleSpec({"load+segment+embed+caption+commit": PoolSpec(num_cpus=0.5)}),
    )


def main(folder: str) -> None:
    """Do it all."""
    import watched_driver

    for module in (tiny, tiny_corpora, tiny_network, watched_driver):
        ray.cloudpickle.register_pickle_by_value(module)
    ray.init(logging_level="warning")
    sweep = SweepMetrics("sweeps/mixes")
    sweep.show({"done": 1, "running": 2, "failed": 0})
    training = ray.remote(num_cpus=1)(watched_driver.train_here).remote(spec_of_training(Path(folder)))
    original = pseudolabel.factories
    pseudolabel.factories = lambda spec, plans: tiny.with_quick_teachers(original(spec, plans), seconds=0.2)
    pseudolabel.run(spec_of_labelling(Path(folder)), Job(Path("jobs/pseudolabel.yaml")))
    ray.get(training)
    sweep.show({"done": 3, "failed": 0})


if __name__ == "__main__":
    main(*sys.argv[1:])
