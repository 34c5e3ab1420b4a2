"""Phrases about single objects, each with what it claims, for training and prompting. Knows no images and no model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: other words for our kinds, so that the text tower knows them too
SYNONYMS: dict[str, tuple[str, ...]] = {
    "sofa": ("couch",),
    "bookshelf": ("bookcase", "shelf"),
    "bin": ("trash can", "dustbin"),
    "fridge": ("refrigerator",),
    "picture": ("painting", "poster"),
    "rug": ("carpet",),
    "stove": ("cooker", "oven"),
    "mug": ("cup",),
    "nightstand": ("bedside table",),
    "wardrobe": ("closet",),
    "monitor": ("screen", "display"),
    "trolley": ("cart",),
    "rack": ("storage rack", "shelving"),
    "suitcase": ("luggage",),
    "washing machine": ("washer",),
    "step ladder": ("ladder",),
    "cardboard box": ("box",),
    "teddy bear": ("stuffed toy",),
    "radiator": ("heater",),
    "desk lamp": ("table lamp",),
}
ADJECTIVES = {"wood": "wooden", "leaf": "leafy", "carpet": "carpeted"}

_KIND = (
    "{a kind}",
    "{a kind}",
    "{a kind}",
    "the {kind}",
    "{kind}",
    "a photo of {a kind}",
    "a photo of the {kind}",
    "this is {a kind}",
    "there is {a kind}",
    "{a kind} in a room",
    "{a kind} in a scene",
    "an image of {a kind}",
)
_COLOUR = (
    "{colour}",
    "{colour}",
    "{a colour} object",
    "{a colour} thing",
    "something {colour}",
    "the colour {colour}",
    "the color {colour}",
    "{a colour} one",
    "it is {colour}",
)
_BOTH = (
    "{a colour} {kind}",
    "{a colour} {kind}",
    "{a colour} {kind}",
    "the {colour} {kind}",
    "{colour} {kind}",
    "{a kind} that is {colour}",
    "a photo of {a colour} {kind}",
    "the {kind} is {colour}",
    "there is {a colour} {kind}",
    "{a colour} {kind} in a room",
)
_MATERIAL = (
    "{a material} {kind}",
    "the {material} {kind}",
    "{a kind} made of {stuff}",
    "{a colour} {material} {kind}",
    "the {colour} {material} {kind}",
    "{a colour} {kind} made of {stuff}",
)


@dataclass(frozen=True)
class Phrase:
    """A text and what an object must be to fit it.

    Attributes:
        text: e.g. "a photo of a red chair".
        kind: or None when the text does not say.
        colour: likewise.
        material: likewise.
    """

    text: str
    kind: str | None = None
    colour: str | None = None
    material: str | None = None


def with_article(noun: str) -> str:
    """The noun with "a" or "an"."""
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def kind_phrase(kind: str, rng: np.random.Generator) -> Phrase:
    """A text that names a kind only."""
    return Phrase(_fill(_pick(_KIND, rng), rng, kind=kind), kind=kind)


def colour_phrase(colour: str, rng: np.random.Generator) -> Phrase:
    """A text that names a colour only."""
    return Phrase(_fill(_pick(_COLOUR, rng), rng, colour=colour), colour=colour)


def object_phrase(kind: str, colour: str, material: str, rng: np.random.Generator) -> Phrase:
    """A text that names the kind and the colour, the material, or all of an object."""
    if rng.random() < 0.75:
        return Phrase(_fill(_pick(_BOTH, rng), rng, kind, colour), kind, colour)
    template = _pick(_MATERIAL, rng)
    said = colour if "colour" in template else None
    return Phrase(_fill(template, rng, kind, colour, material), kind, said, material)


def _pick(templates: tuple[str, ...], rng: np.random.Generator) -> str:
    return templates[rng.integers(len(templates))]


def _fill(template: str, rng: np.random.Generator, kind: str = "", colour: str = "", material: str = "") -> str:
    if kind in SYNONYMS and rng.random() < 0.15:
        kind = _pick(SYNONYMS[kind], rng)
    if colour == "grey" and rng.random() < 0.3:
        colour = "gray"
    adjective = ADJECTIVES.get(material, material)
    for name, word in (("kind", kind), ("colour", colour), ("material", adjective), ("stuff", material)):
        if word:
            template = template.replace(f"{{a {name}}}", with_article(word)).replace(f"{{{name}}}", word)
    return template
