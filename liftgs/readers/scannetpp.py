"""ScanNet++ scans (Yeshwanth et al. 2023), as they are downloaded: `iphone/` and `dslr/`, two ways of taking photos of
a room, and `scans/`, what a laser scanner saw of it.

    scans/mesh_aligned_0.05.ply     mesh; its vertices are the cloud
    scans/segments.json             a segment for each vertex
    scans/segments_anno.json        objects as groups of segments (see `liftgs.readers.objects`)
    iphone/                         video with depth (see `liftgs.readers.iphone`)
    dslr/resized_images/*.JPG       fisheye photos, undistorted here; posed by dslr/nerfstudio/transforms.json
    dslr/undistorted_images/*.JPG   the same, if the toolkit undistorted them (nerfstudio/transforms_undistorted.json)

`ReaderOptions.scannetpp_camera` says which photos to take where both are there. Photos of the DSLR have no depth; those
that the release marks as bad (blurred, in shadow), or holds back to test view synthesis, are no frames. Without
`scans/`, as in the hidden test set, only the iPhone's frames have geometry: their fused depth.

Poses of the DSLR are nerfstudio's: OpenGL axes, in a world whose x and y are swapped and whose z is turned round, as
nerfstudio does to COLMAP's. Both are undone, so that photos and mesh are in one frame, z up. Masks of what was made
unrecognisable are not used.

Source: scannetpp, common/scene_release.py, dslr/undistort.py, semantic/transforms/mesh.py
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from liftgs.readers.files import natural_order
from liftgs.readers.frames import FolderBacked, FrameFiles, load_frame
from liftgs.readers.iphone import Iphone
from liftgs.readers.objects import with_objects
from liftgs.readers.ply import read_ply
from liftgs.readers.transforms import Transforms
from liftgs.scene import BadInput, Frame, Instance, PointCloud, Scene, SceneLabels

_MESH = "scans/mesh_aligned_0.05.ply"
_SEGMENTS = "scans/segments.json"
_OBJECTS = "scans/segments_anno.json"
#: By these the annotators marked what the scanner saw and is not there, and what they could not take apart.
_NO_OBJECTS = ("remove", "split")
#: the world of transforms.json -> that of the mesh, and back: (x, y, z) -> (y, x, -z)
_NERFSTUDIO_TO_MESH = np.array([[0.0, 1, 0, 0], [1, 0, 0, 0], [0, 0, -1, 0], [0, 0, 0, 1]])


class ScanNetppScene(FolderBacked):
    """One scan."""

    gravity = "z-up"

    @staticmethod
    def recognises(entries: dict[str, bool]) -> bool:
        """Whether a folder with these entries looks like a scan."""
        return sum(bool(entries.get(name)) for name in ("scans", "iphone", "dslr")) >= 2

    def frame_ids(self) -> Sequence[str]:
        """Of the chosen camera, in the order of capture: "frame_000000" or "DSC00001.JPG" and on."""
        return self._camera.frame_ids()

    def frame_uri(self, frame_id: str) -> str:
        """The photo's file, or the video and the frame."""
        return self._camera.frame_uri(frame_id)

    def load(self, frame_id: str) -> Frame:
        """See `Scene.load`."""
        return self._camera.load(frame_id)

    def cloud(self) -> PointCloud | None:
        """The mesh's vertices, with instance ids if the scan is annotated."""
        return self._annotated[0]

    def labels(self) -> SceneLabels | None:
        """The annotated objects, by the annotators' own words; no expressions."""
        instances = self._annotated[1]
        return None if instances is None else SceneLabels(instances, ())

    @cached_property
    def _entries(self) -> dict[str, bool]:
        return self._folder.entries()

    @cached_property
    def _camera(self) -> Scene:
        there = [name for name in ("iphone", "dslr") if self._entries.get(name)]
        if not there:
            raise BadInput(self.uri, "has neither iphone/ nor dslr/: there are no photos")
        wanted = self._options.scannetpp_camera
        return Iphone(self._folder) if (wanted if wanted in there else there[0]) == "iphone" else Dslr(self._folder)

    @cached_property
    def _annotated(self) -> tuple[PointCloud | None, tuple[Instance, ...] | None]:
        if isinstance(self._camera, Iphone) and not self._folder.has(_MESH):
            return None, None
        cloud = read_ply(self._folder, _MESH)
        if not self._folder.has(_OBJECTS):
            return cloud, None
        return with_objects(cloud, self._folder, _SEGMENTS, _OBJECTS, _NO_OBJECTS)


class Dslr(FolderBacked):
    """Photos of the DSLR."""

    def frame_ids(self) -> Sequence[str]:
        """Names of the photos, in natural order."""
        return self._ids

    def frame_uri(self, frame_id: str) -> str:
        """The photo's file."""
        return self._folder.uri_of(f"{self._photos}/{frame_id}")

    def load(self, frame_id: str) -> Frame:
        """See `Scene.load`."""
        entry = self._frames.get(frame_id)
        if entry is None:
            raise BadInput(self._index.uri, f"there is no frame {frame_id!r}")
        files = FrameFiles(
            photo=f"{self._photos}/{frame_id}",
            K=self._index.intrinsics(entry),
            intrinsics_path=self._index.path,
            cam_to_world=_NERFSTUDIO_TO_MESH @ self._index.pose(entry),
            pose_path=self._index.path,
            size=self._index.size(entry),
            distortion=self._index.lens(entry),
        )
        return load_frame(self._folder, frame_id, files)

    @cached_property
    def _undistorted(self) -> bool:
        return "undistorted_images" in self._folder.entries("dslr")

    @property
    def _photos(self) -> str:
        return "dslr/undistorted_images" if self._undistorted else "dslr/resized_images"

    @cached_property
    def _index(self) -> Transforms:
        name = "transforms_undistorted.json" if self._undistorted else "transforms.json"
        return Transforms(self._folder, f"dslr/nerfstudio/{name}")

    @cached_property
    def _frames(self) -> dict[str, dict[str, Any]]:
        held_back = self._index.meta.get("test_frames") or []
        names = {entry.get("file_path") for entry in held_back if isinstance(entry, dict)}
        entries = self._index.frames.items()
        return {name: entry for name, entry in entries if entry.get("is_bad") is not True and name not in names}

    @cached_property
    def _ids(self) -> list[str]:
        return natural_order(self._frames)
