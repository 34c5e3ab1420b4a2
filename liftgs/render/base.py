"""The contract that every backend keeps."""

from __future__ import annotations

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor


class Rasterization(ABC):
    """The compositing weights of one view: which Gaussian counts how much in which pixel.

    Attributes:
        alpha: accumulated opacity per pixel, 0 where no Gaussian is; differentiable to the Gaussians.
    """

    alpha: Float[Tensor, "h w"]

    @abstractmethod
    def composite(self, channels: Float[Tensor, "n c"]) -> Float[Tensor, "h w c"]:
        """Blend per-Gaussian channels into an image, front to back, over zero.

        Linear in `channels`, so colours, features and masks share the weights, and a linear map of channels may as well
        come before as after. Gradients flow to `channels` and to the Gaussians. Call it as often as needed.

        Args:
            channels: one row per Gaussian, any unit.

        Returns:
            The image in float32. It may be a view of wider rows: not contiguous, but dense along the channels.

        Raises:
            ValueError: another number of rows than there are Gaussians, or (on CPU) NaN or infinity in the channels of
                a visible one.

        Source: alpha compositing, Kerbl et al. 2023, eq. 3, with the constants of gsplat 1.5.3: alpha is capped at
        0.999 and ignored under 1/255; a pixel stops before the Gaussian that would leave 1e-4 of the light or less.
        """


def check_channels(channels: Tensor, n: int) -> None:
    """Raise ValueError unless `channels` is a row for each of `n` Gaussians."""
    if channels.ndim != 2 or len(channels) != n or channels.shape[1] == 0:
        raise ValueError(f"channels have shape {tuple(channels.shape)}; expected ({n}, c) with c > 0")
