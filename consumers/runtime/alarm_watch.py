"""The watch that ends all writing roles once the seal's alarm is on."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from ledger.background_service import BackgroundService, restarting
from ledger.errors import UnavailableError
from ledger.transparency import alarm

if TYPE_CHECKING:
    from ledger.nats.client import LedgerClient


class AlarmWatch(BackgroundService):
    """A service that fails once the alarm is on, so that the roles of its process stop writing."""

    def __init__(self, client: LedgerClient) -> None:
        super().__init__("watch for the alarm")
        self._client = client

    async def start(self) -> None:
        """Check that the alarm is off, then watch it.

        Raises:
            AlarmError: the alarm is on.

        """
        if found := await alarm.read_alarm(self._client):
            raise found.error()
        self.spawn(restarting("the watch for the alarm", self._watch))

    async def _watch(self) -> None:
        notified = asyncio.Event()
        subscription = await self._client.subscribe_raw(alarm.SUBJECT, lambda *_: notified.set())
        try:
            while not self.failed.done():
                with suppress(UnavailableError):
                    if found := await alarm.read_alarm(self._client):
                        self.fail(found.error())
                with suppress(TimeoutError):
                    await asyncio.wait_for(notified.wait(), 5)
        finally:
            with suppress(Exception):
                await self._client.unsubscribe_raw(subscription)
