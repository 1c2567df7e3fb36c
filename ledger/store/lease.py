"""A lease: of the processes of one role on one ledger, on any machine, one works and the others stand by.

The lease of a task is the last message of a subject in a key-value bucket of the server. Its holder writes it again
and again; each write expects the sequence of the one before, so that at most one process holds it as the server sees
it. A standby takes it once its holder has given it up, or has not written for ``_SILENT_SECONDS`` by the standby's own
clock. No process needs another's clock, and the server removes nothing.

A standby announces itself at each look. A holder writes seldom while it hears no standby, and at once when it hears the
first one. A holder that loses the lease to a standby that it did not hear writes often
from then on.

A holder that cannot do the work gives the lease up for a standby, and stands back for some seconds.

A lease decides which process works. It does not protect the log: a holder that was suspended learns late that it has
lost the lease, and the expected sequences of its events refuse what it writes until then.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import nats.errors

from ledger.background_service import BackgroundService
from ledger.errors import ConflictError, LedgerError
from ledger.nats.client import frame
from ledger.nats.incidents import report
from ledger.store.log import Draft, Log

if TYPE_CHECKING:
    from collections.abc import Callable

    from nats.aio.subscription import Subscription

    from ledger.nats.client import LedgerClient

_log = logging.getLogger(__name__)
STREAM = "KV_ledger-leases"
_SUBJECT = "$KV.ledger-leases"
_STANDBY = "resolution.standby"
_FREE = b'{"holder": null}'
_BEGUN = b"begun"
_RENEW_SECONDS = 0.4
_ALONE_SECONDS = 3.0
_LOOK_SECONDS = 0.2
_SILENT_SECONDS = 1.3
_PATIENCE_SECONDS = 1.0
_HELD_SECONDS = 3 * _ALONE_SECONDS
_FAILING_SECONDS = 5.0
_CALM_SECONDS = 60.0
"""After so long without a failure the next one is the first again; longer than the longest pause of ``restarting``."""
_REST_SECONDS = 10.0


class Lease(BackgroundService):
    """The lease of one task, as one process sees it."""

    def __init__(self, client: LedgerClient, task: str, on_change: Callable[[], None] = lambda: None) -> None:
        """``on_change`` is called after ``is_ours`` has changed."""
        super().__init__(f"lease of {task}")
        self.is_ours = False
        """True while this process works. It can still be true for a moment after another process took over."""
        self._client, self._task, self._on_change = client, task, on_change
        self._subject = f"{_SUBJECT}.{task}"
        self._name = f"{_place()}/{os.getpid()}/{secrets.token_hex(4)}"
        self._log: Log
        self._position = 0
        """The sequence of the newest write: by this process while it holds the lease, else by the holder."""
        self._written_at = 0.0
        """The time of that write, by this process's clock."""
        self._renewed_at = float("-inf")
        """The time at which the server confirmed this process's newest write."""
        self._reconnects = 0
        self._failing_since = self._failed_at = float("-inf")
        """The times of the first and the newest of some failures."""
        self._rests_until = float("-inf")
        self._alone_seconds = _ALONE_SECONDS
        """The time between two writes where no standby is heard."""
        self._others = False
        """True once this process has seen another one write the lease."""
        self._writes = 0
        self._fault = ""
        self._wake, self._begun = asyncio.Event(), asyncio.Event()
        self._standby_at = float("-inf")
        """The time at which a standby was heard."""
        self._subscriptions: list[Subscription] = []

    async def start(self) -> None:
        """Take the lease, unless a process that is alive holds it.

        It waits until one or the other is known, at most some seconds: a holder that was killed is silent.
        """
        self._log = await Log.unstamped(self._client, STREAM)
        self._subscriptions = [
            await self._client.subscribe_raw(self._subject, self._on_write),
            await self._client.subscribe_raw(f"{_STANDBY}.{self._task}", self._on_standby),
        ]
        until = time.monotonic() + 2 * _SILENT_SECONDS
        await self._turn()
        while not (self.is_ours or self._others) and time.monotonic() < until:
            await asyncio.sleep(_LOOK_SECONDS)
            await self._turn()
        self.spawn(self._keep())

    async def stop(self) -> None:
        """Give the lease up, so that a standby takes it at once."""
        await self.end_tasks()
        with suppress(nats.errors.Error, LedgerError, TimeoutError):
            async with asyncio.timeout(_PATIENCE_SECONDS):
                for subscription in self._subscriptions:
                    await self._client.unsubscribe_raw(subscription)
                if self.is_ours:
                    await self._give_up()
        self.is_ours = False

    @property
    def is_working(self) -> bool:
        """This process holds the lease, and has renewed it lately."""
        return self.is_ours and time.monotonic() - self._renewed_at < _HELD_SECONDS

    @property
    def is_failing(self) -> bool:
        """The work has failed for some seconds, and did a moment ago."""
        now = time.monotonic()
        return now - self._failed_at < _REST_SECONDS and now - self._failing_since >= _FAILING_SECONDS

    def note_success(self) -> None:
        """Note that this process could do the work: earlier failures count no more."""
        self._failed_at = float("-inf")

    def note_failure(self) -> None:
        """Note that this process could not do the work; after some seconds of failures a standby gets it."""
        now = time.monotonic()
        if now - self._failed_at > _CALM_SECONDS:
            self._failing_since = now
        self._failed_at = now
        if self.is_ours and self._is_watched() and now - self._failing_since >= _FAILING_SECONDS:
            _log.warning("the work of %s fails here, and a standby gets it: see the errors above", self._task)
            self._rests_until = now + _REST_SECONDS
            self._wake.set()

    async def hand_over(self) -> None:
        """Give the lease up while this process still works, and wait until a standby has begun, if there is one.

        So a process answers at every moment. Two work for a moment, which the expected sequences of their events allow.
        """
        if not self.is_ours or not self._is_watched():
            return
        await self.end_tasks()
        self.is_ours = False
        with suppress(nats.errors.Error, LedgerError, TimeoutError):
            async with asyncio.timeout(2 * _PATIENCE_SECONDS):
                self._begun.clear()
                await self._give_up()
                await self._begun.wait()

    def confirm(self) -> None:
        """Tell the process that hands over to this one that this one has begun to work."""
        self._say(_BEGUN)

    def _say(self, body: bytes) -> None:
        with suppress(nats.errors.Error):
            self._client.send(frame(f"{_STANDBY}.{self._task}".encode(), body))

    def _on_write(self, _subject: bytes, _reply: bytes, _headers: bytes, body: bytes) -> None:
        if (self._name.encode() not in body) if self.is_ours else (body == _FREE):
            self._wake.set()

    def _on_standby(self, _subject: bytes, _reply: bytes, _headers: bytes, body: bytes) -> None:
        if body == _BEGUN:
            self._begun.set()
            return
        if body == self._name.encode():
            return
        self._standby_at = time.monotonic()
        if self.is_ours and self._is_due():
            self._wake.set()

    def _is_watched(self) -> bool:
        """Return whether a standby was heard lately."""
        return time.monotonic() - self._standby_at <= 2 * _RENEW_SECONDS

    def _is_due(self) -> bool:
        """Return whether the holder has to write: for a standby, or because it may have missed another's write."""
        pause = _RENEW_SECONDS if self._is_watched() else self._alone_seconds
        return time.monotonic() - self._written_at >= pause or self._client.stats["reconnects"] != self._reconnects

    async def _keep(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_RENEW_SECONDS if self.is_ours else _LOOK_SECONDS):
                    await self._wake.wait()
            if self.is_ours and not (self._wake.is_set() or self._is_due()):
                continue
            self._wake.clear()
            try:
                await self._turn()
            except Exception as error:  # noqa: BLE001 - our own error: tried again in a moment
                report("a lease could not be kept", error, error)

    async def _turn(self) -> None:
        """Renew the lease, or look whether it is free; without an answer of the server everything stays as it is."""
        rests = time.monotonic() < self._rests_until
        try:
            if self.is_ours and rests:
                await self._give_up()
                self._become(ours=False)
            elif self.is_ours:
                await self._write()
            elif not rests:
                await self._look()
        except ConflictError:
            if self.is_ours:
                self._note_loss()
            self._written_at = time.monotonic()
            self._become(ours=False)
        except LedgerError as error:
            if str(error) != self._fault:
                self._fault = str(error)
                _log.warning("the lease of %s waits: %s", self._task, error)
            self._written_at = time.monotonic()  # others had no answer either: the holder goes first

    def _note_loss(self) -> None:
        """Write often from now on, if the lease was lost although this process was well and no standby was heard."""
        was_well = time.monotonic() - self._renewed_at < _ALONE_SECONDS + _SILENT_SECONDS
        if was_well and not self._is_watched() and self._client.stats["reconnects"] == self._reconnects:
            if self._alone_seconds != _RENEW_SECONDS:
                text = "the lease of %s was lost to a standby that was not heard on %s.%s: may this user subscribe?"
                _log.warning(text, self._task, _STANDBY, self._task)
            self._alone_seconds = _RENEW_SECONDS

    async def _look(self) -> None:
        self._say(self._name.encode())
        newest, now = await self._log.read_from_leader(self._subject), time.monotonic()
        position = 0 if newest is None else newest.position
        if position != self._position:
            self._others = self._others or self._position > 0
            self._position, self._written_at = position, now
        if newest is None or not _is_held(newest.data) or now - self._written_at > _SILENT_SECONDS:
            await self._write()
            self._become(ours=True)

    async def _give_up(self) -> None:
        with suppress(ConflictError):  # another process works
            await self._write(_FREE)

    async def _write(self, body: bytes | None = None) -> None:
        """Write the lease anew after the newest write that is known, or that the server stored without an answer.

        Raises:
            ConflictError: another process has written.
            LedgerError: the server does not answer.
        """
        self._writes += 1
        data = json.dumps({"holder": self._name, "writes": self._writes}).encode() if body is None else body
        reconnects = self._client.stats["reconnects"]
        try:
            self._position = await self._append(data)
        except ConflictError:
            newest = await self._log.read_from_leader(self._subject)
            if newest is None or self._name.encode() not in newest.data:
                raise
            self._position = newest.position
            self._position = await self._append(data)
        self._written_at = self._renewed_at = time.monotonic()
        self._reconnects = reconnects

    async def _append(self, data: bytes) -> int:
        return await self._log.append([Draft(self._subject, data, self._position)], _PATIENCE_SECONDS)

    def _become(self, *, ours: bool) -> None:
        if ours != self.is_ours:
            self.is_ours = ours
            _log.info("%s %s", self._task, "is this process's work" if ours else "is another process's work now")
            self._on_change()


@cache
def _place() -> str:
    """Return where a process number means one process: a boot of a machine, and a namespace of numbers; or nothing."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _is_held(data: bytes) -> bool:
    """Return whether a lease was not given up, and its holder is no process of this host that has ended."""
    if data in (b"", _FREE):
        return False
    try:
        holder = str(json.loads(data)["holder"])
    except (ValueError, TypeError, KeyError):
        return True
    place, _, process = holder.rpartition("/")[0].rpartition("/")
    if not place or place != _place() or not process.isdecimal():
        return True
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
