"""Tokens -> a sentence in which phrases are found by counting. Knows no files."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from liftgs.scene import Mention

Span = tuple[int, int]


@dataclass(frozen=True)
class Sentence:
    """Words joined by single spaces.

    Attributes:
        words: none of them empty or with white space in it.
        tokens: which words each token of the file became: one, or none for "", or several for "in front".
    """

    words: tuple[str, ...]
    tokens: tuple[range, ...]

    @classmethod
    def join(cls, tokens: Iterable[str]) -> Sentence:
        """The sentence of a file's tokens."""
        words: list[str] = []
        became = []
        for token in tokens:
            parts = token.split()
            became.append(range(len(words), len(words) + len(parts)))
            words += parts
        return cls(tuple(words), tuple(became))

    @property
    def text(self) -> str:
        """All of it; `text.split()` gives the words back."""
        return " ".join(self.words)

    @cached_property
    def _starts(self) -> list[int]:
        """First character of each word."""
        return list(accumulate((len(word) + 1 for word in self.words), initial=0))

    def mention(self, instances: Collection[int], words: Span) -> Mention:
        """The words of a half-open span as a mention."""
        first, stop = words
        return Mention(tuple(instances), (self._starts[first], self._starts[stop] - 1), words)

    def runs(self, tokens: Iterable[int]) -> list[Span]:
        """Half-open spans of neighbouring words that some tokens became, in order.

        Raises:
            IndexError: there is no such token.
        """
        spans: list[Span] = []
        for word in sorted({word for token in tokens for word in self.tokens[token]}):
            if spans and spans[-1][1] == word:
                spans[-1] = (spans[-1][0], word + 1)
            else:
                spans.append((word, word + 1))
        return spans

    def named(self, names: Sequence[str]) -> list[Span | None]:
        """Where things are named: for each its span, or None where the words do not tell.

        A name is found where its words stand as whole words, in upper or lower case; "_" is a space. Longer names come
        first and keep their words: the "table" of "coffee table" is no table if a coffee table is among the names.
        Things of one name get its places in order, if there are as many.
        """
        found: dict[str, list[Span]] = {}
        taken: set[int] = set()
        lowered = [word.lower() for word in self.words]
        for name in sorted(set(names), key=lambda name: -len(_words(name))):
            wanted = _words(name)
            places = [(i, i + len(wanted)) for i in range(len(lowered)) if lowered[i : i + len(wanted)] == wanted]
            found[name] = [place for place in places if wanted and taken.isdisjoint(range(*place))]
            taken.update(word for place in found[name] for word in range(*place))
        return [
            found[name][names[:i].count(name)] if len(found[name]) == names.count(name) else None
            for i, name in enumerate(names)
        ]

    @property
    def whole(self) -> Span:
        """The span of all words."""
        return 0, len(self.words)


def _words(name: str) -> list[str]:
    return name.replace("_", " ").lower().split()
