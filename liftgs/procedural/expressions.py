"""Referring expressions about a room, each true and unambiguous by construction.

An expression is found as structure (`language.Description`), kept only if `relations` finds that its target, and each
of its anchors, clearly fits and every other object of the room clearly does not, and then said in one of several ways.

What is said depends on no camera: left and right are of someone who faces a thing with a front ("to the left of the
sofa when facing it") or who looks at it from another thing ("to the left of the table seen from the door").
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from liftgs.procedural.language import ARITY, NESTING, RELATIONS, Description, Noun, Sentence, nouns, sentence
from liftgs.procedural.relations import TRUE, Relations
from liftgs.procedural.room import Room
from liftgs.scene import Expression, Mention

_T = TypeVar("_T")

_SUPERLATIVES = ("nearest", "farthest")
_UNARY = tuple(name for name in RELATIONS if ARITY[name] == 0)
_PAIRWISE = ("left", "right", "front", "on", "above", "below", "under", "next to")
_VIEWPOINTS = ("door",)
_TRIES = 60  # proposals looked at per relation and room
_PER_TARGET = 3


@dataclass(frozen=True)
class Reference:
    """An expression with the structure that it says.

    Attributes:
        expression: mentions the target, then the anchors in the order of `Description.walk`.
        description: kind, colour, relation and so on, for whoever trains on them.
    """

    expression: Expression
    description: Description


def refer(room: Room, visible: Collection[int], seed: int, max_per_room: int = 16) -> tuple[Expression, ...]:
    """Referring expressions about what is seen of a room; a pure function of its arguments.

    Args:
        room: the whole room; expressions are unambiguous among all of its objects, seen or not.
        visible: ids that may be targets and anchors.
        seed: of the corpus.
        max_per_room: at most so many; relations take turns, so that none crowds out the others.
    """
    return tuple(reference.expression for reference in references(room, visible, seed, max_per_room))


def references(room: Room, visible: Collection[int], seed: int, max_per_room: int = 16) -> tuple[Reference, ...]:
    """As `refer`, with the structure of each expression."""
    rng = np.random.default_rng([seed, room.index])
    speaker = _Speaker(room, visible, rng)
    turns = [speaker.propose(relation) for relation in rng.permutation(("", *RELATIONS)).tolist()]
    found: dict[str, Reference] = {}
    uses = dict.fromkeys(speaker.relations.ids, 0)
    while turns and len(found) < max_per_room:
        turn = turns.pop(0)
        for description in turn:
            reference = _express(speaker.relations, description, sentence(description, rng))
            (target,) = reference.expression.target.instances
            if uses[target] < _PER_TARGET and reference.expression.text not in found:
                found[reference.expression.text] = reference
                uses[target] += 1
                turns.append(turn)
                break
    return tuple(found.values())


def _express(relations: Relations, description: Description, said: Sentence) -> Reference:
    mentions = [
        Mention(tuple(relations.ids[index] for index in relations.find(node)), span, said.words(span))
        for node, span in zip(description.walk(), said.spans, strict=True)
    ]
    relation = description.relation.removesuffix(" from").removesuffix(" two")
    return Reference(Expression(said.text, mentions[0], tuple(mentions[1:]), relation), description)


class _Speaker:
    """Looks for descriptions that fit exactly one thing."""

    def __init__(self, room: Room, visible: Collection[int], rng: np.random.Generator):
        self.rng = rng
        self.relations = Relations(room)
        things = self.relations.things
        self.visible = [index for index, thing in enumerate(things) if thing.id in set(visible)]
        self.nouns = [nouns(thing) for thing in things]
        #: noun phrases that fit this thing alone
        self.names = [
            [noun for noun in self.nouns[index] if self.relations.find(Description(noun)) == (index,)]
            for index in range(len(things))
        ]
        self.reach = (2 * self.relations.half).max(1, initial=0)

    def propose(self, relation: str) -> Iterator[Description]:
        """Descriptions with this relation, in random order."""
        proposals = self._proposals(relation)
        for _, proposal in zip(range(_TRIES), proposals, strict=False):
            if proposal is not None:
                yield proposal

    def _proposals(self, relation: str) -> Iterator[Description | None]:
        """One try each; None if it came to nothing."""
        if not relation:
            return self._plain()
        if relation in _UNARY:
            return self._unary(relation)
        if relation == "between":
            return self._between()
        if relation == "between two":
            return self._between_two()
        if relation.endswith(" from"):
            return self._seen_from(relation)
        return self._related(relation)

    def _plain(self) -> Iterator[Description | None]:
        for index in self._shuffled(self.visible):
            name = self._name(index)
            yield None if name is None else Description(name)

    def _unary(self, relation: str) -> Iterator[Description | None]:
        truth = self.relations.related(np.full(len(self.relations), TRUE, np.int8), relation, ())
        for target in self._shuffled(self.visible):
            if truth[target] == TRUE:
                yield self._narrow(target, relation, ())

    def _related(self, relation: str) -> Iterator[Description | None]:
        for target, anchor in self._pairs(relation):
            described = self._describe(anchor, relation)
            yield None if described is None else self._narrow(target, relation, (described,))

    def _between(self) -> Iterator[Description | None]:
        centres = self.relations.centre[:, :2]
        middle = (centres[:, None] + centres[None]) / 2
        seen = np.isin(np.arange(len(self.relations)), self.visible)
        apart = (self.relations.distance > 0) & (self.relations.distance < 5) & seen[:, None] & seen[None]
        for target in self._shuffled(self.visible):
            off = np.linalg.norm(middle - centres[target], axis=-1)
            for first, second in self._shuffled(np.argwhere(apart & (off < 1)).tolist()):
                names = self._name(first), self._name(second)
                pair = self._may_anchor(target, first) and self._may_anchor(target, second)
                if not pair or None in names:
                    continue
                if self.relations.between(first, second)[target] == TRUE:
                    anchors = tuple(Description(name) for name in names if name is not None)
                    yield self._narrow(target, "between", anchors)
                    break

    def _between_two(self) -> Iterator[Description | None]:
        things = [self.relations.things[index] for index in self.visible]
        couples = {Noun(thing.kind, colour, count=2) for thing in things for colour in ("", thing.colour)}
        for couple in self._shuffled(sorted(couples, key=str)):
            pair = self.relations.find(Description(couple))
            if not pair or not set(pair) <= set(self.visible):
                continue
            truth = self.relations.between(*pair)
            for target in self._shuffled(self.visible):
                if truth[target] == TRUE and all(self._may_anchor(target, anchor) for anchor in pair):
                    yield self._narrow(target, "between two", (Description(couple),))

    def _seen_from(self, relation: str) -> Iterator[Description | None]:
        anyone = np.full(len(self.relations), TRUE, np.int8)
        viewers = [i for i in self.visible if self.relations.things[i].kind in _VIEWPOINTS and self.names[i]]
        for viewer in viewers:
            for anchor in self._shuffled(self.visible):
                name, seen_from = self._name(anchor), self._name(viewer)
                if anchor == viewer or name is None or seen_from is None:
                    continue
                truth = self.relations.related(anyone, relation, (anchor, viewer))
                for target in self._shuffled(self.visible):
                    if truth[target] == TRUE and self._may_anchor(target, anchor):
                        yield self._narrow(target, relation, (Description(name), Description(seen_from)))
                        break

    def _pairs(self, relation: str) -> Iterator[tuple[int, int]]:
        """Targets and anchors between which the relation may be worth a try."""
        pairs = [(target, anchor) for target in self.visible for anchor in self.visible if target != anchor]
        if relation in _PAIRWISE:
            truth = self.relations.pairwise(relation)
            pairs = [pair for pair in pairs if truth[pair] == TRUE]
        for target, anchor in self._shuffled(pairs):
            carried = relation == "on" or relation not in _SUPERLATIVES or not self._touch(target, anchor)
            if carried and (relation in ("on", "below") or self._may_anchor(target, anchor)):
                yield target, anchor

    def _touch(self, first: int, second: int) -> bool:
        """Whether one carries the other."""
        carried = self.relations.carried
        return bool(carried[first, second] or carried[second, first])

    def _may_anchor(self, target: int, anchor: int) -> bool:
        """Whether one would find the target by the anchor: it is not much smaller, nor a trifle elsewhere."""
        near = bool(self.relations.same_support[target, anchor])
        return bool(self.reach[anchor] >= 0.4 * self.reach[target] and (near or self.reach[anchor] >= 0.4))

    def _narrow(self, target: int, relation: str, anchors: tuple[Description, ...]) -> Description | None:
        """The target by its relation and as few adjectives as make it unambiguous, or sometimes one or two more."""
        if any(target in self.relations.find(node) for anchor in anchors for node in anchor.walk()):
            return None  # "the mug on the table under the mug"
        fitting = []
        for noun in self.nouns[target]:
            description = Description(noun, relation, anchors)
            rivals = relation not in _SUPERLATIVES or np.sum(self.relations.noun(noun) == TRUE) > 1
            if rivals and self.relations.find(description) == (target,):
                fitting.append(description)
        if not fitting:
            return None
        needless = fitting[0].noun in self.names[target]
        if needless and self.rng.random() < 0.6:  # the relation distinguishes nothing
            return None
        return fitting[0] if self.rng.random() < 0.75 else self._any(fitting)

    def _name(self, index: int) -> Noun | None:
        """A noun phrase that fits this thing alone, mostly the shortest."""
        names = self.names[index]
        if not names:
            return None
        return names[0] if self.rng.random() < 0.75 else self._any(names)

    def _describe(self, anchor: int, relation: str) -> Description | None:
        """An anchor by its name, or else by a relation of its own."""
        name = self._name(anchor)
        if name is not None:
            return Description(name)
        if relation not in NESTING:
            return None
        inner = [*_UNARY, "on", "front", "next to", "under"]
        if relation not in _SUPERLATIVES:
            inner += _SUPERLATIVES
        for own in self._shuffled(inner):
            described = self._described_by(anchor, own)
            if described is not None:
                return described
        return None

    def _described_by(self, index: int, relation: str) -> Description | None:
        """A thing that has no name of its own, by a relation to one that has."""
        if relation in _UNARY:
            return self._narrow(index, relation, ())
        named = [anchor for anchor in self.visible if anchor != index and self.names[anchor]]
        if relation in _PAIRWISE:
            truth = self.relations.pairwise(relation)
            named = [anchor for anchor in named if truth[index, anchor] == TRUE]
        for anchor in self._shuffled(named)[:4]:
            if self._may_anchor(index, anchor) and not (relation in _SUPERLATIVES and self._touch(index, anchor)):
                found = self._narrow(index, relation, (Description(self.names[anchor][0]),))
                if found is not None:
                    return found
        return None

    def _shuffled(self, items: list[_T]) -> list[_T]:
        return [items[index] for index in self.rng.permutation(len(items))]

    def _any(self, items: list[_T]) -> _T:
        return items[int(self.rng.integers(len(items)))]
