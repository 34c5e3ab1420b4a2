"""Every expression is true and unambiguous, by an evaluator that reads the words and knows nothing of the generator."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from functools import cache
from math import atan2, cos, degrees, dist, hypot, sin

import numpy as np
import pytest

from liftgs.procedural import language
from liftgs.procedural.colours import COLOURS
from liftgs.procedural.corpora import CORPORA, build_room
from liftgs.procedural.expressions import Reference, refer, references
from liftgs.procedural.kinds import KINDS, REGISTRY
from liftgs.procedural.language import Description, Noun
from liftgs.procedural.relations import ALSO_CALLED, BUILT_IN, FACED, FRONTED, OPEN_BELOW, Relations
from liftgs.procedural.room import Object, Room

# ---- an independent reader of expressions

MATERIALS = {"wooden": "wood", "plastic": "plastic", "metal": "metal", "fabric": "fabric", "leather": "leather"}
MATERIALS["ceramic"] = "ceramic"
PLURALS = {
    ("bookshelves" if kind == "bookshelf" else kind + ("es" if kind.endswith(("x", "ch")) else "s")): kind
    for kind in KINDS
}


def _any(words: list[str]) -> str:
    return "|".join(sorted(map(re.escape, words), key=len, reverse=True))


NOUN_PHRASE = re.compile(
    rf"\b(?P<article>the two|the|an|a) (?:(?P<size>large|small) )?(?:(?P<colour>{_any(list(COLOURS))}) )?"
    rf"(?:(?P<material>{_any(list(MATERIALS))}) )?(?P<kind>{_any([*KINDS, *PLURALS])})\b"
    rf"(?: that is (?P<colour2>{_any(list(COLOURS))})\b| made of (?P<material2>[a-z]+))?"
)


@dataclass(frozen=True)
class Phrase:
    """A noun phrase that was read, and where."""

    kind: str
    colour: str | None
    material: str | None
    size: str | None
    count: int
    span: tuple[int, int]


@dataclass(frozen=True)
class Read:
    """What an expression was read to say."""

    phrase: Phrase
    relation: str
    anchors: tuple[Read, ...]


RELATION_WORDS = {
    r"(?:that is )?(?:nearest|closest) to": "nearest",
    r"(?:that is )?farthest(?: away)? from": "farthest",
    r"(?:that is )?between": "between",
    r"(?:that is )?(?:to the )?left of": "left",
    r"(?:that is )?(?:to the )?right of": "right",
    r"(?:that is )?in front of": "front",
    r"(?:that is )?on|standing on": "on",
    r"(?:that is )?above": "above",
    r"(?:that is )?below|beneath": "below",
    r"(?:that is )?under|underneath": "under",
    r"(?:that is )?next to|beside": "next to",
    r"(?:that is )?in the corner(?: of the room)?": "corner",
    r"(?:that is )?against the wall": "wall",
    r"(?:that is )?in the middle of the room": "middle",
}


def read(text: str) -> Read:
    """Parse an expression: noun phrases become <0>, <1>, ..., and what is left is a handful of sentence forms."""
    phrases: list[Phrase] = []

    def take(match: re.Match[str]) -> str:
        kind, count = match["kind"], 1
        if kind in PLURALS and match["article"] != "the two":  # "of all the chairs"
            return match[0]
        if match["article"] == "the two":
            kind, count = PLURALS[kind], 2
        material = MATERIALS.get(match["material"] or "") or match["material2"]
        phrases.append(Phrase(kind, match["colour"] or match["colour2"], material, match["size"], count, match.span()))
        return f"<{len(phrases) - 1}>"

    skeleton = NOUN_PHRASE.sub(take, text)
    skeleton = re.sub(r"^of all the [a-z ]+ (?=<)", "", skeleton)
    for pattern, order in (
        (r"between (<\d>) and (<\d>) there is (<\d>)", r"\3 between \1 and \2"),
        (r"look at (<\d>) and find (<\d>) (on|above) it", r"\2 \3 \1"),
        (r"(between|next to) (<\d>) there is (<\d>)", r"\3 \1 \2"),
        (r"when facing (<\d>) (<\d>) to the (left|right) of it", r"\2 \3 of \1 when facing it"),
        (r"seen from (<\d>) (<\d>) to the (left|right) of (<\d>)", r"\2 \3 of \4 seen from \1"),
    ):
        skeleton = re.sub(f"^{pattern}$", order, skeleton)
    skeleton = re.sub(r"^(there is|find|look at|point to|go to|show me|where is) (?=<)", "", skeleton)

    def chain(rest: str) -> Read:
        match = re.fullmatch(r"<(\d)>(?: (.+))?", rest)
        assert match, f"cannot read {text!r}: {rest!r}"
        phrase, tail = phrases[int(match[1])], match[2]
        if tail is None:
            return Read(phrase, "", ())
        for words, relation in RELATION_WORDS.items():
            if related := re.fullmatch(rf"(?:{words})(?: (.+))?", tail):
                return Read(phrase, *anchored(relation, related[1]))
        raise AssertionError(f"cannot read {text!r}: {tail!r}")

    def anchored(relation: str, rest: str | None) -> tuple[str, tuple[Read, ...]]:
        if rest is None:
            return relation, ()
        if relation in ("left", "right"):
            if facing := re.fullmatch(r"(<\d>) when (?:facing it|you face it)", rest):
                return relation, (chain(facing[1]),)
            seen = re.fullmatch(r"(<\d>) (?:seen from|when looking from) (<\d>)", rest)
            assert seen, rest
            return relation, (chain(seen[1]), chain(seen[2]))
        if relation == "between" and (both := re.fullmatch(r"(<\d>) and (<\d>)", rest)):
            return relation, (chain(both[1]), chain(both[2]))
        return relation, (chain(rest),)

    return chain(skeleton)


def called(thing: Object, phrase: Phrase, strict: bool) -> bool:
    """Whether the phrase may be said of the thing; loosely, also "chair" of an armchair, and any size of anything."""
    kinds = thing.kind == phrase.kind or (not strict and thing.kind.split()[-1].endswith(phrase.kind))
    sized = phrase.size in (None, thing.size)
    return kinds and phrase.colour in (None, thing.colour) and phrase.material in (None, thing.material) and sized


def resolve(said: Read, room: Room, strict: bool) -> set[int]:
    """Ids of what an expression picks out, with plain definitions and no margins."""
    things = [thing for thing in room.objects if not thing.is_structure]
    candidates = [thing for thing in things if called(thing, said.phrase, strict)]
    anchors: list[Object] = []
    for anchor in said.anchors:
        found = resolve(anchor, room, strict)
        assert len(found) == anchor.phrase.count, f"anchor {anchor} is {found}"
        anchors += [thing for thing in things if thing.id in found]
    candidates = [thing for thing in candidates if thing not in anchors]
    if said.relation in ("nearest", "farthest", "between"):
        return {best(said.relation, candidates, anchors).id}
    return {thing.id for thing in candidates if holds(said.relation, thing, anchors, room)}


def best(relation: str, candidates: list[Object], anchors: list[Object]) -> Object:
    def detour(thing: Object) -> float:
        a, b = anchors[0].centre[:2], anchors[1].centre[:2]
        to_a, to_b = dist(a, thing.centre[:2]), dist(thing.centre[:2], b)
        # At or beyond an end is not between: the angle there is not acute.
        past = max(to_b**2 - to_a**2, to_a**2 - to_b**2) > dist(a, b) ** 2
        return float("inf") if past else to_a + to_b - dist(a, b)

    if relation == "between":
        return min(candidates, key=detour)
    sign = 1 if relation == "nearest" else -1
    by_centre = min(candidates, key=lambda thing: sign * dist(thing.centre, anchors[0].centre))
    by_box = min(candidates, key=lambda thing: sign * box_gap(thing, anchors[0]))
    assert by_centre is by_box
    return by_centre


def box_gap(a: Object, b: Object) -> float:
    sides = zip(a.box_min, a.box_max, b.box_min, b.box_max, strict=True)
    return hypot(*(max(low_a - high_b, low_b - high_a, 0.0) for low_a, high_a, low_b, high_b in sides))


def bearing(thing: Object, anchor: Object, look: tuple[float, float]) -> tuple[float, float]:
    """Degrees clockwise from the direction of the look, and distance, seen from above at the anchor."""
    x, y = thing.centre[0] - anchor.centre[0], thing.centre[1] - anchor.centre[1]
    angle = degrees(atan2(look[1], look[0]) - atan2(y, x))
    return (angle + 180) % 360 - 180, hypot(x, y)


def holds(relation: str, thing: Object, anchors: list[Object], room: Room) -> bool:  # noqa: PLR0911
    """Plain truth; exactly one candidate must pass."""
    if relation == "":
        return True
    walls = [
        (thing.box_min[axis], room.size[axis] - thing.box_max[axis])  # gaps to both walls
        for axis in (0, 1)
    ]
    if relation == "corner":
        return max(min(walls[0]), min(walls[1])) < 0.7
    if relation == "wall":
        return min(*walls[0], *walls[1]) < 0.36
    if relation == "middle":
        return all(abs(thing.centre[axis] / room.size[axis] - 0.5) < 0.195 for axis in (0, 1))
    anchor = anchors[0]
    front = (sin(anchor.yaw), -cos(anchor.yaw))
    if relation in ("left", "right"):
        look = (-front[0], -front[1])
        if len(anchors) == 2:
            look = (anchor.centre[0] - anchors[1].centre[0], anchor.centre[1] - anchors[1].centre[1])
        angle, _ = bearing(thing, anchor, look)
        return abs(angle - (90 if relation == "right" else -90)) < 45
    if relation == "front":
        angle, away = bearing(thing, anchor, front)
        width = max(anchor.box_max[axis] - anchor.box_min[axis] for axis in (0, 1))
        return abs(angle) < 90 and away * abs(sin(np.radians(angle))) < width / 2 + 0.05
    if relation == "on":
        return thing.support == anchor.id
    within = all(abs(thing.centre[axis] - anchor.centre[axis]) < half(anchor, axis) + 0.25 for axis in (0, 1))
    over = all(abs(thing.centre[axis] - anchor.centre[axis]) < half(thing, axis) + 0.25 for axis in (0, 1))
    if relation == "above":
        return within and thing.box_min[2] > anchor.centre[2] and thing.support != anchor.id
    if relation == "below":
        return over and thing.centre[2] < anchor.box_min[2] and anchor.support != thing.id
    if relation == "under":
        lapped = all(
            thing.box_min[axis] < anchor.box_max[axis] - 0.05 and anchor.box_min[axis] < thing.box_max[axis] - 0.05
            for axis in (0, 1)
        )
        return lapped and thing.box_max[2] < anchor.box_max[2] - 0.05
    assert relation == "next to", relation
    return box_gap(thing, anchor) < 0.6 and thing.support == anchor.support


def half(thing: Object, axis: int) -> float:
    return (thing.box_max[axis] - thing.box_min[axis]) / 2


# ---- rooms


@cache
def rooms(apartments: int = 16, offices: int = 16, warehouses: int = 3) -> list[Room]:
    counts = {"apartments": apartments, "offices": offices, "warehouses": warehouses}
    return [build_room(kind, index, 7) for kind, count in counts.items() for index in range(count)]


def contents(room: Room) -> set[int]:
    return {thing.id for thing in room.objects if not thing.is_structure}


@cache
def spoken() -> list[tuple[Room, Reference]]:
    return [(room, reference) for room in rooms() for reference in references(room, contents(room), 0, 40)]


def check(room: Room, reference: Reference) -> None:
    expression = reference.expression
    said = read(expression.text)
    for strict in (True, False):
        found = resolve(said, room, strict)
        assert found == set(expression.target.instances), f"{room.kind} {room.index}: {expression.text!r}: {found}"
    order = [said.phrase, *_walk(said.anchors)]
    mentions = [expression.target, *expression.anchors]
    assert [phrase.span for phrase in order] == [mention.chars for mention in mentions]


def _walk(anchors: tuple[Read, ...]) -> list[Phrase]:
    return [phrase for anchor in anchors for phrase in (anchor.phrase, *_walk(anchor.anchors))]


def test_every_expression_is_true_and_picks_out_its_target_alone() -> None:
    assert len(spoken()) > 700
    for room, reference in spoken():
        check(room, reference)


@pytest.mark.slow
def test_every_expression_of_hundreds_of_rooms_is_true_and_picks_out_its_target_alone() -> None:
    for kind, count in (("apartments", 150), ("offices", 150), ("warehouses", 16)):
        for index in range(count):
            room = build_room(kind, index, 3)
            for reference in references(room, contents(room), 1, 40):
                check(room, reference)


def test_expressions_stay_true_when_everything_moves_a_little() -> None:
    rng = np.random.default_rng(0)
    for room in rooms(8, 8, 1):
        shifts = rng.uniform(-0.02, 0.02, (len(room.objects), 3))
        moved = replace(
            room,
            objects=tuple(
                replace(
                    thing,
                    box_min=tuple(np.add(thing.box_min, shift).tolist()),
                    box_max=tuple(np.add(thing.box_max, shift).tolist()),
                )
                for thing, shift in zip(room.objects, shifts, strict=True)
            ),
        )
        for reference in references(room, contents(room), 0, 40):
            check(moved, reference)


def test_mentions_name_the_right_things_by_characters_and_by_words() -> None:
    for room, reference in spoken():
        expression = reference.expression
        mentions = (expression.target, *expression.anchors)
        for mention, node in zip(mentions, reference.description.walk(), strict=True):
            phrase = expression.text[slice(*mention.chars)]
            assert phrase.split() == expression.words[slice(*mention.words)]
            assert len(mention.instances) == node.noun.count
            for instance in mention.instances:
                thing = room[instance]
                assert (node.noun.kind, node.noun.colour or thing.colour) == (thing.kind, thing.colour)
                assert node.noun.head in phrase
        assert len({instance for mention in mentions for instance in mention.instances}) == sum(
            node.noun.count for node in reference.description.walk()
        )


def test_only_what_is_visible_is_mentioned_but_all_is_told_apart() -> None:
    for room in rooms()[:12]:
        seen = set(sorted(contents(room))[::2])
        for reference in references(room, seen, 0, 40):
            expression = reference.expression
            for mention in (expression.target, *expression.anchors):
                assert set(mention.instances) <= seen
            check(room, reference)


def test_expressions_are_a_function_of_room_and_seed() -> None:
    room = rooms()[0]
    assert refer(room, contents(room), 5) == refer(build_room(room.kind, room.index, room.seed), contents(room), 5)
    assert refer(room, contents(room), 5) != refer(room, contents(room), 6)
    assert refer(room, (), 5) == ()


def test_relations_take_turns() -> None:
    usual = Counter(
        reference.description.relation for room in rooms() for reference in references(room, contents(room), 0)
    )
    assert set(usual) == {"", *language.RELATIONS} - {"under"} | {"under"} & set(usual)
    assert max(usual.values()) < 0.15 * usual.total()
    nested = sum(any(anchor.relation for anchor in reference.description.anchors) for _, reference in spoken())
    assert nested > 0.04 * len(spoken())
    targets = Counter((id(room), reference.expression.target) for room, reference in spoken())
    assert max(targets.values()) <= 3


def test_most_expressions_say_no_more_than_needed() -> None:
    lean = 0
    for room, reference in spoken():
        description, relations = reference.description, Relations(room)
        bare = replace(description, noun=Noun(description.noun.kind, count=description.noun.count))
        if description.noun == bare.noun or relations.find(bare) != relations.find(description):
            lean += 1
    assert lean > 0.6 * len(spoken())


# ---- what must not be said


def thing(number: int, kind: str, at: tuple[float, float], extent: float = 0.5, **more: object) -> Object:
    low, high = (at[0] - extent / 2, at[1] - extent / 2, 0.0), (at[0] + extent / 2, at[1] + extent / 2, extent)
    fields: dict[str, object] = {"colour": "red", "material": "wood", "size": "medium", "parts": ()} | more
    return Object(id=number, kind=kind, box_min=low, box_max=high, **fields)  # type: ignore[arg-type]


def room_of(*things: Object) -> Room:
    return Room("apartments", "test", 0, 0, (8.0, 8.0, 2.6), things, (), (0.0, 0.0, 0.0))


def find(room: Room, noun: Noun, relation: str = "", *anchors: Noun) -> tuple[int, ...]:
    relations = Relations(room)
    found = relations.find(Description(noun, relation, tuple(Description(anchor) for anchor in anchors)))
    return tuple(relations.ids[index] for index in found)


def test_nearest_needs_a_clear_lead() -> None:
    desk = thing(1, "desk", (4, 4))
    close = room_of(desk, thing(2, "stool", (5, 4)), thing(3, "stool", (4, 2.9)))
    assert find(close, Noun("stool"), "nearest", Noun("desk")) == ()
    clear = room_of(desk, thing(2, "stool", (5, 4)), thing(3, "stool", (4, 2)))
    assert find(clear, Noun("stool"), "nearest", Noun("desk")) == (2,)
    assert find(clear, Noun("stool"), "farthest", Noun("desk")) == (3,)


def test_large_must_be_clearly_larger() -> None:
    small = thing(1, "bin", (1, 1), 0.4)
    assert find(room_of(small, thing(2, "bin", (3, 3), 0.42, size="large")), Noun("bin", size="large")) == ()
    assert find(room_of(small, thing(2, "bin", (3, 3), 0.55, size="large")), Noun("bin", size="large")) == (2,)


def test_what_might_be_called_the_same_spoils_a_name() -> None:
    chair = thing(1, "chair", (1, 1))
    for kind in ("office chair", "armchair"):
        assert find(room_of(chair, thing(2, kind, (3, 3))), Noun("chair")) == ()
        assert find(room_of(chair, thing(2, kind, (3, 3))), Noun(kind)) == ((2,) if kind == "office chair" else ())
        assert find(room_of(chair, thing(2, kind, (3, 3), colour="blue")), Noun("chair", "red")) == (1,)
    assert find(room_of(chair, thing(2, "stool", (3, 3))), Noun("chair")) == (1,)


def test_left_is_the_left_of_who_faces_the_front() -> None:
    lamps = thing(2, "floor lamp", (2.5, 4)), thing(3, "floor lamp", (5.5, 4))
    for yaw, left in ((0.0, 2), (np.pi, 3)):  # at yaw 0 the front looks along -y, so that its viewer looks along +y
        room = room_of(thing(1, "sofa", (4, 4), yaw=yaw), *lamps)
        assert find(room, Noun("floor lamp"), "left", Noun("sofa")) == (left,)
        assert find(room, Noun("floor lamp"), "right", Noun("sofa")) == (5 - left,)
    stool = room_of(thing(1, "stool", (4, 4)), *lamps)
    assert find(stool, Noun("floor lamp"), "left", Noun("stool")) == ()  # it has no front
    seen = room_of(thing(1, "stool", (4, 4)), *lamps, thing(4, "door", (4, 0.3)))
    assert find(seen, Noun("floor lamp"), "left from", Noun("stool"), Noun("door")) == (2,)


def test_between_two_of_a_kind() -> None:
    beds = thing(1, "bed", (2, 4)), thing(2, "bed", (6, 4))
    room = room_of(*beds, thing(3, "plant", (4, 4)), thing(4, "plant", (4, 7)))
    assert find(room, Noun("plant"), "between two", Noun("bed", count=2)) == (3,)
    crowd = room_of(*beds, thing(5, "bed", (7, 7)), thing(3, "plant", (4, 4)))
    assert find(crowd, Noun("plant"), "between two", Noun("bed", count=2)) == ()


def test_on_and_under() -> None:
    desk = replace(thing(1, "desk", (4, 4), 0.8))
    mug = replace(thing(2, "mug", (4, 4), 0.1, support=1), box_min=(3.95, 3.95, 0.8), box_max=(4.05, 4.05, 0.9))
    room = room_of(desk, mug, thing(3, "mug", (1, 1), 0.1), thing(4, "bin", (4, 4), 0.3), thing(5, "bin", (6, 6), 0.3))
    assert find(room, Noun("mug"), "on", Noun("desk")) == (2,)
    assert find(room, Noun("bin"), "under", Noun("desk")) == (4,)
    on_a_tray = replace(mug, support=6)
    tray = replace(thing(6, "book", (4, 4), 0.3, support=1), box_min=(3.8, 3.8, 0.8), box_max=(4.2, 4.2, 0.82))
    assert find(room_of(desk, tray, on_a_tray), Noun("mug"), "on", Noun("desk")) == ()  # a matter of taste


# ---- words


def test_nouns_go_from_plain_to_full() -> None:
    assert language.describe(thing(1, "chair", (0, 0), size="large")) == [
        "chair",
        "red chair",
        "wooden chair",
        "large chair",
        "red wooden chair",
        "large red chair",
        "large wooden chair",
        "large red wooden chair",
    ]
    assert language.describe(thing(1, "plant", (0, 0), colour="green", material="leaf")) == ["plant", "green plant"]


def test_plurals_and_articles() -> None:
    assert {language.plural(kind) for kind in KINDS} == set(PLURALS)
    assert language.indefinite("orange chair") == "an orange chair"
    assert language.indefinite("red armchair") == "a red armchair"


def test_tables_speak_of_kinds_that_exist() -> None:
    named = {*ALSO_CALLED, *(kind for kinds in ALSO_CALLED.values() for kind in kinds)}
    assert named | BUILT_IN | FACED | FRONTED | OPEN_BELOW <= set(KINDS)
    materials = {material for kind in REGISTRY.values() for material in kind.materials}
    assert set(language.MATERIAL_WORDS) <= materials


def test_imagined_descriptions_can_be_read_back() -> None:
    rng = np.random.default_rng(0)
    kinds = list(REGISTRY.values())
    relations: Counter[str] = Counter()
    for _ in range(1500):
        description = language.imagine(kinds, rng)
        said = language.sentence(description, rng)
        _same(read(said.text), description)
        assert [phrase.span for phrase in _walk((read(said.text),))] == list(said.spans)
        relations[description.relation] += 1
    assert set(relations) == {"", *language.RELATIONS}


def _same(said: Read, description: Description) -> None:
    noun, phrase = description.noun, said.phrase
    assert (phrase.kind, phrase.count) == (noun.kind, noun.count)
    assert (phrase.colour or "", phrase.material or "", phrase.size or "") == (noun.colour, noun.material, noun.size)
    assert said.relation == description.relation.removesuffix(" from").removesuffix(" two")
    assert len(said.anchors) == len(description.anchors)
    for anchor, node in zip(said.anchors, description.anchors, strict=True):
        _same(anchor, node)


def test_all_corpora_are_spoken_of() -> None:
    assert {room.kind for room, _ in spoken()} == set(CORPORA)
