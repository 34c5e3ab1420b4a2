"""Picks the backend: gsplat on CUDA; on CPU our compiled kernels, or plain torch where nothing compiles."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from liftgs.render import compile
from liftgs.render.base import Rasterization
from liftgs.render.cuda import CudaRasterization
from liftgs.render.gaussians import Gaussians, Pinhole
from liftgs.render.native import NativeRasterization
from liftgs.render.plain import PlainRasterization


def rasterize(gaussians: Gaussians, camera: Pinhole) -> Rasterization:
    """One view's compositing weights, computed once for all channels.

    Args:
        gaussians: on CPU or CUDA, which decides the backend. Computed in float32.
        camera: on any device.

    Raises:
        ValueError: the Gaussians hold NaN or infinity (not checked on CUDA, where it would wait for the GPU).

    Source: EWA splatting as in gsplat 1.5.3: 0.3 square pixels added to every 2D covariance, near plane at 1 cm, extent
    by opacity (at most 3.33 standard deviations), order by depth of the centre.
    """
    if gaussians.means.is_cuda:
        return CudaRasterization(gaussians, camera)
    if compile.available():
        return NativeRasterization(gaussians, camera)
    return PlainRasterization(gaussians, camera)


def render(
    gaussians: Gaussians, camera: Pinhole, channels: Float[Tensor, "n c"]
) -> tuple[Float[Tensor, "h w c"], Float[Tensor, "h w"]]:
    """Image and accumulated opacity of one view: `rasterize` and `Rasterization.composite` in one call.

    Raises:
        ValueError: as those two.
    """
    rasterization = rasterize(gaussians, camera)
    return rasterization.composite(channels), rasterization.alpha
