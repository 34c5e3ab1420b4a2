"""English for rooms: descriptions as structure, and the sentences that say them. Knows words, but no geometry."""

from __future__ import annotations

import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from liftgs.procedural.kit import Kind
from liftgs.procedural.room import Object

#: How a material is said before a noun. Materials that nobody would name are not here.
MATERIAL_WORDS: dict[str, str] = {
    "wood": "wooden",
    "plastic": "plastic",
    "metal": "metal",
    "fabric": "fabric",
    "leather": "leather",
    "ceramic": "ceramic",
}

#: Sentence patterns of each relation, the most usual first: {t} is what is described ("the red chair"; {i}: "a red
#: chair"; {ts}: "chairs"), {a} and {b} are its anchors. "it" always stands for {a}.
PATTERNS: dict[str, tuple[str, ...]] = {
    "": ("{t}",),
    "nearest": (
        "{t} nearest to {a}",
        "{t} closest to {a}",
        "{t} that is closest to {a}",
        "{t} that is nearest to {a}",
        "of all the {ts} {t} nearest to {a}",
    ),
    "farthest": (
        "{t} farthest from {a}",
        "{t} that is farthest from {a}",
        "{t} farthest away from {a}",
        "{t} that is farthest away from {a}",
    ),
    "between": ("{t} between {a} and {b}", "{t} that is between {a} and {b}", "between {a} and {b} there is {i}"),
    "between two": ("{t} between {a}", "{t} that is between {a}", "between {a} there is {i}"),
    "left": (
        "{t} to the left of {a} when facing it",
        "{t} left of {a} when you face it",
        "{t} that is to the left of {a} when you face it",
        "when facing {a} {t} to the left of it",
    ),
    "right": (
        "{t} to the right of {a} when facing it",
        "{t} right of {a} when you face it",
        "{t} that is to the right of {a} when you face it",
        "when facing {a} {t} to the right of it",
    ),
    "left from": (
        "{t} to the left of {a} seen from {b}",
        "{t} left of {a} when looking from {b}",
        "seen from {b} {t} to the left of {a}",
    ),
    "right from": (
        "{t} to the right of {a} seen from {b}",
        "{t} right of {a} when looking from {b}",
        "seen from {b} {t} to the right of {a}",
    ),
    "front": ("{t} in front of {a}", "{t} that is in front of {a}", "there is {i} in front of {a}"),
    "on": (
        "{t} on {a}",
        "{t} that is on {a}",
        "{t} standing on {a}",
        "there is {i} on {a}",
        "look at {a} and find {t} on it",
    ),
    "above": ("{t} above {a}", "{t} that is above {a}", "look at {a} and find {t} above it"),
    "below": ("{t} below {a}", "{t} that is below {a}", "{t} beneath {a}"),
    "under": ("{t} under {a}", "{t} that is under {a}", "{t} underneath {a}"),
    "next to": (
        "{t} next to {a}",
        "{t} beside {a}",
        "{t} that is next to {a}",
        "there is {i} next to {a}",
        "next to {a} there is {i}",
    ),
    "corner": (
        "{t} in the corner",
        "{t} in the corner of the room",
        "{t} that is in the corner",
        "there is {i} in the corner",
    ),
    "wall": ("{t} against the wall", "{t} that is against the wall"),
    "middle": ("{t} in the middle of the room", "{t} that is in the middle of the room"),
}

RELATIONS: tuple[str, ...] = tuple(name for name in PATTERNS if name)

#: Relations whose anchor may itself be described by a relation: it comes last, so what follows belongs to it alone.
NESTING: tuple[str, ...] = ("nearest", "farthest", "front", "on", "above", "below", "under", "next to")

#: Anchors that each relation takes.
ARITY: dict[str, int] = {name: sum(f"{{{slot}}}" in forms[0] for slot in "ab") for name, forms in PATTERNS.items()}

_CARRIERS = ("find {}", "look at {}", "point to {}", "go to {}", "show me {}", "where is {}")

#: Plurals that the rules get wrong.
_PLURALS = {"bookshelf": "bookshelves"}


@dataclass(frozen=True)
class Noun:
    """A noun phrase without its article.

    Attributes:
        kind: class name.
        colour: or "" when not said.
        material: key of MATERIAL_WORDS, or "".
        size: "small", "large" or "".
        count: 2 for "the two red chairs".
    """

    kind: str
    colour: str = ""
    material: str = ""
    size: str = ""
    count: int = 1

    def __str__(self) -> str:
        words = (self.size, self.colour, MATERIAL_WORDS.get(self.material, ""), self.head)
        return " ".join(word for word in words if word)

    @property
    def head(self) -> str:
        """The class name, in the plural where there are two."""
        return self.kind if self.count == 1 else plural(self.kind)

    @property
    def modifiers(self) -> int:
        """How many adjectives it has."""
        return sum(map(bool, (self.colour, self.material, self.size)))


@dataclass(frozen=True)
class Description:
    """What an expression says: a noun phrase, perhaps related to things described likewise.

    Attributes:
        noun: what is described.
        relation: key of PATTERNS, "" for none.
        anchors: as many as the relation takes.
    """

    noun: Noun
    relation: str = ""
    anchors: tuple[Description, ...] = ()

    def __post_init__(self) -> None:
        if len(self.anchors) != ARITY[self.relation]:
            raise ValueError(f"{self.relation!r} takes {ARITY[self.relation]} anchors, not {len(self.anchors)}")

    def walk(self) -> Iterator[Description]:
        """This description and those of all its anchors, in the order of `Sentence.spans`."""
        yield self
        for anchor in self.anchors:
            yield from anchor.walk()


