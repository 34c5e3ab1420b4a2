"""Segments -> short captions. The interface of all captioners and the configuration that picks one.

Imports neither torch nor any model, so that it also loads in an environment made for vLLM alone.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from jaxtyping import Float16, Float32, UInt8, UInt16

from liftgs.scene import BadInput

if TYPE_CHECKING:
    from liftgs.teachers.clip import Embed

#: LIFT-GS, appendix A.4, word for word.
PAPER_PROMPT = (
    "You are a helpful assistant for image captioning. You are given an image with a red bounding box specifying the "
    "object of interest. Caption that object in a few words, keeping it precise and concise. The object is also "
    'slightly highlighted. Examples output: "a red traffic light," "the box near the wall." Just output the caption; '
    "no other text is needed."
)

CaptionerName = Literal["none", "vocabulary", "http", "vllm"]

#: (photo uint8 [H,W,3], semantics uint16 [H,W], embeds float16 [S,F] or None), as `Captioner.__call__` takes them
LabelledFrame = tuple[np.ndarray, np.ndarray, np.ndarray | None]

#: Texts -> unit rows of the CLIP that embedded the segments
EncodeText = Callable[[list[str]], Float32[np.ndarray, "n f"]]


class CaptionRefused(BadInput):
    """The captioner works but not for this frame: `uri` is the model, `reason` says which segment and why."""


class CaptionerUnavailable(RuntimeError):
    """No caption can be had for any frame: the endpoint is down or rejects us, or the engine does not start.

    Not the fault of a frame, so it must end the job instead of filling the quarantine; what was captioned is kept.
    """


#: Marks what says where and how fast captions are made, not which: no part of a corpus's identity.
_WHERE_ONLY = {"identity": False}


def _default_parameters() -> dict[str, Any]:
    return {"max_tokens": 48, "temperature": 0.0, "seed": 0}


@dataclass(frozen=True)
class CaptionConfig:
    """Which captioner, and how it is asked.

    Attributes:
        captioner: "vocabulary": nearest kind and colour by CLIP, needs no model beside it. "http": any endpoint that
            speaks OpenAI's chat completions. "vllm": vLLM in this process. "none": no captions.
        vocabulary: words of the vocabulary captioner. "procedural": the kinds of the embedded corpus; "indoor": a list
            of common indoor objects; a path to a text file with one kind a line; "auto": the words that suit the CLIP,
            "procedural" for the small one that ships with the package and "indoor" for others.
        model: http and vllm: the model's name, as the endpoint or vLLM knows it.
        prompt: sent after the image, in the same message. The paper's, appendix A.4.
        parameters: http and vllm: sampling parameters, in OpenAI's words, which vLLM shares; sent as they are.
        max_side_px: longer side of the image that the model sees; larger photos are made smaller.
        max_chars: a longer answer is not a caption and is refused.
        cache: http and vllm: folder (any fsspec URL) of the answers so far, so that a rerun asks nothing twice.
        base_url: http: up to and with the version, e.g. "http://host:8000/v1".
        api_key_env: http: name of the environment variable that holds the key; "" sends none. Never the key itself.
        concurrency: http: requests in flight, per captioner.
        timeout_s: http: for one answer.
        give_up_after_s: http: how long one request is retried; longer than the endpoint needs to restart.
        python: vllm: interpreter of the environment that has vLLM (see `liftgs_platform.vllm_env`); "" = this one.
        engine: vllm: further arguments of `vllm.LLM`, e.g. {"tensor_parallel_size": 2, "max_model_len": 4096}.

    Raises:
        ValueError: an unknown captioner, or one whose settings are missing.
    """

    captioner: CaptionerName = "vocabulary"
    vocabulary: str = "auto"
    model: str = ""
    prompt: str = PAPER_PROMPT
    parameters: dict[str, Any] = field(default_factory=_default_parameters)
    max_side_px: int = 1024
    max_chars: int = 200
    cache: str | None = field(default=None, metadata=_WHERE_ONLY)
    base_url: str = field(default="", metadata=_WHERE_ONLY)
    api_key_env: str = field(default="", metadata=_WHERE_ONLY)
    concurrency: int = field(default=16, metadata=_WHERE_ONLY)
    timeout_s: float = field(default=120.0, metadata=_WHERE_ONLY)
    give_up_after_s: float = field(default=600.0, metadata=_WHERE_ONLY)
    python: str = field(default="", metadata=_WHERE_ONLY)
    engine: dict[str, Any] = field(default_factory=dict, metadata=_WHERE_ONLY)

    def __post_init__(self) -> None:
        names = get_args(CaptionerName)
        if self.captioner not in names:
            raise ValueError(f"caption.captioner={self.captioner!r} is none of {', '.join(names)}")
        if min(self.concurrency, self.max_side_px, self.max_chars) < 1:
            raise ValueError("caption.concurrency, max_side_px and max_chars must be at least 1")
        if self.timeout_s <= 0 or self.give_up_after_s < 0:
            raise ValueError("caption.timeout_s must be positive, and give_up_after_s at least 0")
        if self.captioner in ("http", "vllm") and not self.model:
            raise ValueError(f"caption.captioner={self.captioner} needs caption.model, the name of the model to ask")
        if self.captioner == "http" and not self.base_url.startswith(("http://", "https://")):
            raise ValueError(
                f"caption.captioner=http needs caption.base_url, such as http://host:8000/v1; it is {self.base_url!r}"
            )

    @property
    def prompt_hash(self) -> str:
        """Of the prompt's text."""
        return hashlib.sha256(self.prompt.encode()).hexdigest()


