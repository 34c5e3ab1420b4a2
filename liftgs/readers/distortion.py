"""Lens distortion, and how to take it out of photos and depth maps. Knows nothing of formats."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
from jaxtyping import Float, Float32, Shaped, UInt8
from scipy import ndimage

from liftgs.readers.cameras import pinhole


class Lens(Protocol):
    """Where a lens puts what an ideal one, of the same focal lengths, would see elsewhere."""

    def __bool__(self) -> bool:
        """Whether there is any distortion."""

    def __hash__(self) -> int:
        """Equal for equal lenses."""

    def distort(
        self, x: Float[np.ndarray, "*s"], y: Float[np.ndarray, "*s"]
    ) -> tuple[Float[np.ndarray, "*s"], Float[np.ndarray, "*s"]]:
        """Ideal -> distorted coordinates on the plane z = 1."""


@dataclass(frozen=True)
class Distortion:
    """The Brown-Conrady model, as OpenCV and COLMAP's OPENCV, RADIAL and SIMPLE_RADIAL define it.

    (x, y) on the plane z = 1, r^2 = x^2 + y^2, is seen at
        x (1 + k1 r^2 + k2 r^4 + k3 r^6) + 2 p1 x y + p2 (r^2 + 2 x^2)
        y (1 + k1 r^2 + k2 r^4 + k3 r^6) + p1 (r^2 + 2 y^2) + 2 p2 x y
    """

    k1: float = 0.0
    k2: float = 0.0
    k3: float = 0.0
    p1: float = 0.0
    p2: float = 0.0

    def __bool__(self) -> bool:
        """Whether there is any distortion."""
        return any(astuple(self))

    def distort(
        self, x: Float[np.ndarray, "*s"], y: Float[np.ndarray, "*s"]
    ) -> tuple[Float[np.ndarray, "*s"], Float[np.ndarray, "*s"]]:
        """Ideal -> distorted coordinates on the plane z = 1."""
        r2 = x * x + y * y
        radial = 1 + r2 * (self.k1 + r2 * (self.k2 + r2 * self.k3))
        return (
            x * radial + 2 * self.p1 * x * y + self.p2 * (r2 + 2 * x * x),
            y * radial + self.p1 * (r2 + 2 * y * y) + 2 * self.p2 * x * y,
        )


@dataclass(frozen=True)
class Fisheye:
    """The equidistant model, as OpenCV's `fisheye` and COLMAP's OPENCV_FISHEYE define it.

    A ray at the angle t from the optical axis is seen at the distance t (1 + k1 t^2 + k2 t^4 + k3 t^6 + k4 t^8) from
    the principal point, in units of the focal length, in the direction in which it leaves the axis.
    """

    k1: float = 0.0
    k2: float = 0.0
    k3: float = 0.0
    k4: float = 0.0

    def __bool__(self) -> bool:
        """Always: without coefficients it is still no pinhole."""
        return True

    def distort(
        self, x: Float[np.ndarray, "*s"], y: Float[np.ndarray, "*s"]
    ) -> tuple[Float[np.ndarray, "*s"], Float[np.ndarray, "*s"]]:
        """Ideal -> distorted coordinates on the plane z = 1."""
        r = np.hypot(x, y)
        t = np.arctan(r)
        t2 = t * t
        seen_at = t * (1 + t2 * (self.k1 + t2 * (self.k2 + t2 * (self.k3 + t2 * self.k4))))
        scale = np.where(r > 0, seen_at / np.where(r > 0, r, 1), 1)
        return x * scale, y * scale


NO_DISTORTION = Distortion()


def ideal_intrinsics(K: Float[np.ndarray, "3 3"], distortion: Lens, size: tuple[int, int]) -> Float[np.ndarray, "3 3"]:
    """Intrinsics of the undistorted image, of the same size and centre.

    The focal lengths are those of `K`, or as little larger as it takes for every pixel to come from inside the
    distorted image: the undistorted one has no empty border. So the middle of the image keeps its scale, and a lens
    that sees more than a pinhole camera of its focal lengths (a fisheye) loses its margin.

    Raises:
        ValueError: the model folds over within the image, or leaves most of it empty; it does not fit the lens.
    """
    border = _border(K, size)
    reach = np.linspace(0, np.hypot(*border).max(), 257)
    folds = (np.diff(distortion.distort(reach, np.zeros_like(reach))[0]) <= 0).any()
    if folds or not _fits(2.0, border, K, distortion, size):
        raise ValueError(f"lens distortion {distortion} does not fit a {size[0]}x{size[1]} image")
    zoom = 1.0
    if not _fits(zoom, border, K, distortion, size):
        low, zoom = 1.0, 2.0
        for _ in range(30):
            middle = (low + zoom) / 2
            low, zoom = (low, middle) if _fits(middle, border, K, distortion, size) else (middle, zoom)
    return pinhole(K[0, 0] * zoom, K[1, 1] * zoom, K[0, 2], K[1, 2])


def undistort_photo(
    rgb: UInt8[np.ndarray, "h w 3"],
    K: Float[np.ndarray, "3 3"],
    distortion: Lens,
    ideal: Float[np.ndarray, "3 3"],
) -> UInt8[np.ndarray, "h w 3"]:
    """The photo as a pinhole camera `ideal` would have taken it; bilinear."""
    return sample_linear(rgb, *_source_pixels(_key(K), distortion, _key(ideal), rgb.shape[:2]))


def undistort_depth(
    depth: Float32[np.ndarray, "h w"],
    K: Float[np.ndarray, "3 3"],
    distortion: Lens,
    ideal: Float[np.ndarray, "3 3"],
) -> Float32[np.ndarray, "h w"]:
    """The depth map as seen by `ideal`; the nearest pixel, since a mean of two depths is neither.

    Also moves a depth map between two pinhole cameras at one place (`distortion` = none). Pixels from outside are 0.
    """
    nearest = _nearest_pixels(_key(K), distortion, _key(ideal), depth.shape)
    return np.append(depth.ravel(), np.float32(0)).take(nearest)


def sample_linear(
    rgb: UInt8[np.ndarray, "h w 3"], rows: Shaped[np.ndarray, "oh ow"], columns: Shaped[np.ndarray, "oh ow"]
) -> UInt8[np.ndarray, "oh ow 3"]:
    """A photo at fractional array indices; bilinear, and the nearest pixel's colour outside."""
    channels = [
        ndimage.map_coordinates(rgb[..., c].astype(np.float32), (rows, columns), order=1, mode="nearest")
        for c in range(3)
    ]
    return np.rint(np.stack(channels, -1)).astype(np.uint8)


