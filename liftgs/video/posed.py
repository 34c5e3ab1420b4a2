"""Videos whose poses are known: `NAME.transforms.json` beside `NAME.mp4`.

The file is nerfstudio's transforms.json (conventions: `liftgs.readers.nerfstudio`), except that an entry of `frames`
names its photo by `"frame"`, the position in the video from 0, instead of `"file_path"`. One form that says everything
was chosen: a trajectory with time stamps (TUM) would need intrinsics and a clock from elsewhere. Frames without an
entry are not used, and neither are entries' depth maps and masks.

Intrinsics (`fl_x`, `cx`, `w`, `h` and so on) are of the picture as a player shows it: upright, square pixels. Stored
photos may be smaller; the intrinsics are scaled with them. Poses keep their scale and their up.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
from PIL import Image

from liftgs.readers.files import Folder
from liftgs.readers.nerfstudio import NerfstudioScene
from liftgs.readers.ply import encode_ply
from liftgs.scene import BadInput, Camera
from liftgs.video.sfm import triangulate

_SIDECAR = ".transforms.json"
_CLOUD = "points3D.ply"
_LEAST_FRAMES = 2
_HORIZONTAL, _VERTICAL = ("fl_x", "cx", "w"), ("fl_y", "cy", "h")


@dataclass(frozen=True, eq=False)
class Poses:
    """The poses of a video.

    Attributes:
        uri: of their file.
        sha256: of its content.
        meta: its content but for the frames.
        frames: position in the video -> the frame's entry.
    """

    uri: str
    sha256: str
    meta: dict[str, Any]
    frames: dict[int, dict[str, Any]]


def find(video: str) -> Poses | None:
    """The poses beside a video, if there are any.

    Raises:
        BadInput: the file is broken.
    """
    uri = posixpath.splitext(video)[0] + _SIDECAR
    filesystem, path = fsspec.core.url_to_fs(uri)
    if not filesystem.exists(path):
        return None
    data = filesystem.cat_file(path)
    try:
        meta = json.loads(data)
    except (ValueError, RecursionError) as fault:
        raise BadInput(uri, f"not valid JSON ({fault})") from None
    entries = meta.pop("frames", None) if isinstance(meta, dict) else None
    if not isinstance(entries, list):
        raise BadInput(uri, 'has no list "frames"')
    frames: dict[int, dict[str, Any]] = {}
    for entry in entries:
        number = entry.get("frame") if isinstance(entry, dict) else None
        if not isinstance(number, int) or isinstance(number, bool) or number < 0:
            raise BadInput(uri, 'a frame has no "frame", its position in the video from 0')
        if number in frames:
            raise BadInput(uri, f"names frame {number} twice")
        frames[number] = entry
    return Poses(uri, hashlib.sha256(data).hexdigest(), meta, frames)


def reconstruct(poses: Poses, work: Path, names: dict[str, int], progress: Callable[[str], None]) -> None:
    """Make `work` a nerfstudio folder: transforms.json for its photos, and the points that they see.

    Args:
        poses: of the video.
        work: holds the photos, in `images/`.
        names: photo -> position in the video.
        progress: see `liftgs.video.convert`.

    Raises:
        BadInput: wrong intrinsics or poses, or photos that have no point in common.
    """
    _write_index(poses, work, names)
    cameras = _cameras(poses, work, progress)
    xyz, rgb = triangulate(work, work / "pinhole", cameras, progress)
    if not len(xyz):
        raise BadInput(poses.uri, "no point could be triangulated: the poses do not fit the video, or hardly differ")
    progress(f"{len(xyz)} points")
    (work / _CLOUD).write_bytes(encode_ply((xyz * poses.meta.get("applied_scale", 1.0)).astype(np.float32), rgb))


def _write_index(poses: Poses, work: Path, names: dict[str, int]) -> None:
    frames = []
    for name, number in names.items():
        with Image.open(work / "images" / name) as photo:
            size = photo.size
        entry = {**poses.frames[number], "file_path": f"images/{name}"}
        for key in ("frame", "depth_file_path", "mask_path"):
            entry.pop(key, None)
        frames.append(_scaled(entry, poses, number, size))
    index = {**poses.meta, "ply_file_path": _CLOUD, "frames": frames}
    (work / "transforms.json").write_text(json.dumps(index, indent=1))


def _scaled(entry: dict[str, Any], poses: Poses, number: int, size: tuple[int, int]) -> dict[str, Any]:
    """The entry with intrinsics of its own, for a photo of this size."""
    values = {key: entry.get(key, poses.meta.get(key)) for key in (*_HORIZONTAL, *_VERTICAL)}
    for key, value in values.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise BadInput(poses.uri, f"{key} is {value!r}, not a number")
    width, height = values["w"], values["h"]
    if not width or not height or min(width, height) <= 0:
        raise BadInput(poses.uri, 'has no image size: give "w" and "h"')
    if abs(width * size[1] / (height * size[0]) - 1) > 0.02:
        raise BadInput(
            poses.uri,
            f"intrinsics of frame {number} are for {width:g}x{height:g}, but the video, upright, "
            f"has the shape of {size[0]}x{size[1]}",
        )
    for keys, scale in ((_HORIZONTAL, size[0] / width), (_VERTICAL, size[1] / height)):
        entry |= {key: values[key] * scale for key in keys if values[key] is not None}
    return entry | {"w": size[0], "h": size[1]}


def _cameras(poses: Poses, work: Path, progress: Callable[[str], None]) -> dict[str, Camera]:
    """The camera of each photo; the photos, with lens distortion taken out, go to `work/pinhole`.

    A frame whose pose is at fault costs only itself; the readers will say so again.
    """
    scene = NerfstudioScene(Folder(str(work)))
    pinhole = work / "pinhole"
    pinhole.mkdir(exist_ok=True)
    cameras: dict[str, Camera] = {}
    faults: list[BadInput] = []
    for frame_id in scene.frame_ids():
        try:
            frame = scene.load(frame_id)
        except BadInput as fault:
            faults.append(fault)
            progress(f"left out {frame_id}: {fault.reason}")
            continue
        name = posixpath.basename(frame_id)
        cameras[name] = frame.camera
        if frame.jpeg is not None:
            (pinhole / name).write_bytes(frame.jpeg)
        else:
            Image.fromarray(frame.rgb).save(pinhole / name, quality=95)
    if len(cameras) < _LEAST_FRAMES:
        raise BadInput(poses.uri, f"no two keyframes have a usable camera; the first: {faults[0].reason}")
    return cameras
