"""The status of a role, answered over NATS: it tells whether the role is alive, how far it is, and why it waits.

Every process answers requests to `<subject>.<role>` for each of its roles, from the event loop that does the work. A
stopped process, or one whose event loop is blocked, gives no answer. A stuck loop shows in the seconds since its last
round, a stuck reader in the seconds since its position last moved.
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
from ledger.store.role_totals import Total

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from nats.aio.subscription import Subscription

    from ledger.background_service import RoleService
    from ledger.nats.client import LedgerClient

HOST = socket.gethostname()
_MORE_SECONDS = 0.15
"""Seconds to wait for further processes with a role, after the first answer."""
_AGAIN_SECONDS = 0.5
HANGS_SECONDS = 20.0
"""A loop with work to do and without a round for this long is stuck."""


class LoopStatus(msgspec.Struct, frozen=True):
    """One loop of a role: seconds since its last round (0 if it has no work), and the reason for which it waits."""

    name: str
    silent_seconds: float = 0.0
    waits: str = ""
    waits_seconds: float = 0.0


class ReaderStatus(msgspec.Struct, frozen=True):
    """One reader's position (none: empty), the seconds since it last moved, and the reason for which it stopped."""

    name: str
    position: int | None
    still_seconds: float
    stopped: str = ""
    is_queued: bool = False
    """It waits for a processor, which others use that are as far behind."""


class RoleStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The status of one role in one process."""

    role: str
    instance: str = ""
    host: str = HOST
    folder: str = ""
    since: str = ""
    now: str = ""
    history: bool = False
    starting: bool = False
    is_working: bool | None = None
    """True where this process does the role's work, false where it stands by; none where each process works."""
    loops: tuple[LoopStatus, ...] = ()
    readings: tuple[ReaderStatus, ...] = ()
    absent: tuple[str, ...] = ()
    """Derived files that the role uses and that are missing in its folder."""
    lacks: tuple[str, ...] = ()
    """Sentences about missing things without which the role cannot work."""
    totals: tuple[Total, ...] = ()
    """The counts of the role since its process started."""


class RoleAnswers(NamedTuple):
    """Answers of the processes with a role; the times of request and answer bound the difference of clocks."""

    statuses: tuple[RoleStatus, ...] = ()
    asked: datetime = datetime.min.replace(tzinfo=UTC)
    answered: datetime = datetime.min.replace(tzinfo=UTC)

    @property
    def working_count(self) -> int:
        """The number of processes that do the role's work; a process of an earlier version does not say."""
        return sum(status.is_working is not False and not status.starting for status in self.statuses)

    @property
    def starting_count(self) -> int:
        """The number of processes that have not started yet; a decider reads its log first."""
        return sum(status.starting for status in self.statuses)


class Heartbeat:
    """Records the rounds of a loop, its position, and the reason for which it waits."""

    __slots__ = ("_beat_at", "_busy", "_moved_at", "_waits_at", "active", "is_queued", "name", "position", "waits")

    def __init__(self, name: str, busy: Callable[[], bool] = lambda: True) -> None:
        """``busy`` returns whether the loop has work to do."""
        self.name = name
        self.position = -1
        self.waits = ""
        self.is_queued = False
        self.active = True
        """True where this process does the work, and not another one."""
        self._busy = busy
        self._beat_at = self._moved_at = self._waits_at = time.monotonic()

    def beat(self, position: int | None = None) -> None:
        """Record a round, and the position it reached."""
        self._beat_at = time.monotonic()
        if position is not None and position != self.position:
            self.position, self._moved_at = position, self._beat_at
        self.waits = ""

    def wait(self, reason: str) -> None:
        """Record the reason for which the loop waits, until the next beat."""
        self._beat_at = time.monotonic()
        if not self.waits:
            self._waits_at = self._beat_at
        self.waits = reason

    def loop(self) -> LoopStatus:
        """Return the loop's status."""
        now = time.monotonic()
        silent = now - self._beat_at if self._busy() else 0.0
        return LoopStatus(self.name, silent, self.waits, now - self._waits_at if self.waits else 0.0)

    @property
    def still_seconds(self) -> float:
        """Seconds since the position last moved."""
        return time.monotonic() - self._moved_at


