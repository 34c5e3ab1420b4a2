"""How kinds of things are asked for in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jaxtyping import Float
from torch import Tensor

#: Phrases -> unit query embeddings; see `liftgs.model.text.Phrases`.
Encode = Callable[[Sequence[str]], Float[Tensor, "p f"]]


def class_phrase(kind: str) -> str:
    """A kind's name with its article: "a chair", "an armchair"."""
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"
