"""Captions from any endpoint that speaks OpenAI's chat completions: a vLLM server, a cluster's gateway, a vendor.

Who is at fault decides what happens. A failing or overloaded endpoint is asked again with growing pauses, and when that
does not help the job ends. An image that the endpoint rejects costs its own frame. Where the two cannot be told apart
from the answer, a plain grey image is asked about: an endpoint that captions that one is well.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
import weakref
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import aiohttp
import numpy as np

from liftgs.secrecy import blanked
from liftgs.teachers.caption_prompted import BadAnswer, PromptedCaptioner, Question, canary_jpeg, cut_short
from liftgs.teachers.captions import CaptionConfig, CaptionerUnavailable

T = TypeVar("T")

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0

#: The request itself is at fault: malformed, too large, or turned down by the endpoint's rules.
_REJECTED = {400, 413, 415, 422}
_TRANSIENT = {408, 409, 425, 429}


class _Rejected(Exception):
    """The endpoint will never answer this request."""


class _Transient(Exception):
    """The same request may work later."""

    def __init__(self, message: str, retry_after_s: float = 0.0):
        super().__init__(message)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True)
class _Reply:
    answer: object  # the message's content; what a model says need not be text
    refused: str = ""  # the endpoint's own word that it will not answer


class HttpCaptioner(PromptedCaptioner):
    """Asks `{base_url}/chat/completions` about each segment, up to `config.concurrency` at a time.

    Answers are cached as they come, so a captioner that is killed in the middle of a frame repeats little. The API key
    is read from the environment and goes nowhere but into the request's header.
    """

    def __init__(self, config: CaptionConfig):
        """Sends nothing yet.

        Raises:
            CaptionerUnavailable: the variable that should hold the API key is not set.
        """
        super().__init__(config)
        self._url = config.base_url.rstrip("/") + "/chat/completions"
        self._loop = _LoopThread()
        self._slots = asyncio.Semaphore(config.concurrency)
        self._session = self._loop.run(_open_session(config))
        self._answered = False  # has the endpoint ever captioned anything?
        self._close = weakref.finalize(self, _close, self._loop, self._session)

    def close(self) -> None:
        """Close the connections."""
        self._close()

    def _answer(self, questions: Sequence[Question]) -> list[str | BadAnswer]:
        return self._loop.run(self._answer_all(questions))

    async def _answer_all(self, questions: Sequence[Question]) -> list[str | BadAnswer]:
        tasks = [asyncio.ensure_future(self._caption(question)) for question in questions]
        try:
            return list(await asyncio.gather(*tasks))
        finally:  # the first error that ends the job ends the other requests too
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _caption(self, question: Question) -> str | BadAnswer:
        async with self._slots:
            key, jpeg, known = await asyncio.to_thread(self._recall, question)
            if known is not None:
                return known
            try:
                reply = await self._ask(key, jpeg)
                if reply.refused:
                    return BadAnswer(reply.refused)
                return await asyncio.to_thread(self._keep, key, reply.answer)
            except BadAnswer as error:
                return error

    async def _ask(self, key: str, jpeg: bytes) -> _Reply:
        """One answer, retried while the endpoint may recover.

        Raises:
            BadAnswer: the endpoint works, but not for this image.
            CaptionerUnavailable: the endpoint does not work.
        """
        try:
            return await self._ask_patiently(key, jpeg)
        except _Rejected as error:
            reason, works = str(error), self._answered or await self._captions_a_plain_image()
        except _Transient as error:
            reason = f"{error}, for {self._config.give_up_after_s:g} s"
            works = await self._captions_a_plain_image()
        if works:
            raise BadAnswer(reason)
        raise CaptionerUnavailable(f"caption.base_url={self._config.base_url}: {reason}")

    async def _ask_patiently(self, key: str, jpeg: bytes) -> _Reply:
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._config.give_up_after_s
        jitter = np.random.default_rng(int(key[:16], 16))  # differs between questions, so that pauses spread
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                return await self._post(jpeg)
            except _Transient as error:
                wait_s = max(error.retry_after_s, pause_s * jitter.uniform(0.5, 1.0))
                if clock() + wait_s > deadline:
                    raise
            await asyncio.sleep(wait_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _captions_a_plain_image(self) -> bool:
        try:
            await self._post(canary_jpeg())
        except (_Rejected, _Transient, CaptionerUnavailable):
            return False
        return True

    async def _post(self, jpeg: bytes) -> _Reply:
        body = {"model": self._config.model, "messages": self._messages(jpeg), **self._config.parameters}
        try:
            # Redirects are not followed: they would turn the POST into a GET.
            async with self._session.post(self._url, json=body, allow_redirects=False) as response:
                status, text, headers = response.status, await response.text(errors="replace"), response.headers
                text = blanked(text, self._config.api_key_env)  # endpoints like to quote the key that they refuse
        except TimeoutError:
            raise _Transient(f"no answer within timeout_s={self._config.timeout_s:g}") from None
        except (aiohttp.ClientError, OSError) as error:
            raise _Transient(blanked(f"{type(error).__name__}: {error}", self._config.api_key_env)) from None
        if status == 200:
            reply = _parse(text)
            self._answered = True
            return reply
        said = f"HTTP {status}: {_server_message(text)}"
        if status in _REJECTED:
            raise _Rejected(said)
        if status in _TRANSIENT or status >= 500:
            raise _Transient(said, _retry_after_s(headers.get("Retry-After", "")))
        advice = blanked(_advice(status, headers), self._config.api_key_env)
        raise CaptionerUnavailable(f"caption.base_url={self._config.base_url}: {said}{advice}")


def _parse(text: str) -> _Reply:
    try:
        choice = json.loads(text)["choices"][0]
        message = choice["message"]
        refusal = message.get("refusal")
        answer = message.get("content")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        # Not a chat completion: a proxy's page, or a server about to stop.
        raise _Transient(f"HTTP 200, but no chat completion: {_short(text)!r}") from None
    if choice.get("finish_reason") == "content_filter":
        return _Reply(answer, refused="stopped by the endpoint's content filter")
    if choice.get("finish_reason") == "length":
        return _Reply(answer, refused=cut_short(answer))
    return _Reply(answer, refused=f"refused: {_short(str(refusal))!r}" if refusal else "")


def _server_message(text: str) -> str:
    """The message of an error in OpenAI's form, or in FastAPI's, or the body."""
    try:
        body = json.loads(text)
        error = body.get("error", body.get("detail", body.get("message", text)))
        return _short(str(error.get("message", error) if isinstance(error, dict) else error))
    except (ValueError, AttributeError, RecursionError):
        return _short(text)


def _short(text: str, chars: int = 300) -> str:
    line = " ".join(text.split())
    return line if len(line) <= chars else line[:chars] + "..."


def _retry_after_s(header: str) -> float:
    """Seconds to wait by a Retry-After header, in either of its forms; 0 when there is none."""
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return 0.0


def _advice(status: int, headers: Any) -> str:
    if status in (401, 403):
        return "; check the key in the variable that caption.api_key_env names"
    if status == 404:
        return "; check caption.model, and that caption.base_url ends with the version, such as /v1"
    if 300 <= status < 400:
        return f"; it redirects to {headers.get('Location', '?')}: set caption.base_url to where it leads"
    return ""


async def _open_session(config: CaptionConfig) -> aiohttp.ClientSession:
    headers = {}
    if config.api_key_env:
        key = os.environ.get(config.api_key_env, "").strip()
        if not key:
            raise CaptionerUnavailable(
                f"the environment variable {config.api_key_env}, named by caption.api_key_env, is not set where the "
                "captioner runs"
            )
        headers["Authorization"] = f"Bearer {key}"
    return aiohttp.ClientSession(
        headers=headers,
        timeout=aiohttp.ClientTimeout(total=config.timeout_s),
        connector=aiohttp.TCPConnector(limit=config.concurrency),
        trust_env=True,  # proxies, as curl and OpenAI's own client do
    )


class _LoopThread:
    """An event loop in a thread of its own, so that a captioner also works where a loop already runs (notebooks)."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="captions", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for a coroutine; it is cancelled when the waiting is interrupted."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def stop(self) -> None:
        """Stop the loop and its thread."""
        self.run(self._loop.shutdown_default_executor())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def _close(loop: _LoopThread, session: aiohttp.ClientSession) -> None:
    loop.run(session.close())
    loop.stop()
