"""An analytic scene for reader tests: a room with a crate, whose colour at a point is a function of the point.

Because colour tells position, a cloud that is read back proves poses, intrinsics, depth and colour at once, without
comparing it with anything that a reader made.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from liftgs.chunks import load_chunk, plan_chunks
from liftgs.geometry import CloudConfig, project
from liftgs.scene import Camera

ROOM = np.array([[0.0, 0, 0], [4, 3, 2.5]])
CRATE = np.array([[1.4, 1.0, 0], [2.2, 1.6, 0.8]])
WIDTH, HEIGHT = 160, 120
K = np.array([[130.0, 0, 83.0], [0, 126.0, 58.0], [0, 0, 1]])  # off centre and not square, so that mix-ups show


def look_at(eye, target) -> np.ndarray:
    """Camera-to-world with OpenCV axes, z up in the world."""
    forward = np.subtract(target, eye) / np.linalg.norm(np.subtract(target, eye))
    right = np.cross(forward, (0, 0, 1))
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], 1)
    pose[:3, 3] = eye
    return pose


POSES = [
    look_at((0.4, 0.5, 1.6), (2.2, 1.6, 0.6)),
    look_at((3.5, 0.4, 1.4), (1.4, 1.6, 0.5)),
    look_at((3.3, 2.7, 1.9), (1.5, 0.8, 0.3)),
]
CAMERAS = [Camera(K, pose, WIDTH, HEIGHT) for pose in POSES]


def colour(xyz: np.ndarray) -> np.ndarray:
    """Linear in the position; hence the mean colour of points is the colour of their mean."""
    return 20 + 215 * xyz / ROOM[1]


def render_rays(rays: np.ndarray, cam_to_world: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colour (float) and z-depth along camera rays with z = 1."""
    origin = cam_to_world[:3, 3]
    with np.errstate(divide="ignore"):
        inverse = 1 / (rays @ cam_to_world[:3, :3].T)
    z = np.maximum((ROOM[0] - origin) * inverse, (ROOM[1] - origin) * inverse).min(-1)  # leave the room
    near = np.minimum((CRATE[0] - origin) * inverse, (CRATE[1] - origin) * inverse).max(-1)
    far = np.maximum((CRATE[0] - origin) * inverse, (CRATE[1] - origin) * inverse).min(-1)
    z = np.where((near > 0) & (near <= far), near, z)
    return colour(origin + z[..., None] / inverse), z


def rays_of(camera: Camera) -> np.ndarray:
    """The ray through each pixel's centre."""
    u, v = np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5)
    k = camera.K
    return np.stack([(u - k[0, 2]) / k[0, 0], (v - k[1, 2]) / k[1, 1], np.ones_like(u)], -1)


def photo(camera: Camera) -> np.ndarray:
    """uint8 [H, W, 3]."""
    return np.rint(render_rays(rays_of(camera), camera.cam_to_world)[0]).astype(np.uint8)


def depth_m(camera: Camera) -> np.ndarray:
    """float64 [H, W]."""
    return render_rays(rays_of(camera), camera.cam_to_world)[1]


def png(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG")
    return stream.getvalue()


def jpeg(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "JPEG", quality=98, subsampling=0)
    return stream.getvalue()


def depth_png(depth: np.ndarray, units_per_m: float = 1000.0) -> bytes:
    return png(np.rint(depth * units_per_m).astype(np.uint16))


def matrix_text(matrix: np.ndarray) -> bytes:
    return "\n".join(" ".join(f"{value:.9f}" for value in row) for row in matrix).encode()


def points_on_surfaces(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Points in the world and their uint8 colours, as a structure-from-motion cloud would have them."""
    rng = np.random.default_rng(seed)
    xyz = []
    for camera in CAMERAS:
        depth = depth_m(camera)
        row, column = rng.integers(0, HEIGHT, count), rng.integers(0, WIDTH, count)
        local = rays_of(camera)[row, column] * depth[row, column, None]
        xyz.append(local @ camera.cam_to_world[:3, :3].T + camera.cam_to_world[:3, 3])
    points = np.concatenate(xyz)
    return points, np.rint(colour(points)).astype(np.uint8)


def write_files(root, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)


def assert_cameras(scene, ids, camera_K=K, poses=POSES) -> list:
    """The scene has these frames, with these cameras; returns the frames."""
    assert list(scene.frame_ids()) == ids
    frames = [scene.load(frame_id) for frame_id in ids]
    for frame, pose in zip(frames, poses, strict=True):
        np.testing.assert_allclose(frame.camera.K, camera_K, atol=1e-4)
        np.testing.assert_allclose(frame.camera.cam_to_world, pose, atol=1e-6)
        assert frame.rgb.shape == (frame.camera.height, frame.camera.width, 3)
    return frames


def assert_cloud_projects_into_frames(scene, colour_tolerance: float = 4.0, share: float = 1.0) -> None:
    """The cloud lies on the room's surfaces, and agrees with the depth and colour of every frame that sees it.

    Where photo and depth are of different sizes, a pixel on a silhouette may have the depth of one side and the colour
    of the other, so `share` of the points must agree.
    """
    [chunk] = plan_chunks(scene)
    loaded = load_chunk(scene, chunk, CloudConfig(voxel_size_m=0.05))
    assert loaded.failures == []
    cloud = loaded.cloud
    assert len(cloud) > 2000
    off = np.abs(cloud.rgb - colour(cloud.xyz)).max(1)  # colour tells position
    assert np.mean(off <= colour_tolerance) >= share, off.max()
    for frame in loaded.frames:
        pixels, z = project(cloud.xyz.astype(np.float64), frame.camera)
        inside = (z > 0.1) & (pixels >= 0).all(1) & (pixels < (frame.camera.width, frame.camera.height)).all(1)
        column, row = pixels[inside].astype(int).T
        truth = depth_m(frame.camera)[row, column]
        assert np.mean(z[inside] < truth - 0.1) < 0.01  # nothing floats before a surface
        surface = np.abs(z[inside] - truth) < 0.05
        assert surface.sum() > 500
        seen = frame.rgb[row, column][surface].astype(float)
        assert np.mean(np.abs(seen - cloud.rgb[inside][surface]).max(1) < 12) > 0.97
        if frame.depth is not None:
            height, width = frame.depth.shape
            stored = frame.depth[row * height // frame.camera.height, column * width // frame.camera.width]
            assert np.mean(np.abs(stored - z[inside])[surface] < 0.08) > 0.95
