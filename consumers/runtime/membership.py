"""Membership: the live processes of one role on one ledger, and the shares of each.

Each process sends signs of life. Deciders share the holders: a holder belongs to the process with the highest hash
(rendezvous hashing). Of several intakes the one that started first records; the others stand by. The processes need no
consensus: where two claim the same share, the expected sequences of their appends keep both correct, only slower.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import secrets
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple
from zlib import crc32

import nats.errors

from config import topology
from ledger.background_service import BackgroundService
from ledger.nats.client import frame
from ledger.nats.incidents import report

if TYPE_CHECKING:
    from collections.abc import Callable

    from nats.aio.subscription import Subscription

    from ledger.nats.client import LedgerClient

_log = logging.getLogger(__name__)
_PARTITIONS = 256


class HeartbeatTiming(NamedTuple):
    """Seconds between two signs of life, until a silent process counts as gone, and to wait for others at the start."""

    interval: float
    timeout: float
    answer: float


DECIDERS = HeartbeatTiming(interval=0.25, timeout=1.25, answer=0.05)
"""A request that was forwarded to a dead decider is repeated by its client, and is answered then."""
INTAKES = HeartbeatTiming(interval=0.2, timeout=1.0, answer=0.2)
"""Standbys take over from a silent intake. A takeover from a live one is correct, and costs only time."""


class Membership(BackgroundService):
    """The processes of one role on one ledger, as seen by one of them."""

    def __init__(
        self,
        client: LedgerClient,
        on_change: Callable[[bool], None],
        subject: str = topology.DECIDERS_SUBJECT,
        heartbeat: HeartbeatTiming = DECIDERS,
    ) -> None:
        """``on_change`` is called with whether there are other processes, whenever one joins or leaves."""
        super().__init__("membership")
        self.name = f"{int(time.time() * 1000):011x}{secrets.token_hex(4)}"  # sorts by the time of the start
        self._subject = f"{subject}.alive"
        self._heartbeat = heartbeat
        self._client = client
        self._on_change = on_change
        self._last_seen: dict[str, float] = {}
        self._owners: list[str] = []
        self._subscription: Subscription | None = None
        self._assign_partitions()

    @property
    def has_others(self) -> bool:
        """True if other processes are alive."""
        return bool(self._last_seen)

    @property
    def is_first(self) -> bool:
        """True if this process started before all others that are alive."""
        return all(self.name < name for name in self._last_seen)

    def owner_of(self, holder: str | None) -> str | None:
        """Return the other process that decides for a holder; ``None`` where this one does, or no holder is known."""
        if not self._last_seen or holder is None:
            return None
        owner = self._owners[crc32(holder.encode()) % _PARTITIONS]
        return None if owner == self.name else owner

    async def start(self) -> None:
        """Join, and wait for the answers of the others."""
        self._subscription = await self._client.subscribe_raw(self._subject, self._on_heartbeat)
        await self._client.flush()
        self._send_heartbeat()
        self.spawn(self._keep_alive())
        await asyncio.sleep(self._heartbeat.answer)  # live processes answer at once

    async def stop(self) -> None:
        """Leave, so that no more requests are forwarded to this process."""
        await super().stop()
        with suppress(nats.errors.Error):
            if self._subscription is not None:
                self._send_heartbeat(leaving=True)
                await self._client.flush(timeout=2)
                await self._client.unsubscribe_raw(self._subscription)

    def remove(self, name: str) -> None:
        """Count a process as gone: it has left, or did not answer a forwarded request."""
        if self._last_seen.pop(name, None) is not None:
            self._assign_partitions()

    def _on_heartbeat(self, _subject: bytes, _reply: bytes, _headers: bytes, body: bytes) -> None:
        heartbeat = json.loads(body)
        name = heartbeat["name"]
        if name == self.name:
            return
        if heartbeat.get("leaving"):
            self.remove(name)
            return
        new = name not in self._last_seen
        self._last_seen[name] = time.monotonic()
        if new:
            self._send_heartbeat()
            self._assign_partitions()

    async def _keep_alive(self) -> None:
        while True:
            begun = time.monotonic()
            await asyncio.sleep(self._heartbeat.interval)
            try:
                self._send_heartbeat()
                now = time.monotonic()
                if now - begun > self._heartbeat.timeout:
                    continue  # this process itself was stopped: the others' signs of life wait to be read
                oldest = now - self._heartbeat.timeout
                for name in [name for name, at in self._last_seen.items() if at < oldest]:
                    self.remove(name)
            except nats.errors.Error as error:
                _log.warning("no sign of life could be sent: %s", error)
            except Exception as error:  # noqa: BLE001 - sent again in a moment
                report("no sign of life could be sent", error, error)

    def _send_heartbeat(self, *, leaving: bool = False) -> None:
        body = {"name": self.name} | ({"leaving": True} if leaving else {})
        self._client.send(frame(self._subject.encode(), json.dumps(body).encode()))

    def _assign_partitions(self) -> None:
        names = (self.name, *self._last_seen)

        def weight(name: str, partition: int) -> bytes:
            return hashlib.blake2b(f"{name} {partition}".encode(), digest_size=8).digest()

        self._on_change(bool(self._last_seen))
        self._owners = [max(names, key=lambda name: weight(name, part)) for part in range(_PARTITIONS)]
