"""What can be grounded in: any reader's scene, or the vertices of a PLY file. Knows no network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from liftgs.chunks import load_chunk
from liftgs.geometry import CloudConfig
from liftgs.readers import ReaderOptions, open_scene
from liftgs.readers.files import file_at
from liftgs.readers.options import DEFAULT_OPTIONS
from liftgs.readers.ply import read_ply
from liftgs.scene import BadInput, Chunk, Frame, PointCloud, Scene

#: Keyframes of a long video that make its cloud, unless told otherwise: they cover a room, and fit in memory.
MAX_FRAMES = 60

#: A cloud wider than this is hardly a room in metres.
_MAX_EXTENT_M = 500


@dataclass(frozen=True, eq=False)
class Scan:
    """A cloud, and the photos that it was made from, if any.

    Attributes:
        uri: where it came from; for messages.
        cloud: metres, not empty.
        frames: with their cameras; empty for a plain cloud.
    """

    uri: str
    cloud: PointCloud
    frames: Sequence[Frame] = ()

    def __post_init__(self) -> None:
        if not len(self.cloud):
            raise BadInput(self.uri, "the cloud is empty: no point with finite coordinates")
        extent = float(np.ptp(self.cloud.xyz, axis=0).max())
        if extent > _MAX_EXTENT_M:
            raise BadInput(
                self.uri, f"the cloud is {extent:,.0f} m wide; is its unit the metre? --metres-per-unit 0.001 reads mm"
            )


def open_scan(
    uri: str,
    voxel_size_m: float,
    frames: int = MAX_FRAMES,
    stride: int = 1,
    options: ReaderOptions = DEFAULT_OPTIONS,
) -> Scan:
    """Read a scene or a `.ply`.

    Args:
        uri: what `open_scene` opens, or a path or URL that ends in `.ply`; its points are taken as they are.
        voxel_size_m: of the cloud that is fused from depth.
        frames: most frames that are read, spread evenly over the scene.
        stride: every how many-th frame is considered at all.
        options: how to read the source.

    Raises:
        BadInput: nothing readable there, an empty cloud, or neither depth nor points.
    """
    if uri.lower().endswith(".ply"):
        cloud = read_ply(*file_at(uri))
        xyz = cloud.xyz * np.float32(options.metres_per_unit)
        return Scan(uri, PointCloud(xyz, cloud.rgb))
    return load_scan(open_scene(uri, options), voxel_size_m, frames, stride)


def load_scan(scene: Scene, voxel_size_m: float, frames: int = MAX_FRAMES, stride: int = 1) -> Scan:
    """Make one cloud of a scene, as the labelling job makes the clouds of its chunks.

    Raises:
        BadInput: no frame can be used, or the cloud is empty.
    """
    considered = scene.frame_ids()[::stride]
    if not len(considered):
        raise BadInput(scene.uri, "the scene has no frame")
    spread = np.unique(np.linspace(0, len(considered) - 1, min(frames, len(considered))).round().astype(int))
    chosen = tuple(considered[i] for i in spread)
    loaded = load_chunk(scene, Chunk(scene.uri, scene.name, 0, chosen, chosen), CloudConfig(voxel_size_m=voxel_size_m))
    return Scan(scene.uri, loaded.cloud, loaded.frames)
