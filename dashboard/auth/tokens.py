"""Tokens with roles, in a key-value bucket of the server: every dashboard process accepts them.

The key is the SHA-256 of a token's text, which is stored nowhere. A revoked token leaves an empty entry, so that no
older copy of the tokens brings it back.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import msgspec

from config.topology import TOKENS, TOKENS_SUBJECT
from ledger.errors import ConflictError, LedgerError, UnavailableError
from ledger.files import read_bounded
from ledger.nats.incidents import report
from ledger.store.log import Draft, Log

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable
    from pathlib import Path

    from ledger.nats.client import LedgerClient
    from ledger.store.log import Recorded

_DIGEST = re.compile(r"[0-9a-f]{64}")
_CACHE_SECONDS = 1.0
"""A token that is revoked elsewhere is valid here for at most this time, while the server answers."""
_WHOLE_SECONDS = 60.0
"""After this time the whole bucket is read again: an operator may have purged it, or restored an earlier one."""
_WAIT_SECONDS = 0.5
_STALE_SECONDS = 10.0
"""Without an answer of the server tokens stay valid for this time, which is longer than an election of a leader."""
_PATIENCE_SECONDS = 3.0
_FILE_BYTES = 64 << 20
type Role = Literal["agent", "manager", "auditor", "operator", "source"]
ROLES: tuple[Role, ...] = ("agent", "manager", "auditor", "operator")
"""Agents see their own data, managers that of their people and teams, auditors and operators all data.

A token with the role `source` sees none of it: its bearer is a system, which publishes events and asks for decisions.
"""


class Principal(NamedTuple):
    """The bearer of a token: its name, its role, and the employee (agents, managers) or the system (sources)."""

    name: str
    role: Role
    person_id: str | None = None
    source: str | None = None

    @property
    def sees_everybody(self) -> bool:
        """This principal sees all data."""
        return self.role in ("auditor", "operator")


class Token(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A token in the bucket."""

    name: str
    role: Role
    made: Annotated[datetime, msgspec.Meta(tz=True)]
    person_id: str | None = None
    source: str | None = None
    expires: Annotated[datetime, msgspec.Meta(tz=True)] | None = None

    @property
    def fault(self) -> str:
        """The reason for which person or source do not fit the role; empty where they do."""
        if (self.role in ("agent", "manager")) != (self.person_id is not None):
            return f"person: the role {self.role} " + (
                "takes no person" if self.person_id else "needs an employee's id"
            )
        if (self.role == "source") != (self.source is not None):
            return f"source: the role {self.role} " + ("takes no source" if self.source else "needs a source")
        return ""


class KeptToken(Token, frozen=True, kw_only=True, omit_defaults=True):
    """A token in a file: with its key."""

    sha256: str


class TokenError(LedgerError):
    """A token that cannot be made or revoked; the message says why."""


