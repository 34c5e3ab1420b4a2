"""What the loop of a training asks of what is trained: a task, its learner, and how it is checked on the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import UInt8

from liftgs.sample import Sample
from liftgs.training.plateau import on_plateau
from liftgs.training.world import World
from liftgs_platform.checkpoints import Cursor
from liftgs_platform.mixture import Draw, Mixture


class Learner(Protocol):
    """What learns: a model and its optimiser; see `liftgs.training.trainer.Trainer`."""

    @property
    def model(self) -> Any:
        """What it has come to. Has `save(folder)`, which writes config.json and model.safetensors."""

    def step(self, items: Sequence[Any]) -> dict[str, float]:
        """One update. None stands where a sample could not be used. Returns values to log, and "skipped": 1 where
        nothing changed."""

    def state_dict(self) -> dict[str, Any]:
        """Everything beside the model's weights, without objects of any class of ours."""

    def load_state_dict(self, state: Any) -> None:
        """The inverse."""


@dataclass(frozen=True)
class Validation:
    """Checks of a training on what it does not learn from.

    Attributes:
        every: steps between checks. The last step is followed by one, too.
        score: how well a learner does: at least 0, finite, higher = better. All workers ask together and get the same
            answer, which does not depend on how many they are; the learner stays as it was.
        patience: checks in a row without a better score, after which training ends; None = scores are written down and
            change nothing.
        earliest: scores of steps before it do not count.
    """

    every: int
    score: Callable[[Learner, World], float]
    patience: int | None = None
    earliest: int = 0


class Task(Protocol):
    """What a training trains, and on what. Travels to the worker by pickle."""

    @property
    def steps(self) -> int:
        """Updates in all, at most."""

    @property
    def batch_size(self) -> int:
        """Positions of the mixture per update."""

    @property
    def seed(self) -> int:
        """Of everything random."""

    @property
    def hopeless(self) -> tuple[type[Exception], ...]:
        """What `Learner.step` raises where trying again would not help."""

    @property
    def validation(self) -> Validation | None:
        """How it is checked on what it does not learn from, if it is. Once made it stays the same."""

    def mixture(self) -> Mixture:
        """Opens the corpora."""

    def learner(self, device: str, checkpoint: Path | None, world: World) -> Learner:
        """A new learner, or one whose model is that of a checkpoint's folder; its state follows. It steps with what the
        world's places hold."""

    def item(self, sample: Sample, key: str, draw: Draw) -> Any:
        """What a step gets of a sample, from which corpus and in which epoch it was drawn. Pure, and called in threads.
        Raises BadInput."""

    def panel(self, learner: Learner, items: Sequence[Any]) -> UInt8[np.ndarray, "h w 3"]:
        """A picture of how the learner does on these items."""


def end_of(task: Task, cursor: Cursor) -> int:
    """Steps of the whole training, as far as the checks tell."""
    return task.steps if cursor.plateau is None else cursor.plateau


def check(task: Task, learner: Learner, world: World, cursor: Cursor) -> Cursor:
    """Validate, if this is a step to do so; the cursor knows the score then, and whether it ends the training.

    Torch's random numbers need no care: they are seeded anew for every step.
    """
    validation, step = task.validation, cursor.step
    if validation is None or (step % validation.every and step != end_of(task, cursor)):
        return cursor
    cursor = replace(cursor, checks=(*cursor.checks, (step, validation.score(learner, world))))
    if validation.patience is None or not on_plateau(cursor.checks, validation.patience, validation.earliest):
        return cursor
    return replace(cursor, plateau=step)
