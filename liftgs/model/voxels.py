"""Points binned into voxels, as tensors: what the network takes in, and the way back from voxels to points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from liftgs.scene import PointCloud


@dataclass(frozen=True, eq=False)
class Voxels:
    """One cloud with at most one point per voxel.

    Attributes:
        xyz: the mean of a voxel's points, metres, world frame.
        rgb: their mean colour, 0..1.
        grid: the voxel, in units of its edge.
        of_point: the voxel of each point that went in.
    """

    xyz: Float[Tensor, "n 3"]
    rgb: Float[Tensor, "n 3"]
    grid: Int[Tensor, "n 3"]
    of_point: Int[Tensor, " p"]

    def __len__(self) -> int:
        return len(self.xyz)

    def to(self, device: torch.device | str) -> Voxels:
        """On another device."""
        return Voxels(*(value.to(device) for value in (self.xyz, self.rgb, self.grid, self.of_point)))

    def inputs(self) -> Float[Tensor, "n 6"]:
        """The paper's six channels: place in metres, relative to the middle of the floor, and colour in -1..1.

        Height counts from the lowest point, so it means the same in every room; the horizontal origin is the middle of
        the bounding box.
        """
        low, high = self.xyz.amin(0), self.xyz.amax(0)
        origin = torch.cat(((low + high)[:2] / 2, low[2:]))
        return torch.cat((self.xyz - origin, self.rgb * 2 - 1), dim=1)


def voxelise(xyz: Float[Tensor, "p 3"], rgb: Float[Tensor, "p 3"], voxel_size_m: float) -> Voxels:
    """Bin points.

    Args:
        xyz: metres; at least one point.
        rgb: 0..1.
        voxel_size_m: edge of a voxel.

    Raises:
        ValueError: no point, a position that is not finite, or a cloud wider than 2^20 voxels.
    """
    if not len(xyz):
        raise ValueError("the cloud has no points")
    if not torch.isfinite(xyz).all():
        raise ValueError("a point's position is not finite")
    grid = torch.floor(xyz.double() / voxel_size_m).long()
    local = grid - grid.amin(0)
    extent = local.amax(0) + 1
    if extent.max() >= 1 << 20:
        raise ValueError(f"the cloud is {float(extent.max()) * voxel_size_m / 1000:g} km wide; are these metres?")
    key = (local[:, 0] * extent[1] + local[:, 1]) * extent[2] + local[:, 2]
    unique, of_point, count = torch.unique(key, return_inverse=True, return_counts=True)
    share = 1 / count[of_point, None].to(xyz.dtype)
    middle = xyz.mean(0)  # sums of small numbers, so that far from the origin nothing is lost
    sums = torch.zeros(len(unique), 6, dtype=xyz.dtype, device=xyz.device)
    sums.index_add_(0, of_point, torch.cat((xyz - middle, rgb.to(xyz.dtype)), 1) * share)
    cell = torch.stack((unique // (extent[1] * extent[2]), unique // extent[2] % extent[1], unique % extent[2]), 1)
    return Voxels(sums[:, :3] + middle, sums[:, 3:], cell + grid.amin(0), of_point)


def voxelise_cloud(cloud: PointCloud, voxel_size_m: float, device: torch.device | str = "cpu") -> Voxels:
    """Bin a `PointCloud`; raises as `voxelise`."""
    rgb = torch.from_numpy(cloud.rgb).to(device).float() / 255
    return voxelise(torch.from_numpy(cloud.xyz).to(device), rgb, voxel_size_m)


def batch_grid(clouds: Sequence[Voxels]) -> Int[Tensor, "n 4"]:
    """Voxels of several clouds one after the other, as int32 (which cloud, x, y, z)."""
    rows = [torch.cat((torch.full_like(cloud.grid[:, :1], index), cloud.grid), 1) for index, cloud in enumerate(clouds)]
    return torch.cat(rows).int()
