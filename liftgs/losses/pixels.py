"""Per-pixel losses on rendered images: photometric (equation 6 of the paper) and contrastive features (equation 7)."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
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


def ssim(image: Float[Tensor, "h w 3"], photo: Float[Tensor, "h w 3"]) -> Float[Tensor, ""]:
    """Mean structural similarity of two images in 0..1: 11x11 Gaussian window of sigma 1.5, zero padding.

    Only the first has a gradient.

    Source: Wang et al. 2004; window and padding as in 3D Gaussian splatting.
    """
    return _Ssim.apply(image, photo)


class _Ssim(torch.autograd.Function):
    """The window is symmetric, so the gradient of a blur is a blur: no convolution needs PyTorch's slow gradients."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, photo: Tensor) -> Tensor:
        a, b = image.permute(2, 0, 1), photo.permute(2, 0, 1)
        mean_a, mean_b, aa, bb, ab = _blur(torch.stack((a, b, a * a, b * b, a * b)))
        c1, c2 = 0.01**2, 0.03**2
        n1, n2 = 2 * mean_a * mean_b + c1, 2 * (ab - mean_a * mean_b) + c2
        d1, d2 = mean_a**2 + mean_b**2 + c1, aa - mean_a**2 + bb - mean_b**2 + c2
        similarity, scale = n1 * n2 / (d1 * d2), 1 / (d1 * d2)
        of_mean = 2 * mean_b * (n2 - n1) * scale + 2 * mean_a * similarity * (1 / d2 - 1 / d1)
        ctx.save_for_backward(a, b, torch.stack((of_mean, -similarity / d2, 2 * n1 * scale)))
        return similarity.mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_mean_similarity: Tensor) -> tuple[Tensor, None]:
        a, b, slopes = ctx.saved_tensors
        of_mean, of_aa, of_ab = _blur(slopes)
        slope = (of_mean + 2 * a * of_aa + b * of_ab) * (of_mean_similarity / a.numel())
        return slope.permute(1, 2, 0), None


def _blur(maps: Float[Tensor, "*m h w"]) -> Float[Tensor, "*m h w"]:
    """By the Gaussian window, first along columns, then along rows."""
    window = torch.exp(-(torch.arange(-5, 6, device=maps.device, dtype=maps.dtype) ** 2) / (2 * 1.5**2))
    flat = maps.flatten(0, -3)
    kernel = (window / window.sum()).expand(len(flat), 1, 11)
    columns = functional.conv2d(flat, kernel[..., None], padding=(5, 0), groups=len(flat))
    return functional.conv2d(columns, kernel[:, :, None], padding=(0, 5), groups=len(flat)).view_as(maps)


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
