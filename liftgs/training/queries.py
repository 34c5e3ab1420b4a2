"""What is asked for: targets that are nearly alike are one query. Knows neither photos nor points."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def share_queries(embeds: Float[Tensor, "k f"], cosine: float) -> tuple[Float[Tensor, "t f"], Float[Tensor, "k t"]]:
    """Queries for targets: one each, but a target whose embedding is close to an earlier query's shares that one.

    Args:
        embeds: unit rows of the targets.
        cosine: how close; 1 or more gives each its own.

    Returns:
        The queries, and a one-hot row per target.
    """
    names = alike(embeds, cosine)
    return embeds[list(dict.fromkeys(names))], one_hot(names)


def alike(embeds: Float[Tensor, "k f"], cosine: float) -> list[int]:
    """For each target the first one that it shares a query with, itself if there is none; see `share_queries`."""
    firsts: list[int] = []
    names: list[int] = []
    similar = (embeds @ embeds.T).numpy()
    for row in range(len(embeds)):
        near = similar[row, firsts]
        if len(near) and cosine < 1 and near.max() >= cosine:
            names.append(firsts[int(near.argmax())])
        else:
            firsts.append(row)
            names.append(row)
    return names


def whole_names(names: Sequence[Hashable], most: int) -> list[int]:
    """Which targets to ask for: all of a name or none, in the order in which names turn up, as long as there is room.

    Of two chairs that are both seen, the one that nobody asks for would be taught not to be called a chair. Only if the
    first name alone has more than `most` targets, some are left out.
    """
    kept: list[int] = []
    for name in dict.fromkeys(names):
        mine = [place for place, one in enumerate(names) if one == name]
        if not kept:
            kept = mine[:most]
        elif len(kept) + len(mine) <= most:
            kept += mine
    return kept


def one_hot(names: Sequence[Hashable]) -> Float[Tensor, "k t"]:
    """Of each target the column of its name; names are numbered as they turn up."""
    columns = {name: column for column, name in enumerate(dict.fromkeys(names))}
    result = torch.zeros(len(names), len(columns))
    result[torch.arange(len(names)), torch.tensor([columns[name] for name in names], dtype=torch.long)] = 1
    return result
