"""Per-pixel losses on rendered images: photometric (equation 6 of the paper) and contrastive features (equation 7)."""

from __future__ import annotations

from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional


def photometric_loss(
    image: Float[Tensor, "h w 3"], photo: Float[Tensor, "h w 3"], l1: float = 0.8, ssim_weight: float = 0.2
) -> Float[Tensor, ""]:
    """l1 * L1 + ssim_weight * (1 - SSIM); the paper gives no inner weights, these are 3D Gaussian splatting's.

    Args:
        image: rendered, about 0..1.
        photo: 0..1.
        l1: inner weight.
        ssim_weight: inner weight.
    """
    return l1 * (image - photo).abs().mean() + ssim_weight * (1 - ssim(image, photo))


def ssim(a: Float[Tensor, "h w 3"], b: Float[Tensor, "h w 3"]) -> Float[Tensor, ""]:
    """Mean structural similarity of two images in 0..1: 11x11 Gaussian window of sigma 1.5, zero padding.

    Source: Wang et al. 2004; window and padding as in 3D Gaussian splatting.
    """
    maps = torch.stack((a, b, a * a, b * b, a * b)).permute(0, 3, 1, 2)
    blurred = _blur(a.shape[0], a.device) @ maps @ _blur(a.shape[1], a.device)
    mean_a, mean_b, aa, bb, ab = blurred
    c1, c2 = 0.01**2, 0.03**2
    numerator = (2 * mean_a * mean_b + c1) * (2 * (ab - mean_a * mean_b) + c2)
    denominator = (mean_a**2 + mean_b**2 + c1) * (aa - mean_a**2 + bb - mean_b**2 + c2)
    return (numerator / denominator).mean()


@lru_cache(maxsize=8)
def _blur(length: int, device: torch.device) -> Float[Tensor, "n n"]:
    """The Gaussian window as a symmetric matrix: on CPUs two products are cheaper than a convolution's gradients."""
    x = torch.arange(length, device=device)
    distance = (x[:, None] - x).abs()
    window = torch.exp(-(torch.arange(-5, 6, device=device) ** 2) / (2 * 1.5**2))
    return torch.exp(-(distance**2) / (2 * 1.5**2)) * (distance <= 5) / window.sum()


def contrastive_loss(
    similarities: Float[Tensor, "h w s"], segment: Int[Tensor, "h w"], temperature: float
) -> Float[Tensor, ""]:
    """Each labelled pixel's rendered feature against the unique segment embeddings (equation 7).

    The dot products of a rendered feature equal the rendered dot products, compositing being linear; so what is
    rendered is one channel per unique embedding, and the image of features is never made.

    Args:
        similarities: rendered cosines with every unique embedding, in -1..1.
        segment: which embedding is right; -1 where the pixel has no label and does not count.
        temperature: divides the similarities; the paper states none, and one near 1 leaves the softmax flat.
    """
    if not (segment >= 0).any():
        return similarities.sum() * 0
    return functional.cross_entropy(similarities.flatten(0, 1) / temperature, segment.flatten(), ignore_index=-1)
