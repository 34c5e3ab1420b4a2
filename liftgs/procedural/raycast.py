"""Which part does each pixel see, and how far away is it: a vectorised ray caster over convex parts. Knows no light.

Every part is tested only against the pixels of its projected rectangle, near parts first, and not at all where what is
already drawn is nearer; so a frame costs about its projected area. Rays are parametrised by z-depth, hence the
depth is exact up to float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Float32, Float64, Int32

from liftgs.procedural.room import Part
from liftgs.scene import Camera

#: Nothing nearer than this to the camera is seen, metres.
NEAR_M = 0.05

_CORNERS = np.array(list(product((-1.0, 1.0), repeat=3)))
_EDGES = np.array([(a, b) for a, b in product(range(8), repeat=2) if a < b and (_CORNERS[a] != _CORNERS[b]).sum() == 1])


@dataclass(frozen=True, eq=False)
class PartTable:
    """Parts as arrays.

    Attributes:
        shape: 0 box, 1 cylinder, 2 sphere.
        centre: metres.
        half_size: metres.
        rotation: local to world.
        taper: top over bottom radius.
    """

    shape: Int32[np.ndarray, " p"]
    centre: Float64[np.ndarray, "p 3"]
    half_size: Float64[np.ndarray, "p 3"]
    rotation: Float64[np.ndarray, "p 3 3"]
    taper: Float64[np.ndarray, " p"]

    @classmethod
    def of(cls, parts: Sequence[Part]) -> PartTable:
        """Gather parts."""
        return cls(
            np.array([("box", "cylinder", "sphere").index(p.shape) for p in parts], np.int32),
            np.array([p.centre for p in parts], np.float64),
            np.array([p.half_size for p in parts], np.float64),
            np.stack([p.rotation for p in parts]).astype(np.float64),
            np.array([p.taper for p in parts], np.float64),
        )

    def rays(self, camera: Camera) -> tuple[Float64[np.ndarray, "p 3"], Float64[np.ndarray, "p 3 3"]]:
        """In every part's unit frame: the camera's centre, and A with direction = A @ (x, y, 1) per unit of depth."""
        to_local = np.swapaxes(self.rotation, 1, 2) / self.half_size[:, :, None]
        origin = ((camera.cam_to_world[:3, 3] - self.centre)[:, None, :] * to_local).sum(2)
        directions = (to_local[:, :, :, None] * camera.cam_to_world[None, None, :3, :3]).sum(2)
        return origin, directions


@dataclass(frozen=True, eq=False)
class Hits:
    """What a camera sees.

    Attributes:
        depth: z-depth in metres; inf where nothing is hit.
        part: index into the part table; -1 where nothing is hit.
    """

    depth: Float32[np.ndarray, "h w"]
    part: Int32[np.ndarray, "h w"]


def pixel_rays(camera: Camera) -> tuple[Float32[np.ndarray, " w"], Float32[np.ndarray, " h"]]:
    """x/z of every pixel column and y/z of every row, at the pixels' centres."""
    x = (np.arange(camera.width) + 0.5 - camera.K[0, 2]) / camera.K[0, 0]
    y = (np.arange(camera.height) + 0.5 - camera.K[1, 2]) / camera.K[1, 1]
    return x.astype(np.float32), y.astype(np.float32)


def cast(table: PartTable, camera: Camera) -> Hits:
    """Cast one ray through the centre of every pixel.

    The camera must be outside of every part. The lens has no skew.
    """
    height, width = camera.height, camera.width
    depth = np.full((height, width), np.inf, np.float32)
    part = np.full((height, width), -1, np.int32)
    xs, ys = pixel_rays(camera)
    origins, directions = table.rays(camera)
    rectangles, nearest = _rectangles(table, camera)
    visible = np.flatnonzero((rectangles[:, 0] < rectangles[:, 2]) & (rectangles[:, 1] < rectangles[:, 3]))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        for i in visible[np.argsort(nearest[visible], kind="stable")]:
            x0, y0, x1, y1 = rectangles[i]
            window = depth[y0:y1, x0:x1]
            if nearest[i] >= window.max():
                continue
            o = origins[i].astype(np.float32)
            A = directions[i].astype(np.float32)
            along_x = A[:, 0, None] * xs[None, x0:x1] + A[:, 2, None]
            along_y = A[:, 1, None] * ys[None, y0:y1]
            d = along_y[:, :, None] + along_x[:, None, :]
            t = _ENTRY[table.shape[i]](o, d, np.float32(table.taper[i]))
            hit = (t < window) & (t > NEAR_M)  # False where t is nan
            np.copyto(window, t, where=hit)
            part[y0:y1, x0:x1][hit] = i
    return Hits(depth, part)


