"""Depth maps from the camera that measured them into the view of another. Knows nothing of formats."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float32

from liftgs.geometry import project, unproject
from liftgs.readers.distortion import NO_DISTORTION, undistort_depth
from liftgs.scene import Camera


def register_depth(
    depth: Float32[np.ndarray, "h w"],
    depth_K: Float[np.ndarray, "3 3"],
    photo_K: Float[np.ndarray, "3 3"],
    depth_to_photo: Float[np.ndarray, "4 4"],
) -> Float32[np.ndarray, "h w"]:
    """The depth map as the photo's camera would have measured it; 0 where it sees what the depth camera did not.

    From one place, each pixel takes the depth of the nearest one. From two, each point is moved, and where several come
    to one pixel the foremost wins.

    Args:
        depth: metres, 0 = invalid.
        depth_K: of the camera that measured it.
        photo_K: of the photo, for an image as large as `depth`.
        depth_to_photo: rigid transform between the two cameras.
    """
    if np.allclose(depth_to_photo, np.eye(4), atol=1e-6):
        return undistort_depth(depth, depth_K, NO_DISTORTION, photo_K)
    height, width = depth.shape
    camera = Camera(depth_K, depth_to_photo, width, height)
    # As many points per pixel as it takes for the photo's camera, if its focal length is longer, to see no gaps.
    finer = 1 + int(np.max(photo_K[[0, 1], [0, 1]] / depth_K[[0, 1], [0, 1]]))
    points, _ = unproject(depth.repeat(finer, 0).repeat(finer, 1), camera)
    pixels, z = project(points.astype(np.float64), Camera(photo_K, np.eye(4), width, height))
    inside = (z > 0) & (pixels >= 0).all(1) & (pixels < (width, height)).all(1)
    column, row = pixels[inside].astype(np.int64).T
    nearest = np.full(depth.shape, np.inf, np.float32)
    np.minimum.at(nearest, (row, column), z[inside].astype(np.float32))
    return np.where(np.isfinite(nearest), nearest, np.float32(0))
