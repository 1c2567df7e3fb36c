"""Sessions of browsers, in a key-value bucket of the server: every dashboard process sees them, and they survive it.

The key is the SHA-256 of the cookie's secret, which is stored nowhere. An entry names a token by its hash, or
the id of an employee, and no name. The server drops entries by their age (`config/topology.py`).
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal

import msgspec

from config.topology import SESSION_HOURS, SESSIONS, SESSIONS_KEPT, SESSIONS_SUBJECT
from dashboard.auth.tokens import digest_of
from ledger.errors import LedgerError, UnavailableError, jetstream_error
from ledger.nats.incidents import report
from ledger.store.log import Draft, Log
from ledger.store.streams import js_api

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from ledger.nats.client import LedgerClient

_SECRET = re.compile(r"[A-Za-z0-9_-]{43}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_CACHE_SECONDS = 1.0
"""A session that another process ends is valid here for at most this time."""
_PATIENCE_SECONDS = 2.0


class BrowserSession(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A session in the bucket."""

    token: str = ""
    """The SHA-256 of the token that it was begun with."""
    employee_id: str = ""
    """The employee's id, as an OpenID provider proved it; empty in a session that a token began."""
    role: Literal["auditor", "operator"] | None = None
    """The role that a group of the provider gave."""
    begun: datetime

    @property
    def expires(self) -> datetime:
        """The time at which the server drops the session."""
        return self.begun + timedelta(hours=SESSION_HOURS)


def session_id_of(cookie: str) -> str:
    """Return the id of a cookie's session; empty for a text that is no cookie of ours."""
    return digest_of(cookie) if _SECRET.fullmatch(cookie) else ""


class SessionBook:
    """Reads and writes the sessions of browsers. Reads are answered from a cache for a second."""

    def __init__(self, log: Log) -> None:
        """Use ``open``."""
        self._log = log
        self._found: dict[str, tuple[float, BrowserSession]] = {}
        self._ending: set[str] = set()
        """Sessions that end as soon as the server answers again; they are over here already."""

    @classmethod
    async def open(cls, client: LedgerClient) -> SessionBook:
        """Open the bucket of this connection's ledger."""
        return cls(await Log.unstamped(client, SESSIONS))

    async def begin(self, session: BrowserSession) -> str:
        """Begin a session; return its secret, the value of the cookie.

        Raises:
            UnavailableError: the server does not answer.

        """
        secret = secrets.token_urlsafe(32)
        draft = Draft(f"{SESSIONS_SUBJECT}.{digest_of(secret)}", msgspec.json.encode(session), 0)
        await self._log.append([draft], _PATIENCE_SECONDS)
        return secret

    async def find(self, session_id: str) -> BrowserSession | None:
        """Return a session by its id; none if it has ended, expired, or never existed.

        The stream's leader is asked, because a replica may show a session that has ended.

        Raises:
            UnavailableError: the server does not answer.

        """
        if not _DIGEST.fullmatch(session_id) or session_id in self._ending:
            return None
        now = time.monotonic()
        at, kept = self._found.get(session_id, (0.0, None))
        if kept is not None and now - at <= _CACHE_SECONDS:
            return kept
        stored = await self._patiently(self._log.read_from_leader(f"{SESSIONS_SUBJECT}.{session_id}"))
        if stored is None:
            self._found.pop(session_id, None)
            return None
        if len(self._found) >= SESSIONS_KEPT:
            self._found.clear()
        found = msgspec.json.decode(stored.data, type=BrowserSession)
        self._found[session_id] = now, found
        await self._end_waiting()
        return found

    async def all(self) -> dict[str, BrowserSession]:
        """Return all sessions by id, the newest first.

        Raises:
            UnavailableError: the server does not answer.

        """
        stored = await self._patiently(self._log.read_subject(f"{SESSIONS_SUBJECT}.*"))
        found = {one.subject.rpartition(".")[2]: one.data for one in reversed(stored)}
        return {
            session_id: msgspec.json.decode(data, type=BrowserSession)
            for session_id, data in found.items()
            if session_id not in self._ending
        }

    async def end(self, session_id: str) -> None:
        """End a session in every process.

        Raises:
            LedgerError: the server does not answer, or refuses.

        """
        request = {"filter": f"{SESSIONS_SUBJECT}.{session_id}"}
        answer = await self._patiently(js_api(self._log.client, f"STREAM.PURGE.{SESSIONS}", request))
        if "error" in answer:
            raise jetstream_error(answer["error"], "the session could not be ended")
        self._found.pop(session_id, None)

    async def end_surely(self, session_id: str) -> None:
        """End a session here at once, and in every process as soon as the server answers."""
        if len(self._ending) < SESSIONS_KEPT:
            self._ending.add(session_id)
        await self._end_waiting()

    async def _end_waiting(self) -> None:
        for session_id in [*self._ending]:
            try:
                await self.end(session_id)
            except LedgerError as error:
                report("a session could not be ended yet", session_id, error)
                return
            self._ending.discard(session_id)

    @staticmethod
    async def _patiently[T](answering: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                return await answering
        except TimeoutError as error:
            raise UnavailableError("the server does not answer about the session: try again in a moment") from error
