"""What is rendered and from where: Gaussians and a pinhole camera, as tensors. Knows nothing of how."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from liftgs.scene import Camera


class NotFinite(ValueError):
    """NaN or infinity where a finite number is needed; a training skips the step."""


@dataclass(frozen=True, eq=False)
class Gaussians:
    """Anisotropic 3D Gaussians. Gradients flow to all three tensors.

    Attributes:
        means: centres, world frame, metres.
        covars: covariances, world frame, square metres; symmetric and positive definite.
        opacities: in (0, 1).

    Raises:
        ValueError: shapes that do not fit each other.
    """

    means: Float[Tensor, "n 3"]
    covars: Float[Tensor, "n 3 3"]
    opacities: Float[Tensor, " n"]

    def __post_init__(self) -> None:
        n = len(self.means)
        shapes = tuple(self.means.shape), tuple(self.covars.shape), tuple(self.opacities.shape)
        if shapes != ((n, 3), (n, 3, 3), (n,)):
            raise ValueError(f"means, covars, opacities have shapes {shapes}; expected ((n, 3), (n, 3, 3), (n,))")

    def __len__(self) -> int:
        return len(self.means)


@dataclass(frozen=True, eq=False)
class Pinhole:
    """A camera as tensors. No gradients flow to it.

    Unlike `scene.Camera`, which checks that a pose is rigid, it takes any affine `viewmat`: an augmentation that flips
    the world leaves a reflection in it.

    Attributes:
        viewmat: world to camera, OpenCV axes (x right, y down, z forward), metres.
        K: intrinsics in pixels, without skew; the centre of the first pixel is at (0.5, 0.5).
        width: image width in pixels.
        height: image height in pixels.

    Raises:
        ValueError: shapes other than 4x4 and 3x3, or an image without pixels.
    """

    viewmat: Float[Tensor, "4 4"]
    K: Float[Tensor, "3 3"]
    width: int
    height: int

    def __post_init__(self) -> None:
        if self.viewmat.shape != (4, 4) or self.K.shape != (3, 3):
            shapes = tuple(self.viewmat.shape), tuple(self.K.shape)
            raise ValueError(f"viewmat and K have shapes {shapes}; expected ((4, 4), (3, 3))")
        if self.width <= 0 or self.height <= 0:
            raise ValueError(f"image size {self.width}x{self.height} is not positive")

    @staticmethod
    def of(camera: Camera, device: torch.device | str | None = None) -> Pinhole:
        """The same camera, in float32."""
        viewmat = torch.as_tensor(camera.world_to_cam, dtype=torch.float32, device=device)
        K = torch.as_tensor(camera.K, dtype=torch.float32, device=device)
        return Pinhole(viewmat, K, camera.width, camera.height)

    def within(self, longest_px: int) -> Pinhole:
        """The same camera with its image resampled so that no side is longer than this; never enlarged."""
        shrink = min(1.0, longest_px / max(self.width, self.height))
        width, height = max(1, round(self.width * shrink)), max(1, round(self.height * shrink))
        scale = self.K.new_tensor([[width / self.width], [height / self.height], [1.0]])
        return Pinhole(self.viewmat, self.K * scale, width, height)
