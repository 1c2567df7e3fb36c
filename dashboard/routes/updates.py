"""The route of updates: server-sent events about the position of each view."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, FastAPI, Header, Request, Response

from dashboard.view_reader import NotReadyError
from dashboard.view_updates import EventStream, view_event
from ledger.errors import LedgerError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from dashboard.auth.authorization import Authorizer, Credential
    from dashboard.auth.tokens import Principal
    from dashboard.context import ApiContext

_DIGITS = 19
_AGAIN_SECONDS = 1.0


async def _is_still(authorizer: Authorizer, credential: Credential, viewer: Principal) -> bool:
    """Return whether a credential is still valid, and of the same role; waits while nothing can tell."""
    while True:
        try:
            return await authorizer.bearer_of(credential) == viewer
        except (LedgerError, NotReadyError):
            await asyncio.sleep(_AGAIN_SECONDS)


def add_update_routes(api: FastAPI, context: ApiContext) -> None:
    """Add the route of updates."""
    views, authorizer = context.views, context.authorizer
    caller = Depends(authorizer.viewer)

    @api.get(
        "/api/v1/stream",
        summary="Changes of views, as server-sent events",
        response_class=EventStream,
        responses={200: {"content": {"text/event-stream": {}}}},
    )
    async def stream(
        request: Request, last: Annotated[str | None, Header(alias="Last-Event-ID")] = None, viewer: Principal = caller
    ) -> Response:
        since = int(last) if last and last.isascii() and last.isdigit() and len(last) < _DIGITS else None
        credential = request.state.credential

        async def events() -> AsyncIterator[bytes]:
            chunks = context.updates.chunks()
            first_chunk = asyncio.ensure_future(anext(chunks))  # subscribe before reading, so that no change is lost
            try:
                for state in await views.states():  # a client that reconnects gets the present positions
                    if (
                        since is None or state.position >= since
                    ):  # the id is of one view; others may have reached it since
                        yield view_event(state.view, state.position)
                yield await first_chunk
                async for chunk in chunks:
                    if not await _is_still(authorizer, credential, viewer):
                        return
                    if chunk:
                        yield chunk
            finally:
                first_chunk.cancel()

        await views.end()
        return EventStream(events(), authorizer.count_stream(viewer))
