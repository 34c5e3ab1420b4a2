"""What was typed -> masks to show, each in its phrase's colour. Knows no page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from liftgs.ground import EncodedScan, Grounder, Grounding, Match, ground
from liftgs.ground.files import phrase_colours

#: Phrases at once: as many as there are colours that the colour-blind can tell apart.
MAX_PHRASES = 7
#: Characters of a phrase. CLIP reads 75 tokens and drops the rest in silence; a word has five letters and more.
MAX_CHARS = 200
#: Answers to a phrase that can be asked for.
MAX_TOP = 10


@dataclass(frozen=True, eq=False)
class Highlight:
    """A mask that is shown.

    Attributes:
        match: what was found.
        colour: of its phrase.
    """

    match: Match
    colour: UInt8[np.ndarray, " 3"]


@dataclass(frozen=True, eq=False)
class Answers:
    """What to show for a text.

    Attributes:
        phrases: each with its colour.
        highlights: phrase by phrase, the best of each first.
        message: why there are no phrases, for whoever typed; "" if nothing is wrong.
    """

    phrases: Sequence[tuple[str, UInt8[np.ndarray, " 3"]]] = ()
    highlights: Sequence[Highlight] = ()
    message: str = ""

    def of(self, phrase: str) -> list[Highlight]:
        """Those of one phrase."""
        return [highlight for highlight in self.highlights if highlight.match.phrase == phrase]


def split_phrases(text: str) -> tuple[str, ...]:
    """Phrases between commas, each once.

    Raises:
        ValueError: too many of them, or one is too long; says so to whoever typed.
    """
    phrases = tuple(dict.fromkeys(phrase for part in text.split(",") if (phrase := " ".join(part.split()))))
    if len(phrases) > MAX_PHRASES:
        raise ValueError(f"{len(phrases)} phrases; at most {MAX_PHRASES} fit at once")
    longest = max(map(len, phrases), default=0)
    if longest > MAX_CHARS:
        raise ValueError(f"a phrase of {longest} characters is too long; name a thing in at most {MAX_CHARS}")
    return phrases


class Finder:
    """Answers texts about one scan. Remembers the last, so that another threshold costs nothing."""

    def __init__(self, grounder: Grounder, known: EncodedScan):
        self._grounder = grounder
        self._known = known
        self._last: Grounding | None = None

    def __call__(self, text: str, top: int, threshold: float) -> Answers:
        """Find what a text names. One that cannot be asked gives a message; an empty one gives nothing.

        Args:
            text: phrases, separated by commas.
            top: most answers to a phrase, at most `MAX_TOP`.
            threshold: least score of an answer.
        """
        try:
            phrases = split_phrases(text)
        except ValueError as error:
            return Answers(message=str(error))
        if not phrases:
            return Answers()
        if self._last is None or self._last.phrases != phrases:
            self._last = ground(self._grounder, self._known, phrases, MAX_TOP)
        coloured = list(zip(phrases, phrase_colours(len(phrases)), strict=True))
        colours = dict(coloured)
        # the answers to a phrase come best first and thinned, so fewer of them are the first few
        kept = [match for match in self._last.matches if match.rank <= top and match.score >= threshold]
        return Answers(coloured, [Highlight(match, colours[match.phrase]) for match in kept])
