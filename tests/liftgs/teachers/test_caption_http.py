import asyncio
import logging
import pickle
import socket
import time

import numpy as np
import pytest
from aiohttp import web
from chat_server import ChatServer, completion, is_canary, shown_image

from liftgs.teachers import caption_http
from liftgs.teachers.captions import (
    PAPER_PROMPT,
    CaptionConfig,
    CaptionerUnavailable,
    CaptionRefused,
    build_captioner,
)


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch):
    monkeypatch.setattr(caption_http, "FIRST_PAUSE_S", 0.01)


def config(server_url, **changes):
    settings = {"captioner": "http", "model": "some-vlm", "base_url": server_url, "give_up_after_s": 5.0, **changes}
    return CaptionConfig(**settings)


def frame(segments=3, index=0):
    """A noisy photo with `segments` squares in a row."""
    rgb = np.random.default_rng([7, index]).integers(0, 200, (64, 32 * max(segments, 1), 3), dtype=np.uint8)
    semantics = np.zeros(rgb.shape[:2], np.uint16)
    for row in range(segments):
        semantics[20:40, 32 * row + 8 : 32 * row + 24] = row + 1
    return rgb, semantics, None


def segment_of(request):
    """Which square the red box of the shown image is around."""
    image = shown_image(request).astype(int)
    red = (image[..., 0] > 200) & (image[..., 1:] < 70).all(-1)
    return int(np.median(np.flatnonzero(red.any(0)))) // 32


def captions_of(server, frames=None, **changes):
    captioner = build_captioner(config(server.url, **changes))
    try:
        return captioner(*frame()) if frames is None else captioner.caption_frames(frames)
    finally:
        captioner.close()


def by_segment(_, request):
    return completion(f"square {segment_of(request)}")


def test_each_segment_is_shown_in_its_box_with_the_papers_prompt_and_answers_keep_their_order():
    async def later_first(_, request):
        await asyncio.sleep(0.05 * (3 - segment_of(request)))
        return completion(f"square {segment_of(request)}")

    with ChatServer(later_first) as server:
        assert captions_of(server) == ["square 0", "square 1", "square 2"]
    request = server.requests[0]
    assert request["model"] == "some-vlm"
    assert request["messages"][0]["content"][1] == {"type": "text", "text": PAPER_PROMPT}
    assert (request["max_tokens"], request["temperature"], request["seed"]) == (48, 0.0, 0)


def test_frames_share_the_connection_limit_and_a_frame_without_segments_asks_nothing():
    async def slow(_, request):
        await asyncio.sleep(0.03)
        return completion("a thing")

    with ChatServer(slow) as server:
        captions = captions_of(server, [frame(5, 0), frame(0, 1), frame(4, 2)], concurrency=3)
    assert [len(of_frame) for of_frame in captions] == [5, 0, 4]
    assert len(server.requests) == 9
    assert server.most_in_flight == 3


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
def test_overloaded_or_failing_endpoint_is_asked_again(status):
    def fail_twice(number, request):
        return (
            web.json_response({"error": {"message": "busy"}}, status=status) if number < 2 else by_segment(0, request)
        )

    with ChatServer(fail_twice) as server:
        assert captions_of(server, [frame(1)]) == [["square 0"]]
    assert len(server.requests) == 3


def test_retry_after_is_waited_for():
    times = []

    def fail_once(number, request):
        times.append(time.monotonic())
        return web.Response(status=429, headers={"Retry-After": "0.6"}) if number == 0 else by_segment(0, request)

    with ChatServer(fail_once) as server:
        captions_of(server, [frame(1)])
    assert times[1] - times[0] >= 0.6


def test_retry_after_may_be_a_date():
    assert caption_http._retry_after_s("Wed, 21 Oct 2099 07:28:00 GMT") > 1e8
    assert caption_http._retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert caption_http._retry_after_s("soon") == 0
    assert caption_http._retry_after_s("-3") == 0


def test_retry_after_beyond_our_patience_ends_at_once():
    with ChatServer(lambda *_: web.Response(status=429, headers={"Retry-After": "3600"})) as server:
        started = time.monotonic()
        with pytest.raises(CaptionerUnavailable, match="HTTP 429"):
            captions_of(server)
    assert time.monotonic() - started < 3


def test_hanging_endpoint_is_asked_again_then_unavailable():
    async def hang(_, request):
        await asyncio.sleep(30)
        return completion("too late")

    with ChatServer(hang) as server, pytest.raises(CaptionerUnavailable, match=r"no answer within timeout_s=0\.2"):
        captions_of(server, [frame(1)], timeout_s=0.2, give_up_after_s=0.5)
    assert len(server.requests) >= 3


def test_connection_cut_in_the_middle_is_retried():
    def cut(number, request):
        if number == 0:
            raise asyncio.CancelledError  # aiohttp drops the connection
        return by_segment(0, request)

    with ChatServer(cut) as server:
        assert captions_of(server, [frame(1)]) == [["square 0"]]


@pytest.mark.parametrize(
    "body", ["<html>gateway</html>", "{}", '{"choices": []}', '{"choices": [{"message": null}]}', "[]"]
)
def test_garbage_is_retried_and_when_it_stays_the_endpoint_is_unavailable(body):
    def garbage_once(number, request):
        return web.Response(text=body) if number == 0 else by_segment(0, request)

    with ChatServer(garbage_once) as server:
        assert captions_of(server, [frame(1)]) == [["square 0"]]
    with (
        ChatServer(lambda *_: web.Response(text=body)) as server,
        pytest.raises(CaptionerUnavailable, match="no chat completion"),
    ):
        captions_of(server, give_up_after_s=0.2)


