"""Authentication of callers and the people they may see: bearer tokens, and sessions of browsers.

A request is admitted before its body is read: each route names its gates (:class:`Gate`), and
``dashboard/auth/admission.py`` passes them.
"""

from __future__ import annotations

import hmac
import json
import secrets
import time
from collections import Counter, OrderedDict
from typing import TYPE_CHECKING, Annotated, NamedTuple

from fastapi import Depends, HTTPException, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from dashboard.auth.rate_limit import LOGIN_FAILURES, REQUEST_FAILURES, WINDOW_SECONDS, FailureLimiter, TokenBuckets
from dashboard.auth.tokens import Principal, Tokens, digest_of
from domain.managers import managed_by
from projections.access import record_reading
from projections.reading import EVERYBODY, AccessScope
from projections.views.people import read_people

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from dashboard.auth.tokens import Role
    from dashboard.view_reader import ViewReader
    from ledger.store.log import Log

COOKIE = "resolution-ledger"
SESSION_SECONDS = 12 * 3600
_SCHEME = HTTPBearer(auto_error=False, description="`http_token` of connection.json, or one of `admin tokens make`")
_BearerHeader = Annotated[HTTPAuthorizationCredentials | None, Depends(_SCHEME)]
_SESSION_LIMIT = 10_000
"""Sessions at the same time; the oldest is dropped first."""
_COMMAND_BURST, _COMMANDS_A_SECOND = 200.0, 20.0
"""Rate limit of commands for each token: the burst, and the requests a second after it."""
_STREAM_LIMIT, _STREAMS_PER_TOKEN = 1_500, 600
"""Open event streams: of all tokens together, and of each."""


async def note_reading(log: Log, viewer: Principal, about: Sequence[str], up_to: int) -> None:
    """Record that a principal reads data about these subjects, if the policy in force requires it.

    Raises:
        HTTPException: 403, the token's name cannot be recorded.

    """
    try:
        await record_reading(log, about, up_to, viewer.person_id or viewer.name)
    except ValueError as error:
        raise HTTPException(403, str(error)) from None


class Credential(NamedTuple):
    """A request's credential: the SHA-256 of a token, and that of the browser's session for it, if any."""

    token: str
    session: str | None = None


class Gate:
    """A check that a request passes before its body is read. Routes declare it as ``Depends(gate.passed)``."""

    rank = 1
    """Gates with a lower rank come first."""
    needs: tuple[Gate, ...] = ()
    """Gates that this gate depends on; a route need not name them."""

    async def admit(self, request: Request) -> None:
        """Check the request.

        Raises:
            HTTPException: the request is refused.

        """
        raise NotImplementedError

    async def passed(self) -> None:
        """Do nothing: :meth:`admit` was called before."""


class Authenticated(Gate):
    """The caller has a valid token, or a session of one; on the routes for sources, that of a source.

    ``sources`` is whether the token is that of a source; ``None``: any token will do.
    """

    rank = 0

    def __init__(self, authorizer: Authorizer, *, sources: bool | None = False) -> None:
        self._doors = authorizer
        self._sources = sources

    async def admit(self, request: Request) -> None:
        """Authenticate the caller; refuse an unknown one with 401, and the wrong kind of token with 403."""
        request.state.credential, request.state.viewer = self._doors.authenticate(request)
        if self._sources not in (None, request.state.viewer.source is not None):
            hint = "make one with `resolution-ledger admin tokens make NAME --source SOURCE`"
            rule = f"only a token of a source may do this: {hint}" if self._sources else "not allowed for a source"
            raise HTTPException(403, rule)

    async def viewer(self, request: Request, _shown: _BearerHeader) -> Principal:
        """Return the caller (a dependency of endpoints)."""
        found: Principal = request.state.viewer
        return found


class Subscriber(Authenticated):
    """The caller may subscribe to webhooks: a source or an operator."""

    async def admit(self, request: Request) -> None:
        """Authenticate the caller; refuse an unknown one with 401, and others with 403."""
        request.state.credential, request.state.viewer = self._doors.authenticate(request)
        if request.state.viewer.role not in {"source", "operator"}:
            raise HTTPException(403, f"not allowed for the role {request.state.viewer.role}")


