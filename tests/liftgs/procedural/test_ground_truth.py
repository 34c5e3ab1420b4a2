"""Labels, depth and rooms agree: boxes hold their points, noise is as documented, things rest on things."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from test_raycast import entry_depth

from liftgs.geometry import project, unproject
from liftgs.procedural import CORPORA, ProceduralScene, build_room
from liftgs.procedural.room import Object

SIZE = 128


@cache
def exact_scene(kind: str) -> ProceduralScene:
    return ProceduralScene(kind, 4, seed=3, width=SIZE, height=SIZE, depth_noise_mm=0)


@pytest.mark.parametrize("kind", CORPORA)
def test_every_point_lies_in_the_box_of_its_instance(kind: str) -> None:
    scene = exact_scene(kind)
    boxes = {i.id: (np.array(i.box_min), np.array(i.box_max)) for i in scene.labels().instances}
    for frame_id in scene.frame_ids():
        frame = scene.load(frame_id)
        assert frame.depth is not None
        assert frame.instances is not None
        assert (frame.instances > 0).all()
        xyz, pixel = unproject(frame.depth, frame.camera)
        owner = frame.instances.ravel()[pixel]
        for i in np.unique(owner).tolist():
            low, high = boxes[i]
            assert (xyz[owner == i] >= low - 1e-3).all(), i
            assert (xyz[owner == i] <= high + 1e-3).all(), i


@pytest.mark.parametrize("kind", CORPORA)
def test_whatever_is_mentioned_is_labelled_and_seen_well_in_some_frame(kind: str) -> None:
    scene = exact_scene(kind)
    labels = scene.labels()
    most = np.zeros(max(i.id for i in labels.instances) + 1, int)
    for frame_id in scene.frame_ids():
        ids = scene.load(frame_id).instances
        assert ids is not None
        most = np.maximum(most, np.bincount(ids.ravel(), minlength=len(most)))
    assert len(labels.expressions) >= 5
    assert any(e.anchors for e in labels.expressions)
    labelled = {i.id for i in labels.instances}
    for expression in labels.expressions:
        for mention in (expression.target, *expression.anchors):
            assert mention.instances
            assert set(mention.instances) <= labelled
            # Walls and corners may be talked about anyhow; 256 pixels of a 512 x 512 view are 16 here.
            assert all(most[i] >= 16 for i in mention.instances if not scene.room[i].is_structure), expression.text
            assert mention.words[0] < mention.words[1] <= len(expression.words)
            first, last = mention.chars
            phrase = " ".join(expression.words[slice(*mention.words)])
            assert phrase.startswith(expression.text[first:last])


@pytest.mark.parametrize("kind", CORPORA)
def test_the_projects_own_projection_carries_instances_from_one_frame_to_another(kind: str) -> None:
    scene = exact_scene(kind)
    frames = [scene.load(i) for i in scene.frame_ids()]
    agreeing = 0
    for number, a in enumerate(frames):
        assert a.depth is not None
        assert a.instances is not None
        xyz, pixel = unproject(a.depth, a.camera)
        for b in [*frames[:number], *frames[number + 1 :]]:
            assert b.depth is not None
            assert b.instances is not None
            uv, z = project(xyz, b.camera)
            column, row = np.floor(np.nan_to_num(uv, nan=-1, posinf=-1, neginf=-1)).astype(int).T
            inside = (z > 0.1) & (column >= 0) & (column < SIZE) & (row >= 0) & (row < SIZE)
            # Away from occlusion the two depths are one, up to the slope within a pixel.
            found = b.depth[row[inside], column[inside]]
            same_place = np.abs(found - z[inside]) < 0.01
            same_thing = a.instances.ravel()[pixel][inside] == b.instances[row[inside], column[inside]]
            if same_place.sum() > 100:
                assert same_thing[same_place].mean() > 0.97
                agreeing += int(same_place.sum())
    assert agreeing > 0.25 * len(frames) * SIZE * SIZE  # enough is seen from two sides for this to mean something


@pytest.mark.parametrize("noise_mm", [1.0, 4.0])
def test_depth_noise_has_the_documented_deviation_and_never_invents_a_hole(noise_mm: float) -> None:
    scene = ProceduralScene("warehouses", 4, seed=3, width=SIZE, height=SIZE, depth_noise_mm=noise_mm)
    clean = exact_scene("warehouses").load("000001").depth
    noisy = scene.load("000001").depth
    assert clean is not None
    assert noisy is not None
    assert (noisy > 0).all()
    sigma = np.minimum(noise_mm / 1000 * np.maximum(1, clean) ** 2, 0.03)
    error = (noisy - clean) / sigma
    assert np.abs(error).max() < 6
    assert abs(error.mean()) < 0.05
    for near, far in ((0, 3), (3, 5), (5, np.inf)):
        band = error[(clean >= near) & (clean < far)]
        if len(band) > 500:
            assert band.std() == pytest.approx(1, abs=0.1)


def gap_below(thing: Object, base: Object) -> float:
    """Least clear height, in metres, between a thing's parts and the tops of the parts below, on a grid of its box."""
    steps = np.linspace(-0.9, 0.9, 7)
    low, high = np.asarray(thing.box_min), np.asarray(thing.box_max)
    gaps = []
    for fx in steps:
        for fy in steps:
            x, y = (low[:2] + high[:2]) / 2 + np.array([fx, fy]) * (high[:2] - low[:2]) / 2
            up = min(entry_depth(p, np.array([x, y, -1.0]), np.array([0, 0, 1.0])) for p in thing.parts) - 1
            # From above the thing's foot, so that a shelf over it does not count.
            start = float(low[2]) + 0.006
            down = min(entry_depth(p, np.array([x, y, start]), np.array([0, 0, -1.0])) for p in base.parts)
            gaps.append(up - (start - down))
    return min(gaps)


@pytest.mark.parametrize("kind", CORPORA)
def test_supported_things_touch_their_support_and_the_rest_the_floor_a_wall_or_the_ceiling(kind: str) -> None:
    supported = 0
    for index in range(2):
        room = build_room(kind, index, 3)
        for thing in room.objects:
            if thing.is_structure:
                continue
            low, high = np.asarray(thing.box_min), np.asarray(thing.box_max)
            if thing.support is None:
                x, y, z = room.size
                to_shell = min(low[2], z - high[2], low[0], low[1], x - high[0], y - high[1])
                assert to_shell < 0.02, thing.kind
            else:
                base = room[thing.support]
                assert not base.is_structure
                assert -0.005 < gap_below(thing, base) < 0.03, (thing.kind, base.kind)
                supported += 1
    assert supported >= 4
