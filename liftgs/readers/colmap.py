"""COLMAP reconstructions, text or binary: cameras, images, points3D in sparse/0, sparse or the folder itself.

Photos are under `images/`. A pose is stored world-to-camera, as a quaternion with the scalar first and a translation;
the centre of the first pixel is at (0.5, 0.5). Camera models PINHOLE and SIMPLE_PINHOLE are used as they are;
SIMPLE_RADIAL, RADIAL and OPENCV are undistorted; others are refused. There is no depth: the cloud is points3D.

The scale of a reconstruction is arbitrary: give `ReaderOptions.metres_per_unit` unless it is in metres already, since
voxels and the depth range are in metres. Up is unknown, unless a `world.json` beside the model, which `liftgs video`
writes, says {"gravity": "estimated"} or "z-up".

Both files of a large reconstruction are walked as streams; the 2D points and tracks, most of their bytes, are skipped.

Source: https://colmap.github.io/format.html
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import IO, Any, TypeAlias, TypeVar, cast, get_args

import numpy as np
from jaxtyping import Float

from liftgs.readers.cameras import pinhole, pose, rotation
from liftgs.readers.distortion import NO_DISTORTION, Distortion
from liftgs.readers.files import Folder, inside, natural_order
from liftgs.readers.frames import FolderBacked, FrameFiles, load_frame
from liftgs.scene import BadInput, Frame, Gravity, PointCloud

#: COLMAP's model id -> name and number of parameters (src/colmap/sensor/models.h)
_MODELS = {
    0: ("SIMPLE_PINHOLE", 3),
    1: ("PINHOLE", 4),
    2: ("SIMPLE_RADIAL", 4),
    3: ("RADIAL", 5),
    4: ("OPENCV", 8),
    5: ("OPENCV_FISHEYE", 8),
    6: ("FULL_OPENCV", 12),
    7: ("FOV", 5),
    8: ("SIMPLE_RADIAL_FISHEYE", 4),
    9: ("RADIAL_FISHEYE", 5),
    10: ("THIN_PRISM_FISHEYE", 12),
}
_PLACES = ("sparse/0", "sparse", "")
_WORLD = "world.json"
_READ_AHEAD = 1 << 20

T = TypeVar("T")
_Parser: TypeAlias = Callable[[IO[bytes]], Iterator[T]]


@dataclass(frozen=True)
class _Lens:
    model: str
    size: tuple[int, int]
    params: tuple[float, ...]


@dataclass(frozen=True)
class _View:
    lens: int
    quaternion_wxyz: tuple[float, ...]
    translation: tuple[float, ...]


class ColmapScene(FolderBacked):
    """One reconstruction."""

    @staticmethod
    def find(folder: Folder, entries: dict[str, bool]) -> str | None:
        """The prefix of the model's files ("sparse/0/", "sparse/" or ""), or None."""
        for place in _PLACES:
            if place.split("/")[0] in ("", *entries):
                try:
                    names = folder.entries(place) if place else entries
                except BadInput:
                    continue
                if any({f"cameras.{e}", f"images.{e}", f"points3D.{e}"} <= names.keys() for e in ("bin", "txt")):
                    return place and place + "/"
        return None

    @cached_property
    def gravity(self) -> Gravity:  # type: ignore[override]
        """See the module's text."""
        path = self._prefix + _WORLD
        if not self._folder.has(path):
            return "unknown"
        world = self._folder.json(path)
        said = world.get("gravity") if isinstance(world, dict) else None
        if said not in get_args(Gravity):
            raise BadInput(self._folder.uri_of(path), f'is not JSON with "gravity", one of {get_args(Gravity)}')
        return cast(Gravity, said)

    def frame_ids(self) -> Sequence[str]:
        """Names of the registered images, in natural order."""
        return list(self._views)

    def frame_uri(self, frame_id: str) -> str:
        """The photo's file."""
        return self._folder.uri_of(self._photo(frame_id))

    def load(self, frame_id: str) -> Frame:
        """See `Scene.load`."""
        if frame_id not in self._views:
            raise BadInput(self.uri, f"there is no registered image {frame_id!r}")
        view = self._views[frame_id]
        lens = self._lenses.get(view.lens)
        if lens is None:
            raise BadInput(self._uri("cameras"), f"camera {view.lens} of image {frame_id} is missing")
        K, distortion = _pinhole_of(lens, self._uri("cameras"))
        files = FrameFiles(
            photo=self._photo(frame_id),
            K=K,
            intrinsics_path=self._path("cameras"),
            cam_to_world=self._cam_to_world(view),
            pose_path=self._path("images"),
            size=lens.size,
            distortion=distortion,
        )
        return load_frame(self._folder, frame_id, files)

    def cloud(self) -> PointCloud:
        """points3D, in metres."""
        return self._cloud

    @cached_property
    def _prefix(self) -> str:
        prefix = self.find(self._folder, self._folder.entries())
        if prefix is None:
            raise BadInput(self.uri, "has no cameras, images and points3D (.bin or .txt) in sparse/0, sparse or itself")
        return prefix

    @cached_property
    def _extension(self) -> str:
        names = self._folder.entries(self._prefix.rstrip("/"))
        return "bin" if {"cameras.bin", "images.bin", "points3D.bin"} <= names.keys() else "txt"

    @cached_property
    def _lenses(self) -> dict[int, _Lens]:
        return dict(self._parse("cameras", _lenses_bin, _lenses_txt))

    @cached_property
    def _views(self) -> dict[str, _View]:
        views = dict(self._parse("images", _views_bin, _views_txt))
        return {name: views[name] for name in natural_order(views)}

    @cached_property
    def _cloud(self) -> PointCloud:
        points = chain.from_iterable(self._parse("points3D", _points_bin, _points_txt))
        table = np.fromiter(points, np.float64).reshape(-1, 6)
        with np.errstate(over="ignore"):
            xyz = (table[:, :3] * self._options.metres_per_unit).astype(np.float32)
        finite = np.isfinite(xyz).all(1) & np.isfinite(table).all(1)
        return PointCloud(xyz[finite], table[finite, 3:].clip(0, 255).astype(np.uint8))

    def _parse(self, part: str, binary: _Parser[T], text: _Parser[T]) -> Iterator[T]:
        """The items of one of the three files; whatever is wrong with it becomes BadInput."""
        with self._folder.open(self._path(part)) as stream:
            try:
                yield from (binary if self._extension == "bin" else text)(stream)
            except (EOFError, ValueError, IndexError, OverflowError, struct.error) as fault:
                raise BadInput(self._uri(part), f"truncated or not a COLMAP {part} file ({fault})") from None

    def _path(self, part: str) -> str:
        return f"{self._prefix}{part}.{self._extension}"

    def _uri(self, part: str) -> str:
        return self._folder.uri_of(self._path(part))

    def _photo(self, frame_id: str) -> str:
        return "images/" + inside(self._folder, frame_id, self._path("images"))

    def _cam_to_world(self, view: _View) -> Float[np.ndarray, "4 4"]:
        R = rotation(np.array(view.quaternion_wxyz), self._uri("images")).T
        return pose(R, -R @ np.array(view.translation) * self._options.metres_per_unit)


