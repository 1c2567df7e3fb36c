"""Processes of one role on one ledger: which of them are alive, and which one works.

Each says that it is alive. Deciders share the holders: a holder belongs to the one with the highest hash (rendezvous
hashing). Of intakes the one that started first takes in, and the others stand by. They need not agree: where two think
that something is theirs, the expectations of what they append keep both right, only slower.
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


class Pace(NamedTuple):
    """Seconds between two signs of life, until one counts as gone, and to wait for the others at the start."""

    say: float
    gone: float
    answer: float


DECIDERS = Pace(say=0.5, gone=2.0, answer=0.05)
INTAKES = Pace(say=0.2, gone=1.0, answer=0.2)
"""Standbys wait for it to fail; a new one that is too quick takes over from a live one, which costs time alone."""


class Membership(BackgroundService):
    """The processes of one role on one ledger, as this one sees them."""

    def __init__(
        self,
        client: LedgerClient,
        on_change: Callable[[bool], None],
        subject: str = topology.DECIDERS_SUBJECT,
        pace: Pace = DECIDERS,
    ) -> None:
        """``on_change`` is told whether there are others, whenever one comes or goes."""
        super().__init__("membership")
        self.name = f"{int(time.time() * 1000):011x}{secrets.token_hex(4)}"  # in the order of their start
        self._alive = f"{subject}.alive"
        self._pace = pace
        self._client = client
        self._on_change = on_change
        self._seen: dict[str, float] = {}
        self._owners: list[str] = []
        self._door: Subscription | None = None
        self._divide()

    @property
    def others(self) -> bool:
        """Whether there are any."""
        return bool(self._seen)

    @property
    def is_first(self) -> bool:
        """Whether this one started before all others that are alive."""
        return all(self.name < name for name in self._seen)

    def owner_of(self, holder: str | None) -> str | None:
        """The other decider that decides for this holder; nobody, where this one does, or where none is known."""
        if not self._seen or holder is None:
            return None
        owner = self._owners[crc32(holder.encode()) % _PARTITIONS]
        return None if owner == self.name else owner

    async def start(self) -> None:
        """Say that this one is there, and listen who else is."""
        self._door = await self._client.subscribe_raw(self._alive, self._on_alive)
        await self._client.flush()
        self._say()
        self.spawn(self._keep_saying())
        await asyncio.sleep(self._pace.answer)  # those who are there answer at once

    async def stop(self) -> None:
        """Say goodbye, so that nothing more is sent here."""
        await super().stop()
        with suppress(nats.errors.Error):
            if self._door is not None:
                self._say(leaving=True)
                await self._client.flush(timeout=2)
                await self._client.unsubscribe_raw(self._door)

    def lost(self, name: str) -> None:
        """Count one as gone: it said goodbye, or did not take what was sent to it."""
        if self._seen.pop(name, None) is not None:
            self._divide()

    def _on_alive(self, _subject: bytes, _reply: bytes, _headers: bytes, body: bytes) -> None:
        told = json.loads(body)
        name = told["name"]
        if name == self.name:
            return
        if told.get("leaving"):
            self.lost(name)
            return
        new = name not in self._seen
        self._seen[name] = time.monotonic()
        if new:
            self._say()
            self._divide()

    async def _keep_saying(self) -> None:
        while True:
            await asyncio.sleep(self._pace.say)
            try:
                self._say()
                silent = [name for name, at in self._seen.items() if time.monotonic() - at > self._pace.gone]
                for name in silent:
                    self.lost(name)
            except nats.errors.Error as error:
                _log.warning("cannot say that this process is alive: %s", error)
            except Exception as error:  # noqa: BLE001 - said again in a moment
                report("a process could not say that it is alive", error, error)

    def _say(self, *, leaving: bool = False) -> None:
        told = {"name": self.name} | ({"leaving": True} if leaving else {})
        self._client.send(frame(self._alive.encode(), json.dumps(told).encode()))

    def _divide(self) -> None:
        names = (self.name, *self._seen)

        def lot(name: str, partition: int) -> bytes:
            return hashlib.blake2b(f"{name} {partition}".encode(), digest_size=8).digest()

        self._on_change(bool(self._seen))
        self._owners = [max(names, key=lambda name: lot(name, part)) for part in range(_PARTITIONS)]
