"""nerfstudio scenes: transforms.json, with depth maps or a point cloud.

`transform_matrix` is camera-to-world with OpenGL axes (x right, y up, z backward); readers turn y and z. Intrinsics
(fl_x, fl_y, cx, cy, w, h, or camera_angle_x) and distortion (k1, k2, k3, p1, p2) are global or per frame; pixel
centres are at +0.5, as in COLMAP. Distortion (k1..k4 of a fisheye, OPENCV_FISHEYE) is taken out of photos and depth.
`depth_file_path` is 16-bit z-depth in millimetres (or `ReaderOptions.depth_units_per_m`). `ply_file_path` is the cloud
if there is no depth.

`applied_transform` says what the poses have been multiplied with already, so it needs no action; it does tell that they
came from structure from motion, whose up is a guess, so gravity is "unknown" with it and "z-up" (the convention of the
format) without. `applied_scale`, in the same way, is how many world units a metre has: poses are divided by it, then
multiplied by `ReaderOptions.metres_per_unit`. `mask_path` is not used.

Source: nerfstudio, docs/quickstart/data_conventions.md and data/dataparsers/nerfstudio_dataparser.py
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from liftgs.readers.files import Folder, inside, natural_order
from liftgs.readers.frames import FolderBacked, FrameFiles, load_frame
from liftgs.readers.options import DEFAULT_OPTIONS, ReaderOptions
from liftgs.readers.ply import read_ply
from liftgs.readers.transforms import Transforms
from liftgs.scene import BadInput, Frame, Gravity, PointCloud

_INDEX = "transforms.json"


class NerfstudioScene(FolderBacked):
    """One scene."""

    def __init__(self, folder: Folder, options: ReaderOptions = DEFAULT_OPTIONS):
        super().__init__(folder, options)
        self._index = Transforms(folder, _INDEX)

    @staticmethod
    def recognises(entries: dict[str, bool]) -> bool:
        """Whether a folder with these entries looks like a scene."""
        return _INDEX in entries

    @cached_property
    def gravity(self) -> Gravity:  # type: ignore[override]
        """See the module's text."""
        return "unknown" if "applied_transform" in self._index.meta else "z-up"

    def frame_ids(self) -> Sequence[str]:
        """The `file_path` of each frame, in natural order.

        Raises:
            BadInput: the index is broken, or the scene has neither depth nor a cloud.
        """
        if not self._has_depth and "ply_file_path" not in self._index.meta:
            raise BadInput(self._index.uri, 'has neither "depth_file_path" nor "ply_file_path": there is no geometry')
        return natural_order(self._index.frames)

    def frame_uri(self, frame_id: str) -> str:
        """The photo's file."""
        return self._folder.uri_of(frame_id)

    def load(self, frame_id: str) -> Frame:
        """See `Scene.load`."""
        entry = self._index.frames.get(frame_id)
        if entry is None:
            raise BadInput(self._index.uri, f"there is no frame {frame_id!r}")
        depth = entry.get("depth_file_path")
        cam_to_world = self._index.pose(entry)
        cam_to_world[:3, 3] *= self._metres_per_unit
        files = FrameFiles(
            photo=frame_id,
            K=self._index.intrinsics(entry),
            intrinsics_path=_INDEX,
            cam_to_world=cam_to_world,
            pose_path=_INDEX,
            size=self._index.size(entry),
            depth=None if depth is None else inside(self._folder, str(depth), _INDEX),
            depth_units_per_m=self._options.depth_units_per_m or 1000.0,
            distortion=self._index.lens(entry),
        )
        return load_frame(self._folder, frame_id, files)

    def cloud(self) -> PointCloud | None:
        """The points of `ply_file_path`, if no frame has depth."""
        return None if self._has_depth else self._ply

    @property
    def _has_depth(self) -> bool:
        return any(entry.get("depth_file_path") is not None for entry in self._index.frames.values())

    @cached_property
    def _ply(self) -> PointCloud:
        path = inside(self._folder, str(self._index.meta["ply_file_path"]), _INDEX)
        cloud = read_ply(self._folder, path)
        return PointCloud((cloud.xyz * self._metres_per_unit).astype(np.float32), cloud.rgb)

    @cached_property
    def _metres_per_unit(self) -> float:
        applied_scale = self._index.number({}, "applied_scale", 1.0)
        if not applied_scale or not applied_scale > 0 or not math.isfinite(applied_scale):
            raise BadInput(self._index.uri, f"applied_scale is {applied_scale}, not a positive number")
        return self._options.metres_per_unit / applied_scale
