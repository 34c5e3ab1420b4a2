"""Posed RGB-D frames as plain files, in the layouts of 7-Scenes and of OpenMask3D.

7-Scenes (Shotton et al. 2013), all in one folder:
    frame-000000.color.jpg|png  frame-000000.depth.png  frame-000000.pose.txt ...  camera-intrinsics.txt
OpenMask3D's custom scenes (Takmaz et al. 2023, README):
    color/0.jpg|png  depth/0.png  pose/0.txt ...  intrinsic/intrinsic_color.txt  [intrinsic/intrinsic_depth.txt]

Poses are 4x4 camera-to-world with OpenCV axes, in metres. Depth is 16-bit z-depth in millimetres (or
`ReaderOptions.depth_units_per_m`); 0 and 65535 are invalid. Intrinsics are 3x3 or 4x4, for the photos' size, and are
taken to be in the +0.5 convention as they are. Depth may be of another size: with `intrinsic_depth.txt` it is resampled
into the photo's field of view (the two cameras are taken to be at one place), without it shares the photo's.

A `.ply` beside the frames is not read: the cloud is fused from the depth that the photos agree with.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Float

from liftgs.readers.cameras import parse_intrinsics, parse_pose, pinhole
from liftgs.readers.files import Folder, natural_order
from liftgs.readers.frames import FolderBacked, FrameFiles, common_size, load_frame
from liftgs.scene import BadInput, Frame

_PHOTO = r"jpg|jpeg|png|JPG|JPEG|PNG"
_INTRINSICS_7SCENES = "camera-intrinsics.txt"


@dataclass
class _Layout:
    """Where a layout keeps things: per kind of file, the path of each frame that has one."""

    intrinsics: str
    depth_intrinsics: str | None
    #: what a missing file would be called
    pattern: dict[str, str]
    photos: dict[str, str] = field(default_factory=dict)
    depths: dict[str, str] = field(default_factory=dict)
    poses: dict[str, str] = field(default_factory=dict)


class FolderScene(FolderBacked):
    """A scene in either layout."""

    @staticmethod
    def recognises(entries: dict[str, bool]) -> bool:
        """Whether a folder with these entries looks like either layout."""
        return {"color", "pose"} <= entries.keys() or any(name.endswith(".pose.txt") for name in entries)

    def frame_ids(self) -> Sequence[str]:
        """All frames of which any file exists, so that a missing photo or pose is noticed."""
        return self._ids

    def frame_uri(self, frame_id: str) -> str:
        """The photo's file."""
        return self._folder.uri_of(self._path("photo", frame_id))

    def load(self, frame_id: str) -> Frame:
        """See `Scene.load`."""
        layout = self._layout
        pose_path = self._path("pose", frame_id)
        files = FrameFiles(
            photo=self._path("photo", frame_id),
            K=self._K,
            intrinsics_path=layout.intrinsics,
            cam_to_world=parse_pose(self._folder.text(pose_path), self._folder.uri_of(pose_path)),
            pose_path=pose_path,
            size=self._size,
            depth=self._path("depth", frame_id),
            depth_units_per_m=self._options.depth_units_per_m or 1000.0,
            depth_K=self._depth_K,
        )
        return load_frame(self._folder, frame_id, files)

    @cached_property
    def _layout(self) -> _Layout:
        entries = self._folder.entries()
        return _openmask3d(self._folder, entries) if {"color", "pose"} <= entries.keys() else _seven_scenes(entries)

    @cached_property
    def _ids(self) -> list[str]:
        layout = self._layout
        return natural_order({*layout.photos, *layout.depths, *layout.poses})

    @cached_property
    def _K(self) -> Float[np.ndarray, "3 3"]:
        if self._options.intrinsics is not None:
            return pinhole(*self._options.intrinsics)
        path = self._layout.intrinsics
        return parse_intrinsics(self._folder.text(path), self._folder.uri_of(path))

    @cached_property
    def _depth_K(self) -> Float[np.ndarray, "3 3"] | None:
        path = self._layout.depth_intrinsics
        return None if path is None else parse_intrinsics(self._folder.text(path), self._folder.uri_of(path))

    @cached_property
    def _size(self) -> tuple[int, int] | None:
        photos = self._layout.photos
        return common_size(self._folder, [photos[frame] for frame in self._ids if frame in photos])

    def _path(self, kind: str, frame_id: str) -> str:
        found = {"photo": self._layout.photos, "depth": self._layout.depths, "pose": self._layout.poses}[kind]
        if frame_id not in found and frame_id not in self._ids:
            raise BadInput(self.uri, f"there is no frame {frame_id!r}")
        return found.get(frame_id) or self._layout.pattern[kind].format(frame_id)


def _seven_scenes(entries: dict[str, bool]) -> _Layout:
    suffix = next((m[1] for name in entries if (m := re.fullmatch(rf".+\.color\.({_PHOTO})", name))), "jpg")
    pattern = {"photo": "{}.color." + suffix, "depth": "{}.depth.png", "pose": "{}.pose.txt"}
    return _Layout(
        _INTRINSICS_7SCENES,
        None,
        pattern,
        _stems(entries, rf"(.+)\.color\.({_PHOTO})"),
        _stems(entries, r"(.+)\.depth\.png"),
        _stems(entries, r"(.+)\.pose\.txt"),
    )


def _openmask3d(folder: Folder, entries: dict[str, bool]) -> _Layout:
    colors = folder.entries("color")
    suffix = next((m[1] for name in colors if (m := re.fullmatch(rf".+\.({_PHOTO})", name))), "jpg")
    pattern = {"photo": "color/{}." + suffix, "depth": "depth/{}.png", "pose": "pose/{}.txt"}
    depth_intrinsics = "intrinsic/intrinsic_depth.txt"
    return _Layout(
        "intrinsic/intrinsic_color.txt",
        depth_intrinsics if folder.has(depth_intrinsics) else None,
        pattern,
        _stems(colors, rf"(.+)\.({_PHOTO})", "color/"),
        _stems(folder.entries("depth") if "depth" in entries else {}, r"(.+)\.png", "depth/"),
        _stems(folder.entries("pose"), r"(.+)\.txt", "pose/"),
    )


def _stems(entries: dict[str, bool], pattern: str, prefix: str = "") -> dict[str, str]:
    """Frame id -> path, of the files that match; hidden files are not frames."""
    names = [name for name, is_folder in entries.items() if not is_folder and not name.startswith(".")]
    return {match[1]: prefix + name for name in names if (match := re.fullmatch(pattern, name))}