class SameOrigin(Gate):
    """The request comes from this server's own page, or from no browser; else 403."""

    async def admit(self, request: Request) -> None:
        """Compare the origin that a browser sends with the host of the request."""
        site, origin = request.headers.get("Sec-Fetch-Site", "none"), request.headers.get("Origin")
        if site not in {"same-origin", "none"} or (
            origin is not None and origin.partition("://")[2] != request.headers.get("Host")
        ):
            raise HTTPException(403, "refused: the request comes from another site")


class HasRole(Gate):
    """The caller has one of some roles; else 403."""

    rank = 2

    def __init__(self, roles: Sequence[Role], known: Authenticated) -> None:
        self._roles, self.needs = roles, (known,)

    async def passed(self, _shown: _BearerHeader) -> None:  # type: ignore[override] # FastAPI documents it
        """Do nothing."""

    async def admit(self, request: Request) -> None:
        """Check the caller's role."""
        if request.state.viewer.role not in self._roles:
            raise HTTPException(403, f"not allowed for the role {request.state.viewer.role}")


class RateLimited(Gate):
    """The caller's token stays within the rate limit of commands; else 429."""

    rank = 3

    def __init__(self, known: Authenticated) -> None:
        self.needs = (known,)
        self._buckets = TokenBuckets[str]()

    async def admit(self, request: Request) -> None:
        """Take one request from the token's bucket."""
        enough, _ = self._buckets.take(request.state.viewer.name, 1, _COMMAND_BURST, _COMMANDS_A_SECOND)
        if not enough:
            raise HTTPException(429, "too many commands with this token: wait a second", {"Retry-After": "1"})


