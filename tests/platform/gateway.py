"""A gateway in front of an S3 server that fails on demand."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

_PER_CONNECTION = {"connection", "transfer-encoding", "content-length", "expect"}


@dataclass
class Trouble:
    """What a gateway answers to everything, from some request on.

    Attributes:
        status: of the answers.
        code: S3's word for it.
        message: S3's sentence.
        starts_with: a path that ends so begins it, when it is written.
        seconds: how long it lasts.
    """

    status: int
    code: str
    message: str
    starts_with: str
    seconds: float
    began: float | None = None
    refused: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def refuses(self, method: str, path: str) -> bool:
        """Whether this request gets the answer."""
        with self._lock:
            if self.began is None and method == "PUT" and path.endswith(self.starts_with):
                self.began = time.monotonic()
            refused = self.began is not None and time.monotonic() - self.began < self.seconds
            self.refused += refused
            return refused


@dataclass
class Gateway:
    """Where it listens, and what is wrong with it."""

    endpoint: str = ""
    trouble: Trouble | None = None


@contextmanager
def serve(upstream: str) -> Iterator[Gateway]:
    """A gateway for as long as the context lasts."""
    gateway = Gateway()

    class Forward(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            trouble = gateway.trouble
            if trouble is not None and trouble.refuses(self.command, urlsplit(self.path).path):
                text = f"<Error><Code>{trouble.code}</Code><Message>{trouble.message}</Message></Error>"
                self.answer(trouble.status, {"Content-Type": "application/xml"}, text.encode())
                return
            connection = http.client.HTTPConnection(urlsplit(upstream).netloc, timeout=60)
            kept = {name: value for name, value in self.headers.items() if name.lower() not in _PER_CONNECTION}
            connection.request(self.command, self.path, body, kept)  # with its own Host, which is signed
            found = connection.getresponse()
            self.answer(found.status, dict(found.getheaders()), found.read())
            connection.close()

        def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            length = {name.lower(): value for name, value in headers.items()}.get("content-length", "0")
            self.send_response(status)
            for name, value in headers.items():
                if name.lower() not in _PER_CONNECTION:
                    self.send_header(name, value)
            self.send_header("Content-Length", length if self.command == "HEAD" else str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = forward

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Forward)
    server.daemon_threads = True
    gateway.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield gateway
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
