"""A small server that speaks OpenAI's chat completions and misbehaves on demand."""

from __future__ import annotations

import asyncio
import base64
import io
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
from aiohttp import web
from PIL import Image

#: Decides what a request gets: (number of the request from 0, request's JSON) -> response
Script = Callable[[int, dict[str, Any]], web.StreamResponse | Awaitable[web.StreamResponse]]


def completion(text: Any, finish_reason: str = "stop", **message: Any) -> web.Response:
    """A well-formed answer."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": finish_reason}
    return web.json_response({"id": "x", "object": "chat.completion", "choices": [choice]})


def shown_image(request: dict[str, Any]) -> np.ndarray:
    """The image of a request, decoded."""
    url = request["messages"][0]["content"][0]["image_url"]["url"]
    head, data = url.split(",", 1)
    assert head == "data:image/jpeg;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def is_canary(request: dict[str, Any]) -> bool:
    """Is this the plain grey image that tells a bad image from a bad endpoint?"""
    return int(np.ptp(shown_image(request))) == 0


class ChatServer:
    """Serves on a free port of the loopback interface, in a thread; a context manager."""

    def __init__(self, script: Script):
        self.script = script
        self.requests: list[dict[str, Any]] = []
        self.headers: list[Any] = []
        self.in_flight = 0
        self.most_in_flight = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> ChatServer:
        self._thread.start()
        self.url = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    async def _start(self) -> str:
        app = web.Application(client_max_size=2**26)
        app.router.add_post("/v1/chat/completions", self._handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        number = len(self.requests)
        self.requests.append(body)
        self.headers.append(request.headers)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            response = self.script(number, body)
            return await response if isinstance(response, Awaitable) else response
        finally:
            self.in_flight -= 1
