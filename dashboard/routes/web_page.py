"""The web page: static files, and a browser's session in exchange for a token."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

from fastapi import Cookie, Depends, HTTPException, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from dashboard.auth.authorization import COOKIE, SESSION_SECONDS
from dashboard.built_page import PageNotBuiltError, built_page
from dashboard.openapi import answers
from dashboard.schemas import SessionState
from ledger.errors import LedgerError
from ledger.nats.incidents import report
from projections.access import record_access

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from dashboard.context import ApiContext

_ACCESS_SECONDS = 5.0
"""The log gets at most one sign-in and one sign-out of a person in this time."""
_REFUSAL_SECONDS = 60.0
"""A flood of refused sign-ins writes no more than one event in this time."""
_UNKNOWN = "unknown"
_PATIENCE_SECONDS = 2.0
_POLICY = (
    "default-src 'none'; script-src {script}; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class Login(BaseModel):
    """A token to open a session with."""

    model_config = ConfigDict(extra="forbid")
    token: str = Field(max_length=500)


class _SecurityHeaders:
    """Adds the security headers of browsers to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        policy = _POLICY.format(script=_allowed_scripts())
        headers = {"Content-Security-Policy": policy, **_HEADERS}
        self._headers = [(name.lower().encode(), value.encode()) for name, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *self._headers]
            await send(message)

        await self._app(scope, receive, sent)


def _allowed_scripts() -> str:
    """Return the sources of scripts: own files, and the page's inline script with the hashes of its modules."""
    try:
        return f"'self' '{built_page().inline_script}'"
    except PageNotBuiltError:  # reported by the route of the page
        return "'self'"


class _SignIns:
    """Opens and closes sessions, and records each sign-in, its refusal, and each sign-out."""

    def __init__(self, context: ApiContext) -> None:
        self._log = context.log
        self._authorizer = context.authorizer
        self._recorded: dict[str, float] = {}

    async def open(self, request: Request, token: str) -> str:
        """Return the cookie of a new session, once the sign-in is recorded.

        Raises:
            HTTPException: the token is not valid; 503 where the log cannot record the sign-in.

        """
        try:
            cookie, viewer = self._authorizer.open(request, token)
        except HTTPException:
            try:
                await self._record(_UNKNOWN, "sign-in refused", _REFUSAL_SECONDS)
            except LedgerError as error:
                report("a refused sign-in could not be recorded", _UNKNOWN, error)
            raise
        try:
            await self._record(viewer.person_id or viewer.name, "sign-in", _ACCESS_SECONDS)
        except LedgerError as error:  # sessions that are open already go on
            self._authorizer.close(cookie)
            message = f"the log cannot record the sign-in ({error}), so it is refused; try again later"
            raise HTTPException(503, message, {"Retry-After": "5"}) from error
        self._authorizer.close(request.cookies.get(COOKIE))  # the browser forgets this one, which must not stay valid
        return cookie

    async def close(self, cookie: str | None) -> None:
        """End the session of a cookie, then record the sign-out. A sign-out is never refused."""
        viewer = self._authorizer.close(cookie)
        if viewer is None:
            return
        who = viewer.person_id or viewer.name
        try:
            await self._record(who, "sign-out", _ACCESS_SECONDS)
        except LedgerError as error:
            report("a sign-out could not be recorded", who, error)

    async def _record(self, who: str, what: str, seconds: float) -> None:
        """Record an access, once in so many seconds; raises ``LedgerError`` where the log cannot."""
        now, key = time.monotonic(), f"{what} {who}"
        if now - self._recorded.get(key, -seconds) >= seconds:
            await record_access(self._log, who, what, "http", _PATIENCE_SECONDS)
            self._recorded[key] = now


def add_page_routes(api: FastAPI, context: ApiContext) -> None:
    """Add the routes of the web page and of sessions."""
    authorizer = context.authorizer
    api.add_middleware(_SecurityHeaders)
    sign_ins = _SignIns(context)

    @api.get("/", include_in_schema=False)
    async def page(request: Request) -> Response:
        return _file(request, "index.html")

    @api.get("/assets/{name}", include_in_schema=False)
    async def asset(request: Request, name: str) -> Response:
        return _file(request, name)

    @api.post(
        "/api/v1/session",
        status_code=204,
        dependencies=[Depends(authorizer.require_same_origin)],
        summary="Open a browser's session with a token; the answer sets a cookie",
    )
    async def begin(request: Request, shown: Login) -> Response:
        cookie = await sign_ins.open(request, shown.token.strip())
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

    @api.get("/api/v1/session", summary="Whether the browser's session is valid", responses=answers(SessionState))
    async def known(request: Request) -> dict[str, bool]:
        return {"known": authorizer.is_session_valid(request)}

    @api.delete("/api/v1/session", status_code=204, summary="End the browser's session")
    async def end(session: Annotated[str | None, Cookie(alias=COOKIE)] = None) -> Response:
        await sign_ins.close(session)
        response = Response(status_code=204)
        response.delete_cookie(COOKIE, path="/", httponly=True, secure=authorizer.encrypted, samesite="strict")
        return response


def _file(request: Request, name: str) -> Response:
    try:
        files = built_page().files
    except PageNotBuiltError as error:
        raise HTTPException(503, str(error)) from None
    if (found := files.get(name)) is None:
        raise HTTPException(404, "no such file")
    headers = {"Cache-Control": found.cache_control, "Vary": "Accept-Encoding"}
    if "gzip" not in request.headers.get("Accept-Encoding", ""):
        return Response(found.content, media_type=found.media_type, headers=headers)
    headers["Content-Encoding"] = "gzip"
    return Response(found.compressed, media_type=found.media_type, headers=headers)
