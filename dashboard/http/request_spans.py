"""Spans of requests to the HTTP API, where traces are on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from ledger.spans import Spans

_API = "/api/"
"""Other paths are health checks, metrics and files of the page: a span of each would hide the rest."""


class RequestSpans:
    """Makes a span of each request to the API, as a part of the caller's trace."""

    def __init__(self, app: ASGIApp, spans: Spans) -> None:
        self._app, self._spans = app, spans

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, inside its span."""
        if scope["type"] != "http" or not scope["path"].startswith(_API):
            await self._app(scope, receive, send)
            return
        with self._spans.serving(scope["method"], scope["scheme"], scope["headers"]) as answered:

            async def noted(message: Message) -> None:
                if message["type"] == "http.response.start":
                    answered(getattr(scope.get("route"), "path", None), message["status"])
                await send(message)

            await self._app(scope, receive, noted)
