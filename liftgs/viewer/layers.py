"""What is drawn: points or Gaussians, their colours, and which wall they are part of. Knows no page and no phrase."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int, UInt8
from scipy.spatial import cKDTree

from liftgs.geometry import CloudConfig, fuse, voxel_reach_m
from liftgs.ground import EncodedScan, Scan
from liftgs.ground.files import paint
from liftgs.ground.views import walls
from liftgs.scene import PointCloud
from liftgs.viewer.answers import Highlight

#: A browser draws this many points with ease; of denser clouds a random part is shown.
MAX_POINTS = 1_000_000
#: Depth is fused more finely for the eye than for the network.
_FINE = CloudConfig(voxel_size_m=0.02)
_FOUND_WEIGHT = 0.8  # of a phrase's colour in what it names; the rest lets the shape be seen
_DIMMED = 0.45  # brightness of everything else once something is found
_LEAST_POINT_M, _MOST_POINT_M = 0.005, 0.1


@dataclass(frozen=True, eq=False)
class Layer:
    """Things that light up with the voxels that they are in.

    Attributes:
        xyz: metres, world frame.
        rgb: colour.
        wall: as `liftgs.ground.views.walls` says.
        voxel: the network's voxel that each is in; -1 for none.
    """

    xyz: Float32[np.ndarray, "n 3"]
    rgb: UInt8[np.ndarray, "n 3"]
    wall: Int[np.ndarray, " n"]
    voxel: Int[np.ndarray, " n"]

    def lit(self, highlights: Sequence[Highlight]) -> tuple[UInt8[np.ndarray, "n 3"], Int[np.ndarray, " n"]]:
        """Colours and walls with some masks lit up; the rest is dimmed.

        What is found at a side wall is no longer part of it, so that it is seen from all around. Under the ceiling it
        stays a part: there, a mask that spills over would hide the room.
        """
        if not highlights:
            return self.rgb, self.wall
        masks = [(self._rows(highlight), highlight.colour) for highlight in highlights]
        found = np.zeros(len(self.xyz), bool)
        found[np.concatenate([rows for rows, _ in masks])] = True
        tinted = self.rgb * (1 - _FOUND_WEIGHT) + paint(self.rgb, masks) * _FOUND_WEIGHT
        rgb = np.where(found[:, None], tinted, self.rgb * _DIMMED)
        upright = ~np.isin(self.wall, (2, 5))  # neither floor nor ceiling
        return np.rint(rgb).astype(np.uint8), np.where(found & upright, -1, self.wall)

    def _rows(self, highlight: Highlight) -> Int[np.ndarray, " k"]:
        return np.flatnonzero(np.append(highlight.match.voxels, False)[self.voxel])


@dataclass(frozen=True, eq=False)
class Points(Layer):
    """The scan's cloud.

    Attributes:
        size_m: diameter of a point; neighbours touch.
    """

    size_m: float


@dataclass(frozen=True, eq=False)
class Splats(Layer):
    """The network's Gaussians, one per voxel, in its colours.

    Attributes:
        covars: square metres, world frame.
        opacities: in (0, 1).
    """

    covars: Float32[np.ndarray, "n 3 3"]
    opacities: Float32[np.ndarray, " n"]


def points(known: EncodedScan, voxel_size_m: float, most: int = MAX_POINTS) -> Points:
    """The cloud as a layer.

    Args:
        known: the scan; where its frames have depth, that is fused anew, in finer detail.
        voxel_size_m: of the network.
        most: of more points than this a random part is taken, always the same.
    """
    cloud = _fine_cloud(known.scan)
    if len(cloud) > most:
        cloud = cloud[np.sort(np.random.default_rng(0).choice(len(cloud), most, replace=False))]
    voxels = cKDTree(known.encoded.voxels.xyz.cpu().numpy())
    distance, nearest = voxels.query(cloud.xyz, distance_upper_bound=3**0.5 * voxel_size_m)
    voxel = np.where(np.isfinite(distance), nearest, -1)
    return Points(cloud.xyz, cloud.rgb, walls(cloud.xyz), voxel, _spacing_m(cloud.xyz))


def splats(known: EncodedScan) -> Splats:
    """The Gaussians as a layer."""
    gaussians = known.encoded.gaussians
    tensors = (gaussians.means, known.encoded.colours.clamp(0, 1), gaussians.covars, gaussians.opacities)
    xyz, rgb, covars, opacities = (tensor.float().cpu().numpy() for tensor in tensors)
    return Splats(xyz, np.rint(rgb * 255).astype(np.uint8), walls(xyz), np.arange(len(xyz)), covars, opacities)


def _fine_cloud(scan: Scan) -> PointCloud:
    """The frames' depth in finer voxels; the scan's own cloud if there is none, or if it is too far away for these."""
    places = [np.abs(frame.camera.cam_to_world[:3, 3]).max() for frame in scan.frames]
    if max(places, default=0) > voxel_reach_m(_FINE.voxel_size_m) - _FINE.depth_max_m:
        return scan.cloud
    fine = fuse(scan.frames, _FINE)
    return fine if len(fine) else scan.cloud


def _spacing_m(xyz: Float32[np.ndarray, "n 3"]) -> float:
    """The usual distance from a point to its fourth neighbour: on a surface, there is one on each side."""
    some = xyz[:: max(1, len(xyz) // 2000)]
    distance = cKDTree(xyz).query(some, k=[min(5, len(xyz))])[0]
    return min(max(float(np.median(distance)), _LEAST_POINT_M), _MOST_POINT_M)
