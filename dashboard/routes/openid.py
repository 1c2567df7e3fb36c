"""The routes of sign-in by OpenID Connect: to the provider, back from it, and out. Browsers navigate to them."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from fastapi import FastAPI, HTTPException, Request, Response
from starlette.responses import HTMLResponse, RedirectResponse

from dashboard.auth.authorization import COOKIE
from dashboard.auth.openid import FLOW_SECONDS, OpenIdError, OpenIdProvider
from dashboard.auth.rate_limit import LOGIN_FAILURES
from dashboard.routes.web_page import SignIns, set_session_cookie
from dashboard.view_reader import NotReadyError
from ledger.errors import LedgerError
from ledger.nats.incidents import report

if TYPE_CHECKING:
    from dashboard.context import ApiContext

_FLOW_COOKIE = "resolution-ledger-openid"
_FOLDER = "/openid"
_CALLBACK = f"{_FOLDER}/callback"


def add_openid_routes(api: FastAPI, context: ApiContext, provider: OpenIdProvider) -> None:
    """Add the routes. They are plain routes, because a provider may add parameters that are declared nowhere."""
    routes = _OpenIdRoutes(context, provider)
    for name, handler in (("sign-in", routes.begin), ("callback", routes.finish), ("sign-out", routes.leave)):
        api.add_route(f"{_FOLDER}/{name}", handler, methods=["GET"], include_in_schema=False)


class _OpenIdRoutes:
    """The handlers of the routes."""

    def __init__(self, context: ApiContext, provider: OpenIdProvider) -> None:
        self._authorizer = context.authorizer
        self._provider = provider
        self._sign_ins = SignIns(context)

    def _address(self, request: Request, path: str) -> str:
        """Return an address of this server, by the name that the browser uses (see ``HostCheck``)."""
        scheme = "https" if self._authorizer.encrypted else "http"
        return f"{scheme}://{request.headers.get('Host', '')}{path}"

    async def begin(self, request: Request) -> Response:
        """Lead the browser to the provider."""
        try:
            url, flow = await self._provider.begin(self._address(request, _CALLBACK))
        except OpenIdError as error:
            report("a sign-in could not begin", error, error)
            return _failure(503, str(error))
        answer = RedirectResponse(url, 303, {"Cache-Control": "no-store"})
        answer.set_cookie(
            _FLOW_COOKIE,
            flow,
            FLOW_SECONDS,
            path=_FOLDER,
            httponly=True,
            secure=self._authorizer.encrypted,
            samesite="lax",  # the provider leads the browser back from another site
        )
        return answer

    async def finish(self, request: Request) -> Response:
        """Open a session for the person that the provider proves."""
        try:
            answer = await self._open(request)
        except OpenIdError as error:
            answer = await self._refuse(request, error)
        except HTTPException as error:
            answer = _failure(error.status_code, str(error.detail))
        except (LedgerError, NotReadyError) as error:
            answer = _failure(503, str(error))
        answer.delete_cookie(_FLOW_COOKIE, path=_FOLDER)
        return answer

    async def _open(self, request: Request) -> Response:
        flow = request.cookies.get(_FLOW_COOKIE, "")
        identity = await self._provider.finish(self._address(request, _CALLBACK), dict(request.query_params), flow)
        if await self._authorizer.bearer_of_identity(*identity) is None:
            message = f"the ledger knows no employee {identity.employee_id}, or they have left: ask its operator"
            raise OpenIdError(message)
        cookie = await self._sign_ins.open_identity(request, identity)
        answer = RedirectResponse("/", 303, {"Cache-Control": "no-store"})
        set_session_cookie(answer, cookie, encrypted=self._authorizer.encrypted)
        return answer

    async def _refuse(self, request: Request, error: OpenIdError) -> Response:
        await self._sign_ins.record_refusal()
        try:
            self._authorizer.count_failure(request, LOGIN_FAILURES)
        except HTTPException as limit:
            return _failure(limit.status_code, "too many refused sign-ins from this address: wait a minute")
        return _failure(403, str(error))

    async def leave(self, request: Request) -> Response:
        """End the session here, then at the provider where it has an address for that."""
        await self._sign_ins.close(request.cookies.get(COOKIE))
        try:
            url = await self._provider.sign_out_url(self._address(request, "/"))
        except OpenIdError:
            url = None
        answer = RedirectResponse(url or "/", 303, {"Cache-Control": "no-store"})
        answer.delete_cookie(COOKIE, path="/", httponly=True, secure=self._authorizer.encrypted, samesite="strict")
        return answer


def _failure(status: int, detail: str) -> Response:
    """Return a page that says why a sign-in failed."""
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Sign-in refused</title>'
        f'<h1>Sign-in refused</h1><p role="alert">{escape(detail)}</p><p><a href="/">Back to the sign-in</a></p></html>'
    )
    return HTMLResponse(page, status, {"Cache-Control": "no-store"})
