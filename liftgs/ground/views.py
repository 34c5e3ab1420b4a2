"""Where to look from: the photo that shows most of what was found, or a view of the whole cloud."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from liftgs.geometry import CloudConfig, project, sees
from liftgs.scene import Camera, Frame

#: A cloud taller than this is taken for a room, whose ceiling and near walls would hide what is in it.
_ROOM_HEIGHT_M = 1.8
#: How thick the shell is that is left out of the view then.
_SHELL_M = 0.3
#: A point is hidden if it lies this much behind the depth map.
_DEPTH_SLACK_M = 0.15
_ELEVATION = np.radians(42)
_MARGIN = 0.04  # of the image, on each side


def best_frame(frames: Sequence[Frame], wanted: Sequence[Float[np.ndarray, "k 3"]]) -> Frame:
    """The frame that shows the most of some sets of points: first in share, then in size on the image.

    The first frame if nothing is wanted.
    """

    def appeal(frame: Frame) -> tuple[float, float]:
        shares, areas = zip(*(_shown(frame, xyz) for xyz in wanted), strict=True)
        return round(sum(shares), 1), sum(areas)

    return max(frames, key=appeal) if wanted else frames[0]


def overview(xyz: Float[np.ndarray, "n 3"], wanted: Float[np.ndarray, "k 3"], width: int, height: int) -> Camera:
    """A camera above a corner of the cloud's bounding box, that has all of the box in view; z is up.

    Of the four corners it is the one opposite to the wanted points: things stand with their backs to the nearest wall.
    """
    low, high = xyz.min(axis=0), xyz.max(axis=0)
    centre = (low + high) / 2
    focus = wanted.mean(axis=0) if len(wanted) else centre
    corners = [np.array([x, y]) for x in (-1, 1) for y in (-1, 1)]
    side = min(corners, key=lambda corner: float(corner @ (focus - centre)[:2]))
    backward = np.array([*(side / np.sqrt(2) * np.cos(_ELEVATION)), np.sin(_ELEVATION)])
    right = np.cross([0.0, 0.0, 1.0], backward)
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(-backward, right), -backward], axis=1)  # columns: right, down, forward
    focal = 0.9 * max(width, height)
    box = np.array([[x, y, z] for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])])
    across = np.abs((box - centre) @ rotation[:, :2])
    limit = (0.5 - _MARGIN) * np.array([width, height]) / focal
    along = (box - centre) @ rotation[:, 2]
    distance = float((across / limit - along[:, None]).max())
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation, centre + max(distance, 0.5) * backward
    return Camera(np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]]), pose, width, height)


def inside_of_shell(xyz: Float[np.ndarray, "n 3"], camera: Camera) -> Bool[np.ndarray, " n"]:
    """Which points are not part of a room's ceiling or of its two walls nearest to the camera; else all of them."""
    low, high = xyz.min(axis=0), xyz.max(axis=0)
    if high[2] - low[2] < _ROOM_HEIGHT_M:
        return np.ones(len(xyz), bool)
    kept = xyz[:, 2] < high[2] - _SHELL_M
    position = camera.cam_to_world[:3, 3]
    for axis in (0, 1):
        if position[axis] > (low + high)[axis] / 2:
            kept &= xyz[:, axis] < high[axis] - _SHELL_M
        else:
            kept &= xyz[:, axis] > low[axis] + _SHELL_M
    return kept


def _shown(frame: Frame, xyz: Float[np.ndarray, "k 3"]) -> tuple[float, float]:
    """The share of the points that the frame sees, and how much of the image their bounding rectangle covers."""
    seen = sees(frame.camera, xyz, CloudConfig())
    if frame.depth is not None and seen.any():
        height, width = frame.depth.shape
        pixels, z = project(xyz[seen], frame.camera.resized(width, height))
        column, row = np.minimum(pixels.astype(int), (width - 1, height - 1)).T
        surface = frame.depth[row, column]
        seen[seen] = (surface <= 0) | (z <= surface + _DEPTH_SLACK_M)
    if not seen.any():
        return 0.0, 0.0
    pixels, _ = project(xyz[seen], frame.camera)
    area = np.ptp(pixels, axis=0).prod() / (frame.camera.width * frame.camera.height)
    return float(seen.mean()), float(area)
