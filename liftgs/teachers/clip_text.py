"""CLIP's text tower, token by token: projected states, and which characters each token covers. Knows no images.

The grounding decoder reads the frozen states of every token, not only the pooled one. Each state gets the same final
norm and projection as the pooled state, so that tokens, pooled texts and image embeddings live in one space and a
decoder pretrained on image embeddings can read text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float32, Int64
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor, nn

from liftgs.scene import Expression, Mention

Span = tuple[int, int]


@dataclass(frozen=True, eq=False)
class TextTokens:
    """The texts of one batch, token by token.

    Attributes:
        states: unit rows in CLIP's joint space, [n, L, F]; zero where `mask` is False. L is the longest text's length.
        mask: True for tokens, False for padding. The first token of a text is its start mark, the last one (`ends`) its
            end mark, whose state equals `encode_text`.
        ends: index of the end mark.
        spans: for each text, the half-open character span of each token; (0, 0) for the start and end marks.
    """

    states: Float32[Tensor, "n l f"]
    mask: Bool[Tensor, "n l"]
    ends: Int64[Tensor, " n"]
    spans: list[list[Span]]

    def covering(self, text: int, chars: Span) -> list[int]:
        """Indices of the tokens that overlap a character span of a text."""
        return _overlapping(self.spans[text], chars)


def encode_tokens(model: nn.Module, tokenizer: Any, texts: Sequence[str]) -> TextTokens:
    """Projected state of every token.

    Args:
        model: an open_clip model whose text tower pools the end mark, as all that use OpenAI's tokenizer do.
        tokenizer: its tokenizer.
        texts: longer ones are cut at the context length.

    Raises:
        ValueError: a text tower of another kind.
    """
    tower: Any = getattr(model, "text", model)
    if (
        not isinstance(tokenizer, SimpleTokenizer)
        or not hasattr(tower, "ln_final")
        or getattr(tower, "cls_emb", None) is not None
    ):
        raise ValueError(
            f"{type(model).__name__} with {type(tokenizer).__name__} has no end-of-text token states to read"
        )
    device = tower.token_embedding.weight.device
    tokens = tokenizer(list(texts)).to(device)
    with torch.inference_mode(), _output_of(tower.ln_final) as captured:
        model.encode_text(tokens)  # type: ignore[operator]
        states = project(tower.text_projection, captured[0]).float()
    ends = (tokens == tokenizer.eot_token_id).int().argmax(dim=1)
    longest = int(ends.max()) + 1 if len(texts) else 0
    mask = torch.arange(longest, device=device) <= ends[:, None]
    states = nn.functional.normalize(states[:, :longest], dim=-1) * mask[..., None]
    spans = [token_spans(tokenizer, text)[: int(end) + 1] for text, end in zip(texts, ends, strict=True)]
    for row in spans:  # a text that was cut ends in an end mark all the same
        row[-1] = (0, 0)
    return TextTokens(states, mask, ends, spans)


def project(projection: nn.Module | Tensor | None, states: Tensor) -> Tensor:
    """Apply a text tower's final projection, which open_clip keeps as a matrix, a layer or nothing."""
    if projection is None:
        return states
    return projection(states) if isinstance(projection, nn.Module) else states @ projection


@contextmanager
def _output_of(module: nn.Module) -> Iterator[list[Tensor]]:
    outputs: list[Tensor] = []
    hook = module.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    try:
        yield outputs
    finally:
        hook.remove()


def token_spans(tokenizer: SimpleTokenizer, text: str) -> list[Span]:
    """The characters of `text` that each token covers, start and end marks included as (0, 0).

    Where cleaning changes the length of a text (HTML escapes, mis-decoded bytes, runs of spaces), a token covers the
    whole word that it is part of.

    Raises:
        ValueError: cleaning joined or split words, so that nothing can be said.
    """
    clean = tokenizer.clean_fn(text)
    place = None if len(clean) == len(text) and clean == text.lower() else _word_map(tokenizer, text, clean)
    spans: list[Span] = [(0, 0)]
    for word in tokenizer.pat.finditer(clean):
        start = word.start()
        units = "".join(tokenizer.byte_encoder[byte] for byte in word.group().encode())
        widths = [len(character.encode()) for character in word.group()]
        owner = [start + i for i, width in enumerate(widths) for _ in range(width)]  # byte -> character
        byte = 0
        for piece in tokenizer.bpe(units).split(" "):
            length = len(piece.removesuffix("</w>"))
            span = (owner[byte], owner[byte + length - 1] + 1)
            spans.append(span if place is None else place(span))
            byte += length
    return [*spans, (0, 0)]


def mention_tokens(tokenizer: SimpleTokenizer, expression: Expression) -> dict[Mention, tuple[int, ...]]:
    """Which tokens say what: for each mention its places in the tokenizer's row, whose start mark is at 0.

    A text that is longer than the context is cut there. What a cut leaves of a mention stands for it; a mention of
    which it leaves nothing is not in the result, be it the target.

    Raises:
        ValueError: as `token_spans`.
    """
    spans = token_spans(tokenizer, expression.text)[: tokenizer.context_length - 1]  # a full row ends in the end mark
    places = {
        mention: tuple(_overlapping(spans, mention.chars)) for mention in (expression.target, *expression.anchors)
    }
    return {mention: tokens for mention, tokens in places.items() if tokens}


def _overlapping(spans: Sequence[Span], chars: Span) -> list[int]:
    start, end = chars
    return [i for i, (low, high) in enumerate(spans) if low < end and start < high]


def _word_map(tokenizer: SimpleTokenizer, text: str, clean: str) -> Callable[[Span], Span]:
    """Maps a span of the cleaned text to the word of the original that it comes from."""
    pieces = [(piece, word) for word in _words(text) for piece in tokenizer.clean_fn(text[slice(*word)]).split()]
    if [piece for piece, _ in pieces] != clean.split():
        raise ValueError(f"the tokenizer's clean-up changes the words of {text!r}; write it in plain characters")
    owners = list(zip(_words(clean), (word for _, word in pieces), strict=True))

    def place(span: Span) -> Span:
        return next(word for (low, high), word in owners if low <= span[0] < high)

    return place


def _words(text: str) -> Iterator[Span]:
    start = 0
    for word in text.split():
        start = text.index(word, start)
        yield (start, start + len(word))
        start += len(word)
