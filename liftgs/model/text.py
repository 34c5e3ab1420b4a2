"""Phrases -> query embeddings, by the frozen CLIP that the model was pretrained with."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
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


class Phrases:
    """`encode_phrases`, which remembers; safe in threads."""

    def __init__(self, clip: ClipModel, remembered: int = 100_000):
        """Args:
        clip: frozen.
        remembered: embeddings that are kept, those used last; of CLIP-L, 100,000 take 300 MB.
        """
        self._clip = clip
        self._one = lru_cache(remembered)(self._encode)

    def __call__(self, phrases: Sequence[str]) -> Float[Tensor, "p f"]:
        """As `encode_phrases`, on the CPU."""
        return torch.stack([self._one(phrase) for phrase in phrases])

    def _encode(self, phrase: str) -> Float[Tensor, " f"]:
        return encode_phrases([phrase], self._clip)[0].cpu()
