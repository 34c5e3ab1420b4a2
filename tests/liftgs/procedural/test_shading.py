"""Photos are lit by the normals of the very surface that depth describes."""

from __future__ import annotations

import numpy as np
from test_raycast import entry_depth

from liftgs.procedural import CORPORA, build_room
from liftgs.procedural.path import cameras
from liftgs.procedural.raycast import PartTable, cast, pixel_rays
from liftgs.procedural.room import Part
from liftgs.procedural.shading import _surfaces
from liftgs.scene import Camera

WIDTH, HEIGHT = 96, 72


def numerical_normal(part: Part, camera: Camera, row: int, column: int, step_px: float) -> np.ndarray:
    """Unit normal towards the camera from three neighbouring rays in float64; nan where one of them misses."""
    points = []
    for dx, dy in ((0.0, 0.0), (step_px, 0.0), (0.0, step_px)):
        pixel = np.array([column + 0.5 + dx, row + 0.5 + dy, 1.0])
        direction = camera.cam_to_world[:3, :3] @ np.linalg.solve(camera.K, pixel)
        depth = entry_depth(part, camera.cam_to_world[:3, 3], direction)
        if not np.isfinite(depth):
            return np.full(3, np.nan)
        points.append(depth * direction)
    normal = np.cross(points[1] - points[0], points[2] - points[0])
    return -np.sign(normal @ points[0]) * normal / np.linalg.norm(normal)


def test_normals_are_the_slopes_of_the_depth() -> None:
    rng = np.random.default_rng(0)
    checked = dict.fromkeys(("box", "cylinder", "sphere"), 0)
    for kind in CORPORA:
        room = build_room(kind, 1, 0)
        parts = [p for o in room.objects for p in o.parts]
        table = PartTable.of(parts)
        for camera in cameras(room, 3, WIDTH, HEIGHT):
            hits = cast(table, camera)
            xs, ys = pixel_rays(camera)
            rays = np.stack([np.tile(xs, HEIGHT), np.repeat(ys, WIDTH), np.ones(WIDTH * HEIGHT, np.float32)])
            normals = _surfaces(parts, table, camera, rays, hits.depth.ravel(), hits.part.ravel()).normal.T
            assert np.allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-5)
            shapes = np.array([p.shape for p in parts])[hits.part.ravel()]
            for shape in checked:
                of_shape = np.flatnonzero(shapes == shape)
                for flat in rng.choice(of_shape, min(len(of_shape), 25), replace=False).tolist():
                    part, (row, column) = parts[hits.part.flat[flat]], divmod(flat, WIDTH)
                    ahead = numerical_normal(part, camera, row, column, 1e-3)
                    behind = numerical_normal(part, camera, row, column, -1e-3)
                    if not ahead @ behind > np.cos(np.radians(0.5)):  # an edge, or too curved for finite differences
                        continue
                    assert normals[flat] @ ahead > np.cos(np.radians(1.5)), (kind, shape, row, column)
                    checked[shape] += 1
    assert checked["box"] > 150
    assert checked["cylinder"] > 80
    assert checked["sphere"] > 20
