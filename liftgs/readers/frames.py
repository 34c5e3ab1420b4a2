"""From what a format says of a frame to a checked `Frame`; the part that all formats share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Float32, UInt8

from liftgs.readers.cameras import make_camera, pinhole
from liftgs.readers.distortion import NO_DISTORTION, Lens, ideal_intrinsics, undistort_depth, undistort_photo
from liftgs.readers.files import Folder
from liftgs.readers.images import decode_depth, decode_photo, image_size
from liftgs.readers.options import DEFAULT_OPTIONS, ReaderOptions
from liftgs.scene import BadInput, Camera, Frame, Scene

#: camera that took the turned picture -> camera that took the picture: its x axis points up (-y), its y axis along x
_QUARTER_TURN = np.array([[0.0, 1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
_HEADER_BYTES = 65536  # a JPEG's size may come after kilobytes of EXIF and colour profile


class FolderBacked(Scene):
    """A scene that is the files of one folder."""

    def __init__(self, folder: Folder, options: ReaderOptions = DEFAULT_OPTIONS):
        self.uri = folder.uri
        self.name = folder.name
        self._folder = folder
        self._options = options

    @staticmethod
    def recognises(entries: dict[str, bool]) -> bool:
        """Whether a folder with these entries looks like a scene; never, for a format that needs a deeper look."""
        return False


@dataclass(frozen=True, eq=False)
class FrameFiles:
    """What a format says of one frame. Paths are relative to the scene's folder.

    Attributes:
        photo: path of the photo.
        K: of the photo, +0.5 convention.
        intrinsics_path: where `K` comes from; for messages.
        cam_to_world: OpenCV axes, metres.
        pose_path: where `cam_to_world` comes from; for messages.
        size: (width, height) the photo must have, or None if the format does not say.
        depth: path of the depth map, or None.
        depth_units_per_m: of the depth map.
        depth_K: of the depth map if it has a camera of its own (at the photo camera's place); by default `K` scaled.
        distortion: of the photo's lens; the depth map is taken to be in register with the photo.
    """

    photo: str
    K: Float[np.ndarray, "3 3"]
    intrinsics_path: str
    cam_to_world: Float[np.ndarray, "4 4"]
    pose_path: str
    size: tuple[int, int] | None = None
    depth: str | None = None
    depth_units_per_m: float = 1000.0
    depth_K: Float[np.ndarray, "3 3"] | None = None
    distortion: Lens = NO_DISTORTION


def load_frame(folder: Folder, frame_id: str, files: FrameFiles) -> Frame:
    """Read, check and undistort one frame.

    Raises:
        BadInput: any fault of the photo, the depth map, the pose or the intrinsics, naming the file.
    """
    photo_uri, intrinsics_uri = folder.uri_of(files.photo), folder.uri_of(files.intrinsics_path)
    rgb, jpeg = decode_photo(folder.read(files.photo), photo_uri)
    size = (rgb.shape[1], rgb.shape[0])
    if files.size is not None and size != files.size:
        raise BadInput(photo_uri, f"the photo is {_px(size)}, but the scene's intrinsics are for {_px(files.size)}")
    camera = make_camera(files.K, files.cam_to_world, size, intrinsics_uri, folder.uri_of(files.pose_path))
    check_centre(files.K, size, photo_uri, intrinsics_uri)
    depth = None
    if files.depth is not None:
        depth = _load_depth(folder, files, size)
    if not files.distortion:
        return Frame(frame_id, photo_uri, camera, rgb, depth, jpeg)
    try:
        ideal = ideal_intrinsics(files.K, files.distortion, size)
    except ValueError as fault:
        raise BadInput(intrinsics_uri, str(fault)) from None
    camera = make_camera(ideal, files.cam_to_world, size, intrinsics_uri, folder.uri_of(files.pose_path))
    return Frame(frame_id, photo_uri, camera, *_undistorted(rgb, depth, files, ideal))


def turned(frame: Frame, clockwise: int) -> Frame:
    """The frame with its images turned clockwise by that many quarter turns, and its camera turned with them.

    A point of the world is seen at the same spot of the picture as before.
    """
    clockwise %= 4
    if clockwise == 0:
        return frame
    camera = frame.camera
    for _ in range(clockwise):  # (u, v) moves to (height - v, u)
        K, height = camera.K, camera.height
        turned_K = pinhole(K[1, 1], K[0, 0], height - K[1, 2], K[0, 2])
        camera = Camera(turned_K, camera.cam_to_world @ _QUARTER_TURN, height, camera.width)
    rgb, depth, instances = (
        None if image is None else np.ascontiguousarray(np.rot90(image, -clockwise))
        for image in (frame.rgb, frame.depth, frame.instances)
    )
    assert rgb is not None
    return replace(frame, camera=camera, rgb=rgb, depth=depth, jpeg=None, instances=instances)


def common_size(folder: Folder, photos: Sequence[str]) -> tuple[int, int] | None:
    """The photo size of a scene whose intrinsics do not state one: what most of three photos across it have.

    Unreadable photos have no say; None if none is readable.
    """
    probes = [photos[i] for i in sorted({0, len(photos) // 2, len(photos) - 1})] if photos else []
    sizes: Counter[tuple[int, int]] = Counter()
    for path in probes:
        try:
            sizes[_header_size(folder, path)] += 1
        except BadInput:
            continue
    return sizes.most_common(1)[0][0] if sizes else None


def _header_size(folder: Folder, path: str) -> tuple[int, int]:
    uri = folder.uri_of(path)
    try:
        return image_size(folder.head(path, _HEADER_BYTES), uri)
    except BadInput:
        return image_size(folder.read(path), uri)


def _load_depth(folder: Folder, files: FrameFiles, size: tuple[int, int]) -> Float32[np.ndarray, "h w"]:
    assert files.depth is not None
    uri = folder.uri_of(files.depth)
    depth = decode_depth(folder.read(files.depth), uri, files.depth_units_per_m)
    if not depth.any():
        raise BadInput(uri, "depth has no valid pixel")
    depth_size = (depth.shape[1], depth.shape[0])
    if files.depth_K is not None:  # bring it into the photo's field of view
        check_centre(files.depth_K, depth_size, uri, "the depth camera's file")
        scale = np.diag([depth_size[0] / size[0], depth_size[1] / size[1], 1.0])
        depth = undistort_depth(depth, files.depth_K, NO_DISTORTION, scale @ files.K)
    elif abs(depth_size[0] * size[1] / (depth_size[1] * size[0]) - 1) > 0.02:
        raise BadInput(uri, f"depth is {_px(depth_size)} and the photo {_px(size)}: not the same field of view")
    return depth


def _undistorted(
    rgb: UInt8[np.ndarray, "h w 3"],
    depth: Float32[np.ndarray, "dh dw"] | None,
    files: FrameFiles,
    ideal: Float[np.ndarray, "3 3"],
) -> tuple[UInt8[np.ndarray, "h w 3"], Float32[np.ndarray, "dh dw"] | None]:
    photo = undistort_photo(rgb, files.K, files.distortion, ideal)
    if depth is None:
        return photo, None
    scale = np.diag([depth.shape[1] / rgb.shape[1], depth.shape[0] / rgb.shape[0], 1.0])
    return photo, undistort_depth(depth, scale @ files.K, files.distortion, scale @ ideal)


def check_centre(K: Float[np.ndarray, "3 3"], size: tuple[int, int], image_uri: str, intrinsics_uri: str) -> None:
    """Intrinsics for another resolution give themselves away by where they put the image's centre.

    Raises:
        BadInput: they do.
    """
    cx, cy = K[0, 2] / size[0], K[1, 2] / size[1]
    if not (0.25 <= cx <= 0.75 and 0.25 <= cy <= 0.75):
        raise BadInput(
            image_uri,
            f"the image is {_px(size)}, but {intrinsics_uri} has its centre at ({K[0, 2]:g}, {K[1, 2]:g}): "
            "these intrinsics are for another size",
        )


def _px(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
