"""Project Aria's fisheye lens, and how its images become those of a pinhole. Knows nothing of formats."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Shaped


@dataclass(frozen=True)
class Fisheye624:
    """Aria's "Fisheye624" model: 6 radial, 2 tangential and 4 thin-prism coefficients.

    A ray at angle a from the optical axis lands at radius r = a + k0 a^3 + k1 a^5 + .. + k5 a^13, in its own direction:
    at (x, y) with x^2 + y^2 = r^2. Decentring then moves it to
        x + p0 (3 x^2 + y^2) + 2 p1 x y + s0 r^2 + s1 r^4
        y + p1 (x^2 + 3 y^2) + 2 p0 x y + s2 r^2 + s3 r^4
    and the pixel is focal times that, plus the principal point.

    Attributes:
        focal: pixels.
        cx: principal point, pixels, centre of the first pixel at 0.5 (Aria's own files put it at 0).
        cy: likewise.
        radial: k0 .. k5.
        tangential: p0, p1.
        prism: s0 .. s3.
        valid_radius: pixels farther from the principal point see nothing.

    Source: projectaria_tools, core/calibration/camera_projections/FisheyeRadTanThinPrism.h
    """

    focal: float
    cx: float
    cy: float
    radial: tuple[float, float, float, float, float, float]
    tangential: tuple[float, float]
    prism: tuple[float, float, float, float]
    valid_radius: float

    def scaled(self, factor: float) -> Fisheye624:
        """The same lens with its image resampled to `factor` times the size."""
        return replace(
            self,
            focal=self.focal * factor,
            cx=self.cx * factor,
            cy=self.cy * factor,
            valid_radius=self.valid_radius * factor,
        )

    def project(
        self, x: Float[np.ndarray, "*s"], y: Float[np.ndarray, "*s"]
    ) -> tuple[Float[np.ndarray, "*s"], Float[np.ndarray, "*s"]]:
        """Points on the plane z = 1 -> pixels, whether or not they are within the valid radius."""
        tangent = np.hypot(x, y)
        angle = np.arctan(tangent)
        scale = np.divide(self._radius(angle)[0], tangent, out=np.ones_like(tangent), where=tangent > 0)
        x, y = x * scale, y * scale
        dx, dy = self._decentring(x, y)
        return self.focal * (x + dx) + self.cx, self.focal * (y + dy) + self.cy

    def unproject(
        self, u: Float[np.ndarray, "*s"], v: Float[np.ndarray, "*s"]
    ) -> tuple[Float[np.ndarray, "*s"], Float[np.ndarray, "*s"]]:
        """Pixels -> points on the plane z = 1; NaN outside the valid radius."""
        inside = np.hypot(u - self.cx, v - self.cy) <= self.valid_radius
        seen_x, seen_y = np.where(inside, u - self.cx, 0) / self.focal, np.where(inside, v - self.cy, 0) / self.focal
        x, y = seen_x, seen_y
        for _ in range(12):  # decentring is a thousandth of the radius, so each round gains about two digits
            dx, dy = self._decentring(x, y)
            x, y = seen_x - dx, seen_y - dy
        radius = np.hypot(x, y)
        angle = radius
        for _ in range(12):  # Newton; the polynomial rises steadily within the valid radius
            value, slope = self._radius(angle)
            angle = (angle - (value - radius) / slope).clip(0, 1.5)
        scale = np.divide(np.tan(angle), radius, out=np.ones_like(radius), where=radius > 0)
        return np.where(inside, x * scale, np.nan), np.where(inside, y * scale, np.nan)

    def _radius(self, angle: Float[np.ndarray, "*s"]) -> tuple[Float[np.ndarray, "*s"], Float[np.ndarray, "*s"]]:
        """The radius at which a ray lands, focal lengths, before decentring; and its derivative."""
        square = angle * angle
        value, slope = np.zeros_like(angle), np.zeros_like(angle)
        for power, k in zip((13, 11, 9, 7, 5, 3), reversed(self.radial), strict=True):  # Horner
            value, slope = square * (value + k), square * (slope + power * k)
        return angle * (1 + value), 1 + slope

    def _decentring(
        self, x: Float[np.ndarray, "*s"], y: Float[np.ndarray, "*s"]
    ) -> tuple[Float[np.ndarray, "*s"], Float[np.ndarray, "*s"]]:
        (p0, p1), (s0, s1, s2, s3) = self.tangential, self.prism
        r2, along = x * x + y * y, 2 * (p0 * x + p1 * y)
        return along * x + r2 * (p0 + s0 + s1 * r2), along * y + r2 * (p1 + s2 + s3 * r2)


@lru_cache(maxsize=2)  # all frames of a data set share these maps
def pinhole_pixels(
    lens: Fisheye624, focal: float, size: int
) -> tuple[Shaped[np.ndarray, "h w"], Shaped[np.ndarray, "h w"]]:
    """Array index (row, column), fractional, in the fisheye image of each pixel of a pinhole camera at its place.

    Args:
        lens: of the fisheye image.
        focal: of the pinhole camera, whose principal point is the middle of its image.
        size: of its square image.
    """
    along = (np.arange(size) + 0.5 - size / 2) / focal
    u, v = lens.project(*np.meshgrid(along, along))
    return (v - 0.5).astype(np.float32), (u - 0.5).astype(np.float32)


@lru_cache(maxsize=2)
def depth_per_distance(lens: Fisheye624, shape: tuple[int, int]) -> Shaped[np.ndarray, "h w"]:
    """What turns distance along each pixel's ray into z-depth: the cosine of the ray's angle; 0 where nothing is seen.

    Args:
        lens: of the image.
        shape: (height, width) of the image.
    """
    x, y = lens.unproject(*np.meshgrid(np.arange(shape[1]) + 0.5, np.arange(shape[0]) + 0.5))
    return np.nan_to_num(1 / np.sqrt(1 + x * x + y * y)).astype(np.float32)
