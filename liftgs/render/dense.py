"""The slow twin: every Gaussian on every pixel, plain formulas in any precision. The tests hold the backends to it.

It shares no code with them, and takes no short cut: no tiles, no lists, no bounding boxes.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from liftgs.render.gaussians import Gaussians, Pinhole


def render_dense(
    gaussians: Gaussians, camera: Pinhole, channels: Float[Tensor, "n c"]
) -> tuple[Float[Tensor, "h w c"], Float[Tensor, "h w"]]:
    """What `liftgs.render.render` computes, in the precision of the input and with n x h x w memory.

    Source: Zwicker et al. 2002 (EWA), eq. 26-31, for the projection; Kerbl et al. 2023, eq. 2-3, for the blend;
    constants of gsplat 1.5.3.
    """
    means2d, covars2d, depths = project_dense(gaussians, camera)
    n, dtype = len(depths), depths.dtype
    valid = (depths > 0.01) & (depths < 1e10) & (gaussians.opacities >= 1 / 255)
    order = torch.nonzero(valid)[:, 0]
    order = order[torch.argsort(depths[order], stable=True)]

    ys = torch.arange(camera.height, dtype=dtype) + 0.5
    xs = torch.arange(camera.width, dtype=dtype) + 0.5
    pixels = torch.stack(torch.meshgrid(xs, ys, indexing="xy"), -1)  # h w 2
    offsets = pixels[..., None, :] - means2d[order]  # h w m 2
    mahalanobis = torch.einsum("hwmi,mij,hwmj->hwm", offsets, torch.linalg.inv(covars2d[order]), offsets)
    alphas = (gaussians.opacities[order] * torch.exp(-mahalanobis / 2)).clamp(max=0.999)
    alphas = torch.where(alphas >= 1 / 255, alphas, torch.zeros_like(alphas))
    left = torch.cumprod(1 - alphas, -1)  # light that passes this one and all before
    before = torch.cat([torch.ones_like(left[..., :1]), left[..., :-1]], -1)
    weights = torch.where(left > 1e-4, alphas * before, torch.zeros_like(alphas))
    assert channels.shape[0] == n
    return weights @ channels[order], weights.sum(-1)


def project_dense(
    gaussians: Gaussians, camera: Pinhole
) -> tuple[Float[Tensor, "n 2"], Float[Tensor, "n 2 2"], Float[Tensor, " n"]]:
    """Centres (pixels), blurred covariances (square pixels) and depths (metres) on the image plane."""
    viewmat, K = camera.viewmat.to(gaussians.means.dtype), camera.K.to(gaussians.means.dtype)
    R, t, f, c = viewmat[:3, :3], viewmat[:3, 3], torch.stack([K[0, 0], K[1, 1]]), K[:2, 2]
    centres = gaussians.means @ R.T + t
    depths = centres[:, 2]
    slopes = centres[:, :2] / depths[:, None]
    size = torch.tensor([camera.width, camera.height], dtype=f.dtype)
    margin = 0.15 * size / f
    held = torch.minimum(torch.maximum(slopes, -c / f - margin), (size - c) / f + margin)
    # d(f x / z) = f / z (dx - x / z dz)
    left = torch.diag_embed(f / depths[:, None])
    J = torch.cat([left, -(f * held / depths[:, None])[..., None]], -1)
    covars2d = J @ R @ gaussians.covars @ R.T @ J.mT + 0.3 * torch.eye(2, dtype=f.dtype)
    return f * slopes + c, covars2d, depths