def _rectangles(table: PartTable, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """Pixel rectangle (x0, y0, x1, y1; half open) and least depth of every part's box in the view."""
    corners = _CORNERS[None] * table.half_size[:, None, :]
    world = (table.rotation[:, None] * corners[:, :, None, :]).sum(3) + table.centre[:, None, :]
    R, t = camera.world_to_cam[:3, :3], camera.world_to_cam[:3, 3]
    seen = (world[:, :, None, :] * R[None, None]).sum(3) + t
    a, b = seen[:, _EDGES[:, 0]], seen[:, _EDGES[:, 1]]
    # Where an edge crosses the near plane, the crossing bounds the visible part of the box.
    with np.errstate(divide="ignore", invalid="ignore"):
        f = (NEAR_M - a[..., 2]) / (b[..., 2] - a[..., 2])
    crosses = (f > 0) & (f < 1)
    crossing = a + np.where(crosses, f, 0.0)[..., None] * (b - a)
    points = np.concatenate([seen, crossing], 1)
    counts = np.concatenate([seen[..., 2] >= NEAR_M, crosses], 1)
    z = np.where(counts, points[..., 2], 1.0)
    u = points[..., 0] / z * camera.K[0, 0] + camera.K[0, 2]
    v = points[..., 1] / z * camera.K[1, 1] + camera.K[1, 2]

    def span(values: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
        low = np.where(counts, values, np.inf).min(1)
        high = np.where(counts, values, -np.inf).max(1)
        return (
            np.clip(np.floor(low - 0.51), 0, limit).astype(np.int64),
            np.clip(np.ceil(high + 0.51), 0, limit).astype(np.int64),
        )

    (x0, x1), (y0, y1) = span(u, camera.width), span(v, camera.height)
    nearest = np.where(counts, points[..., 2], np.inf).min(1)
    return np.stack([x0, y0, x1, y1], 1), nearest


def _enter_box(o: np.ndarray, d: np.ndarray, taper: np.float32) -> np.ndarray:
    """Depth at which rays enter the unit cube; nan where they miss."""
    inverse = 1 / d
    middle = -o[:, None, None] * inverse
    reach = np.abs(inverse)
    enter = (middle - reach).max(0)
    leave = (middle + reach).min(0)
    return np.where(enter <= leave, enter, np.float32(np.nan))


def _enter_sphere(o: np.ndarray, d: np.ndarray, taper: np.float32) -> np.ndarray:
    """Depth at which rays enter the unit ball; nan where they miss."""
    a = (d * d).sum(0)
    b = (o[:, None, None] * d).sum(0)
    # Distance of the ray's closest point rather than b^2 - a c, which loses digits for small far balls.
    closest = o[:, None, None] - (b / a) * d
    gap = 1 - (closest * closest).sum(0)
    return np.asarray(-b / a - np.sqrt(gap / a))


def _enter_cylinder(o: np.ndarray, d: np.ndarray, taper: np.float32) -> np.ndarray:
    """Depth at which rays enter a cylinder of radius 1 at z = -1 and `taper` at z = 1; nan where they miss."""
    side = _enter_side(o, d, taper)
    if abs(o[2]) <= 1:  # neither cap faces the camera
        return side
    cap = np.sign(o[2])
    radius = np.float32(1.0) if cap < 0 else taper
    t = (cap - o[2]) / d[2]
    x, y = o[0] + t * d[0], o[1] + t * d[1]
    on_cap = x * x + y * y <= radius * radius
    return np.where(on_cap, t, side)


def _enter_side(o: np.ndarray, d: np.ndarray, taper: np.float32) -> np.ndarray:
    middle, slope = (1 + taper) / 2, (taper - 1) / 2  # radius = middle + slope z
    r0, dr = middle + slope * o[2], slope * d[2]
    a = d[0] * d[0] + d[1] * d[1] - dr * dr
    b = o[0] * d[0] + o[1] * d[1] - r0 * dr
    if taper == 1:
        # As for the ball: b^2 - a c by way of the cross product keeps the digits.
        cross = o[0] * d[1] - o[1] * d[0]
        root = np.sqrt(a - cross * cross)
        t = (-b - root) / a
        return np.where(np.abs(o[2] + t * d[2]) <= 1, t, np.float32(np.nan))
    root = np.sqrt(b * b - a * (o[0] * o[0] + o[1] * o[1] - r0 * r0))
    best = np.full_like(a, np.inf)
    for t in ((-b - root) / a, (-b + root) / a):  # a < 0 for rays steeper than the cone, so either may be first
        valid = (np.abs(o[2] + t * d[2]) <= 1) & (t > 0)
        best = np.where(valid & (t < best), t, best)
    return best


_ENTRY = (_enter_box, _enter_cylinder, _enter_sphere)
