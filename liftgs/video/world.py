"""Where a reconstruction lies: structure from motion leaves place, orientation and scale open; here they are settled.

Scale: half of what the cameras saw was nearer than `median_distance_m`. That is a guess from how people film rooms,
good to a factor of two, and what the pipeline calls 5 cm is 5 cm of that guess. Who knows one true length gives the
readers `ReaderOptions.metres_per_unit` = true / reconstructed length.

Up: people tilt cameras but hardly roll them, so the cameras' right directions all lie level, and what is most nearly at
right angles to them is up. A camera that never turns has one right direction only; then the mean of the pictures' ups
decides, which tilting biases (by 2 to 20 degrees in the embedded rooms, against 0 to 5). Where the ups disagree (a
camera that was turned about its axis), the world stays as it is.
"""

from __future__ import annotations

import numpy as np
import pycolmap
from jaxtyping import Float

from liftgs.scene import Gravity

_MEAN_UP_WEIGHT = 0.03
_LEAST_AGREEMENT = 0.5  # length of the mean of unit vectors that point, on average, 60 degrees away from it


def settle(model: pycolmap.Reconstruction, median_distance_m: float) -> dict[str, object]:
    """Turn, scale and shift a model in place: up is +z, the cameras' mean position is the origin.

    Returns:
        What was done and how sure it is; `gravity` is what a reader should say of the world.
    """
    order = sorted(image.image_id for image in model.images.values() if image.has_pose)
    poses = [model.images[i].cam_from_world().inverse().matrix() for i in order]
    rotations, centres = np.array([pose[:, :3] for pose in poses]), np.array([pose[:, 3] for pose in poses])
    scale = median_distance_m / float(np.median(_distances(model, order)))
    to_z_up, gravity = level(rotations)
    shift = -scale * to_z_up @ centres.mean(0)
    model.transform(pycolmap.Sim3d(scale, pycolmap.Rotation3d(to_z_up), shift))
    return {
        "gravity": gravity,
        "up": "at right angles to the cameras' right directions"
        if gravity == "estimated"
        else "as the reconstruction had it",
        "scale": f"the median distance from a camera to what it sees was set to {median_distance_m:g} m",
        "reconstruction_to_world": {"scale": scale, "rotation": to_z_up.tolist(), "translation": shift.tolist()},
    }


def level(cam_to_world: Float[np.ndarray, "n 3 3"]) -> tuple[Float[np.ndarray, "3 3"], Gravity]:
    """The rotation that brings the up of cameras (OpenCV axes) to +z and the first camera's right near +x."""
    mean_up = -cam_to_world[:, :, 1].mean(0)
    if np.linalg.norm(mean_up) < _LEAST_AGREEMENT:
        return np.eye(3), "unknown"
    mean_up /= np.linalg.norm(mean_up)
    rights = cam_to_world[:, :, 0]
    # z minimises the mean of (z . right)^2 + weight * |part of z across the mean up|^2
    across = np.eye(3) - np.outer(mean_up, mean_up)
    z = np.linalg.eigh(rights.T @ rights / len(rights) + _MEAN_UP_WEIGHT * across).eigenvectors[:, 0]
    z *= np.sign(z @ mean_up)
    right = cam_to_world[0, :, 0] - (cam_to_world[0, :, 0] @ z) * z
    if np.linalg.norm(right) < 1e-3:  # the first camera lies on its side
        right = np.cross(np.eye(3)[np.abs(z).argmin()], z)
    x = right / np.linalg.norm(right)
    return np.stack([x, np.cross(z, x), z]), "estimated"


def _distances(model: pycolmap.Reconstruction, images: list[int]) -> Float[np.ndarray, " n"]:
    """From each camera to each point that it observes."""
    parts = []
    for i in images:
        image = model.images[i]
        seen = [model.points3D[point.point3D_id].xyz for point in image.points2D if point.has_point3D()]
        parts.append(np.linalg.norm(np.array(seen).reshape(-1, 3) - image.projection_center(), axis=1))
    return np.concatenate(parts)
