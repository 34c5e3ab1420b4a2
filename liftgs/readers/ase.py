"""Aria Synthetic Environments (Avetisyan et al. 2024): rendered walks through furnished flats, seen by Aria's fisheye.

A scene's folder holds
    rgb/vignette0000000.jpg  depth/depth0000000.png  instances/instance0000000.png ...  trajectory.csv
    object_instances_to_classes.json
Row i of `trajectory.csv` is the pose of the device in the world at frame i: metres, quaternion x, y, z, w, z up. The
camera sits on the device as the data set's one calibration says. Images are 704x704 (or 1408x1408), stored sideways.
Depth is 16-bit millimetres along each pixel's ray, 65535 invalid. Instance ids are 16 bits, 0 none.

Each frame becomes what a pinhole camera at the same place would have seen, turned upright. Its image lies wholly
within the lens' valid circle, so it has no empty border. The 512x512 pixels at the fisheye's own focal length are those
of SLAM3R's preprocessing; the field of view is 81 degrees.

Scenes of the test split come without depth and instances; they cannot be read, since there is no geometry: the
semi-dense points have no colour.

Source: projectaria_tools, projects/AriaSyntheticEnvironment; the calibration's T_device_camera is called by the inverse
name there, but passed and used as camera to device.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from jaxtyping import Float, Float32, UInt16

from liftgs.geometry import unproject
from liftgs.readers.cameras import make_camera, pinhole, pose, rotation
from liftgs.readers.distortion import sample_linear, sample_nearest
from liftgs.readers.fisheye import Fisheye624, depth_per_distance, pinhole_pixels
from liftgs.readers.frames import FolderBacked, turned
from liftgs.readers.images import decode_depth, decode_ids, decode_photo
from liftgs.scene import BadInput, Camera, Frame, Gravity, Instance, SceneLabels

_SIZE = 704
#: of the 704x704 images; the principal point is 0.5 more than published, whose pixels have their centres at 0
_LENS = Fisheye624(
    focal=297.6375381033778,
    cx=357.6599197217746 + 0.5,
    cy=349.1922497127481 + 0.5,
    radial=(
        *(0.3650890375644368, -0.1738082418112771, -0.7534945484033189),
        *(2.434788882752295, -2.57786220300886, 0.8788483538598834),
    ),
    tangential=(0.0008005198595407136, -0.000294237814554143),
    prism=(0.0, 0.0, 0.0, 0.0),
    valid_radius=1415 / 4,
)
_DEVICE_CAMERA_WXYZ = (0.9441858687689326, 0.326409343828490850, 0.029274992008313648, 0.033361059956531547)
_DEVICE_CAMERA_T = (-0.007530096566173914, -0.010908549841580260, -0.003598063315542823)
_PINHOLE_SIZE = 512  # at the lens' focal length, for 704x704 images

_TRAJECTORY, _CLASSES = "trajectory.csv", "object_instances_to_classes.json"
_COLUMNS = [f"{name}_world_device" for name in ("tx", "ty", "tz", "qx", "qy", "qz", "qw")]
#: classes of what is no thing
_NO_THING = ("empty_space", "background")
#: frames, spread over the scene, from which boxes are told: one in two seconds of a usual walk
_BOX_FRAMES = 64


class AseScene(FolderBacked):
    """One scene of the training split."""

    gravity: Gravity = "z-up"

    @staticmethod
    def recognises(entries: dict[str, bool]) -> bool:
        """Whether a folder with these entries looks like a scene."""
        return {"rgb", "depth", _TRAJECTORY} <= entries.keys()

    def frame_ids(self) -> Sequence[str]:
        """Numbers of seven digits, of all frames that have a photo or a depth map."""
        return self._ids

    def frame_uri(self, frame_id: str) -> str:
        """The photo's file."""
        return self._folder.uri_of(self._photo(frame_id))

    def load(self, frame_id: str) -> Frame:
        """See `Scene.load`."""
        path = self._photo(frame_id)
        uri = self._folder.uri_of(path)
        rgb, _ = decode_photo(self._folder.read(path), uri)
        camera, depth, ids = self._geometry(frame_id)
        size = camera.width * _SIZE // _PINHOLE_SIZE
        if rgb.shape[:2] != (size, size):
            raise BadInput(uri, f"the photo is {rgb.shape[1]}x{rgb.shape[0]}, its depth map {size}x{size}")
        sideways = Frame(frame_id, uri, camera, sample_linear(rgb, *_source(size)), depth, None, ids)
        return turned(sideways, 1)

    def labels(self) -> SceneLabels | None:
        """Things with the classes that the scene gives them, if it has instance images.

        Their boxes are around what is seen of them in at most 64 frames spread over the scene. A thing in none of these
        is not among the labels, though a frame may show its id.
        """
        return self._labels

    @cached_property
    def _ids(self) -> list[str]:
        photos = _numbers(self._folder.entries("rgb"), r"vignette([0-9]{7})\.jpg")
        return sorted(photos | _numbers(self._folder.entries("depth"), r"depth([0-9]{7})\.png"))

    @cached_property
    def _has_instances(self) -> bool:
        return {"instances", _CLASSES} <= self._folder.entries().keys()

    @cached_property
    def _trajectory(self) -> Float[np.ndarray, "n 7"]:
        """Rows (tx, ty, tz, qx, qy, qz, qw), one a frame."""
        uri = self._folder.uri_of(_TRAJECTORY)
        header, *rows = [line.strip().split(",") for line in self._folder.text(_TRAJECTORY).splitlines()]
        missing = [name for name in _COLUMNS if name not in header]
        if missing:
            raise BadInput(uri, f"has no column {missing[0]!r}")
        columns = [header.index(name) for name in _COLUMNS]
        for number, row in enumerate(rows, start=2):
            if len(row) != len(header):
                raise BadInput(uri, f"line {number} has {len(row)} values, not {len(header)}: truncated?")
        try:
            return np.array([[float(row[c]) for c in columns] for row in rows], np.float64).reshape(-1, 7)
        except ValueError as fault:
            raise BadInput(uri, f"holds something that is not a number ({fault})") from None

    @cached_property
    def _classes(self) -> dict[int, str]:
        """Id -> class name, of things only."""
        parsed = self._folder.json(_CLASSES)
        try:
            classes = {int(key): name.replace("_", " ") for key, name in parsed.items() if name not in _NO_THING}
        except (ValueError, AttributeError, TypeError) as fault:
            uri = self._folder.uri_of(_CLASSES)
            raise BadInput(uri, f'not a JSON object of class names by id, like {{"7": "chair"}} ({fault})') from None
        return {key: name for key, name in classes.items() if key > 0}

    @cached_property
    def _labels(self) -> SceneLabels | None:
        if not self._has_instances:
            return None
        step = -(-len(self._ids) // _BOX_FRAMES)
        low: dict[int, np.ndarray] = {}
        high: dict[int, np.ndarray] = {}
        for frame_id in self._ids[::step]:
            try:
                camera, depth, ids = self._geometry(frame_id)
            except BadInput:
                continue  # whoever loads the frame is told
            assert ids is not None
            xyz, pixel = unproject(depth, camera)
            owner = ids.reshape(-1)[pixel]
            order = np.argsort(owner, kind="stable")
            present, first = np.unique(owner[order], return_index=True)
            lows, highs = np.minimum.reduceat(xyz[order], first), np.maximum.reduceat(xyz[order], first)
            for thing, thing_low, thing_high in zip(present.tolist(), lows, highs, strict=True):
                low[thing] = np.minimum(low.get(thing, thing_low), thing_low)
                high[thing] = np.maximum(high.get(thing, thing_high), thing_high)
        named = [(thing, self._classes[thing]) for thing in sorted(low) if thing in self._classes]
        instances = (
            Instance(thing, kind, "", "", tuple(low[thing].tolist()), tuple(high[thing].tolist()))
            for thing, kind in named
        )
        return SceneLabels(tuple(instances), ())

    def _photo(self, frame_id: str) -> str:
        if frame_id not in self._ids:
            raise BadInput(self.uri, f"there is no frame {frame_id!r}")
        return f"rgb/vignette{frame_id}.jpg"

    def _geometry(self, frame_id: str) -> tuple[Camera, Float32[np.ndarray, "h w"], UInt16[np.ndarray, "h w"] | None]:
        """The frame without its photo, of the pinhole camera, still sideways."""
        path = f"depth/depth{frame_id}.png"
        uri = self._folder.uri_of(path)
        distance = decode_depth(self._folder.read(path), uri, 1000.0)
        size = distance.shape[0]
        if distance.shape not in ((_SIZE, _SIZE), (2 * _SIZE, 2 * _SIZE)):
            raise BadInput(uri, f"depth is {distance.shape[1]}x{size}; the lens is known for 704x704 and 1408x1408")
        # First z, then the nearest pixel's: its own ray is what its distance was measured along.
        depth = sample_nearest(distance * depth_per_distance(_lens(size), distance.shape), *_source(size))
        if not depth.any():
            raise BadInput(uri, "depth has no valid pixel")
        return self._camera(frame_id, size), depth, self._instances(frame_id, size)

    def _instances(self, frame_id: str, size: int) -> UInt16[np.ndarray, "h w"] | None:
        if not self._has_instances:
            return None
        path = f"instances/instance{frame_id}.png"
        uri = self._folder.uri_of(path)
        ids = decode_ids(self._folder.read(path), uri)
        if ids.shape != (size, size):
            raise BadInput(uri, f"the instance image is {ids.shape[1]}x{ids.shape[0]}, its depth map {size}x{size}")
        ids = sample_nearest(ids, *_source(size))
        return np.where(np.isin(ids, list(self._classes)), ids, np.uint16(0))

    def _camera(self, frame_id: str, size: int) -> Camera:
        uri = self._folder.uri_of(_TRAJECTORY)
        number = int(frame_id)
        if number >= len(self._trajectory):
            raise BadInput(uri, f"has {len(self._trajectory)} poses, so none for frame {frame_id}")
        row = self._trajectory[number]
        device = pose(rotation(np.roll(row[3:], 1), uri), row[:3])
        on_device = pose(rotation(np.array(_DEVICE_CAMERA_WXYZ), uri), np.array(_DEVICE_CAMERA_T))
        focal, pinhole_size = _lens(size).focal, size * _PINHOLE_SIZE // _SIZE
        K = pinhole(focal, focal, pinhole_size / 2, pinhole_size / 2)
        return make_camera(K, device @ on_device, (pinhole_size, pinhole_size), uri, uri)


def _lens(size: int) -> Fisheye624:
    """Of square images of that size."""
    return _LENS.scaled(size / _SIZE)


def _source(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Where in a fisheye image of that size each pixel of the pinhole image comes from."""
    return pinhole_pixels(_lens(size), _lens(size).focal, size * _PINHOLE_SIZE // _SIZE)


def _numbers(entries: dict[str, bool], pattern: str) -> set[str]:
    return {match[1] for name in entries if (match := re.fullmatch(pattern, name))}
