"""Ends whoever writes as soon as the alarm is on."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from consumers.runtime.background_service import fails_with, keep_going
from ledger.errors import UnavailableError
from ledger.transparency import alarm

if TYPE_CHECKING:
    from ledger.nats.client import LedgerClient


class AlarmWatch:
    """Fails as soon as the alarm is on; whoever writes ends with it."""

    def __init__(self, client: LedgerClient) -> None:
        self._client = client
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Refuse where it is on already; then watch.

        Raises:
            AlarmError: it is on.

        """
        if found := await alarm.look(self._client):
            raise found.error()
        self._task = asyncio.create_task(keep_going("the watch for the alarm", self._watch))
        self._task.add_done_callback(fails_with(self.failed, "watch for the alarm"))

    async def stop(self) -> None:
        """Watch no longer."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self) -> None:
        rung = asyncio.Event()
        bell = await self._client.subscribe_raw(alarm.SUBJECT, lambda *_: rung.set())
        try:
            while not self.failed.done():
                with suppress(UnavailableError):
                    if found := await alarm.look(self._client):
                        self.failed.set_exception(found.error())
                        self.failed.exception()  # a role that fails as it starts never waits for it
                with suppress(TimeoutError):
                    await asyncio.wait_for(rung.wait(), 5)
        finally:
            with suppress(Exception):
                await self._client.stop_pouring(bell)
