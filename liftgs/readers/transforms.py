"""`transforms.json`, the index that nerfstudio and those who follow it keep of posed photos; parsed, and checked.

Source: nerfstudio, docs/quickstart/data_conventions.md
"""

from __future__ import annotations

import math
import sys
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float

from liftgs.readers.cameras import OPENGL_TO_OPENCV, pinhole
from liftgs.readers.distortion import Distortion, Fisheye, Lens
from liftgs.readers.files import Folder, inside
from liftgs.scene import BadInput

_PINHOLE_MODELS = ("PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "PERSPECTIVE")
_FISHEYE_MODELS = ("OPENCV_FISHEYE",)


class Transforms:
    """One file. What it says of a frame may be said for the whole scene instead.

    Attributes:
        path: of the file in the scene's folder.
        uri: of the file, for messages.
    """

    def __init__(self, folder: Folder, path: str):
        self.path = path
        self.uri = folder.uri_of(path)
        self._folder = folder

    @cached_property
    def meta(self) -> dict[str, Any]:
        """The whole content.

        Raises:
            BadInput: missing, or no such file.
        """
        meta = self._folder.json(self.path)
        if not isinstance(meta, dict) or not isinstance(meta.get("frames"), list):
            raise BadInput(self.uri, 'has no list "frames"')
        return meta

    @cached_property
    def frames(self) -> dict[str, dict[str, Any]]:
        """`file_path`, normalised -> entry, in the file's order.

        Raises:
            BadInput: an entry without a path, two with the same, or one that leads out of the folder.
        """
        frames: dict[str, dict[str, Any]] = {}
        for entry in self.meta["frames"]:
            if not isinstance(entry, dict) or not isinstance(entry.get("file_path"), str):
                raise BadInput(self.uri, 'a frame has no "file_path"')
            path = inside(self._folder, entry["file_path"], self.path)
            if path in frames:
                raise BadInput(self.uri, f"names {path} twice")
            frames[path] = entry
        return frames

    def number(self, entry: dict[str, Any], key: str, default: float | None = None) -> float | None:
        """A number of a frame, else of the whole scene, else the default.

        Raises:
            BadInput: it is there, but no finite number.
        """
        value = entry.get(key, self.meta.get(key, default))
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
            raise BadInput(self.uri, f"{key} is {str(value)[:80]}, not a finite number")
        return float(value)

    def size(self, entry: dict[str, Any]) -> tuple[int, int]:
        """(width, height) of a frame's photo.

        Raises:
            BadInput: not stated.
        """
        width, height = self.number(entry, "w"), self.number(entry, "h")
        if width is None or height is None:
            raise BadInput(self.uri, 'has no image size: give "w" and "h"')
        return int(width), int(height)

    def intrinsics(self, entry: dict[str, Any]) -> Float[np.ndarray, "3 3"]:
        """K of a frame, from its focal lengths or its field of view.

        Raises:
            BadInput: neither is stated.
        """
        fx, fy = self.number(entry, "fl_x"), self.number(entry, "fl_y")
        cx, cy = self.number(entry, "cx"), self.number(entry, "cy")
        size = self.size(entry)
        angle = self.number(entry, "camera_angle_x")
        if fx is None and angle is not None:
            fx = size[0] / 2 / math.tan(angle / 2) if 0 < angle < math.pi else math.nan
        if fx is None:
            raise BadInput(self.uri, 'has no focal length: give "fl_x" (pixels) or "camera_angle_x" (radians)')
        return pinhole(
            fx, fx if fy is None else fy, size[0] / 2 if cx is None else cx, size[1] / 2 if cy is None else cy
        )

    def lens(self, entry: dict[str, Any]) -> Lens:
        """The distortion of a frame's photo.

        Raises:
            BadInput: a camera model that is not known.
        """
        model = str(entry.get("camera_model", self.meta.get("camera_model", "OPENCV")))
        if model in _FISHEYE_MODELS:
            return Fisheye(*self._coefficients(entry, "k1", "k2", "k3", "k4"))
        if model not in _PINHOLE_MODELS:
            raise BadInput(self.uri, f"camera model {model} is not supported; undistort the images to PINHOLE first")
        if self.number(entry, "k4", 0.0):
            raise BadInput(self.uri, "distortion with k4 is not supported; undistort the images first")
        return Distortion(*self._coefficients(entry, "k1", "k2", "k3", "p1", "p2"))

    def pose(self, entry: dict[str, Any]) -> Float[np.ndarray, "4 4"]:
        """Camera-to-world with OpenCV axes, in the file's own unit.

        Raises:
            BadInput: `transform_matrix` is not 4x4 numbers.
        """
        try:
            opengl = np.array(entry["transform_matrix"], np.float64)
        except (KeyError, ValueError, TypeError, OverflowError):
            opengl = np.zeros(0)
        if opengl.shape != (4, 4):
            raise BadInput(self.uri, f"frame {entry['file_path']}: transform_matrix is not 4x4 numbers")
        return opengl @ OPENGL_TO_OPENCV

    def _coefficients(self, entry: dict[str, Any], *keys: str) -> list[float]:
        return [float(self.number(entry, key, 0.0) or 0.0) for key in keys]
