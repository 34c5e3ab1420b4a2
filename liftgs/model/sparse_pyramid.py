"""Voxel coordinates at every scale of a sparse network, and who neighbours whom; built once and shared by all layers.

Knows nothing of features or weights. Built anew for each training step (augmentation moves the voxels), hence fast.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import torch
from jaxtyping import Int
from torch import Tensor

#: A box of at most so many cells per voxel is searched through a dense table (rooms of 5 cm voxels take about 50), a
#: larger one by sorting.
DENSE_CELLS_PER_VOXEL = 256


@dataclass(frozen=True, eq=False)
class Coarsening:
    """How the voxels of one level lie in those of the next, which are twice as wide.

    Attributes:
        parents: for each fine voxel, the row of the coarse voxel that holds it.
        octants: for each fine voxel, which eighth of its parent it is: 4 (x & 1) + 2 (y & 1) + (z & 1).
        children: for each coarse voxel and octant, the row of the fine voxel there; the number of fine voxels if none.
    """

    parents: Int[Tensor, " n"]
    octants: Int[Tensor, " n"]
    children: Int[Tensor, "m 8"]


@dataclass(frozen=True, eq=False)
class Level:
    """The voxels of one scale.

    Attributes:
        coords: (batch, x, y, z), int32; each row once, in any order.
        coarsening: how they lie in the next level; None at the coarsest.
        cache: what the backends computed from them, for all layers.
    """

    coords: Int[Tensor, "n 4"]
    coarsening: Coarsening | None = None
    cache: dict[str, Any] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        """Number of voxels."""
        return len(self.coords)

    def neighbours(self, kernel: int) -> Int[Tensor, "n k"]:
        """Row of every voxel's neighbour at each of the kernel^3 offsets (x slowest), or `len(self)` if there is none.

        Computed at the first call for a kernel width (odd) and kept.
        """
        key = f"neighbours{kernel}"
        if key not in self.cache:
            self.cache[key] = neighbour_table(self.coords, kernel)
        return cast(Tensor, self.cache[key])


@dataclass(frozen=True, eq=False)
class Pyramid:
    """All levels, finest first. Level 0 keeps the order of the points; the others are sorted by (batch, x, y, z)."""

    levels: tuple[Level, ...]

    def __len__(self) -> int:
        """Number of levels."""
        return len(self.levels)


def build_pyramid(coords: Int[Tensor, "n 4"], num_levels: int) -> Pyramid:
    """Halve the resolution `num_levels - 1` times: a voxel's parent is floor(x / 2), of the same scene.

    Args:
        coords: (batch, x, y, z) of each occupied voxel, in voxel units; batch from 0, the rest may be negative. Points
            in spatial order are gathered faster.
        num_levels: at least 1.

    Raises:
        ValueError: a voxel occurs twice, there is none, or they lie further apart than 63-bit numbers reach.
    """
    if len(coords) == 0:
        raise ValueError("a pyramid needs at least one voxel")
    coords = coords.int()
    levels = []
    for depth in range(num_levels):
        coarse_coords, coarsening = _coarsen(coords)
        if depth == 0:
            _check_unique(coarsening)
        levels.append(Level(coords, coarsening if depth + 1 < num_levels else None))
        coords = coarse_coords
    return Pyramid(tuple(levels))


def neighbour_table(coords: Int[Tensor, "n 4"], kernel: int, dense: bool | None = None) -> Int[Tensor, "n k"]:
    """As `Level.neighbours`; `dense` forces the search through a table (True) or by sorting (False)."""
    grid = _Grid.around(coords, margin=kernel // 2)
    if dense is None:
        dense = grid.is_small(len(coords))
    return _search_dense(grid, coords, kernel) if dense else _search_sorted(grid, coords, kernel)


@dataclass(frozen=True)
class _Grid:
    """Numbers the cells of a box, so that order of numbers is order of coordinates and an offset is a difference."""

    low: tuple[int, ...]
    size: tuple[int, ...]

    @staticmethod
    def around(coords: Tensor, margin: int) -> _Grid:
        low, high = (bound.tolist() for bound in torch.aminmax(coords, dim=0))
        margins = (0, margin, margin, margin)
        size = tuple(last - first + 1 + 2 * m for first, last, m in zip(low, high, margins, strict=True))
        grid = _Grid(tuple(first - m for first, m in zip(low, margins, strict=True)), size)
        if grid.cells >= 2**63:
            raise ValueError(f"voxels from {tuple(low)} to {tuple(high)} lie too far apart")
        return grid

    @property
    def cells(self) -> int:
        batch, x, y, z = self.size
        return batch * x * y * z

    @property
    def strides(self) -> tuple[int, int, int, int]:
        _, x, y, z = self.size
        return x * y * z, y * z, z, 1

    def is_small(self, voxels: int) -> bool:
        return self.cells <= min(DENSE_CELLS_PER_VOXEL * max(voxels, 4096), 2**31 - 1)

    def numbers(self, coords: Tensor) -> Tensor:
        """Of the voxels' cells; int32 where that is enough."""
        columns = coords.t() if self.cells < 2**31 else coords.t().long()
        start = -sum(low * stride for low, stride in zip(self.low, self.strides, strict=True))
        batch, x, y, z = (column * stride for column, stride in zip(columns, self.strides, strict=True))
        return (batch + x).add_(y).add_(z).add_(start)

    def offsets(self, kernel: int, like: Tensor) -> Tensor:
        """Differences of cell numbers to the kernel^3 neighbours."""
        reach = torch.arange(-(kernel // 2), kernel // 2 + 1, device=like.device, dtype=like.dtype)
        _, x, y, z = self.strides
        return (reach[:, None, None] * x + reach[:, None] * y + reach * z).flatten()


def _coarsen(coords: Tensor) -> tuple[Tensor, Coarsening]:
    coarse = coords.clone()
    coarse[:, 1:] >>= 1
    grid = _Grid.around(coarse, margin=0)
    numbers = grid.numbers(coarse)
    if grid.is_small(len(coords)):
        occupied = torch.zeros(grid.cells, dtype=torch.bool, device=coords.device)
        occupied[numbers] = True
        cells = occupied.nonzero().flatten()
        table = torch.empty(grid.cells, dtype=torch.int32, device=coords.device)
        table[cells] = torch.arange(len(cells), dtype=torch.int32, device=coords.device)
        parents = table[numbers]
    else:
        cells, rows = torch.unique(numbers, return_inverse=True)
        parents = rows.int()
    _, x, y, z = coords.t() & 1
    octants = (x * 2).add_(y).mul_(2).add_(z)
    fine = torch.arange(len(coords), dtype=torch.int32, device=coords.device)
    children = torch.full((len(cells) * 8,), len(coords), dtype=torch.int32, device=coords.device)
    children[parents * 8 + octants] = fine
    coarse_coords = torch.empty(len(cells), 4, dtype=torch.int32, device=coords.device)
    coarse_coords[parents] = coarse
    return coarse_coords, Coarsening(parents, octants, children.view(-1, 8))


def _check_unique(coarsening: Coarsening) -> None:
    """Each voxel is its parent's child, unless another took its place."""
    voxels = len(coarsening.parents)
    distinct = int((coarsening.children < voxels).sum())
    if distinct != voxels:
        raise ValueError(f"{voxels - distinct} of {voxels} voxels occur more than once")


def _search_dense(grid: _Grid, coords: Tensor, kernel: int) -> Tensor:
    voxels = len(coords)
    numbers = grid.numbers(coords)
    table = torch.full((grid.cells,), voxels, dtype=torch.int32, device=coords.device)
    table[numbers] = torch.arange(voxels, dtype=torch.int32, device=coords.device)
    return table[numbers[:, None] + grid.offsets(kernel, numbers)]


def _search_sorted(grid: _Grid, coords: Tensor, kernel: int) -> Tensor:
    """If b is a's neighbour at an offset, a is b's at the opposite one: half of the offsets are searched."""
    voxels = len(coords)
    numbers, order = grid.numbers(coords).sort()
    rows = torch.arange(voxels, dtype=torch.int32, device=coords.device)
    offsets = grid.offsets(kernel, numbers)
    middle = len(offsets) // 2
    table = torch.full((len(offsets), voxels), voxels, dtype=torch.int32, device=coords.device)
    table[middle] = rows
    for index in range(middle):
        wanted = numbers + offsets[index]
        places = torch.searchsorted(numbers, wanted).clamp_(max=voxels - 1)
        (here,) = (numbers[places] == wanted).nonzero(as_tuple=True)
        row, neighbour = order[here], order[places[here]]
        table[index, row] = neighbour.int()
        table[-1 - index, neighbour] = row.int()
    return table.t().contiguous()
