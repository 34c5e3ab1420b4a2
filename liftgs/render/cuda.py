"""The CUDA backend: gsplat. The same contract, with its kernels."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from liftgs.render.base import Rasterization, check_channels
from liftgs.render.gaussians import Gaussians, Pinhole

#: Channels that one pass of gsplat's kernels takes. It knows no weights to share: each pass rasterises anew.
CHUNK = 32


class CudaRasterization(Rasterization):
    """One view on a GPU. `alpha` and each `composite` are calls of `gsplat.rasterization`."""

    def __init__(self, gaussians: Gaussians, camera: Pinhole):
        self._gaussians, self._camera = gaussians, camera
        self._alpha: Float[Tensor, "h w"] | None = None

    @property
    def alpha(self) -> Float[Tensor, "h w"]:  # type: ignore[override]
        """See `Rasterization.alpha`. Free once a composite was made, with gradients if they are on now."""
        if self._alpha is None or (torch.is_grad_enabled() and not self._alpha.requires_grad):
            self.composite(self._gaussians.opacities.new_zeros(len(self._gaussians), 1))
            assert self._alpha is not None
        return self._alpha

    def composite(self, channels: Float[Tensor, "n c"]) -> Float[Tensor, "h w c"]:
        """See `Rasterization.composite`."""
        from gsplat import rasterization  # type: ignore[import-not-found]  # noqa: PLC0415  # builds its kernels

        gaussians, camera = self._gaussians, self._camera
        n, device = len(gaussians), gaussians.means.device
        check_channels(channels, n)
        means, covars, opacities = (
            tensor.float() for tensor in (gaussians.means, gaussians.covars, gaussians.opacities)
        )
        with torch.autocast("cuda", enabled=False):
            images, alphas, _ = rasterization(
                means=means,
                quats=None,
                scales=None,
                opacities=opacities,
                colors=channels.float(),
                viewmats=camera.viewmat.to(device, torch.float32)[None],
                Ks=camera.K.to(device, torch.float32)[None],
                width=camera.width,
                height=camera.height,
                covars=(covars + covars.mT) / 2,  # gsplat reads the upper triangle; the gradient shall be symmetric
                channel_chunk=CHUNK,
            )
        if self._alpha is None or not self._alpha.requires_grad:
            self._alpha = alphas[0, :, :, 0]
        return images[0]
