"""Scenes for the renderer's tests: a few hundred Gaussians that hit every rule of the blend."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from liftgs.render import Gaussians, Pinhole
from liftgs.render.dense import project_dense

Render = Callable[[Gaussians, Pinhole, Tensor], tuple[Tensor, Tensor]]


def gaussians(n: int = 300, seed: int = 0) -> Gaussians:
    """A cloud before, beside and behind the camera, float64; opacities from 1e-4 to 0.99999."""
    generator = torch.Generator().manual_seed(seed)
    means = torch.rand(n, 3, generator=generator, dtype=torch.float64) * torch.tensor([3.0, 3.0, 4.5])
    means = means - torch.tensor([1.5, 1.5, 0.8])
    factors = 0.12 * torch.randn(n, 3, 3, generator=generator, dtype=torch.float64).tril() + 0.08 * torch.eye(3)
    opacities = torch.sigmoid(2 + 4 * torch.randn(n, generator=generator, dtype=torch.float64))
    return Gaussians(means, factors @ factors.mT, opacities)


def camera(width: int = 61, height: int = 53, mirrored: bool = False) -> Pinhole:
    """A turned camera whose principal point is off the centre, float64."""
    turn = torch.linalg.matrix_exp(torch.tensor([[0, -0.2, 0.1], [0.2, 0, -0.15], [-0.1, 0.15, 0]]).double())
    viewmat = torch.eye(4, dtype=torch.float64)
    viewmat[:3, :3] = turn @ torch.diag(torch.tensor([-1.0 if mirrored else 1.0, 1, 1], dtype=torch.float64))
    viewmat[:3, 3] = torch.tensor([0.1, -0.1, 0.4])
    K = torch.tensor([[0.9 * width, 0, width / 2 + 1], [0, 0.85 * width, height / 2 - 2], [0, 0, 1]])
    return Pinhole(viewmat, K.double(), width, height)


def decided(scene: Gaussians, view: Pinhole) -> Tensor:
    """Pixels [h, w] on which float32 and float64 skip and stop alike: no alpha and no rest of light on a threshold."""
    means2d, covars2d, depths = project_dense(scene, view)
    order = torch.argsort(depths)[(depths <= 0.01).sum() :]
    ys, xs = torch.meshgrid(torch.arange(view.height) + 0.5, torch.arange(view.width) + 0.5, indexing="ij")
    offsets = torch.stack([xs, ys], -1)[..., None, :].double() - means2d[order]
    powers = (offsets[..., None, :] @ torch.linalg.inv(covars2d[order]) @ offsets[..., None])[..., 0, 0]
    alphas = (scene.opacities[order] * torch.exp(-powers / 2)).clamp(max=0.999)
    rest = torch.cumprod(1 - torch.where(alphas < 1 / 255, 0.0, alphas), -1)
    doubtful = ((alphas * 255 - 1).abs() < 1e-4) | ((rest * 1e4 - 1).abs() < 1e-2)
    return ~doubtful.any(-1)


def values_and_gradients(
    render: Render, scene: Gaussians, view: Pinhole, channels: Tensor, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Image, alpha, and the gradients of a fixed random functional of both, all on the decided pixels."""
    names = ("means", "covars", "opacities", "channels")
    leaves = [t.to(dtype).clone().requires_grad_() for t in (scene.means, scene.covars, scene.opacities, channels)]
    image, alpha = render(Gaussians(*leaves[:3]), view, leaves[3])
    mask = decided(scene, view).to(dtype)
    image, alpha = image * mask[..., None], alpha * mask
    generator = torch.Generator().manual_seed(5)
    v_image = torch.randn(image.shape, generator=generator, dtype=torch.float64).to(dtype)
    v_alpha = torch.randn(alpha.shape, generator=generator, dtype=torch.float64).to(dtype)
    gradients = torch.autograd.grad((image * v_image).sum() + (alpha * v_alpha).sum(), leaves)
    results = {"image": image.detach(), "alpha": alpha.detach(), **dict(zip(names, gradients, strict=True))}
    return {name: value.double() for name, value in results.items()}


def assert_agree(actual: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 2e-5) -> None:
    """Values agree to `tolerance` of the largest expected magnitude, gradients to ten times that."""
    for name, value in expected.items():
        error = (actual[name] - value).abs().max() / value.abs().max().clamp(min=1e-30)
        assert error < (tolerance if name in ("image", "alpha") else 10 * tolerance), (
            f"{name}: off by {error:.1e} of the largest"
        )
