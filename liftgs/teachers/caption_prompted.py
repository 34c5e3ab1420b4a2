"""What captioners that ask a vision-language model share: the question, the checks of its answer, the cache."""

from __future__ import annotations

import base64
import re
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float16, UInt8, UInt16

from liftgs.teachers.caption_cache import CaptionCache, question_key
from liftgs.teachers.captions import CaptionConfig, Captioner, CaptionRefused, LabelledFrame
from liftgs.teachers.highlight import encode_jpeg, highlight

_REFUSAL = re.compile(
    r"(i['’]?m|i am|we['’]?re)?\s*(very |so )?(sorry|unable)\b"
    r"|i (can['’]?t|can ?not|could not|couldn['’]?t|won['’]?t)\b"
    r"|as an ai\b|there is no (red )?(bounding )?box",
    re.IGNORECASE,
)

_QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "`": "`"}


class BadAnswer(ValueError):
    """The model answered, but not with a caption."""


def cut_short(answer: object) -> str:
    """What is said of an answer that was longer than the model may give: of one that thinks aloud, the beginning."""
    return f"cut short: {str(answer)[:80]!r}; raise caption.parameters.max_tokens"


@dataclass(frozen=True, eq=False)
class Question:
    """One segment of one frame, to be captioned.

    Attributes:
        rgb: the photo.
        semantics: segment per pixel.
        row: of the segment; its index in `semantics` is `row + 1`.
    """

    rgb: UInt8[np.ndarray, "h w 3"]
    semantics: UInt16[np.ndarray, "h w"]
    row: int

    def image(self, max_side_px: int) -> UInt8[np.ndarray, "oh ow 3"]:
        """What the model is shown."""
        return highlight(self.rgb, self.semantics == self.row + 1, max_side_px)


class PromptedCaptioner(Captioner):
    """Turns frames into questions and answers into captions; how a question is put is the subclass's."""

    def __init__(self, config: CaptionConfig):
        self._config = config
        self._cache = CaptionCache(config.cache) if config.cache else None

    @property
    def revision(self) -> str:
        """The model's name and a hash of what it is asked."""
        return f"{self._config.model} prompt:{self._config.prompt_hash[:16]}"

    def __call__(
        self,
        rgb: UInt8[np.ndarray, "h w 3"],
        semantics: UInt16[np.ndarray, "h w"],
        embeds: Float16[np.ndarray, "s f"] | None = None,
    ) -> list[str]:
        """See `Captioner`; `embeds` is not used."""
        captions = self.caption_frames([(rgb, semantics, embeds)])[0]
        if isinstance(captions, CaptionRefused):
            raise captions
        return captions

    def caption_frames(self, frames: Sequence[LabelledFrame]) -> list[list[str] | CaptionRefused]:
        """See `Captioner`: the segments of all frames are put as one batch."""
        questions = [
            [Question(rgb, semantics, row) for row in range(int(semantics.max(initial=0)))]
            for rgb, semantics, _ in frames
        ]
        answers = iter(self._answer([question for frame in questions for question in frame]))
        return [self._of_frame([next(answers) for _ in frame]) for frame in questions]

    @abstractmethod
    def _answer(self, questions: Sequence[Question]) -> list[str | BadAnswer]:
        """A caption for each question, or why there is none.

        Raises:
            CaptionerUnavailable: see `Captioner`.
        """

    def _of_frame(self, answers: list[str | BadAnswer]) -> list[str] | CaptionRefused:
        captions = [answer for answer in answers if isinstance(answer, str)]
        if len(captions) == len(answers):
            return captions
        row, first = next((row, answer) for row, answer in enumerate(answers) if isinstance(answer, BadAnswer))
        refused = len(answers) - len(captions)
        return CaptionRefused(
            self._config.model, f"{refused} of {len(answers)} segments not captioned; segment {row + 1}: {first}"
        )

    def _recall(self, question: Question) -> tuple[str, bytes, str | None]:
        """The question's cache key, the JPEG to show, and the caption if it is known."""
        image = question.image(self._config.max_side_px)
        key = question_key(self._config, image)
        known = self._cache.get(key) if self._cache else None
        if known is not None:
            try:
                known = clean_caption(known, self._config.max_chars)
            except BadAnswer:  # to who had other limits it was none
                known = None
        return key, b"" if known else encode_jpeg(image), known

    def _keep(self, key: str, answer: object) -> str:
        """Check an answer and remember it; one that is no caption is not remembered, so a retry asks again."""
        caption = clean_caption(answer, self._config.max_chars)
        if self._cache:
            self._cache.put(key, caption, self._config.model)
        return caption

    def _messages(self, jpeg: bytes) -> list[dict[str, Any]]:
        """A conversation in OpenAI's form, which `vllm.LLM.chat` takes too."""
        url = "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")
        image = {"type": "image_url", "image_url": {"url": url}}
        return [{"role": "user", "content": [image, {"type": "text", "text": self._config.prompt}]}]


def canary_jpeg() -> bytes:
    """A plain grey image that every working vision-language model takes; tells a bad image from a bad model."""
    return encode_jpeg(np.full((64, 64, 3), 128, np.uint8))


def clean_caption(answer: object, max_chars: int) -> str:
    """A model's answer as one stripped line without quotation marks around it.

    Raises:
        BadAnswer: not text, empty, a refusal, or too long to be a caption.
    """
    if not isinstance(answer, str):
        raise BadAnswer(f"answered with {type(answer).__name__} instead of text")
    # Neither control characters nor lone halves of surrogate pairs, which no tokenizer takes.
    printable = "".join(char for char in answer if char.isprintable() or char.isspace())
    caption = _unquote(" ".join(printable.split()))
    if not caption:
        raise BadAnswer("answered with nothing")
    if len(caption) > max_chars:
        raise BadAnswer(f"answered with {len(caption)} characters, over max_chars={max_chars}: {caption[:60]!r}...")
    if _REFUSAL.match(caption):
        raise BadAnswer(f"refused: {caption!r}")
    return caption


def _unquote(text: str) -> str:
    """Strip quotation marks and final punctuation, however nested: the prompt has both, and models copy it."""
    while True:
        bare = text.strip().rstrip(" .,;")
        if len(bare) >= 2 and _QUOTES.get(bare[0]) == bare[-1]:
            bare = bare[1:-1]
        if bare == text:
            return text
        text = bare
