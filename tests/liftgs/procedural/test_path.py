"""The camera walks where a person could, and looks at the room."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from liftgs.procedural.corpora import CORPORA, build_room
from liftgs.procedural.path import cameras
from liftgs.procedural.raycast import PartTable, cast
from liftgs.procedural.room import Room


def part_table(room: Room) -> PartTable:
    return PartTable.of([p for o in room.objects for p in o.parts])


@pytest.mark.parametrize("kind", CORPORA)
def test_the_camera_is_never_inside_of_anything_nor_at_a_wall(kind: str) -> None:
    for index in range(8):
        room = build_room(kind, index, 5)
        table = part_table(room)
        for camera in cameras(room, 31, 64, 64):  # also between the stops
            local, _ = table.rays(camera)
            assert (np.abs(local).max(1) > 1).all()
            x, y, z = camera.cam_to_world[:3, 3]
            assert min(x, y, room.size[0] - x, room.size[1] - y) > 0.25
            assert 1.3 < z < 1.75


@pytest.mark.parametrize("kind", CORPORA)
def test_a_dense_tour_is_smooth_and_passes_through_the_views_of_a_sparse_one(kind: str) -> None:
    room = build_room(kind, 0, 0)
    sparse, dense = cameras(room, 6, 64, 64), cameras(room, 151, 64, 64)
    for i, camera in enumerate(sparse):
        assert np.allclose(camera.cam_to_world, dense[30 * i].cam_to_world, atol=1e-9)
    steps = [np.linalg.norm(b.cam_to_world[:3, 3] - a.cam_to_world[:3, 3]) for a, b in pairwise(dense)]
    turns = [
        np.degrees(np.arccos(np.clip(a.cam_to_world[:3, 2] @ b.cam_to_world[:3, 2], -1, 1))) for a, b in pairwise(dense)
    ]
    assert max(steps) < 0.4
    assert max(turns) < 20


def test_six_views_see_most_of_a_room_and_are_seldom_blocked() -> None:
    seen_shares, near = [], []
    for kind in CORPORA:
        for index in range(5):
            room = build_room(kind, index, 9)
            table = part_table(room)
            owner = np.array([o.id for o in room.objects for _ in o.parts])
            seen: set[int] = set()
            for camera in cameras(room, 6, 96, 96):
                hits = cast(table, camera)
                ids, counts = np.unique(owner[hits.part], return_counts=True)
                seen |= {int(i) for i, n in zip(ids, counts, strict=True) if n >= 12}
                near.append(float((hits.depth < 0.6).mean()))
            things = {o.id for o in room.objects}
            seen_shares.append(len(seen & things) / len(things))
    assert np.mean(seen_shares) > 0.65
    assert np.mean(np.array(near) > 0.25) < 0.05


def test_fields_of_view_are_those_of_a_phone() -> None:
    for index in range(5):
        camera = cameras(build_room("apartments", index, 0), 1, 512, 384)[0]
        fov = 2 * np.degrees(np.arctan(256 / camera.K[0, 0]))
        assert 70 <= fov <= 75
        assert camera.K[0, 0] == camera.K[1, 1]
        assert tuple(camera.K[:2, 2]) == (256, 192)
