"""Captions from CLIP alone: the kind and the colour whose texts lie nearest to a segment's embedding."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

import fsspec
import numpy as np
from jaxtyping import Float16, Float32, UInt8, UInt16

from liftgs.procedural.colours import COLOURS
from liftgs.procedural.kinds import KINDS, STRUCTURE_KINDS
from liftgs.teachers.captions import Captioner, EncodeText

#: Words that are written with a vowel but spoken with a consonant, and the other way round.
_SPOKEN_CONSONANT = re.compile(r"(uni(?!n|m)|us[aeu]|ut[ei]|uku|uri|eu|one\b|once\b|ewe\b)", re.IGNORECASE)
_SILENT_H = re.compile(r"(hour|honest|honou?r|heir)", re.IGNORECASE)


@dataclass(frozen=True)
class Vocabulary:
    """What segments may be called.

    Attributes:
        kinds: object names without article.
        colours: tried on the kind that was found.
        template: the text that CLIP is shown, where {} stands for "a red chair".
    """

    kinds: tuple[str, ...]
    colours: tuple[str, ...] = COLOURS
    template: str = "a photo of {}"


class VocabularyCaptioner(Captioner):
    """ "a red chair": the nearest kind, then the nearest colour of that kind.

    In two steps, since the texts of all pairs would be thousands. Texts are embedded once: the kinds at the start, the
    colours of a kind when it first turns up. Ties go to the earlier word.
    """

    def __init__(self, vocabulary: Vocabulary, encode_text: EncodeText):
        """Embed the kinds.

        Args:
            vocabulary: see `load_vocabulary`.
            encode_text: of the same CLIP as the embeddings that will be captioned.
        """
        self._vocabulary = vocabulary
        self._encode_text = encode_text
        self._kind_rows = self._encode(vocabulary.kinds)
        self._colour_rows = cache(self._encode_colours)

    @property
    def revision(self) -> str:
        """A hash of the words."""
        return f"vocabulary:{hashlib.sha256(repr(self._vocabulary).encode()).hexdigest()[:16]}"

    def __call__(
        self,
        rgb: UInt8[np.ndarray, "h w 3"],
        semantics: UInt16[np.ndarray, "h w"],
        embeds: Float16[np.ndarray, "s f"] | None,
    ) -> list[str]:
        """See `Captioner`. Only `embeds` is looked at.

        Raises:
            ValueError: no embeddings, or of another CLIP than the texts.
        """
        if embeds is None:
            raise ValueError("the vocabulary captioner needs the segments' embeddings: run it after the embedder")
        if len(embeds) and embeds.shape[1] != self._kind_rows.shape[1]:
            raise ValueError(f"embeddings of width {embeds.shape[1]}, texts of width {self._kind_rows.shape[1]}")
        return [self._caption(row) for row in embeds.astype(np.float32)]

    def _caption(self, embed: Float32[np.ndarray, " f"]) -> str:
        kind = self._vocabulary.kinds[int(np.argmax(self._kind_rows @ embed))]
        colour = self._vocabulary.colours[int(np.argmax(self._colour_rows(kind) @ embed))]
        return with_article(f"{colour} {kind}")

    def _encode_colours(self, kind: str) -> Float32[np.ndarray, "c f"]:
        return self._encode([f"{colour} {kind}" for colour in self._vocabulary.colours])

    def _encode(self, nouns: Sequence[str]) -> Float32[np.ndarray, "n f"]:
        return self._encode_text([self._vocabulary.template.format(with_article(noun)) for noun in nouns])


def load_vocabulary(name: str) -> Vocabulary:
    """The word list that `CaptionConfig.vocabulary` names.

    Args:
        name: "procedural", "indoor", or a file (path or URL) of UTF-8 text with one kind a line.

    Raises:
        ValueError: no such file, or an empty one.
    """
    if name == "procedural":
        return Vocabulary(KINDS + STRUCTURE_KINDS, template="{}")  # the small CLIP has read no other texts
    if name == "indoor":
        text = resources.files("liftgs.teachers").joinpath("words/indoor_objects.txt").read_text("utf-8")
        return Vocabulary(_lines(text))
    try:
        with fsspec.open(name, "r", encoding="utf-8") as file:
            kinds = _lines(file.read())
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f'caption.vocabulary={name} is neither "procedural" nor "indoor" nor a readable text file: {error}'
        ) from error
    if not kinds:
        raise ValueError(f"caption.vocabulary={name} is empty; write one kind of object a line")
    return Vocabulary(kinds)


def with_article(noun: str) -> str:
    """ "red chair" -> "a red chair", "orange chair" -> "an orange chair"."""
    vowel = noun[:1].lower() in "aeiou" and not _SPOKEN_CONSONANT.match(noun)
    return f"{'an' if vowel or _SILENT_H.match(noun) else 'a'} {noun}"


def _lines(text: str) -> tuple[str, ...]:
    """Words of a list, once each, in order."""
    return tuple(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))