class Authorizer:
    """Authenticates callers, and holds the sessions of browsers in memory."""

    def __init__(self, data_dir: Path, own_token: str, views: ViewReader, *, encrypted: bool = False) -> None:
        self.encrypted = encrypted
        self._own = digest_of(own_token)
        self._tokens = Tokens(data_dir)
        self._views = views
        self._sessions: OrderedDict[str, tuple[str, float]] = OrderedDict()
        self._failures = FailureLimiter()
        self._streams: Counter[str] = Counter()
        self._known = Authenticated(self)
        self.viewer = self._known.viewer
        """A dependency of endpoints: the caller."""
        self.require_same_origin = SameOrigin().passed
        self.command_gates = [Depends(self.require_same_origin), Depends(RateLimited(self._known).passed)]
        self.any_token = Authenticated(self, sources=None).viewer
        """A dependency of the endpoints for everyone with a token: the caller."""
        self.source = Authenticated(self, sources=True).viewer
        """A dependency of the endpoints for sources: the caller, with its source."""
        subscribing = Subscriber(self)
        self.subscriber = subscribing.viewer
        """A dependency of the endpoints of webhooks: the caller, a source or an operator."""
        self.subscriber_gates = [Depends(self.require_same_origin), Depends(RateLimited(subscribing).passed)]

    def allowed(self, *roles: Role) -> Callable[..., Awaitable[None]]:
        """Return a dependency that admits only callers with one of these roles."""
        return HasRole(roles, self._known).passed

    def bearer_of(self, credential: Credential) -> Principal | None:
        """Return the present bearer of a credential; none if it is not valid, or no longer valid.

        Unknown, revoked and expired tokens take the same path: one digest, one comparison, one look-up.
        """
        own = hmac.compare_digest(credential.token, self._own)
        found = self._tokens.viewer_of(credential.token)
        if credential.session is not None and not self._is_open(credential):
            return None
        return Principal("connection.json", "operator") if own else found

    def _is_open(self, credential: Credential) -> bool:
        token, until = self._sessions.get(credential.session or "", ("", 0.0))
        return token == credential.token and until > time.monotonic()

    def authenticate(self, request: Request) -> tuple[Credential, Principal]:
        """Return a request's credential and its bearer.

        Raises:
            HTTPException: 401 for an unknown caller; 429 after too many failures from its network.

        """
        scheme, _, text = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and text.strip():
            credential = Credential(digest_of(text.strip()))
            if (viewer := self.bearer_of(credential)) is not None:
                return credential, viewer
            self._count_failure(request, REQUEST_FAILURES)
        elif (found := self._of_session(request)) is not None:
            return found
        detail = "send a bearer token: that of connection.json, or one from `resolution-ledger admin tokens make`"
        raise HTTPException(401, detail, {"WWW-Authenticate": "Bearer"})

    def _of_session(self, request: Request) -> tuple[Credential, Principal] | None:
        session = digest_of(request.cookies.get(COOKIE, ""))
        credential = Credential(self._sessions.get(session, ("", 0.0))[0], session)
        viewer = self.bearer_of(credential)
        return None if viewer is None else (credential, viewer)

    def _count_failure(self, request: Request, limit: int) -> None:
        """Count a failed login from the client's network.

        Raises:
            HTTPException: 429, there were too many.

        """
        if self._failures.is_exceeded_by_failure(request.client.host if request.client else "", limit):
            wait = {"Retry-After": str(int(WINDOW_SECONDS))}
            raise HTTPException(429, "too many wrong tokens from this address: wait a minute", wait)

    def open(self, request: Request, text: str) -> tuple[str, Principal]:
        """Begin a browser's session for a token; return the value of its cookie, and the bearer.

        Raises:
            HTTPException: 401, the token is not valid; 429 after too many failures from its network.

        """
        credential = Credential(digest_of(text))
        viewer = self.bearer_of(credential)
        if viewer is None:
            self._count_failure(request, LOGIN_FAILURES)
            raise HTTPException(401, "this token is unknown or has expired")
        if viewer.source is not None:
            raise HTTPException(403, "this token belongs to a source, which has no page")
        now = time.monotonic()
        while self._sessions and next(iter(self._sessions.values()))[1] <= now:
            self._sessions.popitem(last=False)
        while len(self._sessions) >= _SESSION_LIMIT:
            self._sessions.popitem(last=False)
        name = secrets.token_urlsafe(32)
        self._sessions[digest_of(name)] = credential.token, now + SESSION_SECONDS
        return name, viewer

    def is_session_valid(self, request: Request) -> bool:
        """Return whether a browser's session is valid."""
        return self._of_session(request) is not None

    def close(self, cookie: str | None) -> Principal | None:
        """End the session of a cookie; return its bearer, or none if the session was not valid any more."""
        session = digest_of(cookie or "")
        try:
            return self.bearer_of(Credential(self._sessions.get(session, ("", 0.0))[0], session))
        finally:  # also where the file of tokens is damaged
            self._sessions.pop(session, None)

    def count_stream(self, viewer: Principal) -> Callable[[], None]:
        """Count an opened event stream; return the function that counts its end.

        Raises:
            HTTPException: 429 or 503, too many are open.

        """
        if self._streams[viewer.name] >= _STREAMS_PER_TOKEN:
            raise HTTPException(429, "too many event streams are open with this token", {"Retry-After": "10"})
        if self._streams.total() >= _STREAM_LIMIT:
            raise HTTPException(503, "too many event streams are open", {"Retry-After": "10"})
        self._streams[viewer.name] += 1

        def release() -> None:
            self._streams[viewer.name] -= 1
            if not self._streams[viewer.name]:
                del self._streams[viewer.name]

        return release

    async def scope(self, viewer: Principal) -> AccessScope:
        """Return the people with data that a principal may see.

        Agents see themselves. Managers see all people below them, and the teams of these people.
        """
        if viewer.sees_everybody:
            return EVERYBODY
        if viewer.role == "agent" or viewer.person_id is None:
            return AccessScope(frozenset((viewer.person_id or "",)), frozenset())
        people = (await self._views.read("people", read_people)).result
        below = managed_by(viewer.person_id, {name: one["manager_id"] for name, one in people.items()})
        teams = {team for name in below if name in people for team in json.loads(people[name]["team_ids"] or "[]")}
        return AccessScope(below, frozenset(teams))

    async def of_team(self, team: str | None) -> frozenset[str] | None:
        """Return the holders of a team's budgets: its pool and its agents; none without a team."""
        if team is None:
            return None
        people = (await self._views.read("people", read_people)).result
        agents = {f"agent:{name}" for name, one in people.items() if team in json.loads(one["team_ids"] or "[]")}
        return frozenset((f"team:{team}", *agents))
