"""CLIP's texts, token by token: states, spans, and the tokens of mentions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer

from liftgs.procedural.kinds import REGISTRY
from liftgs.procedural.language import imagine, sentence
from liftgs.scene import Expression, Mention
from liftgs.teachers.clip import ClipModel, Embed, EmbedConfig, build_clip
from liftgs.teachers.clip_text import mention_tokens, token_spans

pytestmark = pytest.mark.usefixtures("toy_models")


def test_the_end_marks_token_state_is_the_text_embedding(checkpoint: Path) -> None:
    embedder = Embed(EmbedConfig("toy", str(checkpoint)))
    texts = ["chair", "the red chair to the left of the white table", "word " * 40]
    tokens = embedder.encode_tokens(texts)
    ends = tokens.states[torch.arange(3), tokens.ends].numpy()
    assert np.abs(ends - embedder.encode_text(texts)).max() < 1e-5
    assert tokens.mask.sum(dim=1).tolist() == [3, 12, 16]
    assert (tokens.states[~tokens.mask] == 0).all()
    assert [len(spans) for spans in tokens.spans] == [3, 12, 16]
    assert embedder.encode_text([]).shape == (0, 32)


def test_spans_point_at_the_characters_of_each_token(checkpoint: Path) -> None:
    text = "The unbelievably red chair's LEG"
    tokens = Embed(EmbedConfig("toy", str(checkpoint))).encode_tokens([text])
    words = [text[low:high].lower() for low, high in tokens.spans[0][1:-1]]
    assert "".join(words) == "theunbelievablyredchair'sleg"
    start = text.index("red")
    covered = tokens.covering(0, (start, start + len("red chair")))
    assert [text[slice(*tokens.spans[0][i])] for i in covered] == ["red", "chair"]


@pytest.mark.parametrize(
    ("text", "word"), [("the   café  table", "café"), ("salt &amp; pepper mill", "&amp;"), ("a “red” chair", "chair")]
)
def test_spans_survive_the_tokenizers_clean_up(text: str, word: str) -> None:
    tokenizer = open_clip.get_tokenizer("toy")
    spans = token_spans(tokenizer, text)
    assert len(spans) == len(tokenizer.encode(text)) + 2
    start = text.index(word)
    inside = [span for span in spans if span[0] < start + len(word) and start < span[1]]
    assert inside
    assert min(low for low, _ in inside) == start
    assert max(high for _, high in inside) == start + len(word)


def test_clean_up_that_leaves_the_length_does_not_shift_spans() -> None:
    text = " the \ufb01ne table &amp;c"  # a space less and a ligature in two letters: as long as before
    tokenizer = open_clip.get_tokenizer("toy")
    assert len(tokenizer.clean_fn(" the \ufb01ne")) == len(" the \ufb01ne")
    for said in (text, " the \ufb01ne"):
        words = [said[low:high] for low, high in token_spans(tokenizer, said)[1:-1]]
        assert words[:2] == ["the", "\ufb01ne"]


@pytest.mark.parametrize("text", ["a b&nbsp;c d", "a \x00 table", "one&amp;two \x00 three", "a\u2003b"])
def test_spans_point_at_words_that_clean_up_splits_or_drops(text: str) -> None:
    tokenizer = open_clip.get_tokenizer("toy")
    last = text.rsplit(maxsplit=1)[-1]
    spans = token_spans(tokenizer, text)
    assert len(spans) == len(tokenizer.encode(text)) + 2
    assert text[slice(*spans[1])] == text.split(maxsplit=1)[0]
    assert text[slice(*spans[-2])] == last


# ---- mentions


def mentioned(text: str, *words: tuple[int, int]) -> Expression:
    """An expression whose mentions are those words."""
    starts = [0]
    for word in text.split(" "):
        starts.append(starts[-1] + len(word) + 1)
    mentions = [Mention((i + 1,), (starts[a], starts[b] - 1), (a, b)) for i, (a, b) in enumerate(words)]
    return Expression(text, mentions[0], tuple(mentions[1:]))


def word_by_word(tokenizer: SimpleTokenizer, expression: Expression) -> tuple[list[int], list[tuple[int, int]]]:
    """The slow twin: tokens of one word after the other, and the tokens of each word."""
    tokens, places = [], []
    for word in expression.words:
        start = 1 + len(tokens)
        tokens += tokenizer.encode(word)
        places.append((start, 1 + len(tokens)))
    return tokens, places


@pytest.mark.parametrize("name", ["toy", "tiny"])
def test_mentions_have_the_tokens_of_their_words(name: str) -> None:
    tokenizer = open_clip.get_tokenizer("toy") if name == "toy" else build_clip(EmbedConfig()).tokenizer
    rng = np.random.default_rng(0)
    kinds = list(REGISTRY.values())
    imagined = [sentence(imagine(kinds, rng), rng) for _ in range(300)]
    expressions = [mentioned(said.text, *map(said.words, said.spans)) for said in imagined]
    expressions += [
        mentioned("the Table's 2nd legs , isn't it ?", (0, 2), (2, 4), (5, 6)),
        mentioned('( the so-called "coffee-table" ) ...', (1, 4), (0, 1), (4, 5)),
        mentioned("a caf\u00e9 table !!! in the n\u00ba-1 corner ; ;", (0, 3), (5, 8)),
        mentioned("unbelievablygreenish_chair 1234567 \u2665", (0, 1), (1, 2), (2, 3)),
    ]
    for expression in expressions:
        tokens, places = word_by_word(tokenizer, expression)
        assert tokens == tokenizer.encode(expression.text), "word by word is the same as all at once"
        found = mention_tokens(tokenizer, expression)
        for mention in (expression.target, *expression.anchors):
            first, stop = mention.words
            wanted = range(places[first][0], min(places[stop - 1][1], tokenizer.context_length - 1))
            assert found.get(mention, ()) == tuple(wanted), expression.text


def test_tokens_of_mentions_are_rows_of_the_token_states(tiny: ClipModel) -> None:
    expression = mentioned("the table next to the coffee table", (0, 2), (4, 7))
    places = mention_tokens(tiny.tokenizer, expression)
    row = tiny.tokenizer([expression.text])[0]
    assert [tiny.tokenizer.decode(row[list(tokens)].tolist()).strip() for tokens in places.values()] == [
        "the table",
        "the coffee table",
    ]
    states = tiny.encode_tokens([expression.text])
    assert places[expression.anchors[0]] == tuple(states.covering(0, expression.anchors[0].chars))


def test_mentions_that_fall_off_a_long_text_are_dropped() -> None:
    tokenizer = open_clip.get_tokenizer("toy")  # 16 tokens, of which two are marks
    text = " ".join(["the", "red", "chair"] + ["very"] * 10 + ["near", "the", "desk"])
    cut = mentioned(text, (0, 3), (12, 15), (14, 16))
    assert list(mention_tokens(tokenizer, cut).values()) == [(1, 2, 3), (13, 14)]
    lost = mentioned(text, (14, 16), (0, 3))
    assert lost.target not in mention_tokens(tokenizer, lost)
