"""Who calls, and whom they may see: bearer tokens, and browsers that showed one."""

from __future__ import annotations

import hmac
import json
import secrets
import time
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Cookie, Depends, HTTPException, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from dashboard.viewers import Tokens, Viewer
from projections.answers import EVERYBODY, Scope
from projections.people import read_people
from projections.privacy import record_reading

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from dashboard.viewers import Role
    from dashboard.views import Views
    from ledger.log import Log

COOKIE = "resolution-ledger"
SESSION_SECONDS = 12 * 3600
_SCHEME = HTTPBearer(auto_error=False, description="`http_token` of connection.json, or one of `admin tokens make`")
_TRIES, _TRIES_SECONDS = 20, 60.0
"""Wrong tokens in so many seconds, from anywhere: more have to wait."""
_ACTS_AT_ONCE, _ACTS_A_SECOND = 200.0, 20.0
"""What one token may have done: so much at once, and as much again over time."""


async def note_reading(log: Log, viewer: Viewer, about: Sequence[str], up_to: int) -> None:
    """Record that somebody reads about these, where the policy in force wants it.

    Raises:
        HTTPException: 403, the token's name cannot be recorded.

    """
    try:
        await record_reading(log, about, up_to, viewer.person_id or viewer.name)
    except ValueError as error:
        raise HTTPException(403, str(error)) from None


class Doors:
    """Tells who calls. Sessions of browsers are this process's own, and end with it."""

    def __init__(self, data_dir: Path, own_token: str, views: Views, *, encrypted: bool = False) -> None:
        self.encrypted = encrypted
        self._own = own_token
        self._tokens = Tokens(data_dir)
        self._views = views
        self._sessions: dict[str, tuple[str, float]] = {}
        self._wrong: list[float] = []
        self._acts: dict[str, tuple[float, float]] = {}

    def who(self, text: str) -> Viewer | None:
        """Who bears a token."""
        if hmac.compare_digest(text.encode(), self._own.encode()):
            return Viewer("connection.json", "operator")
        return self._tokens.viewer(text)

    def open(self, text: str) -> str:
        """A session for a browser that shows a token: what its cookie says.

        Raises:
            HTTPException: nobody bears this token, or too many wrong ones were shown.

        """
        now = time.monotonic()
        self._wrong = [at for at in self._wrong if at > now - _TRIES_SECONDS]
        if len(self._wrong) >= _TRIES:
            raise HTTPException(429, "too many wrong tokens: wait a minute", {"Retry-After": "60"})
        if self.who(text) is None:
            self._wrong.append(now)
            raise HTTPException(401, "this token is not known, or its time is over")
        self._sessions = {name: kept for name, kept in self._sessions.items() if kept[1] > now}
        name = secrets.token_urlsafe(32)
        self._sessions[name] = text, now + SESSION_SECONDS
        return name

    def knows(self, session: str | None) -> bool:
        """Whether a browser's cookie still opens."""
        text, until = self._sessions.get(session or "", ("", 0.0))
        return until > time.monotonic() and self.who(text) is not None

    def close(self, session: str | None) -> None:
        """The browser is known no more."""
        self._sessions.pop(session or "", None)

    async def viewer(
        self, given: Annotated[HTTPAuthorizationCredentials | None, Depends(_SCHEME)],
        session: Annotated[str | None, Cookie(alias=COOKIE)] = None,
    ) -> Viewer:  # fmt: skip
        """Who calls (a dependency of every endpoint; a coroutine, since others are called in threads).

        Raises:
            HTTPException: 401, nobody that is known.

        """
        text, until = (given.credentials, None) if given is not None else self._sessions.get(session or "", (None, 0.0))
        found = self.who(text) if text is not None and (until is None or until > time.monotonic()) else None
        if found is None:
            detail = "give a bearer token: that of connection.json, or one of `resolution-ledger admin tokens make`"
            raise HTTPException(401, detail, {"WWW-Authenticate": "Bearer"})
        return found

    @staticmethod
    async def from_here(request: Request) -> None:
        """Refuse what another site has a browser do (a dependency of every door that acts).

        Raises:
            HTTPException: 403.

        """
        site, origin = request.headers.get("Sec-Fetch-Site", "none"), request.headers.get("Origin")
        if site not in {"same-origin", "none"} or (
            origin is not None and origin.partition("://")[2] != request.headers.get("Host")
        ):
            raise HTTPException(403, "not at the wish of another site")

    def paced(self) -> Callable[..., Awaitable[None]]:
        """A dependency of every door that acts: whoever bears one token acts so often, and no more."""

        async def check(viewer: Any = Depends(self.viewer)) -> None:  # noqa: B008 - as FastAPI has it
            now = time.monotonic()
            left, at = self._acts.get(viewer.name, (_ACTS_AT_ONCE, now))
            left = min(_ACTS_AT_ONCE, left + (now - at) * _ACTS_A_SECOND)
            if left < 1:
                raise HTTPException(
                    429, "too many requests to act with this token: wait a second", {"Retry-After": "1"}
                )
            self._acts[viewer.name] = left - 1, now

        return check

    async def scope(self, viewer: Viewer) -> Scope:
        """Whom this viewer sees: agents themselves, managers everybody below them and the teams they work in."""
        if viewer.sees_everybody:
            return EVERYBODY
        if viewer.role == "agent" or viewer.person_id is None:
            return Scope(frozenset((viewer.person_id or "",)), frozenset())
        people = (await self._views.read("people", read_people)).result
        below, todo = {viewer.person_id}, [viewer.person_id]
        while todo:
            manager = todo.pop()
            new = {name for name, one in people.items() if one["manager_id"] == manager} - below
            below |= new
            todo += new
        teams = {team for name in below if name in people for team in json.loads(people[name]["team_ids"] or "[]")}
        return Scope(frozenset(below), frozenset(teams))

    def allowed(self, *roles: Role) -> Callable[..., Awaitable[None]]:
        """A dependency of endpoints that are for some roles alone."""

        async def check(viewer: Any = Depends(self.viewer)) -> None:  # noqa: B008 - as FastAPI has it
            if viewer.role not in roles:
                raise HTTPException(403, f"not for the role {viewer.role}")

        return check

    async def of_team(self, team: str | None) -> frozenset[str] | None:
        """The holders of a team's budgets: its pool, and its agents'; none where no team is named."""
        if team is None:
            return None
        people = (await self._views.read("people", read_people)).result
        agents = {f"agent:{name}" for name, one in people.items() if team in json.loads(one["team_ids"] or "[]")}
        return frozenset((f"team:{team}", *agents))
