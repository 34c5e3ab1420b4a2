"""TUM RGB-D sequences (Sturm et al. 2012): rgb.txt, depth.txt, groundtruth.txt and the images that they name.

`rgb.txt` and `depth.txt` hold "timestamp path", `groundtruth.txt` "timestamp tx ty tz qx qy qz qw", the pose of the
colour camera in the world (camera-to-world, OpenCV axes, metres). Each photo is paired with the nearest depth map and
the nearest pose in time; photos without either within `ReaderOptions.max_time_difference_s` are no frames. Depth is
16-bit z-depth, 5000 units per metre, 0 invalid, already in register with the photo.

Intrinsics, in this order: `ReaderOptions.intrinsics`; a `camera-intrinsics.txt` in the folder (3x3, +0.5 convention);
the benchmark's calibration of freiburg1, 2 or 3, if the folder's name says which, whose lens distortion is taken out;
the ROS default (525, 525, 319.5, 239.5). The benchmark's numbers put the centre of the first pixel at 0, so 0.5 is
added to their principal points.

Source: https://cvg.cit.tum.de/data/datasets/rgbd-dataset/file_formats
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from jaxtyping import Float

from liftgs.readers.cameras import parse_intrinsics, pinhole, pose, rotation
from liftgs.readers.distortion import NO_DISTORTION, Distortion
from liftgs.readers.files import Folder, inside
from liftgs.readers.frames import FolderBacked, FrameFiles, common_size, load_frame
from liftgs.readers.times import nearest
from liftgs.scene import BadInput, Frame

_SIZE = (640, 480)
_INTRINSICS = "camera-intrinsics.txt"
_ROS_DEFAULT = (pinhole(525.0, 525.0, 320.0, 240.0), NO_DISTORTION)
#: sensor -> calibrated K (+0.5 convention) and distortion of the colour camera
_CALIBRATIONS = {
    "1": (pinhole(517.3, 516.5, 319.1, 255.8), Distortion(0.2624, -0.9531, 1.1633, -0.0054, 0.0026)),
    "2": (pinhole(520.9, 521.0, 325.6, 250.2), Distortion(0.2312, -0.7849, 0.9172, -0.0033, -0.0001)),
    "3": (pinhole(535.4, 539.2, 320.6, 248.1), NO_DISTORTION),
}


class TumScene(FolderBacked):
    """One sequence."""

    @staticmethod
    def recognises(entries: dict[str, bool]) -> bool:
        """Whether a folder with these entries looks like a sequence."""
        return {"rgb.txt", "depth.txt", "groundtruth.txt"} <= entries.keys()

    def frame_ids(self) -> Sequence[str]:
        """Time stamps, as `rgb.txt` writes them, of the photos that have depth and a pose."""
        return list(self._index)

    def frame_uri(self, frame_id: str) -> str:
        """The photo's file."""
        return self._folder.uri_of(self._paths(frame_id)[0])

    def load(self, frame_id: str) -> Frame:
        """See `Scene.load`."""
        photo, depth, trajectory_row = self._paths(frame_id)
        K, distortion, size, intrinsics_path = self._calibration
        translation, xyzw = self._trajectory[trajectory_row, 1:4], self._trajectory[trajectory_row, 4:8]
        R = rotation(np.roll(xyzw, 1), self._folder.uri_of("groundtruth.txt"))
        files = FrameFiles(
            photo=photo,
            K=K,
            intrinsics_path=intrinsics_path,
            cam_to_world=pose(R, translation),
            pose_path="groundtruth.txt",
            size=size,
            depth=depth,
            depth_units_per_m=self._options.depth_units_per_m or 5000.0,
            distortion=distortion,
        )
        return load_frame(self._folder, frame_id, files)

    def _paths(self, frame_id: str) -> tuple[str, str, int]:
        if frame_id not in self._index:
            raise BadInput(self.uri, f"there is no frame {frame_id!r}")
        return self._index[frame_id]

    @cached_property
    def _trajectory(self) -> Float[np.ndarray, "n 8"]:
        """Rows (time, tx, ty, tz, qx, qy, qz, qw) by time."""
        name = "groundtruth.txt"
        rows = [line.replace(",", " ").split() for line in _lines(self._folder, name)]
        if not rows or any(len(row) != 8 for row in rows):
            raise BadInput(self._folder.uri_of(name), "needs lines of 8 numbers: timestamp tx ty tz qx qy qz qw")
        try:
            trajectory = np.array(rows, np.float64)
        except ValueError as fault:
            raise BadInput(self._folder.uri_of(name), f"holds something that is not a number ({fault})") from None
        return trajectory[np.argsort(trajectory[:, 0], kind="stable")]

    @cached_property
    def _index(self) -> dict[str, tuple[str, str, int]]:
        """Frame id -> photo, depth map, row of the trajectory; by time."""
        photos, depths = _stamped_paths(self._folder, "rgb.txt"), _stamped_paths(self._folder, "depth.txt")
        times = np.array([time for time, _, _ in photos])
        depth_times = np.array([time for time, _, _ in depths])
        nearest_depth, depth_gap = nearest(times, depth_times)
        nearest_pose, pose_gap = nearest(times, self._trajectory[:, 0])
        paired = np.maximum(depth_gap, pose_gap) <= self._options.max_time_difference_s + 1e-9
        index = {}
        for i in np.flatnonzero(paired):
            _, stamp, photo = photos[i]
            index[stamp] = (photo, depths[nearest_depth[i]][2], int(nearest_pose[i]))
        return index

    @cached_property
    def _calibration(self) -> tuple[Float[np.ndarray, "3 3"], Distortion, tuple[int, int] | None, str]:
        """K, distortion, the photo size they are for, and the file that they come from."""
        photos = [photo for photo, _, _ in self._index.values()]
        if self._options.intrinsics is not None:
            return pinhole(*self._options.intrinsics), NO_DISTORTION, common_size(self._folder, photos), _INTRINSICS
        if self._folder.has(_INTRINSICS):
            K = parse_intrinsics(self._folder.text(_INTRINSICS), self._folder.uri_of(_INTRINSICS))
            return K, NO_DISTORTION, common_size(self._folder, photos), _INTRINSICS
        sensor = re.search(r"(?:freiburg|fr)_?([123])(?![0-9])", self.name)
        K, distortion = _CALIBRATIONS[sensor[1]] if sensor else _ROS_DEFAULT
        return K, distortion, _SIZE, _INTRINSICS


def _lines(folder: Folder, name: str) -> list[str]:
    lines = (line.strip() for line in folder.text(name).splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _stamped_paths(folder: Folder, name: str) -> list[tuple[float, str, str]]:
    """(time, the time as written, path) of each line, by time."""
    rows = []
    for line in _lines(folder, name):
        stamp, _, path = line.partition(" ")
        try:
            time = float(stamp)
        except ValueError:
            time = float("nan")
        if not np.isfinite(time) or not path.strip():
            raise BadInput(folder.uri_of(name), f"line {line[:80]!r} is not 'timestamp path'")
        rows.append((time, stamp, inside(folder, path.strip(), name)))
    if not rows:
        raise BadInput(folder.uri_of(name), "lists no image")
    return sorted(rows)
