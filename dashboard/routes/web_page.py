"""The web page: static files, and a browser's session in exchange for a token."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from fastapi import Cookie, Depends, HTTPException, Request, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel, ConfigDict, Field

from dashboard.auth.authorization import COOKIE, SESSION_SECONDS
from ledger.errors import LedgerError
from ledger.nats.incidents import report
from projections.access import record_access

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from dashboard.context import ApiContext

_SIGN_IN_SECONDS = 5.0
_PATIENCE_SECONDS = 2.0
_FOLDER = Path(__file__).parents[1] / "web"
_TYPES = {
    "page.html": "text/html; charset=utf-8",
    "page.css": "text/css",
    "page.js": "text/javascript",
    "sections.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_ENCODED = [(name.lower().encode(), value.encode()) for name, value in _HEADERS.items()]


class Login(BaseModel):
    """A token to open a session with."""

    model_config = ConfigDict(extra="forbid")
    token: str = Field(max_length=500)


class _SecurityHeaders:
    """Adds the security headers of browsers to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_ENCODED]
            await send(message)

        await self._app(scope, receive, sent)


def add_page_routes(api: FastAPI, context: ApiContext) -> None:
    """Add the routes of the web page and of sessions."""
    authorizer = context.authorizer
    api.add_middleware(_SecurityHeaders)
    recorded: dict[str, float] = {}

    async def record_sign_in(who: str) -> None:
        """Record a sign-in; a person who signs in again and again is recorded once in a few seconds."""
        now = time.monotonic()
        if now - recorded.get(who, -_SIGN_IN_SECONDS) < _SIGN_IN_SECONDS:
            return
        recorded[who] = now
        try:
            await record_access(context.log, who, "sign-in", "http", _PATIENCE_SECONDS)
        except LedgerError as error:  # the page is needed most while the log does not answer
            report("a sign-in could not be recorded", who, error)

    @api.get("/", include_in_schema=False)
    async def page() -> Response:
        return _file("page.html")

    @api.get("/assets/{name}", include_in_schema=False)
    async def asset(name: str) -> Response:
        if name not in _TYPES:
            raise HTTPException(404, "no such file")
        return _file(name)

    @api.post(
        "/api/v1/session",
        status_code=204,
        dependencies=[Depends(authorizer.require_same_origin)],
        summary="Open a browser's session with a token; the answer sets a cookie",
    )
    async def begin(request: Request, shown: Login) -> Response:
        cookie, viewer = authorizer.open(request, shown.token.strip())
        await record_sign_in(viewer.person_id or viewer.name)
        response = Response(status_code=204)
        response.set_cookie(
            COOKIE,
            cookie,
            max_age=SESSION_SECONDS,
            httponly=True,
            secure=authorizer.encrypted,
            samesite="strict",
            path="/",
        )
        return response

    @api.get("/api/v1/session", summary="Whether the browser's session is valid")
    async def known(request: Request) -> dict[str, bool]:
        return {"known": authorizer.is_session_valid(request)}

    @api.delete("/api/v1/session", status_code=204, summary="End the browser's session")
    async def end(session: Annotated[str | None, Cookie(alias=COOKIE)] = None) -> Response:
        authorizer.close(session)
        response = Response(status_code=204)
        response.delete_cookie(COOKIE, path="/", httponly=True, secure=authorizer.encrypted, samesite="strict")
        return response


def _file(name: str) -> Response:
    return FileResponse(_FOLDER / name, media_type=_TYPES[name], headers={"Cache-Control": "no-cache"})
