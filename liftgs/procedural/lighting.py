"""Soft shadows and corner darkening for a room, baked once into small volumes that every frame looks up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32
from scipy.ndimage import gaussian_filter

from liftgs.procedural.raycast import PartTable
from liftgs.procedural.room import Room

_MAX_VOXELS = 220_000
_MARCH_STEPS = 18
_SHADOW_DENSITY_PER_M = 14.0


@dataclass(frozen=True, eq=False)
class LightVolume:
    """What reaches a point of the room.

    Attributes:
        voxel_size_m: edge of a voxel; voxel (i, j, k) is centred at ((i, j, k) + 0.5) * voxel_size_m.
        values: ambient openness and then the visibility of each light, in 0..1, per voxel.
    """

    voxel_size_m: float
    values: Float32[np.ndarray, "c x y z"]

    def at(self, xyz: Float32[np.ndarray, "3 n"]) -> Float32[np.ndarray, "c n"]:
        """Trilinear look-up; points outside take the value of the border."""
        channels, nx, ny, nz = self.values.shape
        base = np.zeros(xyz.shape[1], np.int32)
        fractions = []
        for axis, count in enumerate((nx, ny, nz)):
            grid = xyz[axis] * np.float32(1 / self.voxel_size_m) - np.float32(0.5)
            grid = np.clip(grid, 0, np.float32(count - 1.001))
            low = grid.astype(np.int32)
            fractions.append(grid - low)
            base = base * count + low
        fx, fy, fz = fractions
        corners = [[[base + (dx * ny + dy) * nz + dz for dz in (0, 1)] for dy in (0, 1)] for dx in (0, 1)]
        out = np.empty((channels, len(base)), np.float32)
        for channel in range(channels):
            flat = self.values[channel].ravel()
            planes = []
            for dx in (0, 1):
                rows = []
                for dy in (0, 1):
                    a, b = flat[corners[dx][dy][0]], flat[corners[dx][dy][1]]
                    rows.append(a + fz * (b - a))
                planes.append(rows[0] + fy * (rows[1] - rows[0]))
            out[channel] = planes[0] + fx * (planes[1] - planes[0])
        return out


def bake(room: Room) -> LightVolume:
    """March from every voxel to every light through the room's occupancy. Deterministic, 0.1 to 0.3 s."""
    extent = np.asarray(room.size)
    voxel = max(0.06, float((extent.prod() / _MAX_VOXELS) ** (1 / 3)))
    occupancy = _occupancy(room, voxel)
    soft = gaussian_filter(occupancy, 1.8, mode="constant", cval=0.55)
    openness = np.clip(1.2 - 1.05 * soft, 0.2, 1.0)
    solid = gaussian_filter(occupancy, 0.6)
    channels = [openness] + [_visibility(solid, voxel, np.asarray(light.position)) for light in room.lights]
    return LightVolume(voxel, np.stack(channels).astype(np.float32))


def _occupancy(room: Room, voxel: float) -> Float32[np.ndarray, "x y z"]:
    """How full each voxel is, about; parts thinner than a voxel count in proportion."""
    shape = np.maximum(np.ceil(np.asarray(room.size) / voxel).astype(int), 2)
    grid = np.zeros(shape, np.float32)
    parts = [p for o in room.objects if not o.is_structure for p in o.parts if p.emission < 0.3]
    if not parts:
        return grid
    table = PartTable.of(parts)
    for i, part in enumerate(parts):
        low, high = part.bounds()
        first = np.clip(np.floor(low / voxel).astype(int), 0, shape - 1)
        last = np.clip(np.ceil(high / voxel).astype(int), first + 1, shape)
        axes = [(np.arange(a, b) + 0.5) * voxel for a, b in zip(first, last, strict=True)]
        points = np.stack(np.meshgrid(*axes, indexing="ij"), -1) - table.centre[i]
        local = (points[..., None, :] * table.rotation[i].T).sum(-1)
        half = np.maximum(table.half_size[i], voxel / 2)
        fill = np.float32(np.minimum(1.0, table.half_size[i] / (voxel / 2)).prod())
        unit = local / half
        if part.shape == "box":
            inside = (np.abs(unit) <= 1).all(-1)
        elif part.shape == "sphere":
            inside = (unit**2).sum(-1) <= 1
        else:
            radius = (1 + part.taper) / 2 + (part.taper - 1) / 2 * unit[..., 2]
            inside = ((unit[..., :2] ** 2).sum(-1) <= radius**2) & (np.abs(unit[..., 2]) <= 1)
        block = grid[tuple(slice(a, b) for a, b in zip(first, last, strict=True))]
        np.maximum(block, inside * fill, out=block)
    return grid


def _visibility(solid: np.ndarray, voxel: float, position: np.ndarray) -> np.ndarray:
    shape = solid.shape
    flat = solid.ravel()
    centres = [(np.arange(n, dtype=np.float32) + 0.5) for n in shape]
    light = (position / voxel).astype(np.float32)
    delta = [light[axis] - centres[axis] for axis in range(3)]
    length = np.sqrt(delta[0][:, None, None] ** 2 + delta[1][None, :, None] ** 2 + delta[2][None, None, :] ** 2) * voxel
    thickness = np.zeros(shape, np.float32)
    for step in range(_MARCH_STEPS):
        # Finer steps near the receiver, where contact shadows are.
        f = np.float32(((step + 0.5) / _MARCH_STEPS) ** 1.5)
        weight = np.float32(1.5 * ((step + 0.5) / _MARCH_STEPS) ** 0.5 / _MARCH_STEPS)
        index = [np.clip((centres[a] + f * delta[a]).astype(np.int32), 0, shape[a] - 1) for a in range(3)]
        at = (index[0] * (shape[1] * shape[2]))[:, None, None] + (index[1] * shape[2])[None, :, None] + index[2]
        thickness += weight * flat[at]
    return np.asarray(np.exp(-_SHADOW_DENSITY_PER_M * thickness * length))