class Captioner(ABC):
    """Captions the segments of photos. Built by `build_captioner`, used from one thread, closed when done."""

    @property
    @abstractmethod
    def revision(self) -> str:
        """Which model, words or prompt the captions come from, for a corpus to record."""

    @abstractmethod
    def __call__(
        self,
        rgb: UInt8[np.ndarray, "h w 3"],
        semantics: UInt16[np.ndarray, "h w"],
        embeds: Float16[np.ndarray, "s f"] | None,
    ) -> list[str]:
        """One caption per segment.

        Args:
            rgb: the photo.
            semantics: segment per pixel, as in `liftgs.labels.SegmentMap`.
            embeds: unit CLIP rows of the segments; only the vocabulary captioner needs them.

        Returns:
            S captions, each one line, stripped and not empty.

        Raises:
            CaptionRefused: this frame got no usable caption for some segment.
            CaptionerUnavailable: nothing can be captioned now.
        """

    def caption_frames(self, frames: Sequence[LabelledFrame]) -> list[list[str] | CaptionRefused]:
        """Many frames at once, which keeps batched models busy. A refused frame is returned as its error.

        Raises:
            CaptionerUnavailable: nothing can be captioned now.
        """
        captions: list[list[str] | CaptionRefused] = []
        for frame in frames:
            try:
                captions.append(self(*frame))
            except CaptionRefused as error:
                captions.append(error)
        return captions

    def close(self) -> None:  # noqa: B027  most captioners hold nothing
        """Free what the captioner holds: connections, an engine and its processes. May be called twice."""


def build_captioner(config: CaptionConfig, embed: Embed | None = None) -> Captioner | None:
    """The captioner that the configuration names; None for "none".

    Args:
        config: see there. `config.python` is not used here: the caller has already chosen the process.
        embed: what embeds the segments; "vocabulary" uses its text tower, the others do without.

    Raises:
        ValueError: "vocabulary" without `embed`, or its word list cannot be read.
        CaptionerUnavailable: the API key's variable is not set, or the engine does not start.
    """
    # Each captioner is imported when asked for: vLLM's environment has no CLIP, and the others have no vLLM.
    match config.captioner:
        case "none":
            return None
        case "vocabulary":
            from liftgs.teachers.caption_vocabulary import VocabularyCaptioner, load_vocabulary  # noqa: PLC0415

            if embed is None:
                raise ValueError("the vocabulary captioner needs the CLIP that embeds the segments")
            suitable = "procedural" if embed.config.model == "tiny" else "indoor"
            words = suitable if config.vocabulary == "auto" else config.vocabulary
            return VocabularyCaptioner(load_vocabulary(words), embed.encode_text)
        case "http":
            from liftgs.teachers.caption_http import HttpCaptioner  # noqa: PLC0415

            return HttpCaptioner(config)
        case _:
            from liftgs.teachers.caption_vllm import VllmCaptioner  # noqa: PLC0415

            return VllmCaptioner(config)
