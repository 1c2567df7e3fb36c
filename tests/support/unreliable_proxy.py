"""An HTTP proxy before a real ledger that fails at chosen requests, as busy servers and networks do."""

from __future__ import annotations

import http.client
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, NamedTuple, Self
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LOSE = 0
"""The request reaches the ledger; its answer is lost."""


class Attempt(NamedTuple):
    """A request that a client sent: its path, idempotency key and body, and the second at which it arrived."""

    path: str
    key: str | None
    body: bytes
    at: float


class UnreliableProxy:
    """A context: a proxy on a free port of this machine.

    ``faults`` are those of a path's requests, in the order of the attempts with the same body: a status, which the proxy
    answers in the ledger's place with `Retry-After: 1`, or ``LOSE``. Later attempts pass.

    Attributes:
        url: its address.
        attempts: the POST requests that arrived.

    """

    def __init__(self, ledger_url: str, faults: Mapping[str, Sequence[int]]) -> None:
        self.attempts: list[Attempt] = []
        self._ledger, self._faults = urlsplit(ledger_url).netloc, faults
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                proxy._pass(self, b"")

            def do_POST(self) -> None:
                proxy._handle(self, self.rfile.read(int(self.headers["Content-Length"])))

            def log_message(self, *_words: object) -> None:
                """Print nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handle(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        earlier = sum((one.path, one.body) == (handler.path, body) for one in self.attempts)
        self.attempts.append(Attempt(handler.path, handler.headers["Idempotency-Key"], body, time.monotonic()))
        faults = self._faults.get(handler.path, ())
        if earlier >= len(faults):
            self._pass(handler, body)
        elif faults[earlier] == LOSE:
            self._ask(handler, body)
        else:
            handler.send_response(faults[earlier])
            handler.send_header("Retry-After", "1")
            handler.send_header("Content-Length", "0")
            handler.end_headers()

    def _ask(self, handler: BaseHTTPRequestHandler, body: bytes) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self._ledger, timeout=20)
        names = ("Authorization", "Content-Type", "Idempotency-Key")
        headers = {name: value for name in names if (value := handler.headers[name])}
        connection.request(handler.command, handler.path, body or None, headers)
        answer = connection.getresponse()
        status, text = answer.status, answer.read()
        connection.close()
        return status, text

    def _pass(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        status, text = self._ask(handler, body)
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(text)))
        handler.end_headers()
        handler.wfile.write(text)
