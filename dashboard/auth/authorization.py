"""Authentication of callers and the people they may see: bearer tokens, and sessions of browsers.

A request is admitted before its body is read: each route names its gates (:class:`Gate`), and
``dashboard/auth/admission.py`` passes them.
"""

from __future__ import annotations

import hmac
import json
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from fastapi import Depends, HTTPException, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from config.topology import SESSION_HOURS
from dashboard.auth.rate_limit import LOGIN_FAILURES, REQUEST_FAILURES, WINDOW_SECONDS, FailureLimiter, TokenBuckets
from dashboard.auth.sessions import BrowserSession, session_id_of
from dashboard.auth.tokens import Principal, digest_of
from domain.managers import managed_by
from ledger.errors import UnavailableError
from projections.access import record_reading
from projections.reading import EVERYBODY, AccessScope
from projections.views.people import read_leavers, read_memberships, read_standing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence

    from dashboard.auth.openid import Identity
    from dashboard.auth.sessions import SessionBook
    from dashboard.auth.tokens import Role, Tokens
    from dashboard.view_reader import ViewReader
    from ledger.store.log import Log

COOKIE = "resolution-ledger"
SESSION_SECONDS = SESSION_HOURS * 3600
_SCHEME = HTTPBearer(auto_error=False, description="`http_token` of connection.json, or one of `admin tokens make`")
_BearerHeader = Annotated[HTTPAuthorizationCredentials | None, Depends(_SCHEME)]
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
    """A request's credential: the SHA-256 of a token, or the id of a browser's session."""

    token: str = ""
    session: str | None = None


class OpenSession(NamedTuple):
    """An open session of a browser: its id, its bearer, and its begin and end."""

    id: str
    bearer: Principal
    begun: datetime
    expires: datetime


