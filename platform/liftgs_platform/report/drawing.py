"""Pictures for reports: tinted masks, a splatted cloud, images as data URIs. Knows nothing of corpora."""

from __future__ import annotations

import base64
import colorsys
import io

import numpy as np
from jaxtyping import Float, UInt8, UInt16
from PIL import Image

from liftgs.scene import Camera, PointCloud

GOLDEN_RATIO = 0.618033988749895


def segment_colours(count: int) -> UInt8[np.ndarray, "n 3"]:
    """Well-separated colours, the same for the same index everywhere: hues step by the golden ratio."""
    colours = [colorsys.hsv_to_rgb((0.02 + i * GOLDEN_RATIO) % 1, 0.75 - 0.25 * (i % 2), 0.95) for i in range(count)]
    return (np.array(colours).reshape(-1, 3) * 255).astype(np.uint8)


def overlay(
    rgb: UInt8[np.ndarray, "h w 3"], semantics: UInt16[np.ndarray, "h w"], opacity: float = 0.55
) -> UInt8[np.ndarray, "h w 3"]:
    """The photo with each segment tinted in its `segment_colours` and outlined in white; no segment = dimmed photo."""
    colours = np.concatenate([np.zeros((1, 3), np.uint8), segment_colours(int(semantics.max(initial=0)))])
    tinted = (1 - opacity) * rgb + opacity * colours[semantics]
    outline = np.zeros(semantics.shape, bool)
    outline[:, 1:] |= semantics[:, 1:] != semantics[:, :-1]
    outline[1:] |= semantics[1:] != semantics[:-1]
    tinted[outline] = 255
    return tinted.astype(np.uint8)


def splat(cloud: PointCloud, camera: Camera, point_size_m: float, background: int = 24) -> UInt8[np.ndarray, "h w 3"]:
    """Draw each point as a square of `point_size_m`, facing the camera, nearest on top."""
    in_camera = cloud.xyz @ camera.world_to_cam[:3, :3].T + camera.world_to_cam[:3, 3]
    front = in_camera[:, 2] > 0.05
    x, y, z = in_camera[front].T
    rgb = cloud.rgb[front]
    u = camera.K[0, 0] * x / z + camera.K[0, 2]
    v = camera.K[1, 1] * y / z + camera.K[1, 2]
    radius = np.clip(0.5 * point_size_m * camera.K[0, 0] / z, 0.5, 40)
    onscreen = (u > -radius) & (u < camera.width + radius) & (v > -radius) & (v < camera.height + radius)
    u, v, z, radius, rgb = u[onscreen], v[onscreen], z[onscreen], radius[onscreen], rgb[onscreen]

    image = np.full((camera.height * camera.width, 3), background, np.uint8)
    pixels, points = _footprints(u, v, radius, camera.width, camera.height)
    far_first = np.argsort(-z[points], kind="stable")
    image[pixels[far_first]] = rgb[points[far_first]]  # where an index repeats, the last (nearest) wins
    return image.reshape(camera.height, camera.width, 3)


def _footprints(
    u: np.ndarray, v: np.ndarray, radius: np.ndarray, width: int, height: int
) -> tuple[np.ndarray, np.ndarray]:
    """Flat pixel indices of every point's square, and which point each belongs to."""
    x0, x1 = np.floor(u - radius).clip(0, width), np.ceil(u + radius).clip(0, width)
    y0, y1 = np.floor(v - radius).clip(0, height), np.ceil(v + radius).clip(0, height)
    columns, rows = (x1 - x0).astype(int), (y1 - y0).astype(int)
    counts = columns * rows
    points = np.repeat(np.arange(len(u)), counts)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    column, row = within % columns[points], within // columns[points]
    return ((y0[points].astype(int) + row) * width + x0[points].astype(int) + column), points


def overhead_camera(xyz: Float[np.ndarray, "n 3"], size: int, elevation_deg: float = 60.0) -> Camera:
    """A camera above one corner of a z-up cloud, looking down at its middle and just holding all of it."""
    low, high = xyz.min(0), xyz.max(0)
    centre, radius = (low + high) / 2, float(np.linalg.norm(high - low)) / 2
    elevation, azimuth = np.radians(elevation_deg), np.radians(-120.0)
    focal = 1.2 * size
    distance = 1.02 * radius * float(np.hypot(1, focal / (size / 2)))
    backward = np.array([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)])
    right = np.cross([0, 0, 1.0], backward)
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(-backward, right), -backward], axis=1)
    pose[:3, 3] = centre + distance * backward
    return Camera(np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]]), pose, size, size)


def data_uri(image: UInt8[np.ndarray, "h w 3"], longest_px: int = 384, quality: int = 82) -> str:
    """A WebP `data:` URI, shrunk so that the longer side is at most `longest_px`."""
    picture = Image.fromarray(image)
    picture.thumbnail((longest_px, longest_px), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=quality)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
