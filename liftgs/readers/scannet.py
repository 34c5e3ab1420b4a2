"""ScanNet scans (Dai et al. 2017), as they are downloaded: one folder per scan, named like it.

    <id>.sens                               frames (see `liftgs.readers.sens`)
    <id>.txt                                "key = value" lines; `axisAlignment` turns the world to the room's axes
    <id>_vh_clean_2.ply                     mesh; its vertices are the cloud
    <id>_vh_clean_2.0.010000.segs.json      a segment for each vertex
    <id>.aggregation.json                   objects as groups of segments (see `liftgs.readers.objects`)

Only the .sens file must be there. Without the mesh the cloud is fused from depth; without the two annotation files
there are no labels. Where those are missing but `<id>_vh_clean.ply`, `.segs.json` and `.aggregation.json`, the same of
the full-resolution mesh, are there, they are used.

`axisAlignment` is applied to poses, cloud and boxes alike; published boxes and referring expressions are in that frame.
Some scans, and the test set, have none: they stay as they are, and their gravity is "unknown".

Depth is moved into the photo's field of view by the two cameras' intrinsics and extrinsics. `colorToDepthExtrinsics` in
`<id>.txt` is not used: it is of the raw sensor, and depth in the .sens file is in register with the photos already.

Source: ScanNet, README.md; https://github.com/ScanNet/ScanNet/issues/92 (extrinsics).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from jaxtyping import Float

from liftgs.readers.cameras import check_rigid, make_camera
from liftgs.readers.frames import FolderBacked
from liftgs.readers.objects import with_objects
from liftgs.readers.ply import read_ply
from liftgs.readers.registration import register_depth
from liftgs.readers.sens import SensFile
from liftgs.scene import BadInput, Frame, Gravity, Instance, PointCloud, SceneLabels

_SENS = ".sens"
#: endings of mesh, segments and objects: the annotated mesh, and the one it was thinned from
_ANNOTATED = ("_vh_clean_2.ply", "_vh_clean_2.0.010000.segs.json", ".aggregation.json")
_FULL = ("_vh_clean.ply", "_vh_clean.segs.json", "_vh_clean.aggregation.json")


class ScanNetScene(FolderBacked):
    """One scan."""

    @staticmethod
    def recognises(entries: dict[str, bool]) -> bool:
        """Whether a folder with these entries looks like a scan."""
        return bool(_streams(entries))

    @cached_property
    def gravity(self) -> Gravity:  # type: ignore[override]
        """See the module's text."""
        return "unknown" if self._axis_alignment is None else "z-up"

    def frame_ids(self) -> Sequence[str]:
        """`frame-000000` and on, as many as the header says; the names that ScanNet's own exporter gives them."""
        return [f"frame-{number:06d}" for number in range(self._sens.header.frames)]

    def frame_uri(self, frame_id: str) -> str:
        """The .sens file and the frame."""
        return f"{self._sens.uri}#{frame_id}"

    def load(self, frame_id: str) -> Frame:
        """See `Scene.load`."""
        number = self._number(frame_id)
        uri, header = self.frame_uri(frame_id), self._sens.header
        frame = self._sens.read(number)
        cam_to_world = self._to_room @ frame.depth_to_world @ header.photo_to_depth
        camera = make_camera(header.photo_K, cam_to_world, header.photo_size, self._sens.uri, uri)
        depth_to_photo = np.linalg.inv(header.photo_to_depth)
        depth = register_depth(frame.depth, header.depth_K, camera.resized(*header.depth_size).K, depth_to_photo)
        if not depth.any():
            raise BadInput(uri, "depth has no valid pixel within the photo's field of view")
        return Frame(frame_id, uri, camera, frame.rgb, depth, frame.jpeg)

    def cloud(self) -> PointCloud | None:
        """The mesh's vertices in the room's frame, with instance ids if the scan is annotated."""
        return self._annotated[0]

    def labels(self) -> SceneLabels | None:
        """The annotated objects, by the annotators' own words; no expressions."""
        instances = self._annotated[1]
        return None if instances is None else SceneLabels(instances, ())

    @cached_property
    def _entries(self) -> dict[str, bool]:
        return self._folder.entries()

    @cached_property
    def _id(self) -> str:
        streams = _streams(self._entries)
        if len(streams) != 1:
            raise BadInput(self.uri, f"has {len(streams)} .sens files; a scan is a folder with one")
        return streams[0].removesuffix(_SENS)

    @cached_property
    def _sens(self) -> SensFile:
        return SensFile(self._folder, self._id + _SENS)

    @cached_property
    def _annotated(self) -> tuple[PointCloud | None, tuple[Instance, ...] | None]:
        for mesh, segments, objects in (_ANNOTATED, _FULL):
            if {self._id + mesh, self._id + segments, self._id + objects} <= self._entries.keys():
                return with_objects(self._mesh(mesh), self._folder, self._id + segments, self._id + objects)
        return (self._mesh(_ANNOTATED[0]) if self._id + _ANNOTATED[0] in self._entries else None), None

    def _mesh(self, ending: str) -> PointCloud:
        cloud = read_ply(self._folder, self._id + ending)
        xyz = cloud.xyz.astype(np.float64) @ self._to_room[:3, :3].T + self._to_room[:3, 3]
        return PointCloud(xyz.astype(np.float32), cloud.rgb)

    @property
    def _to_room(self) -> Float[np.ndarray, "4 4"]:
        return np.eye(4) if self._axis_alignment is None else self._axis_alignment

    @cached_property
    def _axis_alignment(self) -> Float[np.ndarray, "4 4"] | None:
        name = f"{self._id}.txt"
        if name not in self._entries:
            return None
        lines = self._folder.text(name).splitlines()
        found = [match[1] for line in lines if (match := re.fullmatch(r"\s*axisAlignment\s*=(.*)", line))]
        if not found:
            return None
        uri = self._folder.uri_of(name)
        try:
            matrix = np.array(found[-1].split(), np.float64).reshape(4, 4)
        except ValueError:
            raise BadInput(uri, f"axisAlignment is not 16 numbers: {found[-1].strip()[:200]!r}") from None
        check_rigid(matrix, uri, "axisAlignment")
        return matrix

    def _number(self, frame_id: str) -> int:
        match = re.fullmatch(r"frame-(\d{6,9})", frame_id)
        if match is None or int(match[1]) >= self._sens.header.frames:
            raise BadInput(self._sens.uri, f"there is no frame {frame_id!r}; it has {self._sens.header.frames}")
        return int(match[1])


def _streams(entries: dict[str, bool]) -> list[str]:
    return [n for n, is_folder in entries.items() if n.endswith(_SENS) and not is_folder and not n.startswith(".")]