class Tokens:
    """The tokens of a ledger, and a copy of them in memory that is at most a second old."""

    def __init__(self, client: LedgerClient) -> None:
        self._client = client
        self._log: Log | None = None
        self._position = 0
        self._tokens: dict[str, Token] = {}
        self._read_at = self._whole_at = float("-inf")
        """The times at which the newest reading began, and the newest of the whole bucket."""
        self._reading = asyncio.Lock()
        self._whole: asyncio.Task[None] | None = None
        """The reading of the whole bucket; requests go on beside it, and it goes on after them."""
        self._changes = self._changes_read = 0
        """The number of messages about tokens, and that number as the newest reading began."""

    async def watch(self) -> None:
        """Read on at the next request after any process has made or revoked a token, rather than after a second."""

        def on_message(_subject: bytes, _reply: bytes, _headers: bytes, _body: bytes) -> None:
            self._changes += 1

        await self._client.subscribe_raw(f"{TOKENS_SUBJECT}.*", on_message)

    async def all(self) -> list[Token]:
        """Return every token, the oldest first.

        Raises:
            UnavailableError: the server does not answer.

        """
        return sorted((await self._all()).values(), key=lambda one: one.made)

    async def _all(self) -> dict[str, Token]:
        await _patiently(self._read_on(time.monotonic()))
        return self._tokens

    async def make(
        self, name: str, role: Role, person_id: str | None, expires: datetime | None, source: str | None = None
    ) -> str:
        """Return the text of a new token; the text is not stored. ``source``: the system, for the role `source`.

        Raises:
            TokenError: the name is taken, or the person or the source does not fit the role.
            UnavailableError: the server does not answer.

        """
        if any(one.name == name for one in await self.all()):
            raise TokenError(f"a token named {name} exists: revoke it first, or choose another name")
        now = datetime.now(UTC)
        token = Token(name=name, role=role, made=now, person_id=person_id, source=source, expires=expires)
        if token.fault:
            raise TokenError(token.fault)
        text = f"rl-{role}-{secrets.token_urlsafe(32)}"
        await self._write(digest_of(text), msgspec.json.encode(token), 0)
        return text

    async def revoke(self, name: str) -> None:
        """Revoke the token with a name, so that its bearer is no longer authenticated.

        Raises:
            TokenError: no token has this name.
            UnavailableError: the server does not answer.

        """
        found = [digest for digest, one in (await self._all()).items() if one.name == name]
        if not found:
            raise TokenError(f"there is no token named {name}")
        for digest in found:  # two, if two processes made them at the same moment
            await self._write(digest, b"")
            self._tokens.pop(digest, None)

    async def backup(self) -> list[KeptToken]:
        """Return every token with its hash, the oldest first.

        Raises:
            UnavailableError: the server does not answer.

        """
        found = [KeptToken(sha256=digest, **msgspec.structs.asdict(one)) for digest, one in (await self._all()).items()]
        return sorted(found, key=lambda one: one.made)

    async def restore(self, tokens: Iterable[KeptToken]) -> int:
        """Add tokens that the bucket never had, not those that were revoked; return their number.

        Raises:
            UnavailableError: the server does not answer.

        """
        number, known = 0, await self._all()
        for one in tokens:
            fields = msgspec.structs.asdict(one)
            if (digest := fields.pop("sha256")) in known:
                continue
            with suppress(ConflictError):
                await self._write(digest, msgspec.json.encode(Token(**fields)), 0)
                number += 1
        return number

    async def take_over(self, data_dir: Path) -> None:
        """Take the tokens over that earlier versions kept in a file of the data directory, and rename the file.

        Raises:
            TokenError: the file is damaged.
            UnavailableError: the server does not answer.

        """
        path = data_dir / "server" / "tokens.json"
        with suppress(FileNotFoundError):  # also where another process has just renamed it
            await self.restore(tokens_in(path))
            path.replace(path.with_name("tokens.json.taken-over"))

    async def bearer_of(self, digest: str) -> Principal | None:
        """Return the bearer of the token with a SHA-256; none if it is unknown, revoked or expired.

        A known token costs a look at the server once a second, for all requests together. An unknown one may have been
        made a moment ago, so the stream's leader is asked for it. Only digests are compared. A caller cannot choose
        them, so the time that this takes reveals nothing about a token.

        Raises:
            UnavailableError: the server has not answered for some seconds.

        """
        await self._refresh()
        found, now = self._tokens.get(digest), datetime.now(UTC)
        if found is None:
            log = await self._opened()
            stored = await _patiently(log.read_from_leader(f"{TOKENS_SUBJECT}.{digest}"))
            found = None if stored is None else _decoded(stored)
            if stored is not None and found is not None and digest not in self._tokens:
                if stored.position <= self._position:  # it was revoked since, or the bucket is another one
                    self._whole_at = float("-inf")
                elif not self._reading.locked():
                    self._tokens[digest] = found  # the next reading meets this entry again, or a newer one
        if found is None or (found.expires is not None and now >= found.expires):
            return None
        return Principal(found.name, found.role, found.person_id, found.source)

    async def _refresh(self) -> None:
        """Bring the copy up to date if it is older than a second; without an answer an old one will do for a while."""
        if time.monotonic() - self._whole_at > _WHOLE_SECONDS:
            self._whole_reading()
        since = time.monotonic() - _CACHE_SECONDS
        if self._is_current(since):
            return
        try:
            async with asyncio.timeout(_WAIT_SECONDS):
                await self._read_on(since)
        except (TimeoutError, LedgerError) as error:
            if time.monotonic() - self._read_at > _STALE_SECONDS:
                raise UnavailableError(_NO_ANSWER) from error

    async def _read_on(self, since: float) -> None:
        """Read the changes since the last reading, unless one has begun after ``since``; the first one reads all.

        The stream's leader is asked, because a replica may show a token that was revoked.
        """
        if self._read_at == float("-inf"):
            await asyncio.shield(self._whole_reading())
        async with self._reading:
            if not self._is_current(since):
                await self._read_newer(self._tokens, self._position)

    def _is_current(self, since: float) -> bool:
        return self._read_at >= since and self._changes_read == self._changes

    def _whole_reading(self) -> asyncio.Task[None]:
        """Return the running reading of the whole bucket, or begin one."""
        if self._whole is None or self._whole.done():
            self._whole = asyncio.create_task(self._read_whole())
            self._whole.add_done_callback(_note_failure)
        return self._whole

    async def _read_whole(self) -> None:
        begun, log = time.monotonic(), await self._opened()
        tokens: dict[str, Token] = {}
        position = 0
        async for batch in log.subject_batches(f"{TOKENS_SUBJECT}.*"):
            for stored in batch:
                position = _take(stored, tokens)
        async with self._reading:
            await self._read_newer(tokens, position)
            self._whole_at = begun

    async def _read_newer(self, tokens: dict[str, Token], position: int) -> None:
        """Add the changes after a position to these tokens, which are the known ones from then on."""
        begun, changes, log = time.monotonic(), self._changes, await self._opened()
        while (newer := await log.read_from_leader(f"{TOKENS_SUBJECT}.*", position)) is not None:
            position = _take(newer, tokens)
        self._tokens, self._position, self._read_at, self._changes_read = tokens, position, begun, changes

    async def _write(self, digest: str, data: bytes, expect: int | None = None) -> None:
        log = await self._opened()
        await log.append([Draft(f"{TOKENS_SUBJECT}.{digest}", data, expect)], _PATIENCE_SECONDS)

    async def _opened(self) -> Log:
        if self._log is None:
            self._log = await Log.unstamped(self._client, TOKENS)
        return self._log


