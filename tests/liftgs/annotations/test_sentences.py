"""Phrases are found by counting words: spans point at what they say, whatever the tokens are."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liftgs.annotations.sentences import Sentence

TOKENS = st.lists(st.text(st.sampled_from("ab ,.\u00a0\u2003é_\t"), max_size=5), max_size=12)


@given(TOKENS, st.data())
def test_spans_say_what_their_tokens_say(tokens: list[str], data: st.DataObject) -> None:
    said = Sentence.join(tokens)
    assert tuple(said.text.split()) == said.words
    chosen = data.draw(st.sets(st.sampled_from(range(len(tokens))))) if tokens else set()
    runs = said.runs(chosen)
    assert sum((said.words[slice(*run)] for run in runs), ()) == tuple(
        word for i in sorted(chosen) for word in tokens[i].split()
    )
    assert all(a[1] < b[0] for a, b in pairwise(runs)), "neighbours are one run"
    for run in runs:
        mention = said.mention([3], run)
        assert said.text[slice(*mention.chars)] == " ".join(said.words[slice(*mention.words)])
        assert said.text.split()[slice(*mention.words)] == said.text[slice(*mention.chars)].split()


def test_a_blank_token_parts_nothing() -> None:
    said = Sentence.join(["white", "", "moving  cart", "is", " here "])
    assert said.text == "white moving cart is here"
    assert said.runs([0, 2]) == [(0, 3)]
    assert said.runs([1]) == []
    assert said.runs([4, 0]) == [(0, 1), (4, 5)]
    with pytest.raises(IndexError):
        said.runs([5])


@pytest.mark.parametrize(
    ("text", "names", "spans"),
    [
        ("the table by the tablecloth", ["table"], [(1, 2)]),
        ("the tables by the tablecloth", ["table"], [None]),
        ("the table by the table", ["table"], [None]),
        ("the Office CHAIR", ["office_chair"], [(1, 3)]),
        ("office chairs and a chair", ["office chair", "chair"], [None, (4, 5)]),
        ("the table by the coffee table", ["table", "coffee table"], [(1, 2), (4, 6)]),
        ("the thing by the coffee table", ["table", "coffee table"], [None, (4, 6)]),
        ("the bin between the door and the door", ["bin", "door", "door"], [(1, 2), (4, 5), (7, 8)]),
        ("the bin between the doors", ["bin", "door", "door"], [(1, 2), None, None]),
        ("the bin", ["", "_", "bin of the house"], [None, None, None]),
    ],
)
def test_names_are_whole_words(text: str, names: list[str], spans: list[tuple[int, int] | None]) -> None:
    assert Sentence.join(text.split()).named(names) == spans
