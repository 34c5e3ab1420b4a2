"""Where to look from: the photo that shows most of what was found, or a view of the whole cloud, and what hides it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from liftgs.geometry import CloudConfig, project, sees
from liftgs.scene import Camera, Frame

#: A cloud taller than this is taken for a room, whose ceiling and near walls would hide what is in it.
_ROOM_HEIGHT_M = 1.8
#: How thick the shell is that is left out of the view then.
_SHELL_M = 0.3
#: A point is hidden if it lies this much behind the depth map.
_DEPTH_SLACK_M = 0.15
#: A scan of which less than this lies inside the shell is one of a wall or a ceiling.
_LEAST_INSIDE = 0.3
_ELEVATION = np.radians(42)
_MARGIN = 0.04  # of the image, on each side
_NEAREST_M = 0.5


def best_frame(frames: Sequence[Frame], wanted: Sequence[Float[np.ndarray, "k 3"]]) -> Frame:
    """The frame that shows the most of some sets of points: first in share, then in size on the image.

    The first frame if nothing is wanted.
    """

    def appeal(frame: Frame) -> tuple[float, float]:
        shares, areas = zip(*(_shown(frame, xyz) for xyz in wanted), strict=True)
        return round(sum(shares), 1), sum(areas)

    return max(frames, key=appeal) if wanted else frames[0]


def overview(
    xyz: Float[np.ndarray, "n 3"], wanted: Float[np.ndarray, "k 3"], width: int, height: int
) -> tuple[Camera, Bool[np.ndarray, " n"]]:
    """A camera above a corner of the cloud, and the points that it should see, all of them in view; z is up.

    Of the four corners it is the one opposite to the wanted points: things stand with their backs to the nearest wall.
    Of a cloud as tall as a room, the ceiling and the two walls nearest to the camera are left out, unless that is
    nearly all of it.
    """
    low, high = xyz.min(axis=0), xyz.max(axis=0)
    focus = wanted.mean(axis=0) if len(wanted) else high
    side = np.where(focus[:2] > (low + high)[:2] / 2, -1, 1)
    shown = np.ones(len(xyz), bool)
    if high[2] - low[2] > _ROOM_HEIGHT_M:
        shell = np.array([*np.where(side > 0, high[:2], low[:2]), high[2]])
        shown = (np.abs(xyz - shell) > _SHELL_M).all(axis=1)
        if shown.mean() < _LEAST_INSIDE:
            shown[:] = True
    backward = np.array([*(side / np.sqrt(2) * np.cos(_ELEVATION)), np.sin(_ELEVATION)])
    return _facing(xyz[shown], backward, width, height), shown


def walls(xyz: Float[np.ndarray, "n 3"]) -> Int[np.ndarray, " n"]:
    """Which side of the room each point is part of.

    Returns:
        0, 1, 2 for the sides at the least x, y, z; 3, 4, 5 for those at the greatest; -1 for what is inside. All are
        inside if the cloud is not as large as a room in every direction, or if its sides are nearly all of it.
    """
    gaps = np.concatenate([xyz - xyz.min(axis=0), xyz.max(axis=0) - xyz], axis=1)
    side = np.where(gaps.min(axis=1) <= _SHELL_M, gaps.argmin(axis=1), -1)
    most_hidden = np.bincount(side[side >= 0], minlength=6).reshape(2, 3).max(axis=0).sum()
    if np.ptp(xyz, axis=0).min() <= _ROOM_HEIGHT_M or most_hidden > (1 - _LEAST_INSIDE) * len(xyz):
        side[:] = -1
    return side


def walls_before(xyz: Float[np.ndarray, "n 3"], position: Float[np.ndarray, " 3"]) -> frozenset[int]:
    """The sides that a camera at some place, outside the cloud's box, has between itself and the inside."""
    outside = np.concatenate([position < xyz.min(axis=0), position > xyz.max(axis=0)])
    return frozenset(np.flatnonzero(outside).tolist())


def _facing(xyz: Float[np.ndarray, "n 3"], backward: Float[np.ndarray, " 3"], width: int, height: int) -> Camera:
    """The nearest camera that looks against `backward` and has all points in view."""
    right = np.cross([0.0, 0.0, 1.0], backward)
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(-backward, right), -backward], axis=1)  # columns: right, down, forward
    turned = xyz @ rotation
    middle = (turned.min(axis=0) + turned.max(axis=0)) / 2
    focal = 0.9 * max(width, height)
    limit = (0.5 - _MARGIN) * np.array([width, height]) / focal
    across, along = np.abs(turned - middle)[:, :2], (turned - middle)[:, 2]
    distance = max(float((across / limit - along[:, None]).max()), _NEAREST_M)
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation, rotation @ middle + distance * backward
    return Camera(np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]]), pose, width, height)


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
