"""How kinds of things are asked for in words."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from jaxtyping import Float
from torch import Tensor

from liftgs.procedural.colours import COLOURS
from liftgs.teachers.caption_vocabulary import with_article

#: Phrases -> unit query embeddings; see `liftgs.model.text.Phrases`.
Encode = Callable[[Sequence[str]], Float[Tensor, "p f"]]


def class_phrase(kind: str) -> str:
    """A kind's name with its article: "a chair", "an armchair"."""
    return with_article(kind)


#: "a red" or "the red" where a noun follows: an orange is no colour of anything.
_COLOURED = re.compile(rf"\b(a|an|the) (?:{'|'.join(COLOURS)}) (?=\w)", re.IGNORECASE)


def without_colours(caption: str) -> str:
    """ "a red office chair by the white wall" -> "an office chair by the wall": as names of classes put it."""
    start, *rest = _COLOURED.split(caption)
    for article, words in zip(rest[::2], rest[1::2], strict=True):
        start += f"{article} {words}" if article.lower() == "the" else _cased(with_article(words), article)
    return start


def _cased(phrase: str, like: str) -> str:
    return phrase[0].upper() + phrase[1:] if like[0].isupper() else phrase
