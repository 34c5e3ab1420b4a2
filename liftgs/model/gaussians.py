"""From point features to 3D Gaussians, one per voxel. Knows neither cameras nor losses."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from liftgs.render.gaussians import Gaussians


@dataclass(frozen=True)
class GaussianConfig:
    """The pointwise head that turns a voxel's feature into a Gaussian.

    Attributes:
        features: feature channels that the contrastive loss reads; 512 in the paper (section 3.1.2).
        hidden: width of the MLP's hidden layer; the paper says "pointwise MLP" and no more.
        max_offset_voxels: a centre moves at most this far from its point, per axis. Bounded, so that Gaussians stay
            bijective with points (the paper's |G| = |P|) and a mask on Gaussians is a mask on points.
        initial_scale_voxels: standard deviation at the start. Half a voxel: neighbours overlap and leave no holes.
        scale_range: a standard deviation stays within the initial one divided and multiplied by this.
        initial_opacity: at the start. The paper's 12 channels forget opacity; it is predicted, as everywhere else.
    """

    features: int = 512
    hidden: int = 256
    max_offset_voxels: float = 1.0
    initial_scale_voxels: float = 0.5
    scale_range: float = 4.0
    initial_opacity: float = 0.8


class GaussianHead(nn.Module):
    """Voxel features -> centre offset (3), Cholesky factor of the covariance (6), opacity (1), colour (3), features.

    The covariance is L L^T with a lower triangular L of positive diagonal, so it is positive definite whatever the
    network says, in the six numbers that the paper counts. Colour is a residual on the point's own.
    """

    def __init__(self, config: GaussianConfig, in_channels: int, voxel_size_m: float):
        super().__init__()
        self.config = config
        self.voxel_size_m = voxel_size_m
        self.trunk = nn.Sequential(nn.Linear(in_channels, config.hidden), nn.ReLU())
        self.geometry = nn.Linear(config.hidden, 13)
        self.features = nn.Linear(config.hidden, config.features)
        nn.init.normal_(self.geometry.weight, std=1e-3)  # starts as isotropic Gaussians on the points, in their colours
        nn.init.zeros_(self.geometry.bias)

    def forward(
        self, points: Float[Tensor, "n c"], xyz: Float[Tensor, "n 3"], rgb: Float[Tensor, "n 3"]
    ) -> tuple[Gaussians, Float[Tensor, "n 3"], Float[Tensor, "n f"]]:
        """Gaussians, colours (about 0..1, not clamped) and unit features.

        Args:
            points: a feature per voxel.
            xyz: its point, metres.
            rgb: its colour, 0..1.
        """
        config = self.config
        hidden = self.trunk(points)
        raw = self.geometry(hidden).float()
        offset, log_scale, shear, opacity, colour = raw.split((3, 3, 3, 1, 3), dim=1)
        means = xyz + torch.tanh(offset) * (config.max_offset_voxels * self.voxel_size_m)
        return (
            Gaussians(means, self._covars(log_scale, shear), torch.sigmoid(opacity[:, 0] + self._opacity_bias)),
            rgb + 0.5 * torch.tanh(colour),
            nn.functional.normalize(self.features(hidden).float(), dim=1),
        )

    @property
    def _opacity_bias(self) -> float:
        return math.log(self.config.initial_opacity / (1 - self.config.initial_opacity))

    def _covars(self, log_scale: Float[Tensor, "n 3"], shear: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3 3"]:
        scale_m = self.config.initial_scale_voxels * self.voxel_size_m
        diagonal = scale_m * torch.exp(torch.tanh(log_scale) * math.log(self.config.scale_range))
        below = 2 * scale_m * torch.tanh(shear)
        # L L^T written out: batched 3x3 products are slow on CPUs
        a, b, c = diagonal.unbind(1)
        d, e, f = below.unbind(1)
        xx, xy, xz = a * a, a * d, a * e
        yy, yz, zz = d * d + b * b, d * e + b * f, e * e + f * f + c * c
        return torch.stack((xx, xy, xz, xy, yy, yz, xz, yz, zz), dim=1).view(-1, 3, 3)