def _pinhole_of(lens: _Lens, uri: str) -> tuple[Float[np.ndarray, "3 3"], Distortion]:
    match lens.model, lens.params:
        case "SIMPLE_PINHOLE", (f, cx, cy):
            return pinhole(f, f, cx, cy), NO_DISTORTION
        case "PINHOLE", (fx, fy, cx, cy):
            return pinhole(fx, fy, cx, cy), NO_DISTORTION
        case "SIMPLE_RADIAL", (f, cx, cy, k1):
            return pinhole(f, f, cx, cy), Distortion(k1)
        case "RADIAL", (f, cx, cy, k1, k2):
            return pinhole(f, f, cx, cy), Distortion(k1, k2)
        case "OPENCV", (fx, fy, cx, cy, k1, k2, p1, p2):
            return pinhole(fx, fy, cx, cy), Distortion(k1, k2, 0.0, p1, p2)
    raise BadInput(uri, f"camera model {lens.model} is not supported; run `colmap image_undistorter` first")


def _take(stream: IO[bytes], layout: str) -> tuple[Any, ...]:
    """Unpack the next bytes, little-endian and unpadded."""
    layout = "<" + layout
    size = struct.calcsize(layout)
    data = stream.read(size)
    if len(data) < size:
        raise EOFError("the file ends early")
    return struct.unpack(layout, data)


def _skip(stream: IO[bytes], size: int) -> None:
    """Read past `size` bytes; as a read, since a seek beyond the end would go unnoticed."""
    while size > 0:
        data = stream.read(min(size, _READ_AHEAD))
        if not data:
            raise EOFError("the file ends early")
        size -= len(data)


def _lenses_bin(stream: IO[bytes]) -> Iterator[tuple[int, _Lens]]:
    for _ in range(_take(stream, "Q")[0]):
        lens, model, width, height = _take(stream, "IiQQ")
        if model not in _MODELS:
            raise ValueError(f"unknown camera model {model}")
        name, count = _MODELS[model]
        yield lens, _Lens(name, (width, height), _take(stream, f"{count}d"))


def _lenses_txt(stream: IO[bytes]) -> Iterator[tuple[int, _Lens]]:
    for line in _text_lines(stream):
        lens, model, width, height, *params = line.split()
        yield int(lens), _Lens(model, (int(width), int(height)), tuple(map(float, params)))


def _views_bin(stream: IO[bytes]) -> Iterator[tuple[str, _View]]:
    for _ in range(_take(stream, "Q")[0]):
        _, *placement, lens = _take(stream, "I7dI")
        name = bytearray()
        while (byte := stream.read(1)) != b"\0":
            if not byte or len(name) > 4096:
                raise EOFError("an image's name does not end")
            name += byte
        _skip(stream, 24 * _take(stream, "Q")[0])
        yield name.decode(), _View(lens, tuple(placement[:4]), tuple(placement[4:]))


def _views_txt(stream: IO[bytes]) -> Iterator[tuple[str, _View]]:
    lines = (line.decode() for line in stream)
    for line in lines:
        if not line.strip() or line.startswith("#"):
            continue
        words = line.strip().split(" ", 9)
        if len(words) != 10:
            raise ValueError(f"line {line[:60]!r} is not 'id qw qx qy qz tx ty tz camera name'")
        placement = tuple(map(float, words[1:8]))
        yield words[9], _View(int(words[8]), placement[:4], placement[4:])
        next(lines, None)  # the image's 2D points, possibly none


def _points_bin(stream: IO[bytes]) -> Iterator[tuple[float, ...]]:
    for _ in range(_take(stream, "Q")[0]):
        _, x, y, z, r, g, b, _, track = _take(stream, "Q3d3BdQ")
        _skip(stream, 8 * track)
        yield x, y, z, r, g, b


def _points_txt(stream: IO[bytes]) -> Iterator[tuple[float, ...]]:
    for line in _text_lines(stream):
        words = line.split(None, 7)
        if len(words) < 8:
            raise ValueError(f"line {line[:60]!r} is not 'id x y z r g b error track'")
        yield tuple(map(float, words[1:7]))


def _text_lines(stream: IO[bytes]) -> Iterator[str]:
    for raw in stream:
        line = raw.decode().strip()
        if line and not line.startswith("#"):
            yield line