def _take(stored: Recorded, into: dict[str, Token]) -> int:
    """Add, replace or remove the token of an entry; return the entry's position."""
    digest, found = stored.subject.rpartition(".")[2], _decoded(stored)
    if found is None:
        into.pop(digest, None)
    else:
        into[digest] = found
    return stored.position


def _note_failure(reading: asyncio.Task[None]) -> None:
    """Report our own errors; without an answer of the server, the next request begins a reading again."""
    error = None if reading.cancelled() else reading.exception()
    if error is not None and not isinstance(error, LedgerError):
        report("the bucket of tokens could not be read", error, error)


_NO_ANSWER = "the server does not answer about tokens: try again in a moment"


async def _patiently[T](answering: Awaitable[T]) -> T:
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            return await answering
    except TimeoutError as error:
        raise UnavailableError(_NO_ANSWER) from error


def _decoded(stored: Recorded) -> Token | None:
    """Return the token of an entry; none if it was revoked, or the entry is none of ours."""
    if not stored.data:
        return None
    try:
        found = msgspec.json.decode(stored.data, type=Token)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        report("an entry of the bucket of tokens cannot be read, and admits nobody", stored.position, error)
        return None
    if found.fault or not _DIGEST.fullmatch(stored.subject.rpartition(".")[2]):
        report("an entry of the bucket of tokens is no token, and admits nobody", stored.position)
        return None
    return found


def tokens_in(path: Path) -> list[KeptToken]:
    """Return the tokens in a file.

    Raises:
        TokenError: the file is damaged.
        FileNotFoundError: there is none.

    """
    try:
        found = msgspec.json.decode(read_bounded(path, _FILE_BYTES), type=list[KeptToken])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        message = f"{path} is damaged ({error}): restore it, or remove it and make the tokens again"
        raise TokenError(message) from None
    for one in found:
        if one.fault or not _DIGEST.fullmatch(one.sha256):
            raise TokenError(f"{path} is damaged (the token {one.name!r}): restore it, or remove it")
    return found


def digest_of(text: str) -> str:
    """Return the SHA-256 of a token's text, which may hold surrogates."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
