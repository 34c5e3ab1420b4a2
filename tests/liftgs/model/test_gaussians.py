"""Gaussians are valid whatever the network says."""

from __future__ import annotations

import pytest
import torch

from liftgs.model.gaussians import GaussianConfig, GaussianHead

CONFIG = GaussianConfig(features=8, hidden=16)


@pytest.mark.parametrize("size", [0.1, 1.0, 100.0])
def test_they_stay_near_their_points_and_positive_definite(size: float) -> None:
    torch.manual_seed(0)
    head = GaussianHead(CONFIG, 4, 0.05)
    torch.nn.init.normal_(head.geometry.weight)
    xyz, rgb = torch.rand(200, 3), torch.rand(200, 3)
    gaussians, colours, features = head(size * torch.randn(200, 4), xyz, rgb)
    assert (gaussians.means - xyz).abs().max() <= 0.05 + 1e-6
    assert (torch.linalg.eigvalsh(gaussians.covars.double()) > 0).all()
    torch.testing.assert_close(gaussians.covars, gaussians.covars.transpose(1, 2))
    assert ((gaussians.opacities >= 0) & (gaussians.opacities <= 1)).all()
    assert (colours - rgb).abs().max() <= 0.5 + 1e-6
    torch.testing.assert_close(features.norm(dim=1), torch.ones(200))


def test_they_start_round_on_their_points_in_their_colours() -> None:
    head = GaussianHead(CONFIG, 4, 0.1)
    xyz, rgb = torch.rand(50, 3), torch.rand(50, 3)
    gaussians, colours, _ = head(torch.randn(50, 4), xyz, rgb)
    torch.testing.assert_close(gaussians.means, xyz, atol=2e-3, rtol=0)
    torch.testing.assert_close(colours, rgb, atol=2e-2, rtol=0)
    torch.testing.assert_close(gaussians.covars, 0.05**2 * torch.eye(3).expand(50, 3, 3), atol=2e-4, rtol=0)
    torch.testing.assert_close(gaussians.opacities, torch.full((50,), 0.8), atol=1e-2, rtol=0)


def test_the_covariance_is_the_square_of_its_cholesky_factor() -> None:
    head = GaussianHead(CONFIG, 4, 0.05)
    log_scale, shear = torch.randn(10, 3), torch.randn(10, 3)
    factor = torch.zeros(10, 3, 3)
    scale = 0.025
    factor[:, range(3), range(3)] = scale * 4 ** torch.tanh(log_scale)
    factor[:, [1, 2, 2], [0, 0, 1]] = 2 * scale * torch.tanh(shear)
    torch.testing.assert_close(head._covars(log_scale, shear), factor @ factor.transpose(1, 2))