@dataclass(frozen=True)
class Sentence:
    """A description in words.

    Attributes:
        text: lower case, without punctuation.
        spans: for each description of `Description.walk`, the half-open character span of its noun phrase, with article
            and adjectives ("the chair made of wood" too), without its relation.
    """

    text: str
    spans: tuple[tuple[int, int], ...]

    def words(self, span: tuple[int, int]) -> tuple[int, int]:
        """The same span over `text.split()`."""
        return len(self.text[: span[0]].split()), len(self.text[: span[1]].split())


@dataclass
class _Writer:
    """Collects a sentence piece by piece."""

    rng: np.random.Generator
    text: str = ""
    spans: dict[tuple[int, ...], tuple[int, int]] = field(default_factory=dict)

    def say(self, node: Description, path: tuple[int, ...] = ()) -> None:
        """Append a description; `path` is its place in the tree."""
        patterns = PATTERNS[node.relation]
        if path or any(anchor.relation for anchor in node.anchors):
            patterns = tuple(pattern for pattern in patterns if pattern.startswith("{t}"))
        pattern = self.pick(patterns)
        if not path and pattern.startswith("{t}") and self.rng.random() < 0.15:
            pattern = _CARRIERS[int(self.rng.integers(len(_CARRIERS)))].format(pattern)
        for literal, slot, _, _ in string.Formatter().parse(pattern):
            self.text += literal
            if slot in ("t", "i"):
                start = len(self.text)
                self.text += self.noun_phrase(node) if slot == "t" else indefinite(str(node.noun))
                self.spans[path] = (start, len(self.text))
            elif slot == "ts":
                self.text += plural(node.noun.kind)
            elif slot is not None:
                index = "ab".index(slot)
                self.say(node.anchors[index], (*path, index))

    def noun_phrase(self, node: Description) -> str:
        """With its article; an adjective may follow the noun where nothing else does."""
        noun = node.noun
        if noun.count == 2:
            return f"the two {noun}"
        if not node.relation and noun.modifiers == 1 and self.rng.random() < 0.15:
            if noun.colour:
                return f"the {noun.kind} that is {noun.colour}"
            if noun.material:
                return f"the {noun.kind} made of {noun.material}"
        return f"the {noun}"

    def pick(self, patterns: Sequence[str]) -> str:
        """One of them, the earlier the likelier."""
        weights = 1 / np.arange(1, len(patterns) + 1)
        return patterns[int(self.rng.choice(len(patterns), p=weights / weights.sum()))]


def sentence(description: Description, rng: np.random.Generator) -> Sentence:
    """Say a description, in one of several ways."""
    writer = _Writer(rng)
    writer.say(description)
    return Sentence(writer.text, tuple(writer.spans[path] for path in sorted(writer.spans)))


def indefinite(phrase: str) -> str:
    """With "a" or "an" before it."""
    return f"an {phrase}" if phrase[0] in "aeiou" else f"a {phrase}"


def plural(kind: str) -> str:
    """Of a class name: "office chairs", "boxes", "bookshelves"."""
    if kind in _PLURALS:
        return _PLURALS[kind]
    if kind.endswith(("s", "x", "ch", "sh")):
        return kind + "es"
    if kind.endswith("y") and kind[-2] not in "aeiou":
        return kind[:-1] + "ies"
    return kind + "s"


def nouns(thing: Object) -> list[Noun]:
    """Every noun phrase that its attributes allow, those with the fewest adjectives first."""
    material = thing.material if thing.material in MATERIAL_WORDS else ""
    size = thing.size if thing.size != "medium" else ""
    found = {
        Noun(thing.kind, colour, stuff, extent)
        for colour in ("", thing.colour)
        for stuff in ("", material)
        for extent in ("", size)
    }
    return sorted(found, key=lambda noun: (noun.modifiers, not noun.colour, not noun.material, str(noun)))


def describe(thing: Object) -> list[str]:
    """Noun phrases without article, from the plain class name to all that is known: "chair", "red chair", ...,
    "large red wooden chair". Each is true of the object; none need be true of it alone.
    """
    return [str(noun) for noun in nouns(thing)]


def imagine(kinds: Sequence[Kind], rng: np.random.Generator, depth: int = 2) -> Description:
    """A random description, of no room in particular: what a text tower has to read, in any number.

    Args:
        kinds: to draw nouns from, uniformly.
        rng: source of randomness.
        depth: how deep anchors may nest; 0 = no relation.
    """
    kind = kinds[int(rng.integers(len(kinds)))]
    noun = Noun(
        kind.name,
        _maybe(kind.colours, 0.6, rng),
        _maybe([stuff for stuff in kind.materials if stuff in MATERIAL_WORDS], 0.2, rng),
        _maybe(("small", "large"), 0.2, rng),
    )
    if depth == 0 or rng.random() < 0.25:
        return Description(noun)
    relation = RELATIONS[int(rng.integers(len(RELATIONS)))]
    if relation == "between two":
        two = kinds[int(rng.integers(len(kinds)))]
        return Description(noun, relation, (Description(Noun(two.name, _maybe(two.colours, 0.4, rng), count=2)),))
    below = depth - 1 if relation in NESTING and rng.random() < 0.3 else 0
    return Description(noun, relation, tuple(imagine(kinds, rng, below) for _ in range(ARITY[relation])))


def _maybe(words: Sequence[str], probability: float, rng: np.random.Generator) -> str:
    return words[int(rng.integers(len(words)))] if len(words) and rng.random() < probability else ""
