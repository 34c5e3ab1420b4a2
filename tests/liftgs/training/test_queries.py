"""Which embeddings share a query."""

from __future__ import annotations

import math

import torch

from liftgs.training.queries import share_queries, whole_names


def test_close_embeddings_share_a_query() -> None:
    a, b = torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 1, 0])
    near_a = torch.tensor([math.cos(0.1), 0, math.sin(0.1)])
    queries, positives = share_queries(torch.stack((a, b, near_a)), 0.95)
    torch.testing.assert_close(queries, torch.stack((a, b)))
    torch.testing.assert_close(positives, torch.tensor([[1.0, 0], [0, 1], [1, 0]]))
    queries, positives = share_queries(torch.stack((a, b, near_a)), 1.0)
    torch.testing.assert_close(positives, torch.eye(3))
    assert share_queries(torch.zeros(0, 3), 0.9)[1].shape == (0, 0)


def test_of_a_name_all_are_asked_for_or_none() -> None:
    names = ["chair", "rug", "chair", "book", "book", "book", "bed"]
    assert whole_names(names, 7) == [0, 2, 1, 3, 4, 5, 6]
    assert whole_names(names, 4) == [0, 2, 1, 6], "three books are too many, a bed is not"
    assert whole_names(names, 1) == [0], "too many of the first: as many as there is room for"
    assert whole_names([0, 1, 2, 3], 3) == [0, 1, 2]
    assert whole_names([], 3) == []
