"""Text matrices, quaternions and intrinsics of foreign files -> Camera, blaming the file that is at fault."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from liftgs.scene import BadInput, Camera

#: OpenGL camera axes (x right, y up, z backward) -> OpenCV (x right, y down, z forward), as a right factor of a pose
OPENGL_TO_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])


def parse_matrix(text: str, uri: str, what: str) -> Float[np.ndarray, "r c"]:
    """A matrix as rows of numbers separated by blanks or commas.

    Raises:
        BadInput: words that are not numbers, or rows of different length.
    """
    try:
        rows = [[float(word) for word in line.replace(",", " ").split()] for line in text.splitlines() if line.strip()]
    except ValueError as fault:
        raise BadInput(uri, f"{what} holds something that is not a number ({fault})") from None
    if len({len(row) for row in rows}) != 1:
        raise BadInput(uri, f"{what} has rows of lengths {[len(row) for row in rows][:8]}, not a matrix")
    return np.array(rows)


def parse_pose(text: str, uri: str) -> Float[np.ndarray, "4 4"]:
    """A 4x4 matrix, checked for its shape only.

    Raises:
        BadInput: not 4x4 numbers.
    """
    pose = parse_matrix(text, uri, "the pose")
    if pose.shape != (4, 4):
        raise BadInput(uri, f"the pose is {pose.shape[0]}x{pose.shape[1]}, not 4x4")
    return pose


def parse_intrinsics(text: str, uri: str) -> Float[np.ndarray, "3 3"]:
    """A 3x3 intrinsics matrix, or the upper left of a 4x4.

    Raises:
        BadInput: neither, or not a pinhole matrix (skew, or a last row other than 0 0 1).
    """
    matrix = parse_matrix(text, uri, "the intrinsics file")
    if matrix.shape not in ((3, 3), (4, 4)):
        raise BadInput(uri, f"the intrinsics are {matrix.shape[0]}x{matrix.shape[1]}, not 3x3 or 4x4")
    K = matrix[:3, :3]
    if not np.isfinite(K).all() or np.abs([K[0, 1], K[1, 0], K[2, 0], K[2, 1], K[2, 2] - 1]).max() > 1e-3:
        raise BadInput(uri, f"absurd intrinsics: {K.tolist()} is not [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]")
    return K


def pinhole(fx: float, fy: float, cx: float, cy: float) -> Float[np.ndarray, "3 3"]:
    """The intrinsics matrix."""
    return np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])


def rotation(quaternion_wxyz: Float[np.ndarray, " 4"], uri: str) -> Float[np.ndarray, "3 3"]:
    """Rotation matrix of a quaternion of any length, scalar first.

    Raises:
        BadInput: not finite, or zero.
    """
    norm = np.linalg.norm(quaternion_wxyz)
    if not np.isfinite(norm) or norm < 1e-6:
        raise BadInput(uri, f"quaternion {np.asarray(quaternion_wxyz).tolist()} is no rotation (lost tracking)")
    w, x, y, z = quaternion_wxyz / norm
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def pose(R: Float[np.ndarray, "3 3"], t: Float[np.ndarray, " 3"]) -> Float[np.ndarray, "4 4"]:
    """The 4x4 matrix of a rotation and a translation."""
    matrix = np.eye(4)
    matrix[:3, :3] = R
    matrix[:3, 3] = t
    return matrix


def check_rigid(matrix: Float[np.ndarray, "4 4"], uri: str, what: str) -> None:
    """That a matrix only turns and moves.

    Raises:
        BadInput: it is not finite, or scales, shears or mirrors.
    """
    R = matrix[:3, :3]
    finite = np.isfinite(matrix).all()
    if not finite or not np.allclose(R @ R.T, np.eye(3), atol=1e-2) or np.linalg.det(R) < 0:
        raise BadInput(uri, f"{what} is no rotation and translation: {matrix.tolist()}")


def make_camera(
    K: Float[np.ndarray, "3 3"],
    cam_to_world: Float[np.ndarray, "4 4"],
    size: tuple[int, int],
    intrinsics_uri: str,
    pose_uri: str,
) -> Camera:
    """A camera whose rotation is made exactly orthonormal (text files round it).

    Raises:
        BadInput: impossible intrinsics or pose, naming the file they came from.
    """
    try:
        Camera(K, np.eye(4), *size)
    except ValueError as fault:
        raise BadInput(intrinsics_uri, str(fault)) from None
    try:
        Camera(K, cam_to_world, *size)
    except ValueError as fault:
        raise BadInput(pose_uri, str(fault)) from None
    U, _, Vt = np.linalg.svd(cam_to_world[:3, :3])
    return Camera(K, pose(U @ Vt, cam_to_world[:3, 3]), *size)