def sample_nearest(
    image: Shaped[np.ndarray, "h w"], rows: Shaped[np.ndarray, "oh ow"], columns: Shaped[np.ndarray, "oh ow"]
) -> Shaped[np.ndarray, "oh ow"]:
    """Depth or ids at fractional array indices: the pixel that holds each; 0 outside."""
    row, column = np.rint(rows).astype(np.int64), np.rint(columns).astype(np.int64)
    height, width = image.shape
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    return np.where(inside, image[row.clip(0, height - 1), column.clip(0, width - 1)], image.dtype.type(0))


def _border(K: Float[np.ndarray, "3 3"], size: tuple[int, int]) -> Float[np.ndarray, "2 n"]:
    """Points along the four edges of an image, on the plane z = 1."""
    width, height = size
    s = np.linspace(0, 1, 65)
    u = np.concatenate([s * width, s * width, 0 * s, 0 * s + width])
    v = np.concatenate([0 * s, 0 * s + height, s * height, s * height])
    return np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1]])


def _fits(
    zoom: float,
    border: Float[np.ndarray, "2 n"],
    K: Float[np.ndarray, "3 3"],
    distortion: Lens,
    size: tuple[int, int],
) -> bool:
    """Whether the border of an ideal image with focal lengths `zoom` times those of `K` comes from inside `size`."""
    x, y = distortion.distort(*(border / zoom))
    u, v = x * K[0, 0] + K[0, 2], y * K[1, 1] + K[1, 2]
    slack = 1e-6 * max(size)
    return bool(min(u.min(), v.min()) >= -slack and u.max() <= size[0] + slack and v.max() <= size[1] + slack)


@lru_cache(maxsize=2)  # all frames of a scene share one photo map and one depth map
def _source_pixels(
    K: tuple[float, ...], distortion: Lens, ideal: tuple[float, ...], shape: tuple[int, int]
) -> tuple[Shaped[np.ndarray, "h w"], Shaped[np.ndarray, "h w"]]:
    """Array index (row, column), fractional, in the distorted image of each pixel of the ideal one."""
    fx, fy, cx, cy = ideal
    x = (np.arange(shape[1]) + 0.5 - cx) / fx
    y = (np.arange(shape[0]) + 0.5 - cy) / fy
    xd, yd = distortion.distort(*np.meshgrid(x, y))
    fx, fy, cx, cy = K
    return (yd * fy + cy - 0.5).astype(np.float32), (xd * fx + cx - 0.5).astype(np.float32)


@lru_cache(maxsize=2)
def _nearest_pixels(
    K: tuple[float, ...], distortion: Lens, ideal: tuple[float, ...], shape: tuple[int, int]
) -> Shaped[np.ndarray, "h w"]:
    """Flat index in the distorted image of the pixel nearest to each of the ideal one; h * w where that is outside."""
    rows, columns = _source_pixels(K, distortion, ideal, shape)
    row, column = np.rint(rows).astype(np.int64), np.rint(columns).astype(np.int64)
    inside = (row >= 0) & (row < shape[0]) & (column >= 0) & (column < shape[1])
    return np.where(inside, row * shape[1] + column, shape[0] * shape[1])


def _key(K: Float[np.ndarray, "3 3"]) -> tuple[float, float, float, float]:
    return float(K[0, 0]), float(K[1, 1]), float(K[0, 2]), float(K[1, 2])
