"""Phrases -> query embeddings, by the frozen CLIP that the model was pretrained with."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from liftgs.teachers.clip import ClipModel


def encode_phrases(phrases: Sequence[str], clip: ClipModel) -> Float[Tensor, "p f"]:
    """One unit row per phrase, in the space of the CLIP image embeddings that pretraining used as queries.

    Raises:
        ValueError: no phrase, or an empty one.
    """
    if not phrases or not all(phrase.strip() for phrase in phrases):
        raise ValueError("a phrase to ground is empty")
    return clip.encode_text(list(phrases)).clone()  # CLIP runs in inference mode; its tensors cannot enter autograd