def test_rejected_image_costs_its_frame_only_and_gives_the_servers_words():
    def reject_middle(_, request):
        if not is_canary(request) and segment_of(request) == 1:
            return web.json_response({"error": {"message": "image violates policy 7"}}, status=400)
        return completion("a thing")

    with ChatServer(reject_middle) as server:
        bad, good = captions_of(server, [frame(3), frame(1, index=1)])
    assert isinstance(bad, CaptionRefused)
    assert bad.uri == "some-vlm"
    assert bad.reason == "1 of 3 segments not captioned; segment 2: HTTP 400: image violates policy 7"
    assert good == ["a thing"]
    assert str(pickle.loads(pickle.dumps(bad))) == str(bad)


def test_endpoint_that_rejects_even_a_plain_image_is_unavailable():
    reply = {"detail": "model takes no images"}
    with (
        ChatServer(lambda *_: web.json_response(reply, status=400)) as server,
        pytest.raises(CaptionerUnavailable, match="model takes no images"),
    ):
        captions_of(server, concurrency=1)
    assert len(server.requests) == 2  # the segment and the plain image; a rejection is never repeated


def test_image_that_always_fails_an_endpoint_that_works_costs_its_frame():
    def poison(_, request):
        return completion("grey") if is_canary(request) else web.Response(status=500, text="boom")

    with ChatServer(poison) as server, pytest.raises(CaptionRefused, match=r"HTTP 500: boom, for 0\.3 s"):
        captions_of(server, give_up_after_s=0.3)


@pytest.mark.parametrize(
    ("status", "headers", "advice"),
    [
        (401, {}, "check the key"),
        (403, {}, "check the key"),
        (404, {}, "check caption.model"),
        (307, {"Location": "https://elsewhere/v1"}, "redirects to https://elsewhere/v1"),
    ],
)
def test_misconfiguration_ends_the_job_at_once_saying_what_to_mend(status, headers, advice):
    with (
        ChatServer(lambda *_: web.Response(status=status, headers=headers)) as server,
        pytest.raises(CaptionerUnavailable, match=advice),
    ):
        captions_of(server, [frame(1)])
    assert len(server.requests) == 1


def test_nobody_listening_is_unavailable():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
        captioner = build_captioner(config(url, give_up_after_s=0.3))
        with pytest.raises(CaptionerUnavailable, match=url):
            captioner(*frame())
        captioner.close()
        captioner.close()


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (lambda: completion(""), "nothing"),
        (lambda: completion(' \n "" '), "nothing"),
        (lambda: completion(None), "NoneType"),
        (lambda: completion([{"type": "text"}]), "list"),
        (lambda: completion("word " * 100), "over max_chars=200"),
        (lambda: completion("I'm sorry, but I can't help with that."), "refused"),
        (lambda: completion(None, refusal="against our rules"), "against our rules"),
        (lambda: completion("a", finish_reason="content_filter"), "content filter"),
        (
            lambda: completion("So let me look at the", finish_reason="length"),
            "cut short: 'So let me.*raise caption.parameters.max_tokens",
        ),
    ],
)
def test_what_is_no_caption_is_refused_and_asked_again_next_time(reply, reason, tmp_path):
    with ChatServer(lambda *_: reply()) as server:
        for _ in range(2):
            with pytest.raises(CaptionRefused, match=reason):
                captions_of(server, cache=str(tmp_path))
    assert len(server.requests) == 6


def test_second_run_asks_nothing(tmp_path):
    with ChatServer(by_segment) as server:
        first = captions_of(server, cache=str(tmp_path / "cache"))
        assert captions_of(server, cache=str(tmp_path / "cache")) == first
        asked = len(server.requests)
        captions_of(server, cache=str(tmp_path / "cache"), model="other-vlm")
        with pytest.raises(CaptionRefused):  # as if nobody had asked yet
            captions_of(server, cache=str(tmp_path / "cache"), max_chars=3)
    assert asked == 3
    assert len(server.requests) == 9
    # Nor does one whose endpoint is gone.
    assert captions_of(server, cache=str(tmp_path / "cache")) == first


def test_answers_before_an_outage_are_kept(tmp_path):
    def die_after_two(number, request):
        return by_segment(0, request) if number < 2 else web.Response(status=503)

    with ChatServer(die_after_two) as server, pytest.raises(CaptionerUnavailable):
        captions_of(server, cache=str(tmp_path), concurrency=1, give_up_after_s=0.1)
    with ChatServer(by_segment) as server:
        assert captions_of(server, cache=str(tmp_path)) == ["square 0", "square 1", "square 2"]
    assert len(server.requests) == 1


def test_key_comes_from_the_environment_and_shows_up_nowhere_else(monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("SOME_VLM_KEY", "s3cret\n")
    with ChatServer(by_segment) as server:
        captions_of(server, api_key_env="SOME_VLM_KEY")
        settings = config(server.url, api_key_env="SOME_VLM_KEY")
        server.script = lambda *_: web.Response(status=401, text="bad key")
        with pytest.raises(CaptionerUnavailable) as error:
            captions_of(server, api_key_env="SOME_VLM_KEY")
    assert server.headers[0]["Authorization"] == "Bearer s3cret"
    assert "s3cret" not in repr(settings) + str(error.value) + caplog.text
    monkeypatch.delenv("SOME_VLM_KEY")
    with pytest.raises(CaptionerUnavailable, match="SOME_VLM_KEY"):
        captions_of(server, api_key_env="SOME_VLM_KEY")


def test_captioner_works_where_an_event_loop_already_runs():
    async def in_a_notebook():
        with ChatServer(by_segment) as server:
            return captions_of(server)

    assert asyncio.run(in_a_notebook()) == ["square 0", "square 1", "square 2"]
