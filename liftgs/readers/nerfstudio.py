"""nerfstudio scenes: transforms.json, with depth maps or a point cloud.

`transform_matrix` is camera-to-world with OpenGL axes (x right, y up, z backward); readers turn y and z. Intrinsics
(fl_x, fl_y, cx, cy, w, h, or camera_angle_x) and distortion (k1, k2, k3, p1, p2) are global or per frame; pixel
centres are at +0.5, as in COLMAP. Distortion is taken out of photos and depth; fisheye cameras are refused.
`depth_file_path` is 16-bit z-depth in millimetres (or `ReaderOptions.depth_units_per_m`). `ply_file_path` is the cloud
if there is no depth.

`applied_transform` says what the poses have been multiplied with already, so it needs no action; it does tell that they
came from structure from motion, whose up is a guess, so gravity is "unknown" with it and "z-up" (the convention of the
format) without. `applied_scale`, in the same way, is how many world units a metre has: poses are divided by it, then
multiplied by `ReaderOptions.metres_per_unit`. `mask_path` is not used.

Source: nerfstudio, docs/quickstart/data_conventions.md and data/dataparsers/nerfstudio_dataparser.py
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float

from liftgs.readers.cameras import OPENGL_TO_OPENCV, pinhole
from liftgs.readers.distortion import Distortion
from liftgs.readers.files import Folder, inside, natural_order
from liftgs.readers.frames import FolderBacked, FrameFiles, load_frame
from liftgs.readers.options import DEFAULT_OPTIONS, ReaderOptions
from liftgs.readers.ply import read_ply
from liftgs.scene import BadInput, Frame, Gravity, PointCloud

_INDEX = "transforms.json"
_PINHOLE_MODELS = ("PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "PERSPECTIVE")


class NerfstudioScene(FolderBacked):
    """One scene."""

    def __init__(self, folder: Folder, options: ReaderOptions = DEFAULT_OPTIONS):
        super().__init__(folder, options)
        self._index_uri = folder.uri_of(_INDEX)

    @staticmethod
    def recognises(entries: dict[str, bool]) -> bool:
        """Whether a folder with these entries looks like a scene."""
        return _INDEX in entries

    @cached_property
    def gravity(self) -> Gravity:  # type: ignore[override]
        """See the module's text."""
        return "unknown" if "applied_transform" in self._meta else "z-up"

    def frame_ids(self) -> Sequence[str]:
        """The `file_path` of each frame, in natural order.

        Raises:
            BadInput: the index is broken, or the scene has neither depth nor a cloud.
        """
        return list(self._frames)

    def frame_uri(self, frame_id: str) -> str:
        """The photo's file."""
        return self._folder.uri_of(frame_id)

    def load(self, frame_id: str) -> Frame:
        """See `Scene.load`."""
        if frame_id not in self._frames:
            raise BadInput(self._index_uri, f"there is no frame {frame_id!r}")
        entry = self._frames[frame_id]
        width, height = self._number(entry, "w"), self._number(entry, "h")
        size = None if width is None or height is None else (int(width), int(height))
        depth = entry.get("depth_file_path")
        files = FrameFiles(
            photo=frame_id,
            K=self._intrinsics(entry, size),
            intrinsics_path=_INDEX,
            cam_to_world=self._pose(entry, frame_id),
            pose_path=_INDEX,
            size=size,
            depth=None if depth is None else inside(self._folder, str(depth), _INDEX),
            depth_units_per_m=self._options.depth_units_per_m or 1000.0,
            distortion=self._distortion(entry),
        )
        return load_frame(self._folder, frame_id, files)

    def cloud(self) -> PointCloud | None:
        """The points of `ply_file_path`, if no frame has depth."""
        return None if self._has_depth else self._ply

    @cached_property
    def _meta(self) -> dict[str, Any]:
        try:
            meta = json.loads(self._folder.text(_INDEX))
        except (ValueError, RecursionError) as fault:
            raise BadInput(self._index_uri, f"not valid JSON ({fault})") from None
        if not isinstance(meta, dict) or not isinstance(meta.get("frames"), list):
            raise BadInput(self._index_uri, 'has no list "frames"')
        return meta

    @cached_property
    def _frames(self) -> dict[str, dict[str, Any]]:
        frames: dict[str, dict[str, Any]] = {}
        for entry in self._meta["frames"]:
            if not isinstance(entry, dict) or not isinstance(entry.get("file_path"), str):
                raise BadInput(self._index_uri, 'a frame has no "file_path"')
            path = inside(self._folder, entry["file_path"], _INDEX)
            if path in frames:
                raise BadInput(self._index_uri, f"names {path} twice")
            frames[path] = entry
        if not any("depth_file_path" in entry for entry in frames.values()) and "ply_file_path" not in self._meta:
            raise BadInput(self._index_uri, 'has neither "depth_file_path" nor "ply_file_path": there is no geometry')
        return {path: frames[path] for path in natural_order(frames)}

    @property
    def _has_depth(self) -> bool:
        return any("depth_file_path" in entry for entry in self._frames.values())

    @cached_property
    def _ply(self) -> PointCloud:
        path = inside(self._folder, str(self._meta["ply_file_path"]), _INDEX)
        cloud = read_ply(self._folder, path)
        return PointCloud((cloud.xyz * self._metres_per_unit).astype(np.float32), cloud.rgb)

    @cached_property
    def _metres_per_unit(self) -> float:
        applied_scale = self._number({}, "applied_scale", 1.0)
        if not applied_scale or not applied_scale > 0 or not math.isfinite(applied_scale):
            raise BadInput(self._index_uri, f"applied_scale is {applied_scale}, not a positive number")
        return self._options.metres_per_unit / applied_scale

    def _number(self, entry: dict[str, Any], key: str, default: float | None = None) -> float | None:
        """A number of a frame, else of the whole scene, else the default."""
        value = entry.get(key, self._meta.get(key, default))
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise BadInput(self._index_uri, f"{key} is {value!r}, not a number")
        return value

    def _intrinsics(self, entry: dict[str, Any], size: tuple[int, int] | None) -> Float[np.ndarray, "3 3"]:
        fx, fy = self._number(entry, "fl_x"), self._number(entry, "fl_y")
        cx, cy = self._number(entry, "cx"), self._number(entry, "cy")
        if size is None:
            raise BadInput(self._index_uri, 'has no image size: give "w" and "h"')
        angle = self._number(entry, "camera_angle_x")
        if fx is None and angle is not None:
            fx = size[0] / 2 / math.tan(angle / 2) if 0 < angle < math.pi else math.nan
        if fx is None:
            raise BadInput(self._index_uri, 'has no focal length: give "fl_x" (pixels) or "camera_angle_x" (radians)')
        return pinhole(
            fx, fx if fy is None else fy, size[0] / 2 if cx is None else cx, size[1] / 2 if cy is None else cy
        )

    def _distortion(self, entry: dict[str, Any]) -> Distortion:
        model = str(entry.get("camera_model", self._meta.get("camera_model", "OPENCV")))
        if model not in _PINHOLE_MODELS:
            raise BadInput(
                self._index_uri, f"camera model {model} is not supported; undistort the images to PINHOLE first"
            )
        if self._number(entry, "k4", 0.0):
            raise BadInput(self._index_uri, "distortion with k4 is not supported; undistort the images first")
        values = [self._number(entry, key, 0.0) or 0.0 for key in ("k1", "k2", "k3", "p1", "p2")]
        return Distortion(*(float(value) for value in values))

    def _pose(self, entry: dict[str, Any], frame_id: str) -> Float[np.ndarray, "4 4"]:
        try:
            opengl = np.array(entry["transform_matrix"], np.float64)
        except (KeyError, ValueError, TypeError):
            opengl = np.zeros(0)
        if opengl.shape != (4, 4):
            raise BadInput(self._index_uri, f"frame {frame_id}: transform_matrix is not 4x4 numbers")
        cam_to_world = opengl @ OPENGL_TO_OPENCV
        cam_to_world[:3, 3] *= self._metres_per_unit
        return cam_to_world
