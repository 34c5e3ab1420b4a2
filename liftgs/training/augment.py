"""Random changes of a chunk, which move its cloud and its cameras together."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from liftgs.model.voxels import Voxels, voxelise
from liftgs.scene import BadInput, PointCloud


@dataclass(frozen=True)
class AugmentConfig:
    """Random changes of a chunk. Cloud and cameras move together, so every projection stays what it was.

    Attributes:
        rotate: turn about the vertical by any angle.
        flip: mirror half of the chunks.
        scale: sizes change by at most this share.
        colour: gains and offsets of each colour channel, of cloud and photos alike, by at most this.
    """

    rotate: bool = True
    flip: bool = True
    scale: float = 0.1
    colour: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.scale < 1 or not 0 <= self.colour < 1:
            raise ValueError("scale and colour must be at least 0 and below 1")


@dataclass(frozen=True, eq=False)
class Change:
    """One such change.

    Attributes:
        move: of the world, in front of points: a similarity, perhaps with a reflection, that keeps the vertical.
        gain: of each colour channel, 0..1.
        shift: is added then.
    """

    move: Float64[np.ndarray, "4 4"]
    gain: Float[Tensor, " 3"]
    shift: Float[Tensor, " 3"]

    @staticmethod
    def draw(config: AugmentConfig, rng: np.random.Generator) -> Change:
        """A random one."""
        angle = rng.uniform(0, 2 * math.pi) * config.rotate
        mirror = -1.0 if rng.random() < 0.5 and config.flip else 1.0
        size = math.exp(rng.uniform(-1, 1) * math.log1p(config.scale))
        cos, sin = size * math.cos(angle), size * math.sin(angle)
        move = np.array([[mirror * cos, -sin, 0, 0], [mirror * sin, cos, 0, 0], [0, 0, size, 0], [0, 0, 0, 1.0]])
        gain, shift = 1 + config.colour * rng.uniform(-1, 1, 3), config.colour * rng.uniform(-0.5, 0.5, 3)
        return Change(move, torch.from_numpy(gain).float(), torch.from_numpy(shift).float())

    def voxels(self, cloud: PointCloud, voxel_size_m: float, uri: str) -> Voxels:
        """The changed cloud.

        Raises:
            BadInput: there is no point, or one that is not finite; named by `uri`.
        """
        xyz = torch.from_numpy((cloud.xyz @ self.move[:3, :3].T + self.move[:3, 3]).astype(np.float32))
        rgb = torch.from_numpy(cloud.rgb).float() / 255 * self.gain + self.shift
        try:
            return voxelise(xyz, rgb, voxel_size_m)
        except ValueError as error:
            raise BadInput(uri, str(error)) from None
