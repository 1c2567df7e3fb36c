"""The status of a role: it answers by NATS whether it lives, how far it is, and what keeps it waiting.

Every process answers a request to `<subject>.<role>` for each role that it has, from the event loop that does the
work: a process that is stopped, or whose loop is held, gives no answer. A loop that hangs while others go on shows in
the seconds since it last went round, a reader that hangs in the seconds since its position last moved.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import nats.errors

from ledger.nats.client import frame, is_answerable, status_of
from ledger.store.cloudevents import time_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from nats.aio.subscription import Subscription

    from ledger.background_service import RoleService
    from ledger.nats.client import LedgerClient

HOST = socket.gethostname()
_MORE_SECONDS = 0.15
"""How long further processes with a role are waited for, once one has answered."""
_AGAIN_SECONDS = 0.5
HANGS_SECONDS = 20.0
"""A loop that has something to do, and did not go round for so long, hangs."""


class LoopStatus(msgspec.Struct, frozen=True):
    """One loop of a role: seconds since it last went round (0 where it has nothing to do), and why it waits."""

    name: str
    silent_seconds: float = 0.0
    waits: str = ""
    waits_seconds: float = 0.0


class ReaderStatus(msgspec.Struct, frozen=True):
    """How far one reader is, the seconds since it last moved, and where it stopped; no position: it is empty."""

    name: str
    position: int | None
    still_seconds: float
    stopped: str = ""


class RoleStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What one process says of one of its roles."""

    role: str
    instance: str = ""
    host: str = HOST
    folder: str = ""
    since: str = ""
    now: str = ""
    history: bool = False
    starting: bool = False
    loops: tuple[LoopStatus, ...] = ()
    readings: tuple[ReaderStatus, ...] = ()
    absent: tuple[str, ...] = ()
    """Derived files that it works with and that are not in its folder."""
    lacks: tuple[str, ...] = ()
    """Sentences about what it cannot do its work without."""


class RoleAnswers(NamedTuple):
    """Answers of the processes with a role, and how far its clock may be away: seconds that asking took."""

    statuses: tuple[RoleStatus, ...] = ()
    asked: datetime = datetime.min.replace(tzinfo=UTC)
    answered: datetime = datetime.min.replace(tzinfo=UTC)


class Heartbeat:
    """Notes that a loop goes round, how far it is, and why it waits."""

    __slots__ = ("_beat_at", "_busy", "_moved_at", "_waits_at", "active", "name", "position", "waits")

    def __init__(self, name: str, busy: Callable[[], bool] = lambda: True) -> None:
        """With ``busy``, which tells whether the loop has anything to go round for."""
        self.name = name
        self.position = -1
        self.waits = ""
        self.active = True
        """Whether this process does the work, and not another one."""
        self._busy = busy
        self._beat_at = self._moved_at = self._waits_at = time.monotonic()

    def beat(self, position: int | None = None) -> None:
        """Go round once more; with the position that is reached."""
        self._beat_at = time.monotonic()
        if position is not None and position != self.position:
            self.position, self._moved_at = position, self._beat_at
        self.waits = ""

    def wait(self, why: str) -> None:
        """Wait for something, until the next beat."""
        self._beat_at = time.monotonic()
        if not self.waits:
            self._waits_at = self._beat_at
        self.waits = why

    def loop(self) -> LoopStatus:
        """Return what is to be said of the loop."""
        now = time.monotonic()
        silent = now - self._beat_at if self._busy() else 0.0
        return LoopStatus(self.name, silent, self.waits, now - self._waits_at if self.waits else 0.0)

    @property
    def still_seconds(self) -> float:
        """Seconds since the position moved."""
        return time.monotonic() - self._moved_at


class StatusResponder:
    """Answers for one role of this process, from its start on."""

    def __init__(self, client: LedgerClient, subject: str, name: str, folder: Path) -> None:
        """``subject`` is that of all roles; the role's name follows it."""
        self._client = client
        self._subject = f"{subject}.{name}"
        self._name = name
        self._role: RoleService | None = None
        self._folder = str(folder.resolve())
        self._instance = f"{os.getpid()}-{secrets.token_hex(3)}"
        self._since = datetime.now(UTC)
        self._door: Subscription | None = None

    async def start(self) -> None:
        """Begin to answer that the role is starting."""
        self._door = await self._client.subscribe_raw(self._subject, self._on_request)
        await self._client.flush()

    def open(self, role: RoleService) -> None:
        """Answer with the role's status from now on: it has started."""
        self._role = role

    async def stop(self) -> None:
        """Answer no more."""
        if self._door is not None and not self._client.is_closed:
            with suppress(nats.errors.Error):
                await self._client.unsubscribe_raw(self._door)

    def _on_request(self, _subject: bytes, reply: bytes, _headers: bytes, _body: bytes) -> None:
        if is_answerable(reply):
            self._client.send(frame(reply, msgspec.json.encode(self._status())))

    def _status(self) -> RoleStatus:
        try:
            status = RoleStatus(role=self._name, starting=True) if self._role is None else self._role.status()
        except Exception as error:  # noqa: BLE001 - a damaged file, say: that is what is to be told
            status = RoleStatus(role=self._name, lacks=(f"what it works with cannot be read: {error}",))
        return msgspec.structs.replace(
            status,
            instance=self._instance,
            folder=self._folder,
            since=time_text(self._since),
            now=time_text(datetime.now(UTC)),
        )


async def ask_roles(client: LedgerClient, subject: str, patience: Mapping[str, float]) -> dict[str, RoleAnswers]:
    """Ask for roles, all at once; one that does not answer is asked again for so many seconds as ``patience`` says.

    ``subject`` is that of all roles, as for ``StatusResponder``.
    """
    answers = await asyncio.gather(
        *(_ask_role(client, f"{subject}.{role}", seconds) for role, seconds in patience.items())
    )
    return dict(zip(patience, answers, strict=True))


async def _ask_role(client: LedgerClient, subject: str, patience: float) -> RoleAnswers:
    until = time.monotonic() + patience
    while True:
        heard = await _ask_once(client, subject, min(_AGAIN_SECONDS * 4, max(0.1, until - time.monotonic())))
        ready = any(not status.starting for status in heard.statuses) and not any(map(_hangs, heard.statuses))
        if ready or time.monotonic() >= until:
            return heard
        await asyncio.sleep(min(_AGAIN_SECONDS, max(0.0, until - time.monotonic())))


def _hangs(status: RoleStatus) -> bool:
    """Return whether a loop seems to hang; so it does for a moment after its machine or process was paused."""
    return any(loop.silent_seconds > HANGS_SECONDS for loop in status.loops)


async def _ask_once(client: LedgerClient, subject: str, seconds: float) -> RoleAnswers:
    """Collect what the processes with a role answer: until one has, and a moment longer for the others."""
    found: list[RoleStatus] = []
    first = asyncio.Event()

    def take(_subject: bytes, _reply: bytes, headers: bytes, body: bytes) -> None:
        if not status_of(headers):  # else the server says that no process listens
            found.append(msgspec.json.decode(body, type=RoleStatus))
        first.set()

    inbox, asked = client.new_inbox(), datetime.now(UTC)
    door = await client.subscribe_raw(inbox, take)
    try:
        client.send(frame(subject.encode(), b"", inbox.encode()))
        await asyncio.wait_for(first.wait(), seconds)
        answered = datetime.now(UTC)
        if found:
            await asyncio.sleep(_MORE_SECONDS)
    except (nats.errors.Error, TimeoutError):
        return RoleAnswers()
    finally:
        await client.unsubscribe_raw(door)
    return RoleAnswers(tuple(found), asked, answered)
