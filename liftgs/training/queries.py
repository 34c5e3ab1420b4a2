"""Embeddings that are asked for: those that are nearly alike are one query. Knows neither photos nor points."""

from __future__ import annotations

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
    firsts: list[int] = []
    query_of: list[int] = []
    similar = (embeds @ embeds.T).numpy()
    for row in range(len(embeds)):
        near = similar[row, firsts]
        if len(near) and cosine < 1 and near.max() >= cosine:
            query_of.append(int(near.argmax()))
        else:
            query_of.append(len(firsts))
            firsts.append(row)
    positives = torch.zeros(len(embeds), len(firsts))
    positives[torch.arange(len(embeds)), torch.tensor(query_of, dtype=torch.long)] = 1
    return embeds[firsts], positives
