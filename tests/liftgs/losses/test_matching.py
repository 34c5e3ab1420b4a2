"""Matching against brute force, and its cost against the formulas written out pair by pair."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from liftgs.losses.matching import MatchingConfig, match, pairwise_cost


def problem(seed: int, proposals: int = 5, targets: int = 3, pixels: int = 40) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    masks = (torch.rand(targets, pixels, generator=g) < 0.3).float()
    positives = torch.eye(targets)
    return (
        4 * torch.randn(proposals, pixels, generator=g),
        torch.randn(proposals, targets + 1, generator=g),
        masks,
        positives,
    )


def naive_cost(logits: Tensor, tokens: Tensor, masks: Tensor, positives: Tensor, config: MatchingConfig) -> Tensor:
    cost = torch.empty(len(logits), len(masks), dtype=torch.float64)
    for i in range(len(logits)):
        for j in range(len(masks)):
            x, y = logits[i].double(), masks[j].double()
            p = x.sigmoid()
            entropy = functional.binary_cross_entropy(p, y)
            dice = 1 - (2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1)
            token = -(tokens[i].double().softmax(0)[:-1] * positives[j]).sum()
            cost[i, j] = config.token * token + config.mask * entropy + config.dice * dice
    return cost


def pixel_by_pixel(logits: Tensor) -> Tensor:
    """The same, in memory as rendered images are: what the kernels read, where there is a compiler."""
    return logits.T.contiguous().T


def mask_by_mask(logits: Tensor) -> Tensor:
    """The same, in memory so that the kernels cannot read it."""
    return torch.cat((logits, logits), 1)[:, : logits.shape[1]]


memory = pytest.mark.parametrize("lay_out", [pixel_by_pixel, mask_by_mask])


@memory
@pytest.mark.parametrize("seed", range(3))
def test_the_cost_is_the_sum_of_its_three_formulas(seed: int, lay_out: Callable[[Tensor], Tensor]) -> None:
    config = MatchingConfig(token=1.5, mask=0.7, dice=3.0)
    logits, *args = problem(seed)
    expected = naive_cost(logits, *args, config)
    torch.testing.assert_close(pairwise_cost(lay_out(logits), *args, config).double(), expected, rtol=1e-4, atol=1e-4)


@memory
def test_softplus_is_exact_enough_everywhere(lay_out: Callable[[Tensor], Tensor]) -> None:
    x = torch.cat((torch.linspace(-30, 30, 2001), torch.tensor([-1e4, 1e4, 0.0])))
    expected = functional.softplus(x.double())
    alone = MatchingConfig(token=0, mask=1, dice=0)  # of one pixel outside of the mask, the cost is the softplus
    cost = pairwise_cost(lay_out(x[:, None]), torch.zeros(len(x), 2), torch.zeros(1, 1), torch.ones(1, 1), alone)
    torch.testing.assert_close(cost[:, 0].double(), expected, rtol=1e-6, atol=2e-7)


@pytest.mark.parametrize("seed", range(5))
def test_no_other_assignment_is_cheaper(seed: int) -> None:
    args = problem(seed)
    found = match(*args)
    cost = naive_cost(*args, MatchingConfig())
    cheapest = min(sum(cost[p, j] for j, p in enumerate(order)) for order in permutations(range(5), 3))
    assert len(set(found.tolist())) == 3
    assert sum(cost[p, j] for j, p in enumerate(found.tolist())) == pytest.approx(float(cheapest), abs=1e-4)


def test_targets_beyond_the_proposals_are_refused() -> None:
    logits, tokens, masks, positives = problem(0, proposals=2)
    with pytest.raises(ValueError, match="3 targets but only 2 proposals"):
        match(logits, tokens, masks, positives)


def test_a_cost_that_is_not_finite_is_refused() -> None:
    logits, tokens, masks, positives = problem(0)
    logits[1, 1] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        match(logits, tokens, masks, positives)


def test_no_target_gives_an_empty_assignment() -> None:
    logits, tokens, _, _ = problem(0)
    assert match(logits, tokens, torch.zeros(0, 40), torch.zeros(0, 3)).shape == (0,)
