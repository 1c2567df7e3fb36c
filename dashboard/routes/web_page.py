"""The web page: static files, and a browser's session in exchange for a token."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

from fastapi import Cookie, Depends, FastAPI, HTTPException, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from dashboard.auth.authorization import COOKIE, SESSION_SECONDS, is_same_person
from dashboard.built_page import PageNotBuiltError, built_page
from dashboard.caller import caller_document
from dashboard.openapi import answers
from dashboard.schemas import JsonResponse, SessionList, SessionState
from ledger.errors import LedgerError
from ledger.nats.incidents import report
from ledger.store.cloudevents import time_text
from projections.access import record_access

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from dashboard.auth.authorization import Authorizer, OpenSession
    from dashboard.auth.openid import Identity
    from dashboard.auth.tokens import Principal
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


_SessionId = Annotated[str, Path(max_length=64, description="The session's id.")]


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


class SignIns:
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
            viewer = await self._authorizer.bearer_of_login(request, token)
        except HTTPException:
            await self.record_refusal()
            raise
        await self._record_sign_in(viewer.person_id or viewer.name)
        cookie = await self._authorizer.begin_session(token)
        await self._authorizer.close(request.cookies.get(COOKIE))  # the browser forgets it: it must not stay valid
        return cookie

    async def open_identity(self, request: Request, identity: Identity) -> str:
        """Return the cookie of a new session for an identity that an OpenID provider proved; raises like ``open``."""
        await self._record_sign_in(identity.employee_id)
        cookie = await self._authorizer.begin_session(identity=identity)
        await self._authorizer.close(request.cookies.get(COOKIE))
        return cookie

    async def record_refusal(self) -> None:
        """Record a refused sign-in, whose sender is unknown."""
        try:
            await self._record(_UNKNOWN, "sign-in refused", _REFUSAL_SECONDS)
        except LedgerError as error:
            report("a refused sign-in could not be recorded", _UNKNOWN, error)

    async def _record_sign_in(self, who: str) -> None:
        try:
            await self._record(who, "sign-in", _ACCESS_SECONDS)
        except LedgerError as error:  # sessions that are open already go on
            message = f"the log cannot record the sign-in ({error}), so it is refused; try again later"
            raise HTTPException(503, message, {"Retry-After": "5"}) from error

    async def close(self, cookie: str | None) -> None:
        """End the session of a cookie, then record the sign-out. A sign-out is never refused."""
        viewer = await self._authorizer.close(cookie)
        if viewer is None:
            return
        who = viewer.person_id or viewer.name
        try:
            await self._record(who, "sign-out", _ACCESS_SECONDS)
        except LedgerError as error:
            report("a sign-out could not be recorded", who, error)

    async def end(self, session: OpenSession, ended_by: Principal) -> None:
        """End a session from another place, then record that.

        Raises:
            LedgerError: the server does not answer, so the session goes on.

        """
        await self._authorizer.end_session(session.id)
        who, of = (one.person_id or one.name for one in (ended_by, session.bearer))
        try:
            await record_access(self._log, who, f"session ended: {session.id} of {of}", "http", _PATIENCE_SECONDS)
        except LedgerError as error:
            report("the end of a session could not be recorded", who, error)

    async def _record(self, who: str, what: str, seconds: float) -> None:
        """Record an access, once in so many seconds; raises ``LedgerError`` where the log cannot."""
        now, key = time.monotonic(), f"{what} {who}"
        if now - self._recorded.get(key, -seconds) >= seconds:
            await record_access(self._log, who, what, "http", _PATIENCE_SECONDS)
            self._recorded[key] = now


def set_session_cookie(response: Response, cookie: str, *, encrypted: bool) -> None:
    """Give a browser the cookie of its session."""
    response.set_cookie(
        COOKIE, cookie, max_age=SESSION_SECONDS, httponly=True, secure=encrypted, samesite="strict", path="/"
    )


def add_page_routes(api: FastAPI, context: ApiContext) -> None:
    """Add the routes of the web page and of sessions."""
    authorizer = context.authorizer
    api.add_middleware(_SecurityHeaders)
    sign_ins = SignIns(context)
    _add_session_list(api, authorizer, sign_ins)

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
        set_session_cookie(response, cookie, encrypted=authorizer.encrypted)
        return response

    @api.get(
        "/api/v1/session", summary="Whether the browser's session is valid, and whose", responses=answers(SessionState)
    )
    async def known(request: Request) -> Response:
        viewer = await authorizer.bearer_of_session(request)
        caller = None if viewer is None else await caller_document(context, viewer)
        return JsonResponse({"known": viewer is not None, "openid": authorizer.has_openid, "caller": caller})

    @api.delete("/api/v1/session", status_code=204, summary="End the browser's session")
    async def end(session: Annotated[str | None, Cookie(alias=COOKIE)] = None) -> Response:
        await sign_ins.close(session)
        response = Response(status_code=204)
        response.delete_cookie(COOKIE, path="/", httponly=True, secure=authorizer.encrypted, samesite="strict")
        return response


def _add_session_list(api: FastAPI, authorizer: Authorizer, sign_ins: SignIns) -> None:
    """Add the routes of all sessions that the caller may see."""
    caller = Depends(authorizer.viewer)

    @api.get(
        "/api/v1/sessions",
        responses=answers(SessionList),
        summary="Open sessions of browsers: the caller's own; all for auditors and operators",
    )
    async def sessions(request: Request, viewer: Principal = caller) -> Response:
        items = [
            {
                "id": one.id,
                "name": one.bearer.name,
                "role": one.bearer.role,
                "person_id": one.bearer.person_id,
                "begun": time_text(one.begun),
                "expires": time_text(one.expires),
                "current": one.id == request.state.credential.session,
            }
            for one in await authorizer.sessions_of(viewer)
        ]
        return JsonResponse({"items": items})

    @api.delete(
        "/api/v1/sessions/{session}",
        status_code=204,
        dependencies=authorizer.command_gates,
        summary="End a session at once: one's own or, for operators, any",
    )
    async def end_one(session: _SessionId, viewer: Principal = caller) -> Response:
        found = next((one for one in await authorizer.sessions_of(viewer) if one.id == session), None)
        if found is None:
            raise HTTPException(404, "no open session with this id is visible to you")
        if viewer.role != "operator" and not is_same_person(found.bearer, viewer):
            raise HTTPException(403, "only an operator may end the session of another person")
        await sign_ins.end(found, viewer)
        return Response(status_code=204)


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