def is_same_person(one: Principal, other: Principal) -> bool:
    """Return whether two principals are one person: the same employee or, without one, the same token."""
    if one.person_id is None:
        return one == other
    return one.person_id == other.person_id


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
        request.state.credential, request.state.viewer = await self._doors.authenticate(request)
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
        request.state.credential, request.state.viewer = await self._doors.authenticate(request)
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
    """Authenticates callers, by their tokens or by the sessions of their browsers."""

    def __init__(
        self,
        tokens: Tokens,
        own_token: str,
        views: ViewReader,
        sessions: SessionBook,
        *,
        encrypted: bool = False,
        has_openid: bool = False,
    ) -> None:
        self.encrypted, self.has_openid = encrypted, has_openid
        self._own = digest_of(own_token)
        self._tokens = tokens
        self._views = views
        self._sessions = sessions
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

    async def bearer_of(self, credential: Credential) -> Principal | None:
        """Return the present bearer of a credential; none if it is not valid, or no longer valid.

        A leaver is the bearer of nothing.

        Raises:
            UnavailableError: the server does not answer about a session or a token.
            NotReadyError: the view of people does not exist yet.

        """
        token = credential.token
        if credential.session is not None:
            session = await self._sessions.find(credential.session)
            if session is not None and session.employee_id:
                return await self.bearer_of_identity(session.employee_id, session.role)
            token = session.token if session is not None else ""
        bearer = await self._bearer_of_token(token)
        if bearer is None or bearer.person_id is None:
            return bearer
        return None if await self._leavers([bearer.person_id]) else bearer

    async def bearer_of_identity(
        self, employee_id: str, role: Literal["auditor", "operator"] | None
    ) -> Principal | None:
        """Return the principal of an employee that an OpenID provider proved; none for one that the log does not know.

        The role is that of a group. Without one, employees with reports are managers, and others agents.
        """
        if not self.has_openid:
            return None
        found = await self._views.read("people", lambda connection: read_standing(connection, employee_id), short=True)
        if found.result.has_left or not (role or found.result.is_announced):
            return None
        if role is not None:
            return Principal(employee_id, role)
        return Principal(employee_id, "manager" if found.result.has_reports else "agent", employee_id)

    async def _bearer_of_token(self, digest: str) -> Principal | None:
        """Return the bearer of a token by its SHA-256; of this data directory's own token without asking the server."""
        if hmac.compare_digest(digest, self._own):
            return Principal("connection.json", "operator")
        return await self._tokens.bearer_of(digest) if digest else None

    async def _leavers(self, people: Collection[str]) -> frozenset[str]:
        """Return the leavers among these people."""
        if not people:
            return frozenset()
        found = await self._views.read("people", lambda connection: read_leavers(connection, people), short=True)
        return found.result

    async def authenticate(self, request: Request) -> tuple[Credential, Principal]:
        """Return a request's credential and its bearer.

        Raises:
            HTTPException: 401 for an unknown caller; 429 after too many failures from its network.

        """
        scheme, _, text = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and text.strip():
            credential = Credential(digest_of(text.strip()))
            if (viewer := await self.bearer_of(credential)) is not None:
                return credential, viewer
            self.count_failure(request, REQUEST_FAILURES)
        elif (found := await self._of_session(request)) is not None:
            return found
        detail = "send a bearer token: that of connection.json, or one from `resolution-ledger admin tokens make`"
        raise HTTPException(401, detail, {"WWW-Authenticate": "Bearer"})

    async def _of_session(self, request: Request) -> tuple[Credential, Principal] | None:
        credential = Credential(session=session_id_of(request.cookies.get(COOKIE, "")))
        viewer = await self.bearer_of(credential)
        return None if viewer is None else (credential, viewer)

    def count_failure(self, request: Request, limit: int) -> None:
        """Count a failed login from the client's network.

        Raises:
            HTTPException: 429, there were too many.

        """
        if self._failures.is_exceeded_by_failure(request.client.host if request.client else "", limit):
            wait = {"Retry-After": str(int(WINDOW_SECONDS))}
            raise HTTPException(429, "too many wrong tokens from this address: wait a minute", wait)

    async def bearer_of_login(self, request: Request, text: str) -> Principal:
        """Return the bearer of a token with which a browser signs in.

        Raises:
            HTTPException: 401, the token is not valid; 429 after too many failures from its network.

        """
        viewer = await self.bearer_of(Credential(digest_of(text)))
        if viewer is None:
            self.count_failure(request, LOGIN_FAILURES)
            raise HTTPException(401, "this token is unknown or has expired, or its person has left the company")
        if viewer.source is not None:
            raise HTTPException(403, "this token belongs to a source, which has no page")
        return viewer

    async def begin_session(self, text: str = "", identity: Identity | None = None) -> str:
        """Begin a browser's session for a token or a proved person; return the value of its cookie.

        Raises:
            UnavailableError: the server does not answer.

        """
        now = datetime.now(UTC)
        if identity is None:
            return await self._sessions.begin(BrowserSession(token=digest_of(text), begun=now))
        return await self._sessions.begin(
            BrowserSession(employee_id=identity.employee_id, role=identity.role, begun=now)
        )

    async def bearer_of_session(self, request: Request) -> Principal | None:
        """Return the bearer of a browser's session; none if it is not valid."""
        found = await self._of_session(request)
        return None if found is None else found[1]

    async def close(self, cookie: str | None) -> Principal | None:
        """End the session of a cookie; return its bearer, or none if the session was not valid any more.

        Without an answer of the server it ends as soon as there is one.
        """
        session_id = session_id_of(cookie or "")
        try:
            session = await self._sessions.find(session_id)
        except UnavailableError:
            await self._sessions.end_surely(session_id)
            return None
        if session is None:
            return None
        try:
            if session.employee_id:
                return Principal(session.employee_id, session.role or "agent")
            return await self._bearer_of_token(session.token)
        finally:  # also where the server does not answer about the token
            await self._sessions.end_surely(session_id)

    async def sessions_of(self, viewer: Principal) -> list[OpenSession]:
        """Return the open sessions that a principal may see, the newest first: their own, or all.

        Raises:
            UnavailableError: the server does not answer.

        """
        found = [
            OpenSession(session_id, bearer, one.begun, one.expires)
            for session_id, one in (await self._sessions.all()).items()
            if (bearer := await self._bearer_of_session(one)) is not None
            and (viewer.sees_everybody or is_same_person(bearer, viewer))
        ]
        left = await self._leavers({one.bearer.person_id for one in found if one.bearer.person_id is not None})
        return [one for one in found if one.bearer.person_id not in left]

    async def _bearer_of_session(self, session: BrowserSession) -> Principal | None:
        if session.employee_id:
            return await self.bearer_of_identity(session.employee_id, session.role)
        return await self._bearer_of_token(session.token)

    async def end_session(self, session_id: str) -> None:
        """End a session in every process.

        Raises:
            LedgerError: the server does not answer.

        """
        await self._sessions.end(session_id)

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
        people = (await self._views.read("people", read_memberships, short=True)).result
        below = managed_by(viewer.person_id, {one.employee_id: one.manager_id for one in people})
        listed = {one.team_ids for one in people if one.employee_id in below and one.team_ids}
        return AccessScope(below, frozenset(team for teams in listed for team in json.loads(teams)))

    async def of_team(self, team: str | None) -> frozenset[str] | None:
        """Return the holders of a team's budgets: its pool and its agents; none without a team."""
        if team is None:
            return None
        people = (await self._views.read("people", read_memberships, short=True)).result
        agents = {f"agent:{one.employee_id}" for one in people if team in json.loads(one.team_ids or "[]")}
        return frozenset((f"team:{team}", *agents))
