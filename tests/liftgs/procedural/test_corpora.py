"""The corpora hold what they promise: every kind, honest colour names, several of a kind, three different worlds."""

from __future__ import annotations

from collections import Counter, defaultdict
from functools import cache

import numpy as np
import pytest

from liftgs.procedural import colours
from liftgs.procedural.corpora import CORPORA, build_room
from liftgs.procedural.kinds import KINDS, REGISTRY, STRUCTURE_KINDS
from liftgs.procedural.path import cameras
from liftgs.procedural.raycast import PartTable, cast
from liftgs.procedural.room import Room
from liftgs.procedural.source import ProceduralScene


@cache
def rooms(kind: str) -> tuple[Room, ...]:
    return tuple(build_room(kind, index, 0) for index in range(24))


def kinds_of(corpus: str) -> Counter[str]:
    return Counter(o.kind for room in rooms(corpus) for o in room.objects if not o.is_structure)


def test_there_are_many_kinds_and_each_of_them_occurs() -> None:
    assert len(KINDS) >= 25
    assert len(set(KINDS)) == len(KINDS)
    assert not set(KINDS) & set(STRUCTURE_KINDS)
    occurring = set().union(*(kinds_of(corpus) for corpus in CORPORA))
    assert occurring == set(KINDS)


@pytest.mark.parametrize(
    ("a", "b"), [("apartments", "offices"), ("offices", "warehouses"), ("apartments", "warehouses")]
)
def test_corpora_differ_in_kinds_but_share_some(a: str, b: str) -> None:
    in_a, in_b = kinds_of(a), kinds_of(b)
    assert set(in_a) & set(in_b)
    total_a, total_b = in_a.total(), in_b.total()
    variation = 0.5 * sum(abs(in_a[k] / total_a - in_b[k] / total_b) for k in KINDS)
    assert variation > 0.35


def test_corpora_differ_in_shape_and_light() -> None:
    height = {c: np.mean([r.size[2] for r in rooms(c)]) for c in CORPORA}
    area = {c: np.mean([r.size[0] * r.size[1] for r in rooms(c)]) for c in CORPORA}
    ambient = {c: np.mean([r.ambient[0] for r in rooms(c)]) for c in CORPORA}
    assert height["apartments"] < height["offices"] - 0.2 < height["warehouses"] - 1.0
    assert area["apartments"] < area["offices"] < area["warehouses"]
    assert ambient["warehouses"] < ambient["apartments"] < ambient["offices"]


def test_most_rooms_hold_several_instances_of_a_kind_and_things_on_things() -> None:
    for corpus in CORPORA:
        several = [
            max(Counter(o.kind for o in r.objects if o.kind not in ("wall", "window", "picture")).values()) >= 2
            for r in rooms(corpus)
        ]
        clutter = [any(o.support is not None for o in r.objects) for r in rooms(corpus)]
        assert np.mean(several) > 0.8
        assert np.mean(clutter) > 0.8


def test_instances_of_a_kind_come_in_several_colours_and_sizes() -> None:
    seen: dict[str, set[str]] = defaultdict(set)
    sizes: Counter[str] = Counter()
    for corpus in CORPORA:
        for room in rooms(corpus):
            for thing in room.objects:
                if not thing.is_structure:
                    seen[thing.kind].add(thing.colour)
                    sizes[thing.size] += 1
                    assert thing.colour in REGISTRY[thing.kind].colours
                    assert thing.material in REGISTRY[thing.kind].materials
    assert len(seen["chair"]) >= 4
    assert len(seen["mug"]) >= 4
    assert min(sizes.values()) > 0.1 * sizes.total()
    assert set().union(*seen.values()) == set(colours.COLOURS)


def test_a_sampled_colour_is_nearest_to_its_own_name() -> None:
    rng = np.random.default_rng(0)
    for name in colours.COLOURS:
        assert {colours.nearest(colours.sample(name, rng)) for _ in range(300)} == {name}


@cache
def visible_colours() -> dict[str, list[float]]:
    """Per kind, for every instance seen well: which share of what is seen of it has the colour of its name."""
    shares: dict[str, list[float]] = defaultdict(list)
    for corpus in CORPORA:
        for room in rooms(corpus)[:6]:
            parts = [p for o in room.objects for p in o.parts]
            owner = np.array([o.id for o in room.objects for _ in o.parts])
            named = np.array([colours.nearest(p.rgb) == o.colour for o in room.objects for p in o.parts])
            pixels = np.zeros(len(parts))
            for camera in cameras(room, 6, 128, 128):
                part = cast(PartTable.of(parts), camera).part
                pixels += np.bincount(part[part >= 0], minlength=len(parts))
            for thing in room.objects:
                mine = owner == thing.id
                if pixels[mine].sum() >= 100:
                    shares[thing.kind].append(float(pixels[mine & named].sum() / pixels[mine].sum()))
    return shares


def test_the_named_colour_is_the_one_that_dominates_what_is_seen() -> None:
    shares = visible_colours()
    often = {kind: float(np.mean(s)) for kind, s in shares.items() if len(s) >= 3}
    assert len(often) > 30
    weak = {kind: round(share, 2) for kind, share in often.items() if share < 0.55}
    assert not weak
    assert np.mean(list(often.values())) > 0.8


def test_pixels_of_a_colour_look_like_that_colour() -> None:
    """After light, texture and noise, red things are redder than blue things are, and so on."""
    tones: dict[str, list[np.ndarray]] = defaultdict(list)
    for index in range(6):
        scene = ProceduralScene("offices", index, width=128, height=128)
        for frame_id in scene.frame_ids()[:3]:
            frame = scene.load(frame_id)
            assert frame.instances is not None
            for thing in scene.room.objects:
                mask = frame.instances == thing.id
                if not thing.is_structure and mask.sum() > 60:
                    tones[thing.colour].append(np.median(frame.rgb[mask], 0).astype(float))
    mean = {name: np.mean(t, 0) for name, t in tones.items()}
    r, g, b = range(3)
    assert mean["red"][r] > 1.8 * mean["red"][b]
    assert mean["green"][g] > 1.5 * mean["green"][r]
    assert mean["blue"][b] > 1.5 * mean["blue"][r]
    assert mean["yellow"][g] > 1.5 * mean["yellow"][b]
    assert mean["white"].mean() > mean["grey"].mean() + 30 > mean["black"].mean() + 60
