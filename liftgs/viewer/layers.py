"""What is drawn: points or Gaussians, their colours, and which wall they are part of. Knows no page and no phrase."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int, UInt8
from scipy.spatial import cKDTree

from liftgs.ground import EncodedScan
from liftgs.ground.files import paint
from liftgs.ground.views import walls
from liftgs.scene import PointCloud
from liftgs.viewer.answers import Highlight

#: A browser draws this many points with ease; of denser clouds a random part is shown.
MAX_POINTS = 1_000_000
_FOUND_WEIGHT = 0.8  # of a phrase's colour in what it names; the rest lets the shape be seen
_DIMMED = 0.45  # brightness of everything else once something is found
_LEAST_POINT_M, _MOST_POINT_M = 0.005, 0.06


@dataclass(frozen=True, eq=False)
class Layer(ABC):
    """Things that can be lit up.

    Attributes:
        xyz: metres, world frame.
        rgb: colour.
        wall: as `liftgs.ground.views.walls` says.
    """

    xyz: Float32[np.ndarray, "n 3"]
    rgb: UInt8[np.ndarray, "n 3"]
    wall: Int[np.ndarray, " n"]

    @abstractmethod
    def rows(self, highlight: Highlight) -> Int[np.ndarray, " k"]:
        """Which of them a mask covers."""

    def lit(self, highlights: Sequence[Highlight]) -> tuple[UInt8[np.ndarray, "n 3"], Int[np.ndarray, " n"]]:
        """Colours and walls with some masks lit up: the rest is dimmed, and what is found is never part of a wall."""
        if not highlights:
            return self.rgb, self.wall
        masks = [(self.rows(highlight), highlight.colour) for highlight in highlights]
        found = np.zeros(len(self.xyz), bool)
        found[np.concatenate([rows for rows, _ in masks])] = True
        tinted = self.rgb * (1 - _FOUND_WEIGHT) + paint(self.rgb, masks) * _FOUND_WEIGHT
        rgb = np.where(found[:, None], tinted, self.rgb * _DIMMED)
        return np.rint(rgb).astype(np.uint8), np.where(found, -1, self.wall)


@dataclass(frozen=True, eq=False)
class Points(Layer):
    """The scan's cloud.

    Attributes:
        kept: the points of the scan that are shown, increasing.
        size_m: diameter of a point; neighbours touch.
    """

    kept: Int[np.ndarray, " n"]
    size_m: float

    def rows(self, highlight: Highlight) -> Int[np.ndarray, " k"]:
        """As `Layer.rows`."""
        return np.flatnonzero(np.isin(self.kept, highlight.match.points, assume_unique=True))


@dataclass(frozen=True, eq=False)
class Splats(Layer):
    """The network's Gaussians, with its colours.

    Attributes:
        covars: square metres, world frame.
        opacities: in (0, 1).
    """

    covars: Float32[np.ndarray, "n 3 3"]
    opacities: Float32[np.ndarray, " n"]

    def rows(self, highlight: Highlight) -> Int[np.ndarray, " k"]:
        """As `Layer.rows`."""
        return np.flatnonzero(highlight.match.voxels)


def points(cloud: PointCloud, most: int = MAX_POINTS) -> Points:
    """The cloud as a layer; a random part of it if it has more than `most` points, always the same."""
    kept = np.arange(len(cloud))
    if len(cloud) > most:
        kept = np.sort(np.random.default_rng(0).choice(len(cloud), most, replace=False))
    shown = cloud[kept]
    return Points(shown.xyz, shown.rgb, walls(shown.xyz), kept, _spacing_m(shown.xyz))


def splats(known: EncodedScan) -> Splats:
    """The Gaussians as a layer."""
    gaussians = known.encoded.gaussians
    tensors = (gaussians.means, known.encoded.colours.clamp(0, 1), gaussians.covars, gaussians.opacities)
    xyz, rgb, covars, opacities = (tensor.float().cpu().numpy() for tensor in tensors)
    return Splats(xyz, np.rint(rgb * 255).astype(np.uint8), walls(xyz), covars, opacities)


def _spacing_m(xyz: Float32[np.ndarray, "n 3"]) -> float:
    """The usual distance from a point to its fourth neighbour: on a surface, there is one on each side."""
    some = xyz[:: max(1, len(xyz) // 2000)]
    distance = cKDTree(xyz).query(some, k=[min(5, len(xyz))])[0]
    return min(max(float(np.median(distance)), _LEAST_POINT_M), _MOST_POINT_M)
