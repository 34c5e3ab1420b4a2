"""A room of Gaussians as the network makes them: one per 5 cm voxel, flat along the surface, seen from a corner."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from liftgs.render import Gaussians, Pinhole

ROOM_M = torch.tensor([6.0, 5.0, 3.0])
VOXEL_M = 0.05


def room(count: int = 50_000, seed: int = 0) -> Gaussians:
    """Walls, floor, ceiling and five boxes; scales log-normal about half a voxel, opacities about 0.73."""
    generator = torch.Generator().manual_seed(seed)
    lows = torch.rand(5, 3, generator=generator) * (ROOM_M - 1.2)
    lows[:, 2] = 0
    sizes = 0.4 + 0.8 * torch.rand(5, 3, generator=generator)
    surfaces = [_shell(torch.zeros(3), ROOM_M), *map(_shell, lows, sizes)]
    points, normals = (torch.cat(parts) for parts in zip(*surfaces, strict=True))
    chosen = torch.randperm(len(points), generator=generator).repeat(-(-count // len(points)))[:count]
    points, normals = points[chosen], normals[chosen]
    points = points + VOXEL_M * (torch.rand(count, 3, generator=generator) - 0.5)
    sigma = 0.5 * VOXEL_M * torch.exp(0.3 * torch.randn(count, 3, generator=generator))
    flat = torch.eye(3) - 0.8 * normals[:, :, None] * normals[:, None, :]
    turn, _ = torch.linalg.qr(torch.randn(count, 3, 3, generator=generator))
    shape = flat @ turn * sigma[:, None, :]
    opacities = torch.sigmoid(1 + 1.5 * torch.randn(count, generator=generator))
    return Gaussians(points, shape @ shape.mT, opacities)


def view(size_px: int = 512) -> Pinhole:
    """From a corner of the room to its middle, 60 degrees wide."""
    eye = torch.tensor([0.4, 0.4, 1.6])
    forward = ROOM_M / 2 - torch.tensor([0.0, 0.0, 0.3]) - eye
    forward = forward / forward.norm()
    right = torch.linalg.cross(forward, torch.tensor([0.0, 0.0, 1.0]))
    right = right / right.norm()
    viewmat = torch.eye(4)
    viewmat[:3, :3] = torch.stack([right, torch.linalg.cross(forward, right), forward])
    viewmat[:3, 3] = -viewmat[:3, :3] @ eye
    focal = size_px / 2 / math.tan(math.radians(30))
    K = torch.tensor([[focal, 0, size_px / 2], [0, focal, size_px / 2], [0, 0, 1]])
    return Pinhole(viewmat, K, size_px, size_px)


def _shell(low: Float[Tensor, 3], size: Float[Tensor, 3]) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
    """Points of a box's six faces on a grid of voxels, and their normals."""
    points, normals = [], []
    for axis in range(3):
        sides = [torch.arange(0, float(size[i]), VOXEL_M) if i != axis else torch.zeros(1) for i in range(3)]
        face = torch.stack(torch.meshgrid(*sides, indexing="ij"), -1).view(-1, 3)
        normal = torch.eye(3)[axis].expand_as(face)
        points += [low + face, low + face + normal * size[axis]]
        normals += [normal, normal]
    return torch.cat(points), torch.cat(normals)
