"""Metrics of requests over HTTP: how many, how long, with which status, and how many are in progress."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from ledger.store.role_totals import DurationTotals

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Upper bounds of the histogram's buckets, in seconds."""
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_OTHER = "other"
"""The label of paths without a route and of unknown methods, since clients choose both."""


class RequestKind(NamedTuple):
    """The labels of a request: its method, the template of its route, and the class of its status, e.g. `2xx`."""

    method: str
    route: str
    status: str


class RequestMetrics:
    """Counts requests and their durations by kind."""

    def __init__(self) -> None:
        self.in_progress = 0
        self.durations: dict[RequestKind, DurationTotals] = {}

    def add(self, scope: Scope, status: int, seconds: float) -> None:
        """Count a request whose answer begins."""
        route, method = scope.get("route"), scope["method"]
        kind = RequestKind(
            method if method in _METHODS else _OTHER, getattr(route, "path", _OTHER), f"{status // 100}xx"
        )
        durations = self.durations.get(kind)
        if durations is None:
            durations = self.durations[kind] = DurationTotals("", BOUNDS)
        durations.add(seconds)


class RequestTimer:
    """Measures each request until its answer begins: a stream of events lasts for hours, and is no slow answer."""

    def __init__(self, app: ASGIApp, metrics: RequestMetrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and measure it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        metrics, begun, waits = self._metrics, time.perf_counter(), True
        metrics.in_progress += 1

        def end(status: int) -> None:
            nonlocal waits
            if waits:
                waits = False
                metrics.in_progress -= 1
                metrics.add(scope, status, time.perf_counter() - begun)

        async def timed(message: Message) -> None:
            if message["type"] == "http.response.start":
                end(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, timed)
        finally:
            end(500)  # an error without an answer; the server sends one with this status
