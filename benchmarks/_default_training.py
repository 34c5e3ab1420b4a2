"""The loop of Ray Train's guide around our network and data: a peer of `benchmarks.elastic`. Travels by value."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import ray.train
import torch
from ray.train import Checkpoint

from liftgs.model.liftgs import LiftGS, LiftGSConfig
from liftgs.pretraining.objective import Objective
from liftgs.training.trainer import Trainer
from liftgs.training.world import World
from liftgs_platform.loader import Loader
from liftgs_platform.pretrain import Pretraining, Spec


def default_loop(config: dict[str, Any]) -> None:
    """Steps, and a checkpoint reported every so often. `config` holds the `spec`."""
    spec: Spec = config["spec"]
    torch.set_num_threads(1)
    place = ray.train.get_context()
    world = World(place.get_world_rank(), place.get_world_size())
    task = Pretraining(spec)
    torch.manual_seed(0)
    trainer = Trainer(LiftGS(LiftGSConfig.named("tiny")), Objective(spec.objective), spec.optim, "cpu", world)
    if checkpoint := ray.train.get_checkpoint():
        with checkpoint.as_directory() as folder:
            state = torch.load(Path(folder, "state.pt"), weights_only=True)
        trainer.model.load_state_dict(state["model"])
        trainer.load_state_dict(state["trainer"])
    places = [place for unit in world.places(spec.optim.batch_size) for place in unit]
    with Loader(task.mixture(), task.item, spec.optim.batch_size, places=places) as loader:
        mark = time.time()
        for batch in loader.batches(trainer.steps_done, spec.optim.steps):
            trainer.step([one.item for one in batch])
            if world.rank == 0:
                done = {"step": trainer.steps_done, "at": time.time(), "seconds": time.time() - mark}
                with Path(spec.output, "done.jsonl").open("a") as file:
                    file.write(json.dumps(done | {"workers": world.size}) + "\n")
            if trainer.steps_done % spec.loop.checkpoint_every == 0:
                with tempfile.TemporaryDirectory() as folder:
                    state = {"model": trainer.model.state_dict(), "trainer": trainer.state_dict()}
                    torch.save(state, Path(folder, "state.pt"))
                    ray.train.report({}, checkpoint=Checkpoint.from_directory(folder) if world.rank == 0 else None)
            mark = time.time()
