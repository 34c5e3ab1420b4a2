"""ARKitScenes (Baruch et al. 2021), "raw" layout: one walk with an iPad, as ARKit recorded it.

A folder <video> holds
    lowres_wide/<video>_<time>.png  lowres_depth/...png  confidence/...png  lowres_wide_intrinsics/...pincam
    lowres_wide.traj  <video>_3dod_mesh.ply  <video>_3dod_annotation.json
Depth is 16-bit z-depth in millimetres, in register with the photo; confidence is 0 (low), 1 or 2, and depth of low
confidence is dropped. A `.pincam` is "width height fx fy cx cy", a line of the `.traj` "time rx ry rz tx ty tz":
axis-angle and translation from world to camera, though the documentation speaks of a "camera position". z is up.

Photos come at 60 Hz (take a large `frame_stride`), poses at 10 Hz, so poses are interpolated. Photos without depth, or
with no pose near, are no frames.

People hold the device in any way, so all of a walk's photos are turned by the number of quarter turns that brings up
upright, with their cameras. That is told from the poses: the `sky_direction` of the data set's metadata.csv is known to
be wrong for many videos (Locate 3D's preprocessing and DUSt3R's do the same for this reason).

With a mesh, the cloud is its vertices, else fused depth. With a mesh and an annotation, points inside an annotated box
belong to its thing.

Source: apple/ARKitScenes, DATA.md, raw/README.md and threedod/benchmark_scripts/utils/tenFpsDataLoader.py
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from liftgs.readers.arkit_annotation import read_annotation
from liftgs.readers.boxes import OrientedBox, owners
from liftgs.readers.cameras import parse_matrix, pinhole, pose
from liftgs.readers.frames import FolderBacked, FrameFiles, load_frame, turned
from liftgs.readers.images import decode_ids
from liftgs.readers.ply import read_ply
from liftgs.readers.times import around, nearest
from liftgs.scene import BadInput, Frame, Gravity, Instance, PointCloud, SceneLabels

_TRAJECTORY = "lowres_wide.traj"
#: photo and depth are of one instant if their names are no farther apart; frames are 0.017 s apart
_SAME_INSTANT_S = 0.005
#: a photo needs a pose on either side, no farther apart than two steps of the trajectory (one may be missing)
_POSE_GAP_S = 0.2
#: focus changes slowly, so intrinsics of another frame will do
_INTRINSICS_GAP_S = 0.1


@dataclass(frozen=True)
class _View:
    """A photo with its time in seconds, and the files beside it."""

    time: float
    photo: str
    depth: str
    confidence: str | None


class ArkitScene(FolderBacked):
    """One video."""

    gravity: Gravity = "z-up"

    @staticmethod
    def recognises(entries: dict[str, bool]) -> bool:
        """Whether a folder with these entries looks like a video."""
        return {"lowres_wide", "lowres_depth", _TRAJECTORY} <= entries.keys()

    def frame_ids(self) -> Sequence[str]:
        """Time stamps, as the photos' names have them, of the photos that have depth and poses near."""
        return list(self._views)

    def frame_uri(self, frame_id: str) -> str:
        """The photo's file."""
        return self._folder.uri_of(self._view(frame_id).photo)

    def load(self, frame_id: str) -> Frame:
        """See `Scene.load`."""
        view = self._view(frame_id)
        intrinsics_path = self._intrinsics_path(view.time)
        size, K = self._intrinsics(intrinsics_path)
        files = FrameFiles(
            photo=view.photo,
            K=K,
            intrinsics_path=intrinsics_path,
            cam_to_world=self._pose(view.time),
            pose_path=_TRAJECTORY,
            size=size,
            depth=view.depth,
            depth_units_per_m=self._options.depth_units_per_m or 1000.0,
        )
        frame = load_frame(self._folder, frame_id, files)
        if view.confidence is not None:
            frame = self._confident(frame, view)
        return turned(frame, self._turns)

    def cloud(self) -> PointCloud | None:
        """The mesh's vertices, with instance ids if there is an annotation; None if there is no mesh."""
        return self._cloud

    def labels(self) -> SceneLabels | None:
        """The annotated things, in the annotation's order, ids from 1; None without a mesh to find them on."""
        if self._boxes is None or self._cloud is None:
            return None
        instances = (
            Instance(index, kind, "", "", *box.bounds()) for index, (kind, box) in enumerate(self._boxes, start=1)
        )
        return SceneLabels(tuple(instances), ())

    def _view(self, frame_id: str) -> _View:
        if frame_id not in self._views:
            raise BadInput(self.uri, f"there is no frame {frame_id!r}")
        return self._views[frame_id]

    @cached_property
    def _views(self) -> dict[str, _View]:
        """Frame id -> its files, by time."""
        times, photos = self._stamped("lowres_wide", "png")
        depths, confidences = self._beside(times, "lowres_depth"), self._beside(times, "confidence")
        trajectory = self._trajectory[:, 0]
        views = {}
        for time, photo, depth, confidence in zip(times.tolist(), photos, depths, confidences, strict=True):
            if depth is not None and around(trajectory, time, _POSE_GAP_S, _SAME_INSTANT_S) is not None:
                stamp = photo.removesuffix(".png").rpartition("_")[2]
                views[stamp] = _View(time, photo, depth, confidence)
        return views

    def _beside(self, times: Float[np.ndarray, " n"], name: str) -> list[str | None]:
        """For each photo, the file of the same instant in another folder."""
        file_times, paths = self._stamped(name, "png")
        if not paths:
            return [None] * len(times)
        index, gap = nearest(times, file_times)
        return [paths[i] if apart <= _SAME_INSTANT_S else None for i, apart in zip(index, gap, strict=True)]

    def _stamped(self, name: str, suffix: str) -> tuple[Float[np.ndarray, " n"], list[str]]:
        """Times and paths of a folder's files, by time; none if there is no such folder."""
        entries = self._folder.entries(name) if name in self._entries else {}
        pattern = rf"(?:.+_)?([0-9]+(?:\.[0-9]+)?)\.{suffix}"
        found = sorted((float(m[1]), f"{name}/{file}") for file in entries if (m := re.fullmatch(pattern, file)))
        return np.array([time for time, _ in found]), [path for _, path in found]

    @cached_property
    def _entries(self) -> dict[str, bool]:
        return self._folder.entries()

    def _named(self, suffix: str) -> str | None:
        """The file that is called after the video."""
        return next((name for name in self._entries if name.endswith(suffix)), None)

    @cached_property
    def _pincams(self) -> tuple[Float[np.ndarray, " n"], list[str]]:
        return self._stamped("lowres_wide_intrinsics", "pincam")

    def _intrinsics_path(self, time: float) -> str:
        times, paths = self._pincams
        if paths:
            index, gap = nearest(np.array([time]), times)
            if gap[0] <= _INTRINSICS_GAP_S:
                return paths[int(index[0])]
        raise BadInput(
            self._folder.uri_of("lowres_wide_intrinsics"), f"has no .pincam within {_INTRINSICS_GAP_S} s of {time:.3f}"
        )

    def _intrinsics(self, path: str) -> tuple[tuple[int, int], Float[np.ndarray, "3 3"]]:
        uri = self._folder.uri_of(path)
        row = parse_matrix(self._folder.text(path), uri, "the intrinsics file")
        if row.shape != (1, 6) or not np.isfinite(row).all():
            raise BadInput(uri, "needs 6 numbers: width height fx fy cx cy")
        width, height, fx, fy, cx, cy = row[0].tolist()
        return (int(width), int(height)), pinhole(fx, fy, cx, cy)

    @cached_property
    def _trajectory(self) -> Float[np.ndarray, "n 7"]:
        """Rows (time, axis-angle, translation), world to camera, by time."""
        uri = self._folder.uri_of(_TRAJECTORY)
        rows = parse_matrix(self._folder.text(_TRAJECTORY), uri, "the trajectory")
        if rows.shape[1] != 7 or not np.isfinite(rows[:, 0]).all():
            raise BadInput(uri, "needs lines of 7 numbers: time, axis-angle and translation")
        return rows[np.argsort(rows[:, 0], kind="stable")]

    def _pose(self, time: float) -> Float[np.ndarray, "4 4"]:
        """Camera to world, between the poses before and after."""
        neighbours = around(self._trajectory[:, 0], time, _POSE_GAP_S, _SAME_INSTANT_S)
        assert neighbours is not None  # else it were no frame
        before, after, share = neighbours
        rows = self._trajectory[[before, after], 1:]
        if not np.isfinite(rows).all():
            uri = self._folder.uri_of(_TRAJECTORY)
            raise BadInput(uri, f"the pose at {time:.3f} s holds nan or inf (lost tracking)")
        to_world = Rotation.from_rotvec(rows[:, :3]).inv()
        places = -to_world.apply(rows[:, 3:])
        turn = (to_world[0].inv() * to_world[1]).as_rotvec()
        R = to_world[0] * Rotation.from_rotvec(share * turn)
        return pose(R.as_matrix(), (1 - share) * places[0] + share * places[1])

    @cached_property
    def _turns(self) -> int:
        """Clockwise quarter turns that make the photos upright: where, on average, is up in them?"""
        axis_angles = self._trajectory[:, 1:4]
        finite = axis_angles[np.isfinite(axis_angles).all(1)]
        if not len(finite):
            return 0
        x, y, _ = Rotation.from_rotvec(finite).apply([0, 0, 1]).mean(0)
        if abs(y) >= abs(x):
            return 0 if y <= 0 else 2
        return 1 if x < 0 else 3

    def _confident(self, frame: Frame, view: _View) -> Frame:
        """Without the depth that the sensor itself doubts."""
        assert frame.depth is not None
        assert view.confidence is not None
        uri = self._folder.uri_of(view.confidence)
        confidence = decode_ids(self._folder.read(view.confidence), uri)
        if confidence.shape != frame.depth.shape:
            shapes = (f"{shape[1]}x{shape[0]}" for shape in (confidence.shape, frame.depth.shape))
            raise BadInput(uri, "the confidence map is {}, the depth map {}".format(*shapes))
        depth = np.where(confidence > 0, frame.depth, np.float32(0))
        if not depth.any():
            raise BadInput(uri, "no depth has more than low confidence")
        return replace(frame, depth=depth)

    @cached_property
    def _cloud(self) -> PointCloud | None:
        mesh = self._named("_3dod_mesh.ply")
        if mesh is None:
            return None
        cloud = read_ply(self._folder, mesh)
        if self._boxes is None:
            return cloud
        return replace(cloud, instances=owners(cloud.xyz, [box for _, box in self._boxes]))

    @cached_property
    def _boxes(self) -> list[tuple[str, OrientedBox]] | None:
        """Class name and box of each annotated thing; None if nobody annotated the video."""
        path = self._named("_3dod_annotation.json")
        return None if path is None else read_annotation(self._folder, path)
