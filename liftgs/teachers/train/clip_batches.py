"""What a training step sees: crops, phrases about them, and their rooms' expressions. Depends on seed and step only."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Int64

from liftgs.procedural.colours import COLOURS
from liftgs.teachers.train.clip_data import ALL_KINDS, Crops, Named, RoomExpression
from liftgs.teachers.train.clip_texts import Phrase, colour_phrase, kind_phrase, object_phrase


@dataclass(frozen=True)
class BatchConfig:
    """What a step sees.

    Attributes:
        crops: images.
        whole_rooms: fraction of them that come as all the objects of some rooms, so that an expression's anchors and
            distractors are in the batch; the rest is drawn over kinds, rare ones more often.
        phrases: texts about single objects.
        expressions: referring expressions.
        renamed: fraction of the expressions that get other kinds and colours, so that grammar is not learned as a list
            of what stands beside what.
    """

    crops: int = 192
    whole_rooms: float = 0.5
    phrases: int = 64
    expressions: int = 48
    renamed: float = 0.5


@dataclass(frozen=True)
class Batch:
    """One step.

    Attributes:
        rows: crops.
        kinds: a text for each of `ALL_KINDS`.
        colours: a text for each of `COLOURS`.
        phrases: texts about single objects.
        expressions: referring expressions, each with what its target must be to fit the words of its own mention.
    """

    rows: Int64[np.ndarray, " b"]
    kinds: list[str]
    colours: list[str]
    phrases: list[Phrase]
    expressions: list[tuple[RoomExpression, Phrase]]


class Batches:
    """The training set as a sequence of steps."""

    def __init__(self, crops: Crops, expressions: Sequence[RoomExpression], config: BatchConfig, seed: int):
        self.crops = crops
        self.config = config
        self.seed = seed
        _, kind, counts = np.unique(crops.kinds, return_inverse=True, return_counts=True)
        weights = 1 / np.sqrt(counts[kind])
        self._cumulative = np.cumsum(weights / weights.sum())
        self._rows_of_room: dict[int, np.ndarray] = {
            int(room): np.flatnonzero(crops.rooms == room) for room in np.unique(crops.rooms)
        }
        self._rooms = np.array(sorted(self._rows_of_room))
        self._expressions_of_room: dict[int, list[RoomExpression]] = defaultdict(list)
        for expression in expressions:
            if expression.mentions:
                self._expressions_of_room[expression.room].append(expression)

    def __getitem__(self, step: int) -> Batch:
        rng = np.random.default_rng([self.seed, step])
        rooms, rows = self._draw_rows(rng)
        described = rng.choice(rows, self.config.phrases)
        phrases = [
            object_phrase(str(self.crops.kinds[row]), str(self.crops.colours[row]), str(self.crops.materials[row]), rng)
            for row in described
        ]
        return Batch(
            rows,
            [kind_phrase(kind, rng).text for kind in ALL_KINDS],
            [colour_phrase(colour, rng).text for colour in COLOURS],
            list({phrase.text: phrase for phrase in phrases}.values()),
            self._draw_expressions(rooms, rows, rng),
        )

    def _draw_rows(self, rng: np.random.Generator) -> tuple[list[int], np.ndarray]:
        want = round(self.config.crops * self.config.whole_rooms)
        rooms: list[int] = []
        rows: list[int] = []
        while len(rows) < want:
            room = int(rng.choice(self._rooms))
            rooms.append(room)
            rows.extend(self._rows_of_room[room])
        rows = rows[:want]
        rest = np.searchsorted(self._cumulative, rng.random(self.config.crops - len(rows)) * self._cumulative[-1])
        return rooms, np.concatenate([np.array(rows, np.int64), rest])

    def _draw_expressions(
        self, rooms: list[int], rows: np.ndarray, rng: np.random.Generator
    ) -> list[tuple[RoomExpression, Phrase]]:
        seen = {(int(self.crops.rooms[row]), int(self.crops.instances[row])) for row in rows}
        candidates = [
            expression
            for room in dict.fromkeys(rooms)
            for expression in self._expressions_of_room[room]
            if (room, expression.mentions[0].instance) in seen
        ]
        count = min(self.config.expressions, len(candidates))
        chosen = [candidates[i] for i in rng.choice(len(candidates), count, replace=False)] if count else []
        drawn = []
        for expression in chosen:
            if rng.random() < self.config.renamed:
                others = rng.choice(rows, len(expression.mentions))
                names = [(str(self.crops.kinds[row]), str(self.crops.colours[row])) for row in others]
                expression = renamed(expression, names)  # noqa: PLW2901
            drawn.append((expression, claim_of_target(expression)))
        return drawn


def claim_of_target(expression: RoomExpression) -> Phrase:
    """What the words of the target's own mention say about it."""
    target = expression.mentions[0]
    words = expression.text[slice(*target.chars)].lower()
    return Phrase(
        expression.text,
        target.kind if target.kind in words else None,
        target.colour if target.colour in words.split() else None,
    )


def renamed(expression: RoomExpression, names: Sequence[tuple[str, str]]) -> RoomExpression:
    """The expression about things of other (kind, colour), one per mention.

    A mention that does not name its kind keeps it; expressions with one mention inside another stay as they are.
    """
    order = sorted(range(len(names)), key=lambda i: expression.mentions[i].chars)
    spans = [expression.mentions[i].chars for i in order]
    if any(left[1] > right[0] for left, right in pairwise(spans)):
        return expression
    text, place = "", 0
    mentions = list(expression.mentions)
    for i in order:
        old, (kind, colour) = expression.mentions[i], names[i]
        start, end = old.chars
        words, said = re.subn(rf"\b{re.escape(old.kind)}\b", kind, expression.text[start:end], count=1)
        if said:
            words = re.sub(rf"\b{old.colour}\b", colour, words, count=1)
        else:
            kind, colour = old.kind, old.colour
        text += expression.text[place:start]
        mentions[i] = Named(old.instance, kind, colour, (len(text), len(text) + len(words)))
        text += words
        place = end
    return RoomExpression(expression.room, text + expression.text[place:], expression.relation, tuple(mentions))


def fits(phrases: Sequence[Phrase], crops: Crops, rows: Int64[np.ndarray, " b"]) -> Bool[np.ndarray, "p b"]:
    """Which of some crops each phrase is true of."""
    matrix = np.ones((len(phrases), len(rows)), bool)
    kinds = crops.kinds[rows]
    for i, phrase in enumerate(phrases):
        for wanted, have in (
            (phrase.kind, kinds),
            (phrase.colour, crops.colours[rows]),
            (phrase.material, crops.materials[rows]),
        ):
            if wanted is not None:
                matrix[i] &= have == wanted
    return matrix
