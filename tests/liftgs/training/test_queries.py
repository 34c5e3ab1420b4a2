"""Which embeddings share a query."""

from __future__ import annotations

import math

import torch

from liftgs.training.queries import share_queries


def test_close_embeddings_share_a_query() -> None:
    a, b = torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 1, 0])
    near_a = torch.tensor([math.cos(0.1), 0, math.sin(0.1)])
    queries, positives = share_queries(torch.stack((a, b, near_a)), 0.95)
    torch.testing.assert_close(queries, torch.stack((a, b)))
    torch.testing.assert_close(positives, torch.tensor([[1.0, 0], [0, 1], [1, 0]]))
    queries, positives = share_queries(torch.stack((a, b, near_a)), 1.0)
    torch.testing.assert_close(positives, torch.eye(3))
    assert share_queries(torch.zeros(0, 3), 0.9)[1].shape == (0, 0)
