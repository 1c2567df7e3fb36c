"""Limits on the size and time of request bodies; no body is left unread on a connection that goes on."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from dashboard.problem_details import ParameterError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

BODY_BYTES, BODY_SECONDS = 65_536, 20.0
"""Size limit (an event has at most 48 KiB, a batch of them 8 MiB) and time limit of a body."""
_BODY_BYTES_OF = {"/api/v1/session": 4_096, "/api/v1/events": 8 * 1024 * 1024}
_WITHOUT_BODY = frozenset({"GET", "HEAD", "OPTIONS", "DELETE"})
"""Methods whose body has no meaning (RFC 9110, 9.3.1): no route reads it."""
_CLOSE = (b"connection", b"close")


class BodyBounds:
    """Refuses bodies that are too large (413) or too slow (408); closes connections with an unread body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its body limited."""
        if scope["type"] == "http":
            bounded = _BoundedBody(scope, receive, send)
            await self._app(scope, bounded.receive, bounded.send)
        else:
            await self._app(scope, receive, send)


class _BoundedBody:
    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        self._limit = _BODY_BYTES_OF.get(scope["path"], BODY_BYTES)
        lengths = [int(value) for name, value in scope["headers"] if name == b"content-length"]
        self._declared = max(lengths, default=0)
        self._complete = not self._declared and all(name != b"transfer-encoding" for name, _ in scope["headers"])
        self._until, self._read, self._answered = 0.0, 0, False
        self._empty_given, self._is_ignored = False, scope["method"] in _WITHOUT_BODY

    async def receive(self) -> Message:
        """Return the next part of the body.

        Raises:
            ParameterError: 413 or 408.

        """
        if self._complete:
            return await self._receive()
        if self._is_ignored:
            return await self._without_body()
        try:
            if self._declared > self._limit:
                raise _too_large(self._limit)
            return await self._next()
        except ParameterError:
            if self._answered:  # no route waits for the body now; the rest of it closes the connection
                return {"type": "http.disconnect"}
            raise

    async def _without_body(self) -> Message:
        """Return an empty body, then wait for the client to disconnect; close the connection if a body comes."""
        if not self._empty_given:
            self._empty_given = True
            return {"type": "http.request", "body": b"", "more_body": False}
        while not self._answered or self._read <= self._limit:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                return message
            self._read += len(message.get("body", b""))
        return {"type": "http.disconnect"}

    async def _next(self) -> Message:
        now = time.monotonic()
        self._until = self._until or now + BODY_SECONDS
        try:
            async with asyncio.timeout(max(0.0, self._until - now)):
                message = await self._receive()
        except TimeoutError:
            raise ParameterError("", f"the body was not complete within {BODY_SECONDS:.0f} s", status=408) from None
        self._read += len(message.get("body", b""))
        if self._read > self._limit:
            raise _too_large(self._limit)
        self._complete = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        """Send the answer; announce the end of the connection if a body is left unread."""
        if message["type"] == "http.response.start":
            self._answered = True
            if not self._complete:
                message["headers"] = [*message["headers"], _CLOSE]
        await self._send(message)


def _too_large(most: int) -> ParameterError:
    return ParameterError("", f"a body here has at most {most} bytes", status=413, code="too_large")
