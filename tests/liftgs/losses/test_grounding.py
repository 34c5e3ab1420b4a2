"""Grounding losses against their formulas written out, entry by entry."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch

from liftgs.losses import grounding
from liftgs.losses.grounding import GroundingConfig, mask_losses, token_loss


def test_mask_losses_are_bce_and_dice_per_target() -> None:
    torch.manual_seed(0)
    logits, masks = 3 * torch.randn(4, 30), (torch.rand(4, 30) < 0.4).float()
    entropy, dice = mask_losses(logits, masks)
    for row in range(4):
        p = [1 / (1 + math.exp(-float(x))) for x in logits[row]]
        y = masks[row].tolist()
        bce = -sum(b * math.log(a) + (1 - b) * math.log(1 - a) for a, b in zip(p, y, strict=True)) / 30
        overlap = sum(a * b for a, b in zip(p, y, strict=True))
        assert float(entropy[row]) == pytest.approx(bce, rel=1e-4)
        assert float(dice[row]) == pytest.approx(1 - (2 * overlap + 1) / (sum(p) + sum(y) + 1), rel=1e-4)


@pytest.mark.parametrize("band", [1, 100, 1 << 18])
def test_gradients_by_formula_are_those_of_autograd(band: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grounding, "BAND", band)
    torch.manual_seed(3)
    logits, masks = (5 * torch.randn(3, 40)).double().requires_grad_(), (torch.rand(3, 40) < 0.4).double()
    masks[2] = 0  # a target without a pixel at this resolution

    def losses(x: torch.Tensor) -> torch.Tensor:
        return torch.cat(mask_losses(x, masks))

    assert torch.autograd.gradcheck(losses, (logits,))


@pytest.mark.parametrize("kind", ["bce", "focal"])
def test_several_heads_are_each_head_alone(kind: Literal["bce", "focal"], monkeypatch: pytest.MonkeyPatch) -> None:
    """In either order of memory, and in several bands."""
    monkeypatch.setattr(grounding, "BAND", 64)
    torch.manual_seed(4)
    logits, masks = torch.randn(2, 3, 50), (torch.rand(3, 50) < 0.4).float()
    pixel_by_pixel = logits.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    for heads in (logits, pixel_by_pixel):
        together = mask_losses(heads, masks, kind)
        for number, head in enumerate(logits):
            alone = mask_losses(head, masks, kind)
            torch.testing.assert_close([loss[number] for loss in together], list(alone))


def test_focal_loss_is_that_of_lin_et_al() -> None:
    torch.manual_seed(1)
    logits, masks = torch.randn(2, 20), (torch.rand(2, 20) < 0.5).float()
    focal, _ = mask_losses(logits, masks, "focal")
    expected = []
    for row in range(2):
        total = 0.0
        for x, y in zip(logits[row].tolist(), masks[row].tolist(), strict=True):
            p = 1 / (1 + math.exp(-x))
            pt, alpha = (p, 0.25) if y else (1 - p, 0.75)
            total -= alpha * (1 - pt) ** 2 * math.log(pt)
        expected.append(total / 20)
    torch.testing.assert_close(focal, torch.tensor(expected), rtol=1e-4, atol=1e-6)


def test_softmax_token_loss_weighs_unmatched_proposals_down() -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.1, 0.3], [0.0, 1.0, 3.0]])
    positives = torch.tensor([[0.0, 1.0]])  # one target, named by the second query, matched to proposal 1
    loss = token_loss(logits, torch.tensor([1]), positives, GroundingConfig(no_match=0.1))
    logp = logits.log_softmax(1)
    expected = -(logp[1, 1] + 0.1 * (logp[0, 2] + logp[2, 2])) / 1.2
    torch.testing.assert_close(loss, expected)


def test_a_target_named_by_two_queries_wants_both() -> None:
    positives = torch.tensor([[0.5, 0.5, 0.0]])
    both = torch.tensor([[4.0, 4.0, -4.0, -4.0]])
    one = torch.tensor([[8.0, -4.0, -4.0, -4.0]])
    assert token_loss(both, torch.tensor([0]), positives) < token_loss(one, torch.tensor([0]), positives)


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_padded_queries_change_neither_loss_nor_gradient(kind: str) -> None:
    torch.manual_seed(2)
    config = GroundingConfig(token_loss=kind)  # type: ignore[arg-type]
    logits = torch.randn(4, 4, requires_grad=True)
    proposal, positives = torch.tensor([2, 0]), torch.eye(2, 3)
    plain = token_loss(logits, proposal, positives, config)
    (grad,) = torch.autograd.grad(plain, logits)
    padded = torch.cat((logits[:, :3], torch.full((4, 2), -math.inf), logits[:, 3:]), 1)
    wide = token_loss(padded, proposal, torch.cat((positives, torch.zeros(2, 2)), 1), config)
    (wide_grad,) = torch.autograd.grad(wide, logits)
    torch.testing.assert_close(wide, plain)
    torch.testing.assert_close(wide_grad, grad)


def test_without_targets_every_proposal_is_pushed_to_no_match() -> None:
    logits = torch.zeros(3, 3, requires_grad=True)
    token_loss(logits, torch.zeros(0, dtype=torch.long), torch.zeros(0, 2)).backward()
    assert logits.grad is not None
    assert (logits.grad[:, -1] < 0).all()
    assert (logits.grad[:, :-1] > 0).all()


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_an_unmatched_proposal_that_cannot_be_judged_is_left_alone(kind: str) -> None:
    torch.manual_seed(4)
    logits = torch.randn(4, 4, requires_grad=True)
    judged = torch.tensor([True, False, False, True])
    config = GroundingConfig(token_loss=kind)  # type: ignore[arg-type]
    token_loss(logits, torch.tensor([2]), torch.eye(1, 3), config, judged).backward()
    assert logits.grad is not None
    assert logits.grad.any(1).tolist() == [True, False, True, True]  # 2 is matched
