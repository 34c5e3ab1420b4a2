"""One objective for items of several sorts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from liftgs.model.liftgs import LiftGS
from liftgs.model.norm import batch_norms
from liftgs.training.trainer import Losses, Objective


class MixedObjective:
    """Each item by the objective of its sort. Every view and every question counts alike, whichever its sort."""

    def __init__(self, objectives: Mapping[type, tuple[str, Objective]]):
        """`objectives`: class of items -> what the names of its terms begin with, and what judges them."""
        self.objectives = dict(objectives)

    def __call__(self, model: LiftGS, items: Sequence[Any]) -> Losses:
        """See `Objective`.

        Raises:
            ValueError: the network has statistics over all workers' batches, which each sort would ask for at its own
                time: a worker without items of a sort would leave the others waiting.
        """
        if any(norm.sum_over_workers for norm in batch_norms(model)):
            raise ValueError(
                "items of several sorts and batch normalisation go together on one worker only: set worker.most=1, "
                "leave replay out, or take a network with norm=layer"
            )
        count = sum(len(item) for item in items)
        terms: dict[str, Float[Tensor, ""]] = {}
        for sort, (prefix, objective) in self.objectives.items():
            own: list[Any] = [item for item in items if type(item) is sort]
            if own:
                share = sum(len(item) for item in own) / count
                terms |= {prefix + name: share * value for name, value in objective(model, own).terms.items()}
        return Losses(torch.stack(list(terms.values())).sum(), terms)
