"""Oriented boxes around things, and which points are inside. Knows nothing of formats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Int32


@dataclass(frozen=True, eq=False)
class OrientedBox:
    """A box anywhere in the world.

    Attributes:
        centre: metres.
        axes: the box's own axes as rows; orthonormal.
        lengths: along its own axes, metres.
    """

    centre: Float[np.ndarray, " 3"]
    axes: Float[np.ndarray, "3 3"]
    lengths: Float[np.ndarray, " 3"]

    def contains(self, xyz: Float32[np.ndarray, "n 3"]) -> Bool[np.ndarray, " n"]:
        """Which points are inside, surface included."""
        return (np.abs((xyz - self.centre) @ self.axes.T) <= self.lengths / 2).all(1)

    def bounds(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """Lower and upper corner of the axis-aligned box around it."""
        reach = np.abs(self.axes.T) @ self.lengths / 2
        (x0, y0, z0), (x1, y1, z1) = (self.centre - reach).tolist(), (self.centre + reach).tolist()
        return (x0, y0, z0), (x1, y1, z1)


def owners(xyz: Float32[np.ndarray, "n 3"], boxes: Sequence[OrientedBox]) -> Int32[np.ndarray, " n"]:
    """For each point one more than the index of the box that holds it; 0 outside of all.

    In several it belongs to the smallest (a cushion on a sofa); among equals to the first.
    """
    owner = np.zeros(len(xyz), np.int32)
    volume = [float(np.prod(box.lengths)) for box in boxes]
    for index in sorted(range(len(boxes)), key=lambda i: (-volume[i], -i)):
        owner[boxes[index].contains(xyz)] = index + 1
    return owner
