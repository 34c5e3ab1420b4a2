"""Per-pixel losses against slow versions."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from liftgs.losses.pixels import contrastive_loss, photometric_loss, ssim


def slow_ssim(a: Tensor, b: Tensor) -> float:
    """Window by window, in float64."""
    a, b = a.double(), b.double()
    line = [math.exp(-((i - 5) ** 2) / (2 * 1.5**2)) for i in range(11)]
    weight = torch.tensor([[u * v for u in line] for v in line]).double()
    weight /= weight.sum()
    height, width, _ = a.shape
    total = 0.0
    for channel in range(3):
        x = functional.pad(a[..., channel], (5, 5, 5, 5))
        y = functional.pad(b[..., channel], (5, 5, 5, 5))
        for i in range(height):
            for j in range(width):
                p, q = x[i : i + 11, j : j + 11], y[i : i + 11, j : j + 11]
                mp, mq = (weight * p).sum(), (weight * q).sum()
                vp, vq = (weight * p * p).sum() - mp**2, (weight * q * q).sum() - mq**2
                cov = (weight * p * q).sum() - mp * mq
                total += float((2 * mp * mq + 1e-4) * (2 * cov + 9e-4) / ((mp**2 + mq**2 + 1e-4) * (vp + vq + 9e-4)))
    return total / (3 * height * width)


def test_ssim_is_that_of_wang_et_al() -> None:
    torch.manual_seed(0)
    a, b = torch.rand(13, 17, 3), torch.rand(13, 17, 3)
    assert float(ssim(a, b)) == pytest.approx(slow_ssim(a, b), abs=1e-5)
    assert float(ssim(a, a)) == pytest.approx(1, abs=1e-6)


def test_the_gradient_of_ssim_by_formula_is_its_slope() -> None:
    torch.manual_seed(1)
    image, photo = torch.rand(9, 14, 3).double().requires_grad_(), torch.rand(9, 14, 3).double()
    assert torch.autograd.gradcheck(ssim, (image, photo))


def test_a_perfect_image_costs_nothing_and_a_wrong_one_does() -> None:
    torch.manual_seed(0)
    photo = torch.rand(16, 16, 3)
    assert float(photometric_loss(photo, photo)) == pytest.approx(0, abs=1e-6)
    shifted = photo + 0.1
    assert float(photometric_loss(shifted, photo, 1.0, 0.0)) == pytest.approx(0.1, abs=1e-6)


def test_contrasting_rendered_dot_products_is_contrasting_rendered_features() -> None:
    """The equality that spares the image of features."""
    torch.manual_seed(0)
    weights, features, embeds = torch.rand(6, 20), torch.randn(20, 32), torch.randn(5, 32)
    segment = torch.tensor([[0, 4, -1], [2, 2, 1]])
    image = (weights @ features).view(2, 3, 32)  # what equation 7 looks at
    loss = 0.0
    for i in range(2):
        for j in range(3):
            if segment[i, j] >= 0:
                loss -= float((image[i, j] @ embeds.T / 0.5).log_softmax(0)[segment[i, j]]) / 5
    rendered = (weights @ (features @ embeds.T)).view(2, 3, 5)
    assert float(contrastive_loss(rendered, segment, 0.5)) == pytest.approx(loss, rel=1e-4)


def test_an_image_without_labels_has_no_contrastive_loss() -> None:
    similarities = torch.randn(4, 4, 3, requires_grad=True)
    loss = contrastive_loss(similarities, torch.full((4, 4), -1), 0.1)
    loss.backward()
    assert float(loss.detach()) == 0
    assert similarities.grad is not None
    assert not similarities.grad.any()
