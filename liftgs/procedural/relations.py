"""What is true of a room, in three values: clearly so, clearly not so, and anything between, which nobody should say.

Every predicate here has a margin. An expression is emitted only if one object clearly fits it and all others clearly do
not; whatever a person might argue about is UNSURE, and spoils the expression. Lengths are metres, boxes are
world-aligned. Structure (walls, floor, ceiling) takes part in no relation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float64, Int8

from liftgs.procedural.language import Description, Noun
from liftgs.procedural.room import Object, Room

FALSE, UNSURE, TRUE = -1, 0, 1

#: What a person might also call by a name (beside kinds that end in it: an office chair is a chair).
ALSO_CALLED: dict[str, tuple[str, ...]] = {
    "chair": ("armchair",),
    "armchair": ("chair",),
    "sofa": ("armchair",),
    "table": ("desk", "workbench", "nightstand"),
    "round table": ("table",),
    "desk": ("table", "workbench"),
    "workbench": ("table", "desk"),
    "nightstand": ("stool",),
    "bookshelf": ("rack",),
    "rack": ("bookshelf",),
    "wardrobe": ("locker",),
    "locker": ("wardrobe", "filing cabinet"),
    "filing cabinet": ("locker", "nightstand"),
    "crate": ("cardboard box",),
    "cardboard box": ("crate",),
    "picture": ("whiteboard",),
}

#: Kinds with a front that everybody agrees on, so that one can stand before them and face them.
FACED: frozenset[str] = frozenset(
    {
        "sofa",
        "armchair",
        "bed",
        "desk",
        "bookshelf",
        "wardrobe",
        "fridge",
        "stove",
        "toilet",
        "washing machine",
        "radiator",
        "window",
        "door",
        "picture",
        "whiteboard",
        "filing cabinet",
        "locker",
        "water cooler",
        "workbench",
    }
)

#: Those of which "in front of" means just that. (A desk has its chair in front or behind, as one likes.)
FRONTED: frozenset[str] = FACED - {"desk", "workbench", "toilet", "bed"}

#: Kinds that belong to the walls: nobody says of them that they are against one, or in a corner.
BUILT_IN: frozenset[str] = frozenset({"door", "window", "radiator", "picture", "whiteboard", "clock"})

#: Kinds with room beneath them.
OPEN_BELOW: frozenset[str] = frozenset({"table", "round table", "desk", "workbench"})

_NEARER, _NEARER_M = 1.15, 0.15  # the runner-up is farther by both the factor and the length
_LARGER = 1.15  # linear size
_FLAT_M = 0.06  # rugs

Ternary = Int8[np.ndarray, " n"]
Pairwise = Int8[np.ndarray, "n n"]


def ternary(clearly: np.ndarray, clearly_not: np.ndarray) -> np.ndarray:
    """TRUE, FALSE or UNSURE; what is both (a bug in the margins) is UNSURE."""
    return clearly.astype(np.int8) - clearly_not.astype(np.int8)


class Relations:
    """Truth of descriptions over the objects of one room; indices are positions in `things`."""

    def __init__(self, room: Room):
        self.room = room
        self.things: list[Object] = [thing for thing in room.objects if not thing.is_structure]
        self.ids = [thing.id for thing in self.things]
        self.low = np.array([thing.box_min for thing in self.things], np.float64).reshape(-1, 3)
        self.high = np.array([thing.box_max for thing in self.things], np.float64).reshape(-1, 3)
        self.centre = (self.low + self.high) / 2
        self.half = (self.high - self.low) / 2
        self.kinds = np.array([thing.kind for thing in self.things], np.str_)
        self._nouns: dict[Noun, Ternary] = {}
        self._sizes: dict[str, Ternary] = {}
        self._pairwise: dict[str, Pairwise] = {}

    def __len__(self) -> int:
        return len(self.things)

    # ---- descriptions

    def truth(self, description: Description) -> Ternary:
        """Whether each thing fits; UNSURE for all if an anchor is not clearly one thing."""
        noun = self.noun(description.noun)
        if not description.relation:
            return noun
        anchors = [self.find(anchor) for anchor in description.anchors]
        if any(len(found) != anchor.noun.count for found, anchor in zip(anchors, description.anchors, strict=True)):
            return np.zeros(len(self), np.int8)
        return self.related(noun, description.relation, tuple(index for found in anchors for index in found))

    def find(self, description: Description) -> tuple[int, ...]:
        """The things that fit, if there are as many as the noun says and all others clearly do not fit; else ()."""
        truth = self.truth(description)
        (found,) = np.nonzero(truth == TRUE)
        if len(found) != description.noun.count or (truth == UNSURE).any():
            return ()
        return tuple(found.tolist())

    def related(self, noun: Ternary, relation: str, anchors: tuple[int, ...]) -> Ternary:
        """Whether each thing fits the noun and stands in the relation to the anchors, which never fit themselves."""
        if relation in ("nearest", "farthest"):
            truth = self._superlative(noun, anchors[0], farthest=relation == "farthest")
        elif relation in ("between", "between two"):
            truth = self.between(*anchors)
        elif relation in ("left from", "right from"):
            truth = self._beside_from(anchors[0], anchors[1], relation.removesuffix(" from"))
        elif relation in ("corner", "wall", "middle"):
            truth = getattr(self, relation)
        else:
            truth = self.pairwise(relation)[:, anchors[0]]
        truth = np.minimum(noun, truth)
        truth[list(anchors)] = FALSE
        return truth

    # ---- nouns

    def noun(self, noun: Noun) -> Ternary:
        """Whether each thing may be called this."""
        if noun not in self._nouns:
            self._nouns[noun] = self._noun(noun)
        return self._nouns[noun]

    def _noun(self, noun: Noun) -> Ternary:
        truth = self.kind(noun.kind)
        if noun.colour:
            truth = np.minimum(truth, self._equals("colour", noun.colour))
        if noun.material:
            truth = np.minimum(truth, self._equals("material", noun.material))
        if noun.size:
            if noun.size not in self._sizes:
                self._sizes[noun.size] = self._size(noun.size)
            truth = np.minimum(truth, self._sizes[noun.size])
        return truth

    def kind(self, name: str) -> Ternary:
        """Whether each thing is of the kind; UNSURE where it only might be called so."""
        perhaps = np.isin(self.kinds, ALSO_CALLED.get(name, ())) | np.char.endswith(self.kinds, f" {name}")
        return ternary(self.kinds == name, (self.kinds != name) & ~perhaps)

    def _equals(self, attribute: str, value: str) -> Ternary:
        equal = np.array([getattr(thing, attribute) == value for thing in self.things], bool)
        return ternary(equal, ~equal)

    def _size(self, name: str) -> Ternary:
        """Named so and clearly larger (smaller) than all of its kind that are not; FALSE the other way round."""
        named = np.array([thing.size == name for thing in self.things], bool)
        larger = self.extent[:, None] / self.extent[None, :]
        clear = larger >= _LARGER if name == "large" else larger <= 1 / _LARGER
        rivals = (self.kinds[:, None] == self.kinds[None, :]) & (named[:, None] != named[None, :])
        return ternary(named & (clear | ~rivals).all(1), ~named & (clear.T | ~rivals).all(1))

    @cached_property
    def extent(self) -> Float64[np.ndarray, " n"]:
        """Linear size: geometric mean of a thing's extents in its own frame, so that turning changes nothing."""
        return np.array([_extent(thing) for thing in self.things])

    # ---- distances

    @cached_property
    def gap(self) -> Float64[np.ndarray, "n n"]:
        """Between boxes."""
        apart = np.maximum(self.low[:, None] - self.high[None], self.low[None] - self.high[:, None])
        return np.linalg.norm(np.maximum(apart, 0), axis=-1)

    @cached_property
    def plan_gap(self) -> Float64[np.ndarray, "n n"]:
        """Between boxes, seen from above."""
        apart = np.maximum(self.low[:, None] - self.high[None], self.low[None] - self.high[:, None])
        return np.linalg.norm(np.maximum(apart[..., :2], 0), axis=-1)

    @cached_property
    def distance(self) -> Float64[np.ndarray, "n n"]:
        """Between centres."""
        return np.linalg.norm(self.centre[:, None] - self.centre[None], axis=-1)

    @cached_property
    def overlap(self) -> Float64[np.ndarray, "n n"]:
        """Shared area seen from above, over the smaller of the two areas."""
        shared = np.minimum(self.high[:, None], self.high[None]) - np.maximum(self.low[:, None], self.low[None])
        area = np.prod(2 * self.half[:, :2], axis=-1)
        smaller = np.maximum(np.minimum(area[:, None], area[None]), 1e-6)
        return np.prod(np.maximum(shared[..., :2], 0), axis=-1) / smaller

    @cached_property
    def level(self) -> Bool[np.ndarray, "n n"]:
        """Whether two share some height, give or take 20 cm."""
        apart = np.maximum(self.low[:, None, 2] - self.high[None, :, 2], self.low[None, :, 2] - self.high[:, None, 2])
        return np.asarray(apart <= 0.2)

    @cached_property
    def same_support(self) -> Bool[np.ndarray, "n n"]:
        """Whether two stand on the same thing."""
        support = np.array([thing.support or 0 for thing in self.things])
        return support[:, None] == support[None, :]

    @cached_property
    def carried(self) -> Bool[np.ndarray, "n n"]:
        """[i, a]: whether a carries i, directly or through others."""
        position = {object_id: index for index, object_id in enumerate(self.ids)}
        carried = np.zeros((len(self), len(self)), bool)
        for index, thing in enumerate(self.things):
            support = thing.support
            while support in position and not carried[index, position[support]]:
                carried[index, position[support]] = True
                support = self.things[position[support]].support
        return carried

    # ---- relations without anchor

    @cached_property
    def _wall_gaps(self) -> Float64[np.ndarray, "n 2"]:
        """From each box to the nearer wall, along x and y."""
        return np.minimum(self.low, np.asarray(self.room.size) - self.high)[:, :2]

    @cached_property
    def _movable(self) -> Bool[np.ndarray, " n"]:
        """Things on the floor that could stand elsewhere."""
        return self._on_floor & ~np.isin(self.kinds, list(BUILT_IN))

    @cached_property
    def _on_floor(self) -> Bool[np.ndarray, " n"]:
        return np.array([thing.support is None for thing in self.things], bool) & (self.low[:, 2] < 0.15)

    @cached_property
    def corner(self) -> Ternary:
        """In a corner of the room, on the floor, and not as long as half a wall."""
        far = self._wall_gaps.max(1, initial=0)
        compact = (2 * self.half[:, :2] <= 0.5 * np.asarray(self.room.size)[:2]).all(1)
        return ternary(self._movable & compact & (far <= 0.4), far >= 1.0)

    @cached_property
    def wall(self) -> Ternary:
        """Against a wall, on the floor."""
        near = self._wall_gaps.min(1, initial=np.inf)
        tall = self.high[:, 2] >= 0.3  # nobody says it of a rug
        return ternary(self._movable & tall & (near <= 0.12), near >= 0.6)

    @cached_property
    def middle(self) -> Ternary:
        """In the middle of the room, on the floor."""
        size = np.asarray(self.room.size)[:2]
        off = np.abs(self.centre[:, :2] / size - 0.5).max(1, initial=0)
        return ternary(self._movable & (off <= 0.12), off >= 0.27)

    # ---- relations with one anchor

    def pairwise(self, relation: str) -> Pairwise:
        """[i, a]: whether i stands in the relation to a."""
        if relation not in self._pairwise:
            makers: dict[str, Callable[[], Pairwise]] = {
                "left": lambda: self._faced_side(-1),
                "right": lambda: self._faced_side(1),
                "front": self._front,
                "on": self._on,
                "above": self._above,
                "below": lambda: self._above().T,
                "under": self._under,
                "next to": self._next_to,
            }
            self._pairwise[relation] = makers[relation]()
        return self._pairwise[relation]

    def _on(self) -> Pairwise:
        directly = np.array([[thing.support == anchor for anchor in self.ids] for thing in self.things], bool)
        flat = (self.high[:, 2] <= _FLAT_M)[None, :] & ~(self.high[:, 2] <= _FLAT_M)[:, None]
        on_rug = flat & self._on_floor[:, None] & self._inside(margin_m=0.0)
        bottom, top = self.low[:, None, 2], self.high[None, :, 2]
        lifted = (bottom >= self.low[None, :, 2] + 0.1) | (bottom >= top - 0.15)
        perhaps = self.carried | ((self.overlap > 0) & lifted & (bottom <= top + 0.1))
        return ternary(directly | on_rug, ~(directly | on_rug | perhaps))

    def _inside(self, margin_m: float) -> Bool[np.ndarray, "n n"]:
        """[i, a]: whether i's box lies within a's, seen from above, give or take a margin."""
        low = self.low[:, None, :2] >= self.low[None, :, :2] - margin_m
        high = self.high[:, None, :2] <= self.high[None, :, :2] + margin_m
        return np.all(low & high, axis=-1)

    def _above(self) -> Pairwise:
        """Something that hangs, over something that does not carry it."""
        hangs = np.array([thing.support is None for thing in self.things], bool) & (self.low[:, 2] >= 0.5)
        height = self.low[:, None, 2] - self.high[None, :, 2]
        away = np.abs(self.centre[:, None, :2] - self.centre[None, :, :2])
        over = (away <= self.half[None, :, :2] + 0.2).all(
            -1
        )  # what hangs on a wall is a little behind what stands at it
        standing = self._on_floor & (self.high[:, 2] > _FLAT_M)
        clearly = hangs[:, None] & standing[None, :] & over & (height >= -0.02) & (height <= 1.5)
        clearly_not = (self.low[:, None, 2] <= self.centre[None, :, 2]) | (self.plan_gap >= 0.3)
        return ternary(clearly & ~self.carried, clearly_not)

    def _under(self) -> Pairwise:
        """In the room beneath a table, or a rug on which it stands."""
        open_below = np.isin(self.kinds, list(OPEN_BELOW)) & self._on_floor
        lower = self.high[:, None, 2] <= 0.85 * self.high[None, :, 2]
        beneath = self._on_floor[:, None] & lower & (self._inside(0.05) | (self._flat[:, None] & self._inside(0.0).T))
        clearly_not = (self.overlap <= 0.05) | (self.low[:, None, 2] >= self.high[None, :, 2] - 0.1)
        return ternary(beneath & open_below[None, :], clearly_not)

    @cached_property
    def _flat(self) -> Bool[np.ndarray, " n"]:
        return self.high[:, 2] <= _FLAT_M

    def _next_to(self) -> Pairwise:
        flat = self._flat[:, None] | self._flat[None, :]
        touching = (self.plan_gap > 0) & (self.plan_gap <= 0.3) & self.level & self.same_support & ~flat
        return ternary(touching, self.gap >= 0.9)

    def _front(self) -> Pairwise:
        fronts = np.isin(self.kinds, list(FRONTED))
        ahead, across, half_ahead, half_across, anchor_ahead, anchor_across = self._seen(self._facing)
        gap = ahead - half_ahead - anchor_ahead
        clearly = fronts[None, :] & (gap >= -0.05) & (gap <= 1.2) & (np.abs(across) <= anchor_across)
        clearly &= self.level & self._on_floor[:, None] & ~self._flat[:, None]
        return ternary(clearly, (ahead <= 0) | (np.abs(across) >= half_across + anchor_across + 0.2))

    def _faced_side(self, side: int) -> Pairwise:
        """Left (-1) or right (1) of each anchor, for someone who stands before it and faces it."""
        faced = np.isin(self.kinds, list(FACED))
        truth = self._side(side, *self._seen(-self._facing))
        return np.where(faced[None, :], truth, np.int8(UNSURE))

    @cached_property
    def _facing(self) -> Float64[np.ndarray, "n 2"]:
        """Where each thing's front looks; along -y at yaw 0."""
        yaw = np.array([thing.yaw for thing in self.things])
        return np.stack([np.sin(yaw), -np.cos(yaw)], 1)

    def _seen(self, look: Float64[np.ndarray, "n 2"]) -> tuple[np.ndarray, ...]:
        """Positions relative to each anchor, for someone who looks along `look` [a] at it.

        Returns:
            [i, a] along the look and to the right of it, then half extents in these directions, of i and of a.
        """
        right = np.stack([look[:, 1], -look[:, 0]], 1)
        offset = self.centre[:, None, :2] - self.centre[None, :, :2]
        half = self.half[:, :2]
        return (
            np.einsum("iad,ad->ia", offset, look),
            np.einsum("iad,ad->ia", offset, right),
            half @ np.abs(look).T,
            half @ np.abs(right).T,
            np.sum(half * np.abs(look), 1)[None, :],
            np.sum(half * np.abs(right), 1)[None, :],
        )

    def _side(
        self,
        side: int,
        ahead: np.ndarray,
        across: np.ndarray,
        half_ahead: np.ndarray,
        half_across: np.ndarray,
        anchor_ahead: np.ndarray,
        anchor_across: np.ndarray,
    ) -> np.ndarray:
        """Beside: past the anchor's side, more beside than before or behind it, at its height and not far off."""
        beside = side * across
        clearly = (beside >= 0.9 * (half_across + anchor_across)) & (np.abs(ahead) <= 0.7 * beside)
        clearly &= (self.plan_gap <= 2.0) & self.level & ~self._flat[:, None]
        return ternary(clearly, (beside <= 0) | (np.abs(ahead) >= 1.8 * beside))

    # ---- relations with a choice or with two anchors

    def _superlative(self, noun: Ternary, anchor: int, farthest: bool) -> Ternary:
        """Nearest to (farthest from) the anchor of all that fit the noun, by centres and by boxes alike."""
        sign = -1 if farthest else 1
        possible, certain = noun > FALSE, noun == TRUE
        possible[anchor] = certain[anchor] = False
        beats = np.ones((len(self), len(self)), bool)  # [i, k]: i is clearly nearer (farther) than k
        for metric in (self.distance[:, anchor], self.gap[:, anchor]):
            mine, other = (metric[:, None], metric[None, :])[::sign]
            beats &= other >= _NEARER * mine + _NEARER_M
        rivals = possible[None, :] & ~np.eye(len(self), dtype=bool)
        return ternary(certain & (beats | ~rivals).all(1), (beats & certain[:, None]).any(0))

    def between(self, first: int, second: int) -> Ternary:
        """Near the middle of the line from one to the other, seen from above, and at their height."""
        a, b = self.centre[first, :2], self.centre[second, :2]
        length = float(np.linalg.norm(b - a))
        if length < 1.0:
            return np.zeros(len(self), np.int8)
        along = (self.centre[:, :2] - a) @ (b - a) / length
        off = np.abs((self.centre[:, :2] - a) @ np.array([a[1] - b[1], b[0] - a[0]]) / length)
        share = along / length
        level = self.level[:, first] & self.level[:, second]
        apart = (self.plan_gap[:, first] > 0) & (self.plan_gap[:, second] > 0)
        clearly = (share >= 0.3) & (share <= 0.7) & (off <= min(0.15 * length, 0.4)) & level & apart & ~self._flat
        clearly &= self.same_support[:, first] & self.same_support[:, second]
        return ternary(clearly, (share <= 0) | (share >= 1) | (off >= 0.3 * length + 0.3))

    def _beside_from(self, anchor: int, viewer: int, side: str) -> Ternary:
        """Left or right of the anchor, for someone who stands at another thing and looks at the anchor."""
        look = self.centre[anchor, :2] - self.centre[viewer, :2]
        length = float(np.linalg.norm(look))
        if length < 1.0:
            return np.zeros(len(self), np.int8)
        seen = self._seen(np.tile(look / length, (len(self), 1)))
        return self._side(-1 if side == "left" else 1, *seen)[:, anchor]


def _extent(thing: Object) -> float:
    """Geometric mean of the extents of a thing's parts, in the frame in which its yaw is 0."""
    c, s = np.cos(thing.yaw), np.sin(thing.yaw)
    unturn = np.array([[c, s, 0.0], [-s, c, 0.0], [0.0, 0.0, 1.0]])
    boxes = [
        replace(part, rotation=unturn @ part.rotation, centre=tuple(unturn @ np.asarray(part.centre))).bounds()
        for part in thing.parts
    ]
    if not boxes:
        boxes = [(np.asarray(thing.box_min), np.asarray(thing.box_max))]
    size = np.max([high for _, high in boxes], axis=0) - np.min([low for low, _ in boxes], axis=0)
    return float(np.prod(np.maximum(size, 1e-3)) ** (1 / 3))
