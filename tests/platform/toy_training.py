"""A training for tests of the harness: a linear model learns the mean colour of a sample's cloud; quick, and exact."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tiny_corpora
import torch
from safetensors.torch import load_file, save_file
from torch import distributed, nn

from liftgs.sample import Sample
from liftgs.scene import BadInput
from liftgs.training.world import World, tree_sum
from liftgs_platform.mixture import CorpusSpec, Draw, Mixture
from liftgs_platform.training import Context, LoopConfig, train
from liftgs_platform.training_task import Validation

#: Learning rate.
RATE = 0.05


def write_corpora(folder: Path) -> tuple[CorpusSpec, ...]:
    """Two corpora of 6 and 3 samples, drawn alike."""
    tiny_corpora.write(str(folder / "a"), tiny_corpora.plan(tiny_corpora.chunks(2)))
    tiny_corpora.write(str(folder / "b"), tiny_corpora.plan(tiny_corpora.chunks(1)))
    return CorpusSpec(str(folder / "a")), CorpusSpec(str(folder / "b"))


class Diverged(RuntimeError):
    """The toy's own."""


class Model(nn.Linear):
    """Four numbers -> three."""

    def __init__(self) -> None:
        super().__init__(4, 3)

    def save(self, folder: Path) -> None:
        """As LiftGS does."""
        (folder / "config.json").write_text(json.dumps({"toy": True}))
        save_file(self.state_dict(), folder / "model.safetensors")


@dataclass(frozen=True)
class Seen:
    """An item: which sample it is of, and what is learned from it."""

    key: str
    colour: torch.Tensor


class Learner:
    """Plain AdamW with noise in it, so that torch's random numbers matter. The rate is constant."""

    def __init__(self, model: Model, batch_size: int, world: World, trace: str = "", step_s: float = 0.0):
        self.model, self.batch_size, self.world, self.trace, self.step_s = model, batch_size, world, trace, step_s
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
        self.steps_done = 0

    def step(self, items: Sequence[Seen | None]) -> dict[str, float]:
        """One update towards the colours."""
        time.sleep(self.step_s)
        self._note(items)
        noise = torch.randn(self.batch_size, 3)  # of all places, whoever holds them
        units, rest = [], list(items)
        for places in self.world.places(self.batch_size):
            units.append(tree_sum([self._row(rest.pop(0), noise[place]) for place in places]))
        *gradient, loss, count = self.world.sum_units(units, self.batch_size).tolist()
        self.steps_done += 1
        if not count or not np.isfinite(loss):
            return {"skipped": 1.0} | ({"loss": loss, "lr": RATE} if count else {})
        mean = torch.tensor(gradient) / count
        for parameter, part in zip(self.model.parameters(), mean.split([12, 3]), strict=True):
            parameter.grad = part.view_as(parameter)
        self.optimizer.step()
        return {"loss": loss / count, "lr": RATE, "skipped": 0.0}

    def _note(self, items: Sequence[Seen | None]) -> None:
        """Which sample stood at each of our places, and that it was this worker's: one file each."""
        places = [place for unit in self.world.places(self.batch_size) for place in unit]
        for place, item in zip(places, items, strict=True):
            if self.trace:
                file = Path(self.trace) / f"{self.steps_done:04d}-{place}"
                file.write_text(item.key if item else "")

    def _row(self, item: Seen | None, noise: torch.Tensor) -> torch.Tensor:
        """Gradient, loss, and 1 for a sample that counts."""
        if item is None:
            return torch.zeros(17)
        colour = item.colour
        loss = (self.model(torch.cat([colour.mean()[None], noise])) - colour).square().mean()
        gradients = torch.autograd.grad(loss, list(self.model.parameters()))
        return torch.cat([*(g.flatten() for g in gradients), loss.detach()[None], torch.ones(1)])

    def state_dict(self) -> dict[str, Any]:
        """Of the optimiser."""
        return {"optimizer": self.optimizer.state_dict(), "steps_done": self.steps_done}

    def load_state_dict(self, state: Any) -> None:
        """The inverse."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.steps_done = state["steps_done"]


@dataclass(frozen=True)
class Scripted:
    """Scores that were decided before, whatever was learned; the last goes on for ever."""

    scores: tuple[float, ...]
    every: int

    def __call__(self, learner: Learner, world: World) -> float:
        """See `Validation.score`."""
        return self.scores[min(-(-learner.steps_done // self.every), len(self.scores)) - 1]


@dataclass(frozen=True)
class Measured:
    """How near the model comes to some greys, which the workers share. Draws random numbers that should not matter."""

    places: int = 7

    def __call__(self, learner: Learner, world: World) -> float:
        """See `Validation.score`."""
        torch.manual_seed(1)
        with torch.no_grad():
            mine = {place: self._of(learner.model, place) for place in range(world.rank, self.places, world.size)}
        torch.rand(learner.steps_done)
        told = {place: score for of_worker in world.gather(mine) for place, score in of_worker.items()}
        return sum(told[place] for place in range(self.places)) / self.places

    def _of(self, model: Model, place: int) -> float:
        grey = torch.tensor(0.3 + 0.05 * place)
        return float(torch.exp(-8 * (model(torch.cat([grey[None], torch.zeros(3)])) - grey).abs().mean()))


@dataclass(frozen=True)
class Toy:
    """A `training.Task`.

    Attributes:
        corpora: to learn from.
        steps: in all.
        bad: key of a sample that cannot be used.
        nan: a sample whose colours are not numbers.
        die_at: SIGKILL at this sample's `die_epoch`-th visit, unless the file `spared` is there.
        spared: see `die_at`.
        bug: whether panels fail.
        trace: a folder for a file per step and place of the batch, with the key of the sample that stood there.
        step_s: a step takes at least this.
        validation: how it is checked.
    """

    corpora: tuple[CorpusSpec, ...]
    steps: int = 20
    batch_size: int = 2
    seed: int = 3
    bad: str = ""
    nan: str = ""
    die_at: str = ""
    die_epoch: int = 0
    spared: str = ""
    bug: bool = False
    trace: str = ""
    step_s: float = 0.0
    validation: Validation | None = None
    hopeless: tuple[type[Exception], ...] = (Diverged,)

    def mixture(self) -> Mixture:
        """See `Task`."""
        return Mixture(self.corpora, self.seed)

    def learner(self, device: str, checkpoint: Path | None, world: World) -> Learner:
        """See `Task`."""
        model = Model()
        if checkpoint is not None:
            model.load_state_dict(load_file(checkpoint / "model.safetensors"))
        return Learner(model, self.batch_size, world, self.trace, self.step_s)

    def item(self, sample: Sample, key: str, draw: Draw) -> Seen:
        """See `Task`."""
        if key == self.bad:
            raise BadInput(sample.uri, "torn")
        if key == self.die_at and draw.epoch == self.die_epoch and not os.path.exists(self.spared):
            Path(self.spared).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        colour = torch.from_numpy(sample.cloud.rgb).float().mean(0) / 255 + draw.epoch * 0.01
        return Seen(key, colour * float("nan") if key == self.nan else colour)

    def panel(self, learner: Learner, items: Sequence[Seen]) -> np.ndarray:
        """See `Task`."""
        if self.bug:
            raise AttributeError("no_such_method")
        return np.full((8, 16, 3), learner.steps_done, np.uint8)


def work(rank: int, size: int, toy: Toy, run: str, loop: LoopConfig) -> None:
    """One of several processes that train together. Here, since a new process must be able to import it."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{run}.meet-{size}", rank=rank, world_size=size)
    train(toy, run, loop, Context(world=World(rank, size)))
    distributed.destroy_process_group()
