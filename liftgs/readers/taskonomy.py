"""Taskonomy (Zamir et al. 2018): one building, rendered from a scanned mesh as single views, in folders by domain.

    rgb/point_0_view_3_domain_rgb.png
    depth_zbuffer/point_0_view_3_domain_depth_zbuffer.png  or  depth_euclidean/..._domain_depth_euclidean.png
    point_info/point_0_view_3_domain_point_info.json       (Omnidata's other sets: ..._domain_fixatedpose.json)

`point_info` has the camera's place (metres, z up), its rotation as Blender's XYZ Euler angles (of a camera with OpenGL
axes) and its field of view, which differs from view to view; the principal point is the middle. Depth is 16-bit, 512
units in a metre, 65535 invalid; "euclidean" is the distance along each pixel's ray, read only if there is no z-buffer.

Views are not a video. In natural order, views of one point come together, and they all look at it.

Source: StanfordVL/taskonomy, data/README.md; EPFL-VILAB/omnidata, omnidata_annotator
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float, Float32
from scipy.spatial.transform import Rotation

from liftgs.readers.cameras import OPENGL_TO_OPENCV, pinhole, pose
from liftgs.readers.files import natural_order
from liftgs.readers.frames import FolderBacked, FrameFiles, load_frame
from liftgs.scene import BadInput, Camera, Frame, Gravity

_DEPTHS = ("depth_zbuffer", "depth_euclidean")  # the better first
_VIEW = r"(point_[0-9]+_view_[0-9]+)_domain_"


class TaskonomyScene(FolderBacked):
    """One building."""

    gravity: Gravity = "z-up"

    @staticmethod
    def recognises(entries: dict[str, bool]) -> bool:
        """Whether a folder with these entries looks like a building."""
        return {"rgb", "point_info"} <= entries.keys() and not entries.keys().isdisjoint(_DEPTHS)

    def frame_ids(self) -> Sequence[str]:
        """Names like "point_0_view_3", of all views of which any file exists, so that a missing one is noticed."""
        return self._ids

    def frame_uri(self, frame_id: str) -> str:
        """The photo's file."""
        return self._folder.uri_of(self._path("rgb", frame_id))

    def load(self, frame_id: str) -> Frame:
        """See `Scene.load`."""
        info_path = self._path("point_info", frame_id)
        info = self._info(info_path)
        size, (fov,) = self._resolution(info, info_path), self._numbers(info, "field_of_view_rads", 1, info_path)
        if not 0 < fov < math.pi:
            raise BadInput(self._folder.uri_of(info_path), f"field_of_view_rads is {fov}, not between 0 and pi")
        focal = size / 2 / math.tan(fov / 2)
        files = FrameFiles(
            photo=self._path("rgb", frame_id),
            K=pinhole(focal, focal, size / 2, size / 2),
            intrinsics_path=info_path,
            cam_to_world=self._pose(info, info_path),
            pose_path=info_path,
            size=(size, size),
            depth=self._path(self._depth, frame_id),
            depth_units_per_m=self._options.depth_units_per_m or 512.0,
        )
        frame = load_frame(self._folder, frame_id, files)
        if self._depth == "depth_zbuffer":
            return frame
        assert frame.depth is not None
        return replace(frame, depth=_along_axis(frame.depth, frame.camera))

    @cached_property
    def _files(self) -> dict[str, dict[str, str]]:
        """Domain -> view -> path."""
        patterns = {
            "rgb": r"rgb\.png",
            "point_info": r"(?:point_info|fixatedpose)\.json",
            self._depth: rf"{self._depth}\.png",
        }
        return {
            domain: {
                match[1]: f"{domain}/{name}"
                for name in self._folder.entries(domain)
                if (match := re.fullmatch(_VIEW + pattern, name))
            }
            for domain, pattern in patterns.items()
        }

    @cached_property
    def _depth(self) -> str:
        """The domain that depth is read from."""
        entries = self._folder.entries()
        return next((name for name in _DEPTHS if name in entries), _DEPTHS[0])

    @cached_property
    def _ids(self) -> list[str]:
        return natural_order({view for views in self._files.values() for view in views})

    def _path(self, domain: str, frame_id: str) -> str:
        if frame_id not in self._files[domain] and frame_id not in self._ids:
            raise BadInput(self.uri, f"there is no frame {frame_id!r}")
        suffix = "json" if domain == "point_info" else "png"
        return self._files[domain].get(frame_id) or f"{domain}/{frame_id}_domain_{domain}.{suffix}"

    def _info(self, path: str) -> dict[str, Any]:
        info = self._folder.json(path)
        if not isinstance(info, dict):
            raise BadInput(self._folder.uri_of(path), "not a JSON object")
        return info

    def _numbers(self, info: dict[str, Any], key: str, count: int, path: str) -> list[float]:
        values = info.get(key)
        values = values if isinstance(values, list) else [values]
        if len(values) != count or any(isinstance(v, bool) or not isinstance(v, int | float) for v in values):
            wanted = "a number" if count == 1 else f"{count} numbers"
            raise BadInput(self._folder.uri_of(path), f"{key} is {str(info.get(key))[:80]}, not {wanted}")
        return [float(value) for value in values]

    def _resolution(self, info: dict[str, Any], path: str) -> int:
        (size,) = self._numbers(info, "resolution", 1, path)
        if not (size.is_integer() and size > 0):
            raise BadInput(self._folder.uri_of(path), f"resolution is {size:g}, not a number of pixels")
        return int(size)

    def _pose(self, info: dict[str, Any], path: str) -> Float[np.ndarray, "4 4"]:
        angles = self._numbers(info, "camera_rotation_final", 3, path)
        place = self._numbers(info, "camera_location", 3, path)
        if not all(map(math.isfinite, angles)):
            raise BadInput(self._folder.uri_of(path), f"camera_rotation_final is {angles}, no rotation")
        # Blender's "XYZ" turns about the world's x first, then y, then z.
        return pose(Rotation.from_euler("xyz", angles).as_matrix(), np.array(place)) @ OPENGL_TO_OPENCV


def _along_axis(distance: Float32[np.ndarray, "h w"], camera: Camera) -> Float32[np.ndarray, "h w"]:
    """Distance along each pixel's ray -> z-depth."""
    camera = camera.resized(distance.shape[1], distance.shape[0])
    x = (np.arange(camera.width) + 0.5 - camera.K[0, 2]) / camera.K[0, 0]
    y = (np.arange(camera.height) + 0.5 - camera.K[1, 2]) / camera.K[1, 1]
    return (distance / np.sqrt(1 + x * x + (y * y)[:, None])).astype(np.float32)
