"""The iPhone half of a ScanNet++ scan: `iphone/`, a video with poses and depth.

    iphone/rgb/frame_000000.jpg ...     photos, if they were extracted; else iphone/rgb.mkv (or .mp4) is decoded
    iphone/depth/frame_000000.png ...   16-bit millimetres, if they were extracted; else iphone/depth.bin is
    iphone/pose_intrinsic_imu.json      per frame: `aligned_pose`, `intrinsic`, and more that is not used

`aligned_pose` is camera-to-world, OpenCV axes, metres, in the frame of the mesh; `pose`, the phone's own, is not.
`intrinsic` is for 1920x1440 pixels and is scaled to the photo's size. Depth has the photo's field of view.

Source: scannetpp, iphone/arkit_pcl.py, iphone/prepare_iphone_data.py
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, UInt8

from liftgs.readers.cameras import make_camera
from liftgs.readers.files import natural_order
from liftgs.readers.frames import FolderBacked, check_centre
from liftgs.readers.images import decode_depth, decode_photo
from liftgs.readers.iphone_depth import DepthFile
from liftgs.readers.video_frames import VideoFrames
from liftgs.scene import BadInput, Frame

_POSES = "iphone/pose_intrinsic_imu.json"
_VIDEOS = ("rgb.mkv", "rgb.mp4")
_SIZE = (1920, 1440)


class Iphone(FolderBacked):
    """Frames of one scan. The scene's folder is the one that holds `iphone/`."""

    def frame_ids(self) -> Sequence[str]:
        """`frame_000000` and on: the extracted photos, or else the frames that have an entry in the list of poses."""
        return self._ids

    def frame_uri(self, frame_id: str) -> str:
        """The photo's file, or the video and the frame."""
        if self._photos is not None:
            return self._folder.uri_of(self._photos.get(frame_id, f"iphone/rgb/{frame_id}.jpg"))
        return f"{self._video.uri}#{frame_id}"

    def load(self, frame_id: str) -> Frame:
        """See `Scene.load`."""
        match = re.fullmatch(r"frame_(\d{1,9})", frame_id)
        if match is None or frame_id not in self._known:
            raise BadInput(self._folder.uri_of("iphone"), f"there is no frame {frame_id!r}")
        uri, number = self.frame_uri(frame_id), int(match[1])
        cam_to_world, K = self._placed(frame_id)
        rgb, jpeg = self._photo(frame_id, number)
        size = (rgb.shape[1], rgb.shape[0])
        if abs(size[0] * _SIZE[1] / (size[1] * _SIZE[0]) - 1) > 0.01:
            raise BadInput(uri, f"the photo is {size[0]}x{size[1]}, but intrinsics are for {_SIZE[0]}x{_SIZE[1]}")
        poses_uri = self._folder.uri_of(_POSES)
        original = make_camera(K, cam_to_world, _SIZE, poses_uri, f"{poses_uri}#{frame_id}")
        check_centre(K, _SIZE, poses_uri, f"{poses_uri}#{frame_id}")
        depth = self._depth(frame_id, number)
        if not depth.any():
            raise BadInput(uri, "depth has no valid pixel")
        return Frame(frame_id, uri, original.resized(*size), rgb, depth, jpeg)

    @cached_property
    def _entries(self) -> dict[str, bool]:
        return self._folder.entries("iphone")

    @cached_property
    def _photos(self) -> dict[str, str] | None:
        """Extracted ones by frame; None if there are none."""
        return self._extracted("rgb", r"(frame_\d+)\.(?:jpg|png)") or None

    @cached_property
    def _depth_maps(self) -> dict[str, str]:
        """Extracted ones by frame."""
        return self._extracted("depth", r"(frame_\d+)\.png")

    def _extracted(self, kind: str, pattern: str) -> dict[str, str]:
        """Files by frame. Who extracts makes the folder first, and perhaps comes no further."""
        names = self._folder.entries(f"iphone/{kind}") if self._entries.get(kind) else ()
        return {match[1]: f"iphone/{kind}/{name}" for name in names if (match := re.fullmatch(pattern, name))}

    @cached_property
    def _ids(self) -> list[str]:
        return natural_order(self._poses if self._photos is None else self._photos)

    @cached_property
    def _known(self) -> set[str]:
        return set(self._ids)

    @cached_property
    def _video(self) -> VideoFrames:
        name = next((name for name in _VIDEOS if name in self._entries), _VIDEOS[0])
        return VideoFrames(self._folder, f"iphone/{name}")

    @cached_property
    def _depths(self) -> DepthFile:
        return DepthFile(self._folder, "iphone/depth.bin")

    @cached_property
    def _poses(self) -> dict[str, tuple[Float[np.ndarray, "4 4"] | None, Float[np.ndarray, "3 3"] | None]]:
        """Pose and intrinsics of each frame, None where the file has none; the rest of it is let go."""
        content = self._folder.json(_POSES)
        if not isinstance(content, dict) or not all(isinstance(entry, dict) for entry in content.values()):
            raise BadInput(self._folder.uri_of(_POSES), "is not an object with one entry per frame")
        return {
            frame_id: (_matrix(entry.get("aligned_pose"), 4), _matrix(entry.get("intrinsic"), 3))
            for frame_id, entry in content.items()
        }

    def _placed(self, frame_id: str) -> tuple[Float[np.ndarray, "4 4"], Float[np.ndarray, "3 3"]]:
        uri = self._folder.uri_of(_POSES)
        if frame_id not in self._poses:
            raise BadInput(uri, f"has no entry {frame_id}")
        cam_to_world, K = self._poses[frame_id]
        if cam_to_world is None or K is None:
            missing = "aligned_pose of 4x4" if cam_to_world is None else "intrinsic of 3x3"
            raise BadInput(uri, f"{frame_id} has no {missing} numbers")
        return cam_to_world, K

    def _photo(self, frame_id: str, number: int) -> tuple[UInt8[np.ndarray, "h w 3"], bytes | None]:
        if self._photos is None:
            return self._video.read(number), None
        path = self._photos[frame_id]
        return decode_photo(self._folder.read(path), self._folder.uri_of(path))

    def _depth(self, frame_id: str, number: int) -> Float32[np.ndarray, "h w"]:
        extracted = frame_id in self._depth_maps or (self._depth_maps and "depth.bin" not in self._entries)
        if not extracted:
            return self._depths.read(number)
        path = f"iphone/depth/{frame_id}.png"
        return decode_depth(self._folder.read(path), self._folder.uri_of(path), 1000.0)


def _matrix(value: Any, size: int) -> Float[np.ndarray, "n n"] | None:
    try:
        matrix = np.array(value, np.float64)
    except (ValueError, TypeError):
        return None
    return matrix if matrix.shape == (size, size) else None
