"""Captions from vLLM in this process. vLLM is imported when the captioner is made, never before.

vLLM pins a torch of its own, so this runs where `CaptionConfig.python` points (see `liftgs_platform.vllm_env`), and
this module and what it imports need nothing that such an environment lacks.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

from liftgs.teachers.caption_prompted import BadAnswer, PromptedCaptioner, Question, canary_jpeg, cut_short
from liftgs.teachers.captions import CaptionConfig, CaptionerUnavailable

#: Prompts handed to the engine at a time: enough to keep it full, few enough to hold their images in memory.
PROMPTS_PER_CALL = 256

Conversation = list[dict[str, Any]]


class VllmCaptioner(PromptedCaptioner):
    """One vLLM engine, in this very process. A prompt that it rejects costs its frame; an engine that fails, the job.

    By default vLLM runs its engine in a process beside ours, and when that one is killed (memory!) waits for it without
    end (seen in 0.32, `SyncMPClient.get_output`). In process, engine and actor live and die together, so that whatever
    restarts the actor restarts the engine; also, only then are vLLM's batches, and so its last bits, reproducible.
    """

    def __init__(self, config: CaptionConfig):
        """Loads the model, which takes from half a minute to many.

        Raises:
            CaptionerUnavailable: vLLM is not installed here, or the engine does not start with this model.
        """
        super().__init__(config)
        llm = _start(config)
        self._engine = llm
        # Not left to the garbage collector: workers and GPU memory outlive an engine that was merely forgotten.
        self._stop = weakref.finalize(self, llm.llm_engine.engine_core.shutdown)

    def close(self) -> None:
        """Stop the engine and its processes."""
        self._stop()

    def _answer(self, questions: Sequence[Question]) -> list[str | BadAnswer]:
        answers: list[str | BadAnswer] = []
        for start in range(0, len(questions), PROMPTS_PER_CALL):
            answers += self._answer_batch(questions[start : start + PROMPTS_PER_CALL])
        return answers

    def _answer_batch(self, questions: Sequence[Question]) -> list[str | BadAnswer]:
        recalled = [self._recall(question) for question in questions]
        new = [(key, jpeg) for key, jpeg, known in recalled if known is None]
        fresh = self._captions(new)
        return [known if known is not None else next(fresh) for _, _, known in recalled]

    def _captions(self, new: list[tuple[str, bytes]]) -> Iterator[str | BadAnswer]:
        replies = self._chat([self._messages(jpeg) for _, jpeg in new]) if new else []
        for (key, _), reply in zip(new, replies, strict=True):
            try:
                yield reply if isinstance(reply, BadAnswer) else self._keep(key, reply)
            except BadAnswer as error:
                yield error

    def _chat(self, conversations: list[Conversation]) -> list[str | BadAnswer]:
        """All at once; if vLLM rejects the batch, which it does as a whole, one by one to find the prompt at fault."""
        try:
            return list(self._generate(conversations))
        except (MemoryError, OSError):
            raise
        except Exception as error:  # vLLM has no common class for what is wrong with a prompt
            if len(conversations) > 1:
                return [self._chat([one])[0] for one in conversations]
            self._check_plain_image(error)
            return [BadAnswer(f"vLLM rejects the prompt: {error}")]

    def _check_plain_image(self, error: Exception) -> None:
        try:
            self._generate([self._messages(canary_jpeg())])
        except Exception:
            raise CaptionerUnavailable(f"vLLM with caption.model={self._config.model}: {error}") from error

    def _generate(self, conversations: list[Conversation]) -> list[str | BadAnswer]:
        from vllm import SamplingParams  # noqa: PLC0415

        outputs = self._engine.chat(conversations, SamplingParams(**self._config.parameters), use_tqdm=False)
        answers = [output.outputs[0] for output in outputs]
        return [BadAnswer(cut_short(one.text)) if one.finish_reason == "length" else one.text for one in answers]


def _start(config: CaptionConfig) -> Any:
    """A `vllm.LLM`.

    Raises:
        CaptionerUnavailable: vLLM is not installed here, or does not start with this model.
    """
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # see `VllmCaptioner`
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")  # else vLLM reports each start to its makers
    try:
        import vllm  # noqa: PLC0415
    except ImportError as error:
        raise CaptionerUnavailable(
            f"vLLM cannot be imported here ({error}); make an environment with "
            "`python -m liftgs_platform.vllm_env PATH` and set caption.python=PATH/bin/python"
        ) from error
    arguments = {"limit_mm_per_prompt": {"image": 1}, **config.engine}
    try:
        return vllm.LLM(model=config.model, **arguments)
    except Exception as error:  # anything from a missing file to a full GPU
        raise CaptionerUnavailable(f"vLLM does not start with caption.model={config.model}: {error}") from error
