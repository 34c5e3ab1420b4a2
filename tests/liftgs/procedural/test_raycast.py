"""The ray caster against a slow one that shares nothing with it but the definition of the parts."""

from __future__ import annotations

import math

import numpy as np
import pytest

from liftgs.procedural.corpora import CORPORA, build_room
from liftgs.procedural.path import cameras
from liftgs.procedural.raycast import NEAR_M, PartTable, cast
from liftgs.procedural.room import Part
from liftgs.scene import Camera


def entry_depth(part: Part, origin: np.ndarray, direction: np.ndarray) -> float:
    """First s > 0 at which origin + s * direction is inside a part, in float64, one ray at a time; inf for a miss.

    A convex part is where some quadratic forms are <= 0; each gives the set of s as intervals, which are intersected.
    """
    o = part.rotation.T @ (origin - np.asarray(part.centre))
    d = part.rotation.T @ direction
    hx, hy, hz = part.half_size
    inside = [(0.0, math.inf)]
    if part.shape == "box":
        for axis in range(3):
            inside = _meet(
                inside, _nonpositive(d[axis] ** 2, 2 * o[axis] * d[axis], o[axis] ** 2 - part.half_size[axis] ** 2)
            )
    elif part.shape == "sphere":
        h = np.asarray(part.half_size)
        inside = _meet(inside, _nonpositive(((d / h) ** 2).sum(), 2 * (o * d / h**2).sum(), ((o / h) ** 2).sum() - 1))
    else:
        inside = _meet(inside, _nonpositive(d[2] ** 2, 2 * o[2] * d[2], o[2] ** 2 - hz**2))
        # radius factor along the axis: r(z) = 1 at z = -hz, taper at z = hz
        slope = (part.taper - 1) / (2 * hz)
        r, dr = 1 + slope * (o[2] + hz), slope * d[2]
        a = (d[0] / hx) ** 2 + (d[1] / hy) ** 2 - dr**2
        b = 2 * (o[0] * d[0] / hx**2 + o[1] * d[1] / hy**2 - r * dr)
        c = (o[0] / hx) ** 2 + (o[1] / hy) ** 2 - r**2
        inside = _meet(inside, _nonpositive(a, b, c))
    return inside[0][0] if inside else math.inf


def _nonpositive(a: float, b: float, c: float) -> list[tuple[float, float]]:
    """Where a s^2 + b s + c <= 0."""
    if abs(a) < 1e-15:
        if abs(b) < 1e-15:
            return [(-math.inf, math.inf)] if c <= 0 else []
        return [(-math.inf, -c / b)] if b > 0 else [(-c / b, math.inf)]
    discriminant = b * b - 4 * a * c
    if discriminant < 0:
        return [] if a > 0 else [(-math.inf, math.inf)]
    low, high = sorted(((-b - math.sqrt(discriminant)) / (2 * a), (-b + math.sqrt(discriminant)) / (2 * a)))
    return [(low, high)] if a > 0 else [(-math.inf, low), (high, math.inf)]


def _meet(a: list[tuple[float, float]], b: list[tuple[float, float]]) -> list[tuple[float, float]]:
    pairs = [(max(x[0], y[0]), min(x[1], y[1])) for x in a for y in b]
    return sorted(p for p in pairs if p[0] <= p[1])


def slow_cast(parts: list[Part], camera: Camera, row: int, column: int) -> list[tuple[float, int]]:
    """(z-depth, part) of everything that the pixel's ray meets beyond the near plane, nearest first."""
    pixel = np.array([column + 0.5, row + 0.5, 1.0])
    direction = camera.cam_to_world[:3, :3] @ np.linalg.solve(camera.K, pixel)  # one unit of z-depth
    hits = [(entry_depth(part, camera.cam_to_world[:3, 3], direction), i) for i, part in enumerate(parts)]
    return sorted(hit for hit in hits if NEAR_M < hit[0] < math.inf)


def random_rotation(rng: np.random.Generator) -> np.ndarray:
    q, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    return q * np.sign(np.linalg.det(q))


@pytest.mark.parametrize("seed", range(4))
def test_random_parts_in_any_attitude_are_hit_where_the_slow_caster_hits_them(seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts = []
    while len(parts) < 60:
        shape = ("box", "cylinder", "sphere")[len(parts) % 3]
        half = tuple(rng.uniform(0.02, 0.9, 3).tolist())
        centre = tuple(rng.uniform(-3, 3, 3).tolist())
        if np.linalg.norm(centre) < 1.75 * max(half):  # the camera stays outside
            continue
        taper = float(rng.choice([0.0, 0.4, 1.0])) if shape == "cylinder" else 1.0
        parts.append(Part(shape, centre, half, random_rotation(rng), (0.5, 0.5, 0.5), "plain", taper))
    pose = np.eye(4)
    pose[:3, :3] = random_rotation(rng)
    camera = Camera(np.array([[30.0, 0, 33], [0, 28.0, 25], [0, 0, 1]]), pose, 64, 48)
    hits = cast(PartTable.of(parts), camera)
    assert 0.1 < (hits.part >= 0).mean() < 1
    wrong = 0
    for row in range(0, 48, 3):
        for column in range(0, 64, 3):
            expected = slow_cast(parts, camera, row, column)
            if not expected:
                wrong += hits.part[row, column] != -1
                continue
            depth, part = expected[0]
            agrees = hits.part[row, column] == part and abs(hits.depth[row, column] - depth) < 1e-3
            wrong += not agrees
    assert wrong <= 1  # a ray that grazes a silhouette may round either way


@pytest.mark.parametrize("kind", CORPORA)
def test_depth_and_ids_of_a_room_are_those_of_the_slow_caster(kind: str) -> None:
    room = build_room(kind, 1, 0)
    parts = [p for o in room.objects for p in o.parts]
    camera = cameras(room, 6, 96, 96)[2]
    hits = cast(PartTable.of(parts), camera)
    rng = np.random.default_rng(0)
    checked = 0
    for row, column in rng.integers(0, 96, (60, 2)):
        expected = slow_cast(parts, camera, int(row), int(column))
        if len(expected) > 1 and expected[1][0] - expected[0][0] < 1e-3:
            continue  # two faces in one place
        depth, part = expected[0]
        assert hits.part[row, column] == part
        assert hits.depth[row, column] == pytest.approx(depth, abs=2e-4)
        checked += 1
    assert checked > 40


def test_every_ray_of_a_closed_room_ends() -> None:
    for kind in CORPORA:
        room = build_room(kind, 2, 0)
        table = PartTable.of([p for o in room.objects for p in o.parts])
        for camera in cameras(room, 6, 64, 64):
            assert (cast(table, camera).part >= 0).all()
