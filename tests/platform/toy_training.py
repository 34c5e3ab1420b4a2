"""A training for tests of the harness: a linear model learns the mean colour of a sample's cloud; quick, and exact."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tiny_corpora
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from liftgs.sample import Sample
from liftgs.scene import BadInput
from liftgs_platform.mixture import CorpusSpec, Mixture


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


class Learner:
    """Plain AdamW with noise in it, so that torch's random numbers matter."""

    def __init__(self, model: Model):
        self.model = model
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
        self.steps_done = 0

    def step(self, items: Sequence[torch.Tensor | None]) -> dict[str, float]:
        """One update towards the colours."""
        usable = [item for item in items if item is not None]
        if not usable:
            self.steps_done += 1
            return {"skipped": 1.0}
        colours = torch.stack(usable)
        inputs = torch.cat([colours.mean(1, keepdim=True), torch.randn(len(usable), 3)], 1)
        loss = (self.model(inputs) - colours).square().mean()
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        finite = bool(torch.isfinite(loss))
        if finite:
            self.optimizer.step()
        self.steps_done += 1
        return {"loss": float(loss.detach()), "lr": 0.05, "skipped": float(not finite)}

    def state_dict(self) -> dict[str, Any]:
        """Of the optimiser."""
        return {"optimizer": self.optimizer.state_dict(), "steps_done": self.steps_done}

    def load_state_dict(self, state: Any) -> None:
        """The inverse."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.steps_done = state["steps_done"]


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
    hopeless: tuple[type[Exception], ...] = (Diverged,)

    def mixture(self) -> Mixture:
        """See `Task`."""
        return Mixture(self.corpora, self.seed)

    def learner(self, device: str, checkpoint: Path | None) -> Learner:
        """See `Task`."""
        model = Model()
        if checkpoint is not None:
            model.load_state_dict(load_file(checkpoint / "model.safetensors"))
        return Learner(model)

    def item(self, sample: Sample, key: str, epoch: int) -> torch.Tensor:
        """See `Task`."""
        if key == self.bad:
            raise BadInput(sample.uri, "torn")
        if key == self.die_at and epoch == self.die_epoch and not os.path.exists(self.spared):
            Path(self.spared).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        colour = torch.from_numpy(sample.cloud.rgb).float().mean(0) / 255 + epoch * 0.01
        return colour * float("nan") if key == self.nan else colour

    def panel(self, learner: Learner, items: Sequence[torch.Tensor]) -> np.ndarray:
        """See `Task`."""
        if self.bug:
            raise AttributeError("no_such_method")
        return np.full((8, 16, 3), learner.steps_done, np.uint8)
