"""Rooms are physically possible: things stand on things, and nothing passes through anything."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import cKDTree

from liftgs.procedural.corpora import CORPORA, build_room
from liftgs.procedural.kinds import KINDS
from liftgs.procedural.layout import Boxes, Layout, penetrate
from liftgs.procedural.room import Object, Part, Room
from liftgs.procedural.textures import TEXTURES


def rooms(kind: str, count: int = 6) -> list[Room]:
    return [build_room(kind, index, 11) for index in range(count)]


def contains(part: Part, points: np.ndarray, margin_m: float) -> np.ndarray:
    """Which points are inside a part, deeper than a margin."""
    local = (points - np.asarray(part.centre)) @ part.rotation
    half = np.maximum(np.asarray(part.half_size) - margin_m, 1e-6)
    unit = local / half
    if part.shape == "box":
        return (np.abs(unit) <= 1).all(1)
    if part.shape == "sphere":
        return (unit**2).sum(1) <= 1
    radius = (1 + part.taper) / 2 + (part.taper - 1) / 2 * unit[:, 2]
    return ((unit[:, :2] ** 2).sum(1) <= radius**2) & (np.abs(unit[:, 2]) <= 1)


def points_inside(thing: Object, rng: np.random.Generator, per_part: int = 150) -> np.ndarray:
    clouds = []
    for part in thing.parts:
        points = rng.uniform(-1, 1, (per_part, 3)) * part.half_size @ part.rotation.T + part.centre
        clouds.append(points[contains(part, points, 0.0)])
    return np.concatenate(clouds)


@pytest.mark.parametrize("kind", CORPORA)
def test_no_object_passes_through_another(kind: str) -> None:
    rng = np.random.default_rng(0)
    for room in rooms(kind, 4):
        clouds = {o.id: points_inside(o, rng) for o in room.objects if not o.is_structure}
        points = np.concatenate(list(clouds.values()))
        owner = np.repeat(list(clouds), [len(c) for c in clouds.values()])
        tree = cKDTree(points)
        for thing in room.objects:
            for part in thing.parts:
                near = np.array(tree.query_ball_point(part.centre, float(np.linalg.norm(part.half_size))), int)
                near = near[owner[near] != thing.id]
                deep = near[contains(part, points[near], 0.006)]
                assert len(deep) == 0, (room.index, thing.kind, {room[int(i)].kind for i in owner[deep]})


@pytest.mark.parametrize("kind", CORPORA)
def test_everything_is_in_the_room_and_stands_on_what_it_says(kind: str) -> None:
    hanging = {"window", "picture", "clock", "ceiling lamp"}
    for room in rooms(kind):
        for thing in room.objects:
            if thing.is_structure:
                continue
            assert (np.asarray(thing.box_min) >= -1e-6).all()
            assert (np.asarray(thing.box_max) <= np.asarray(room.size) + 1e-6).all()
            if thing.support is not None:
                base = room[thing.support]
                x, y, _ = thing.centre
                assert base.box_min[0] - 0.1 < x < base.box_max[0] + 0.1
                assert base.box_min[1] - 0.1 < y < base.box_max[1] + 0.1
                assert base.box_min[2] < thing.box_min[2] < base.box_max[2] + 0.02
            elif thing.kind not in hanging:
                assert thing.box_min[2] < 0.03, thing.kind


@pytest.mark.parametrize("kind", CORPORA)
def test_ids_are_unique_and_boxes_hold_the_parts(kind: str) -> None:
    for room in rooms(kind):
        ids = [o.id for o in room.objects]
        assert len(set(ids)) == len(ids)
        assert min(ids) >= 1
        for thing in room.objects:
            bounds = [p.bounds() for p in thing.parts]
            assert np.allclose(np.min([b[0] for b in bounds], 0), thing.box_min)
            assert np.allclose(np.max([b[1] for b in bounds], 0), thing.box_max)
            for part in thing.parts:
                assert part.texture in TEXTURES
                assert 0 <= part.taper <= 1
                assert min(part.half_size) > 0
                assert np.allclose(part.rotation @ part.rotation.T, np.eye(3), atol=1e-9)


def test_a_part_is_inside_its_bounds_and_touches_them() -> None:
    rng = np.random.default_rng(5)
    for shape in ("box", "cylinder", "sphere"):
        rotation, _ = np.linalg.qr(rng.standard_normal((3, 3)))
        part = Part(shape, (1.0, -2.0, 3.0), (0.3, 0.8, 0.5), rotation, (0.5, 0.5, 0.5), "plain")
        low, high = part.bounds()
        points = rng.uniform(low - 0.2, high + 0.2, (400_000, 3))
        inside = points[contains(part, points, 0.0)]
        assert (inside >= low).all()
        assert (inside <= high).all()
        assert np.abs(inside.min(0) - low).max() < 0.08
        assert np.abs(inside.max(0) - high).max() < 0.08


def test_oriented_boxes_collide_exactly_when_they_share_space() -> None:
    rng = np.random.default_rng(3)
    outcomes = []
    for _ in range(200):
        a, b = (
            Part(
                "box",
                tuple(rng.uniform(-0.6, 0.6, 3)),
                tuple(rng.uniform(0.05, 0.6, 3)),
                np.linalg.qr(rng.standard_normal((3, 3)))[0],
                (0, 0, 0),
                "plain",
            )
            for _ in range(2)
        )
        points = rng.uniform(-1, 1, (4000, 3)) * a.half_size @ a.rotation.T + a.centre
        shares = bool(contains(b, points, 0.0).any())
        collides = penetrate(Boxes.of((a,)), Boxes.of((b,)), touch_m=0.0)
        outcomes.append(collides)
        assert collides or not shares
        # Sampling misses slivers: they must come apart when a little overlap is allowed.
        if collides and not shares:
            assert not penetrate(Boxes.of((a,)), Boxes.of((b,)), touch_m=0.12)
    assert 0.2 < np.mean(outcomes) < 0.95


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_can_be_built_in_every_size_and_stands_on_its_feet(kind: str) -> None:
    for seed, size in enumerate(("small", "medium", "large")):
        layout = Layout((8.0, 8.0, 6.0), np.random.default_rng(seed), ("red", "blue"), 1)
        draft = layout.draft(kind, size=size)
        assert len(draft.parts) >= 3
        assert draft.low[2] >= -1e-6 or kind == "window"  # a window hangs; its sill reaches lower
        foot = 1.0 if kind == "window" else 0.0
        assert layout.place(draft, (4.0, 4.0, foot), 30.0) is not None
