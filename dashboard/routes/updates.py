"""The route of updates: server-sent events about the position of each view."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, FastAPI, Header, Request, Response

from dashboard.view_updates import EventStream, said

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from dashboard.auth.authorization import Authorizer
    from dashboard.view_reader import ViewReader
    from dashboard.view_updates import ViewUpdates

_DIGITS = 19


def add_updates(api: FastAPI, views: ViewReader, news: ViewUpdates, doors: Authorizer) -> None:
    """Add the route of updates."""
    known = Depends(doors.viewer)

    @api.get(
        "/api/v1/stream",
        summary="Changes of views, as server-sent events",
        response_class=EventStream,
        responses={200: {"content": {"text/event-stream": {}}}},
    )
    async def stream(
        request: Request, last: Annotated[str | None, Header(alias="Last-Event-ID")] = None, viewer: Any = known
    ) -> Response:
        since = int(last) if last and last.isascii() and last.isdigit() and len(last) < _DIGITS else None
        credential = request.state.credential

        async def lines() -> AsyncIterator[bytes]:
            chunks = news.chunks()
            coming = asyncio.ensure_future(anext(chunks))  # subscribe before reading, so that no change is lost
            try:
                for state in await views.states():  # a client that reconnects gets the present positions
                    if since is None or state.position > since:
                        yield said(state.view, state.position)
                yield await coming
                async for chunk in chunks:
                    if doors.bearer_of(credential) != viewer:  # revoked, expired, or with another role now
                        return
                    if chunk:
                        yield chunk
            finally:
                coming.cancel()

        await views.end()
        return EventStream(lines(), doors.count_stream(viewer))
