"""One objective for items of several sorts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from liftgs.model.liftgs import EncodedScene, LiftGS
from liftgs.training.trainer import Losses, Objective


class MixedObjective:
    """Each item by the objective of its sort. Every view and every question counts alike, whichever its sort."""

    def __init__(self, objectives: Mapping[type, tuple[str, Objective]]):
        """`objectives`: class of items -> what the names of its terms begin with, and what judges them."""
        self.objectives = dict(objectives)

    def __call__(self, model: LiftGS, items: Sequence[Any], scenes: Sequence[EncodedScene] | None = None) -> Losses:
        """See `Objective`. All sorts are encoded together: where a network has statistics over all workers, these ask
        each other once per batch, whichever sorts a worker holds."""
        encoded = scenes or model.encode([item.voxels for item in items])
        count = sum(len(item) for item in items)
        terms: dict[str, Float[Tensor, ""]] = {}
        for sort, (prefix, objective) in self.objectives.items():
            places = [place for place, item in enumerate(items) if type(item) is sort]
            if places:
                own = [items[place] for place in places]
                losses = objective(model, own, [encoded[place] for place in places])
                share = sum(len(item) for item in own) / count
                terms |= {prefix + name: share * value for name, value in losses.terms.items()}
        return Losses(torch.stack(list(terms.values())).sum(), terms)
