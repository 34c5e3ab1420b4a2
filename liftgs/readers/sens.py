"""`.sens`, the stream of ScanNet's RGB-D frames (version 4): read by seeking, one frame at a time.

A header (camera matrices, codecs, sizes, the number of frames) is followed by the frames; each is a pose, two time
stamps, the lengths of its photo and its depth map, and these. Nothing says where a frame is but the lengths of those
before it. The inertial measurements at the end are not read.

Matrices are 4x4 row-major. Intrinsics put the centre of the first pixel at 0, so 0.5 is added to principal points. An
extrinsic matrix maps its camera to the frame of the rig; the pose is that of the depth camera, OpenCV axes, and holds
-inf where tracking was lost. Depth is 16-bit, `depth_shift` units per metre, 0 and 65535 invalid.

Source: ScanNet, SensReader/c++/src/sensorData.h (for the conventions, `saveToPointCloud`).
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Float32, UInt8

from liftgs.limits import MAX_PIXELS
from liftgs.readers.cameras import check_rigid, make_camera, pinhole
from liftgs.readers.files import Folder
from liftgs.readers.frames import check_centre
from liftgs.readers.images import decode_photo
from liftgs.readers.records import Records
from liftgs.scene import BadInput

_VERSION = 4
_START = struct.Struct("<IQ")  # version, length of the sensor's name
_REST = struct.Struct("<64f2i4IfQ")  # four matrices, two codecs, two sizes, depth shift, number of frames
_FRAME = struct.Struct("<16f4Q")  # pose, two time stamps, lengths of photo and depth map
_MAX_NAME = 4096
_PHOTO_CODECS = {0: "raw", 1: "png", 2: "jpeg"}
_DEPTH_CODECS = {0: "raw", 1: "zlib"}
_OCCIPITAL = 2
#: more than any codec needs for a pixel
_MAX_BYTES_PER_PIXEL = 16


@dataclass(frozen=True, eq=False)
class SensHeader:
    """What holds for all frames.

    Attributes:
        photo_K: in pixels of the photo, +0.5 convention.
        depth_K: in pixels of the depth map, +0.5 convention.
        photo_to_depth: rigid transform from the colour camera to the depth camera; the identity in all public scans.
        photo_size: (width, height).
        depth_size: (width, height).
        photo_codec: "raw", "png" or "jpeg".
        depth_codec: "raw" or "zlib".
        depth_units_per_m: value of one metre.
        frames: their number.
        first: byte at which they begin.
    """

    photo_K: Float[np.ndarray, "3 3"]
    depth_K: Float[np.ndarray, "3 3"]
    photo_to_depth: Float[np.ndarray, "4 4"]
    photo_size: tuple[int, int]
    depth_size: tuple[int, int]
    photo_codec: str
    depth_codec: str
    depth_units_per_m: float
    frames: int
    first: int


@dataclass(frozen=True, eq=False)
class SensFrame:
    """One frame, decoded.

    Attributes:
        depth_to_world: pose of the depth camera as stored; finite, otherwise unchecked.
        rgb: the photo.
        jpeg: its own bytes, if it is a JPEG.
        depth: metres, 0 = invalid, as the depth camera saw it.
    """

    depth_to_world: Float[np.ndarray, "4 4"]
    rgb: UInt8[np.ndarray, "h w 3"]
    jpeg: bytes | None
    depth: Float32[np.ndarray, "dh dw"]


class SensFile:
    """One file. Faults of the header are told when it is first needed, those of a frame when that is read."""

    def __init__(self, folder: Folder, path: str):
        self.uri = folder.uri_of(path)
        self._folder = folder
        self._path = path

    @cached_property
    def header(self) -> SensHeader:
        """Two small reads.

        Raises:
            BadInput: not a .sens of version 4, truncated, or numbers that cannot be.
        """
        size = self._folder.size(self._path)
        if size < _START.size:
            raise BadInput(self.uri, f"truncated: {size} bytes are no .sens file")
        version, name_length = _START.unpack(self._folder.part(self._path, 0, _START.size))
        if version != _VERSION:
            raise BadInput(self.uri, f"not a .sens file of version {_VERSION} (its first number is {version})")
        start = _START.size + name_length
        if name_length > _MAX_NAME:
            raise BadInput(self.uri, f"corrupt header: the sensor's name would have {name_length} bytes")
        if start + _REST.size > size:
            raise BadInput(self.uri, f"truncated: the file ends in its header, after {size} bytes")
        header = self._parse(self._folder.part(self._path, start, start + _REST.size), start + _REST.size)
        if header.frames > (size - header.first) // _FRAME.size:
            raise BadInput(self.uri, f"truncated or corrupt: {size} bytes cannot hold {header.frames} frames")
        return header

    def frame_uri(self, number: int) -> str:
        """The file and the frame, for messages."""
        return f"{self.uri}#frame-{number:06d}"

    def read(self, number: int) -> SensFrame:
        """Read and decode one frame.

        Raises:
            BadInput: truncated, corrupt, of another size than the header says, or without a pose.
        """
        data = self._frames.read(number)
        *matrix, _, _, photo_bytes, _ = _FRAME.unpack_from(data)
        depth_to_world = np.array(matrix, np.float64).reshape(4, 4)
        uri = self.frame_uri(number)
        if not np.isfinite(depth_to_world).all():
            bad = depth_to_world[~np.isfinite(depth_to_world)][0]
            raise BadInput(uri, f"pose holds {bad} (lost tracking)")
        photo = data[_FRAME.size : _FRAME.size + photo_bytes]
        rgb, jpeg = self._photo(photo, uri)
        return SensFrame(depth_to_world, rgb, jpeg, self._depth(data[_FRAME.size + photo_bytes :], uri))

    @cached_property
    def _frames(self) -> Records:
        return Records(self._folder, self._path, self.header.first, _FRAME.size, self._body_bytes, "frame")

    def _body_bytes(self, frame_header: bytes) -> int:
        *_, photo_bytes, depth_bytes = _FRAME.unpack(frame_header)
        for what, length, (width, height) in (
            ("photo", photo_bytes, self.header.photo_size),
            ("depth map", depth_bytes, self.header.depth_size),
        ):
            if length > _MAX_BYTES_PER_PIXEL * width * height + 65536:
                raise ValueError(f"corrupt: {length} bytes for a {what} of {width}x{height} pixels")
        return int(photo_bytes + depth_bytes)

    def _parse(self, data: bytes, first: int) -> SensHeader:
        *floats, photo_codec, depth_codec, pw, ph, dw, dh, depth_shift, frames = _REST.unpack(data)
        photo_intrinsic, photo_extrinsic, depth_intrinsic, depth_extrinsic = np.reshape(floats, (4, 4, 4))
        for what, width, height in (("photos", pw, ph), ("depth maps", dw, dh)):
            if not 0 < width * height <= MAX_PIXELS:
                raise BadInput(self.uri, f"corrupt header: {what} of {width}x{height} pixels")
        if depth_codec == _OCCIPITAL:
            raise BadInput(self.uri, "depth is in Occipital's own compression; convert it to zlib with ScanNet's tools")
        for what, codec, known in (("colour", photo_codec, _PHOTO_CODECS), ("depth", depth_codec, _DEPTH_CODECS)):
            if codec not in known:
                raise BadInput(self.uri, f"unknown {what} compression {codec}; known are {known}")
        if not (np.isfinite(depth_shift) and depth_shift > 0):
            raise BadInput(self.uri, f"corrupt header: {depth_shift} depth units per metre")
        for what, extrinsic in (("colour", photo_extrinsic), ("depth", depth_extrinsic)):
            check_rigid(extrinsic, self.uri, f"the extrinsic matrix of the {what} camera")
        return SensHeader(
            photo_K=self._intrinsics(photo_intrinsic, (pw, ph)),
            depth_K=self._intrinsics(depth_intrinsic, (dw, dh)),
            photo_to_depth=np.linalg.inv(depth_extrinsic) @ photo_extrinsic,
            photo_size=(pw, ph),
            depth_size=(dw, dh),
            photo_codec=_PHOTO_CODECS[photo_codec],
            depth_codec=_DEPTH_CODECS[depth_codec],
            depth_units_per_m=depth_shift,
            frames=frames,
            first=first,
        )

    def _intrinsics(self, matrix: Float[np.ndarray, "4 4"], size: tuple[int, int]) -> Float[np.ndarray, "3 3"]:
        K = pinhole(matrix[0, 0], matrix[1, 1], matrix[0, 2] + 0.5, matrix[1, 2] + 0.5)
        K = make_camera(K, np.eye(4), size, self.uri, self.uri).K
        check_centre(K, size, self.uri, "its header")
        return K

    def _photo(self, data: bytes, uri: str) -> tuple[UInt8[np.ndarray, "h w 3"], bytes | None]:
        width, height = self.header.photo_size
        if self.header.photo_codec == "raw":
            if len(data) != 3 * width * height:
                raise BadInput(uri, f"the raw photo has {len(data)} bytes, not {width}x{height}x3")
            return np.frombuffer(data, np.uint8).reshape(height, width, 3).copy(), None
        rgb, jpeg = decode_photo(data, uri)
        if rgb.shape[:2] != (height, width):
            raise BadInput(uri, f"the photo is {rgb.shape[1]}x{rgb.shape[0]}, but the header says {width}x{height}")
        return rgb, jpeg

    def _depth(self, data: bytes, uri: str) -> Float32[np.ndarray, "h w"]:
        width, height = self.header.depth_size
        if self.header.depth_codec == "zlib":
            data = _inflate(data, 2 * width * height, uri)
        if len(data) != 2 * width * height:
            raise BadInput(uri, f"the depth map has {len(data)} bytes, not {width}x{height}x2")
        raw = np.frombuffer(data, "<u2").reshape(height, width).astype(np.float32)
        raw[raw == 65535] = 0
        if not raw.any():
            raise BadInput(uri, "depth has no valid pixel")
        return raw / np.float32(self.header.depth_units_per_m)


def _inflate(data: bytes, expected: int, uri: str) -> bytes:
    """Decompressed, up to one byte more than expected: a forged map must not fill the memory."""
    stream = zlib.decompressobj()
    try:
        return stream.decompress(data, expected + 1)
    except zlib.error as fault:
        raise BadInput(uri, f"truncated or corrupt depth map ({fault})") from None
