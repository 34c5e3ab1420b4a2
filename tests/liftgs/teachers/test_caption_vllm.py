"""VllmCaptioner against a stand-in for vLLM's `LLM`; tests/platform/test_vllm.py runs the real engine."""

import base64
import sys
import zlib
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from liftgs.teachers import caption_vllm
from liftgs.teachers.caption_prompted import canary_jpeg
from liftgs.teachers.captions import CaptionConfig, CaptionerUnavailable, CaptionRefused, build_captioner


class Engine:
    """Answers with a running number, save where `rule` raises. Keeps what happened in `log`."""

    log: list
    cut = None  # number of an answer that is longer than it may be
    rule = staticmethod(lambda url: None)

    def __init__(self, **arguments):
        self.log.append(("start", arguments))
        self.llm_engine = SimpleNamespace(engine_core=SimpleNamespace(shutdown=lambda: self.log.append(("stop",))))

    def chat(self, conversations, parameters, use_tqdm):
        self.log.append(("chat", len(conversations)))
        urls = [conversation[0]["content"][0]["image_url"]["url"] for conversation in conversations]
        for url in urls:
            self.rule(url)
        answers = [SimpleNamespace(text=f'"a thing {zlib.crc32(url.encode())}."', finish_reason="stop") for url in urls]
        if self.cut is not None:
            answers[self.cut].finish_reason = "length"
        return [SimpleNamespace(outputs=[answer]) for answer in answers]


@pytest.fixture
def engine(monkeypatch):
    fresh = type("Fresh", (Engine,), {"log": []})
    module = ModuleType("vllm")
    module.LLM = fresh
    module.SamplingParams = lambda **parameters: parameters
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    monkeypatch.setenv("VLLM_NO_USAGE_STATS", "1")
    return fresh


def captioner(**changes):
    return build_captioner(CaptionConfig(**{"captioner": "vllm", "model": "m", **changes}))


def frame(segments, index=0):
    rgb = np.random.default_rng([3, index]).integers(0, 200, (48, 32 * max(segments, 1), 3), dtype=np.uint8)
    semantics = np.zeros(rgb.shape[:2], np.uint16)
    for row in range(segments):
        semantics[16:32, 32 * row + 8 : 32 * row + 24] = row + 1
    return rgb, semantics, None


def is_canary(url):
    return base64.b64decode(url.split(",", 1)[1]) == canary_jpeg()


def test_all_frames_are_one_batch_and_captions_go_to_their_frames(engine):
    captions = captioner().caption_frames([frame(3), frame(0), frame(2, 1)])
    assert [len(of_frame) for of_frame in captions] == [3, 0, 2]
    assert len({caption for of_frame in captions for caption in of_frame}) == 5
    assert engine.log[:2] == [("start", {"model": "m", "limit_mm_per_prompt": {"image": 1}}), ("chat", 5)]


def test_batches_are_bounded(engine, monkeypatch):
    monkeypatch.setattr(caption_vllm, "PROMPTS_PER_CALL", 2)
    assert len(captioner()(*frame(5))) == 5
    assert engine.log[1:4] == [("chat", 2), ("chat", 2), ("chat", 1)]


def test_known_answers_are_not_asked_again(engine, tmp_path):
    first = captioner(cache=str(tmp_path))(*frame(2))
    mixed = captioner(cache=str(tmp_path)).caption_frames([frame(1, 1), frame(2)])
    assert mixed[1] == first
    assert [event for event in engine.log if event[0] == "chat"] == [("chat", 2), ("chat", 1)]


def test_prompt_that_is_rejected_costs_its_frame_only(engine):
    asked = []

    def reject_second(url):
        if url not in asked:
            asked.append(url)
        if asked.index(url) == 1 and not is_canary(url):
            raise ValueError("too many image tokens")

    engine.rule = staticmethod(reject_second)
    bad, good = captioner().caption_frames([frame(2), frame(2, 1)])
    assert isinstance(bad, CaptionRefused)
    assert "segment 2: vLLM rejects the prompt: too many image tokens" in bad.reason
    assert len(good) == 2


def test_an_answer_that_was_cut_short_is_no_caption(engine):
    """Of a model that thinks aloud only the beginning would be kept."""
    engine.cut = 0
    bad, good = captioner().caption_frames([frame(2), frame(2, 1)])
    assert isinstance(bad, CaptionRefused)
    assert "segment 1: cut short: '\"a thing" in bad.reason
    assert len(good) == 2


def test_engine_that_rejects_everything_is_unavailable(engine):
    def reject(_):
        raise ValueError("not a multimodal model")

    engine.rule = staticmethod(reject)
    with pytest.raises(CaptionerUnavailable, match="not a multimodal model"):
        captioner()(*frame(2))


def test_engine_that_breaks_later_is_unavailable(engine):
    worked = captioner()
    worked(*frame(2))

    def broken(_):
        raise RuntimeError("Executor failed.")

    engine.rule = staticmethod(broken)
    with pytest.raises(CaptionerUnavailable, match="Executor failed"):
        worked(*frame(2))


@pytest.mark.parametrize("fault", [MemoryError(), OSError("disk full")])
def test_failing_machine_is_no_frames_fault(engine, fault):
    def fail(_):
        raise fault

    engine.rule = staticmethod(fail)
    with pytest.raises(type(fault)):
        captioner()(*frame(2))


def test_engine_is_stopped_when_closed_or_forgotten_and_only_once(engine):
    first = captioner()
    first.close()
    first.close()
    del first
    assert [event[0] for event in engine.log] == ["start", "stop"]
    second = captioner()
    del second
    assert [event[0] for event in engine.log] == ["start", "stop"] * 2


def test_engine_that_does_not_start_says_why(engine):
    def fail(self, **_):
        raise RuntimeError("no such model")

    engine.__init__ = fail
    with pytest.raises(CaptionerUnavailable, match=r"caption\.model=m: no such model"):
        captioner()
