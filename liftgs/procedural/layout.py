"""Puts furniture where it fits: at walls, on the floor, round tables, on other things. Nothing interpenetrates.

Knows how to place, not what: the recipes of the corpora are in `corpora`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from jaxtyping import Float64, Int64

from liftgs.procedural import colours
from liftgs.procedural.kinds import REGISTRY
from liftgs.procedural.kit import Kit, Seat, Surface, turn
from liftgs.procedural.room import Object, Part, SizeName, Triple

SIZES: dict[SizeName, float] = {"small": 0.82, "medium": 1.0, "large": 1.22}

#: Overlap that still counts as touching, metres.
TOUCH_M = 0.002


@dataclass(frozen=True, eq=False)
class Boxes:
    """Oriented boxes around parts: centres, axes as columns, half extents, and world-aligned bounds; metres."""

    round_axes: Int64[np.ndarray, " n"]  # along how many local axes the part is round: box 0, cylinder 2, sphere 3
    centre: Float64[np.ndarray, "n 3"]
    axes: Float64[np.ndarray, "n 3 3"]
    half: Float64[np.ndarray, "n 3"]
    low: Float64[np.ndarray, "n 3"]
    high: Float64[np.ndarray, "n 3"]

    @classmethod
    def of(cls, parts: tuple[Part, ...]) -> Boxes:
        """Of every part."""
        bounds = [p.bounds() for p in parts]
        return cls(
            np.array([{"box": 0, "cylinder": 2, "sphere": 3}[p.shape] for p in parts]),
            np.array([p.centre for p in parts]),
            np.stack([p.rotation for p in parts]),
            np.array([p.half_size for p in parts]),
            np.array([b[0] for b in bounds]),
            np.array([b[1] for b in bounds]),
        )

    def moved(self, rotation: Float64[np.ndarray, "3 3"], shift: Triple) -> Boxes:
        """Turned about the origin, then shifted."""
        centre = self.centre @ rotation.T + shift
        axes = rotation @ self.axes
        scaled = axes * self.half[:, None, :]
        is_round = np.arange(3) < self.round_axes[:, None]
        reach = np.sqrt((scaled**2 * is_round[:, None]).sum(2)) + (np.abs(scaled) * ~is_round[:, None]).sum(2)
        return Boxes(self.round_axes, centre, axes, self.half, centre - reach, centre + reach)


def penetrate(a: Boxes, b: Boxes, touch_m: float = TOUCH_M) -> bool:
    """Whether a box of `a` and one of `b` overlap by more than `touch_m` (separating axes, Gottschalk et al. 1996)."""
    near = ((a.low[:, None] + touch_m < b.high[None]) & (b.low[None] + touch_m < a.high[:, None])).all(2)
    i, j = np.nonzero(near)
    if len(i) == 0:
        return False
    Ra, Rb, ha, hb = a.axes[i], b.axes[j], a.half[i], b.half[j]
    R = np.einsum("nki,nkj->nij", Ra, Rb)
    t = np.einsum("nki,nk->ni", Ra, b.centre[j] - a.centre[i])
    Q = np.abs(R)
    gaps = [
        np.abs(t) - (ha + np.einsum("nij,nj->ni", Q, hb)),
        np.abs(np.einsum("nij,ni->nj", R, t)) - (np.einsum("nij,ni->nj", Q, ha) + hb),
    ]
    for p in range(3):
        for q in range(3):
            p1, p2, q1, q2 = (p + 1) % 3, (p + 2) % 3, (q + 1) % 3, (q + 2) % 3
            length = np.sqrt(np.maximum(1 - R[:, p, q] ** 2, 1e-12))
            reach = (
                ha[:, p1] * Q[:, p2, q] + ha[:, p2] * Q[:, p1, q] + hb[:, q1] * Q[:, p, q2] + hb[:, q2] * Q[:, p, q1]
            )
            distance = np.abs(t[:, p2] * R[:, p1, q] - t[:, p1] * R[:, p2, q])
            gap = np.where(length > 1e-3, (distance - reach) / length, -np.inf)
            gaps.append(gap[:, None])
    return bool((np.concatenate(gaps, 1).max(1) < -touch_m).any())


@dataclass(frozen=True, eq=False)
class Draft:
    """An object that has been built but stands nowhere yet; object frame, scaled to its size."""

    kind: str
    colour: str
    material: str
    size: SizeName
    parts: tuple[Part, ...]
    surfaces: tuple[Surface, ...]
    seats: tuple[Seat, ...]
    boxes: Boxes

    @cached_property
    def low(self) -> Float64[np.ndarray, " 3"]:
        """Lower corner of its box."""
        return np.asarray(self.boxes.low.min(0))

    @cached_property
    def high(self) -> Float64[np.ndarray, " 3"]:
        """Upper corner of its box."""
        return np.asarray(self.boxes.high.max(0))


@dataclass(frozen=True, eq=False)
class Placed:
    """An object in its place, with what its kind offers to others."""

    object: Object
    draft: Draft
    at: Triple
    boxes: Boxes
    low: Float64[np.ndarray, " 3"]
    high: Float64[np.ndarray, " 3"]

    def world(self, x: float, y: float, z: float = 0.0) -> Triple:
        """A point of the object frame in the world."""
        c, s = np.cos(self.object.yaw), np.sin(self.object.yaw)
        return self.at[0] + c * x - s * y, self.at[1] + s * x + c * y, self.at[2] + z


def _moved(part: Part, rotation: np.ndarray, scale: float, shift: Triple) -> Part:
    centre = rotation @ (np.asarray(part.centre) * scale) + shift
    half = np.asarray(part.half_size) * scale
    return replace(
        part,
        centre=(float(centre[0]), float(centre[1]), float(centre[2])),
        half_size=(float(half[0]), float(half[1]), float(half[2])),
        rotation=rotation @ part.rotation,
    )


@dataclass
class Layout:
    """A room being furnished.

    Attributes:
        size: of the room, metres.
        rng: of the room.
        accents: bright colours that the room's furniture keeps to where its kind allows.
        placed: furniture so far.
        next_id: of the next object; ids below are the structure's.
        keep_clear: floor areas (x0, y0, x1, y1) that stay empty, e.g. before doors.
    """

    size: Triple
    rng: np.random.Generator
    accents: tuple[str, ...]
    next_id: int
    placed: list[Placed] = field(default_factory=list)
    keep_clear: list[tuple[float, float, float, float]] = field(default_factory=list)

    def chance(self, probability: float) -> bool:
        """A biased coin."""
        return bool(self.rng.random() < probability)

    def draft(self, kind: str, colour: str | None = None, size: SizeName | None = None) -> Draft:
        """Build an object of a kind, of a colour and size of the room's taste unless given."""
        spec = REGISTRY[kind]
        rng = self.rng
        material = spec.materials[int(rng.integers(len(spec.materials)))]
        if colour is None:
            liked = [c for c in spec.colours if c in self.accents or c not in colours.BRIGHT] or list(spec.colours)
            if material == "wood" and "brown" in liked and rng.random() < 0.4:
                colour = "brown"
            else:
                colour = liked[int(rng.integers(len(liked)))]
        if size is None:
            names: list[SizeName] = ["small", "medium", "medium", "large"]
            size = names[int(rng.integers(4))]
        texture = "painted" if material == "wood" and colour != "brown" else material
        kit = Kit(rng, colours.sample(colour, rng), texture)
        spec.build(kit)
        scale = SIZES[size]
        parts = tuple(_moved(p, np.eye(3), scale, (0.0, 0.0, 0.0)) for p in kit.parts)
        return Draft(
            kind,
            colour,
            material,
            size,
            parts,
            tuple(
                Surface(s.x * scale, s.y * scale, s.z * scale, s.width * scale, s.depth * scale) for s in kit.surfaces
            ),
            tuple(Seat(s.x * scale, s.y * scale, s.yaw) for s in kit.seats),
            Boxes.of(parts),
        )

    def place(
        self, draft: Draft, at: Triple, yaw_deg: float, support: int | None = None, clearance_m: float = 0.0
    ) -> Placed | None:
        """Put the object there if it fits inside the room, free of all others by `clearance_m` sideways; else None."""
        rotation = turn("z", yaw_deg)
        boxes = draft.boxes.moved(rotation, at)
        low, high = boxes.low.min(0), boxes.high.max(0)
        if (low < -1e-6).any() or (high > np.asarray(self.size) + 1e-6).any():
            return None
        if low[2] < 1.0 and support is None and any(_overlap(low, high, area) for area in self.keep_clear):
            return None
        reach = np.array([clearance_m, clearance_m, 0.0])
        for other in self.placed:
            if not ((low - reach < other.high) & (other.low < high + reach)).all():
                continue
            if clearance_m > 0 or penetrate(boxes, other.boxes):
                return None
        parts = tuple(_moved(p, rotation, 1.0, at) for p in draft.parts)
        placed = Placed(
            Object(
                self.next_id,
                draft.kind,
                draft.colour,
                draft.material,
                draft.size,
                parts,
                (float(low[0]), float(low[1]), float(low[2])),
                (float(high[0]), float(high[1]), float(high[2])),
                support,
                float(np.radians(yaw_deg)),
            ),
            draft,
            at,
            boxes,
            low,
            high,
        )
        self.next_id += 1
        self.placed.append(placed)
        return placed

    def against_wall(
        self, draft: Draft, walls: tuple[int, ...] = (0, 1, 2, 3), height: float = 0.0, clearance_m: float = 0.02
    ) -> Placed | None:
        """Back to a wall, somewhere along it. Walls: 0 is y = max, 1 is x = 0, 2 is y = 0, 3 is x = max."""
        for _ in range(30):
            wall = walls[int(self.rng.integers(len(walls)))]
            along = self.size[0] if wall % 2 == 0 else self.size[1]
            width = draft.high[0] - draft.low[0]
            if along < width + 0.1:
                continue
            u = self.rng.uniform(width / 2 + 0.03, along - width / 2 - 0.03)
            placed = self.at_wall(draft, wall, float(u), height, clearance_m)
            if placed:
                return placed
        return None

    def at_wall(
        self, draft: Draft, wall: int, along: float, height: float = 0.0, clearance_m: float = 0.02
    ) -> Placed | None:
        """Back to a given wall at a given place along it."""
        gap = float(draft.high[1]) + 0.004
        centre = -float(draft.low[0] + draft.high[0]) / 2
        x, y, _ = self.size
        at, yaw = {
            0: ((along + centre, y - gap, height), 0),
            1: ((gap, along + centre, height), 90),
            2: ((along - centre, gap, height), 180),
            3: ((x - gap, along - centre, height), -90),
        }[wall]
        return self.place(draft, at, yaw, None, clearance_m)

    def on_floor(
        self, draft: Draft, clearance_m: float = 0.35, yaws: tuple[int, ...] = (0, 90, 180, 270)
    ) -> Placed | None:
        """Free-standing, at `clearance_m` from everything else."""
        reach = float(np.abs(np.concatenate([draft.low[:2], draft.high[:2]])).max())
        for _ in range(24):
            x = self.rng.uniform(min(reach + 0.1, self.size[0] / 2), max(self.size[0] - reach - 0.1, self.size[0] / 2))
            y = self.rng.uniform(min(reach + 0.1, self.size[1] / 2), max(self.size[1] - reach - 0.1, self.size[1] / 2))
            yaw = yaws[int(self.rng.integers(len(yaws)))] + self.rng.uniform(-8, 8)
            placed = self.place(draft, (float(x), float(y), 0.0), float(yaw), None, clearance_m)
            if placed:
                return placed
        return None

    def on_top(
        self,
        draft: Draft,
        base: Placed,
        surface: Surface,
        yaw_deg: float | None = None,
        at: tuple[float, float] | None = None,
    ) -> Placed | None:
        """On a surface of another object, at a place of it (-1..1 each way) or anywhere, turned relative to it."""
        reach = np.maximum(np.abs(draft.low[:2]), np.abs(draft.high[:2]))
        for attempt in range(8):
            yaw = float(self.rng.uniform(-25, 25)) if yaw_deg is None else yaw_deg
            room = np.maximum(np.array([surface.width, surface.depth]) / 2 - _turned(reach, yaw), 0)
            if (_turned(reach, yaw) > np.array([surface.width, surface.depth]) / 2 + 0.06).any():
                return None
            f = self.rng.uniform(-1, 1, 2) if at is None or attempt > 3 else np.asarray(at)
            x, y = surface.x + f[0] * room[0], surface.y + f[1] * room[1]
            point = base.world(float(x), float(y), surface.z + 0.001)
            placed = self.place(draft, point, float(np.degrees(base.object.yaw)) + yaw, base.object.id)
            if placed:
                return placed
        return None

    def at_seat(self, draft: Draft, base: Placed, seat: Seat) -> Placed | None:
        """A chair at a table, roughly straight, pushed in more or less."""
        for _ in range(5):
            out = float(self.rng.uniform(0.0, 0.22))
            a = np.radians(seat.yaw)
            # A chair looks along -y of its own frame; pulling it out moves it the other way.
            x, y = seat.x - np.sin(a) * out, seat.y + np.cos(a) * out
            yaw = float(np.degrees(base.object.yaw)) + seat.yaw + float(self.rng.uniform(-14, 14))
            placed = self.place(draft, base.world(float(x), float(y)), yaw)
            if placed:
                return placed
        return None


def _turned(reach: np.ndarray, yaw_deg: float) -> np.ndarray:
    c, s = abs(np.cos(np.radians(yaw_deg))), abs(np.sin(np.radians(yaw_deg)))
    return np.array([c * reach[0] + s * reach[1], s * reach[0] + c * reach[1]])


def _overlap(low: np.ndarray, high: np.ndarray, area: tuple[float, float, float, float]) -> bool:
    return bool(low[0] < area[2] and high[0] > area[0] and low[1] < area[3] and high[1] > area[1])