class StatusResponder:
    """Answers status requests for one role of this process, from its start on."""

    def __init__(self, client: LedgerClient, subject: str, name: str, folder: Path) -> None:
        """``subject`` is the common prefix; the role's name follows it."""
        self._client = client
        self._subject = f"{subject}.{name}"
        self._name = name
        self._role: RoleService | None = None
        self._folder = str(folder.resolve())
        self._instance = f"{os.getpid()}-{secrets.token_hex(3)}"
        self._since = datetime.now(UTC)
        self._subscription: Subscription | None = None

    async def start(self) -> None:
        """Begin to answer that the role is starting."""
        self._subscription = await self._client.subscribe_raw(self._subject, self._on_request)
        await self._client.flush()

    def open(self, role: RoleService) -> None:
        """Answer with the role's status from now on: it has started."""
        self._role = role

    async def stop(self) -> None:
        """Stop answering."""
        if self._subscription is not None and not self._client.is_closed:
            with suppress(nats.errors.Error):
                await self._client.unsubscribe_raw(self._subscription)

    def _on_request(self, _subject: bytes, reply: bytes, _headers: bytes, _body: bytes) -> None:
        if is_answerable(reply):
            self._client.send(frame(reply, msgspec.json.encode(self._status())))

    def _status(self) -> RoleStatus:
        try:
            status = RoleStatus(role=self._name, starting=True) if self._role is None else self._role.status()
        except Exception as error:  # noqa: BLE001 - a damaged file, for instance, is the status to report
            status = RoleStatus(role=self._name, lacks=(f"its status cannot be read: {error}",))
        return msgspec.structs.replace(
            status,
            instance=self._instance,
            folder=self._folder,
            since=time_text(self._since),
            now=time_text(datetime.now(UTC)),
        )


async def ask_roles(client: LedgerClient, subject: str, patience: Mapping[str, float]) -> dict[str, RoleAnswers]:
    """Ask several roles at once; a role that does not answer is asked again for the seconds in ``patience``.

    ``subject`` is the common prefix, as for ``StatusResponder``.
    """
    answers = await asyncio.gather(
        *(_ask_role(client, f"{subject}.{role}", seconds) for role, seconds in patience.items())
    )
    return dict(zip(patience, answers, strict=True))


async def _ask_role(client: LedgerClient, subject: str, patience: float) -> RoleAnswers:
    deadline = time.monotonic() + patience
    while True:
        answers = await _ask_once(client, subject, min(_AGAIN_SECONDS * 4, max(0.1, deadline - time.monotonic())))
        ready = any(not status.starting for status in answers.statuses) and not any(map(_hangs, answers.statuses))
        if (ready and answers.working_count) or time.monotonic() >= deadline:
            return answers
        await asyncio.sleep(min(_AGAIN_SECONDS, max(0.0, deadline - time.monotonic())))


def _hangs(status: RoleStatus) -> bool:
    """Return whether a loop seems stuck; this is also so for a moment after its machine or process was paused."""
    return any(loop.silent_seconds > HANGS_SECONDS for loop in status.loops)


async def _ask_once(client: LedgerClient, subject: str, seconds: float) -> RoleAnswers:
    """Collect answers of the processes with a role: wait for the first one, and a moment longer for others."""
    found: list[RoleStatus] = []
    first = asyncio.Event()

    def on_answer(_subject: bytes, _reply: bytes, headers: bytes, body: bytes) -> None:
        if not status_of(headers):  # a status means that no process listens
            found.append(msgspec.json.decode(body, type=RoleStatus))
        first.set()

    inbox, asked = client.new_inbox(), datetime.now(UTC)
    subscription = await client.subscribe_raw(inbox, on_answer)
    try:
        client.send(frame(subject.encode(), b"", inbox.encode()))
        await asyncio.wait_for(first.wait(), seconds)
        answered = datetime.now(UTC)
        if found:
            await asyncio.sleep(_MORE_SECONDS)
    except (nats.errors.Error, TimeoutError):
        return RoleAnswers()
    finally:
        await client.unsubscribe_raw(subscription)
    return RoleAnswers(tuple(found), asked, answered)
