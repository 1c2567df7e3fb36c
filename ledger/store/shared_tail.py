"""The end of the log, read once for all followers in one process."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from ledger.errors import LedgerError, UnavailableError
from ledger.nats.incidents import report
from ledger.store.log import digest_of
from ledger.store.subscription import Follower, ReadCursor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ledger.nats.client import LedgerClient
    from ledger.store.log import Log, Recorded

_log = logging.getLogger(__name__)
_KEPT_EVENTS, _KEPT_BYTES = 20_000, 16 * 2**20
_PAUSE_SECONDS = 0.3


class SharedTail:
    """Keeps the newest events for followers that have read up to about its beginning. Run ``run`` in a task.

    With nine followers of one log the server would otherwise send, and this process decode, each event nine times.
    """

    def __init__(self, client: LedgerClient, log: Log, name: str) -> None:
        self._client, self._log, self._name = client, log, name
        self._events: list[Recorded] = []
        self._bytes = 0
        self._first_position: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._more_event = asyncio.Event()
        self._failed: BaseException | None = None

    async def run(self) -> None:
        """Read the log's end until cancelled.

        Raises:
            LostEventsError: the log has changed; followers get the same error.
        """
        try:
            end = await self._end()
            self._first_position.set_result(end)
            while True:
                try:
                    await self._follow(end)
                except LedgerError:
                    raise
                except Exception as error:  # noqa: BLE001 - a programming error delays followers, and ends nothing
                    report("the end of the log is read again", error, error)
                    await asyncio.sleep(_PAUSE_SECONDS)
        except BaseException as error:
            self._failed = error
            if not self._first_position.done():
                self._first_position.set_exception(error)
            self._notify()
            raise

    async def _follow(self, end: int) -> None:
        last = self._events[-1] if self._events else None
        cursor = ReadCursor(last.position, digest_of(last.data)) if last is not None else ReadCursor(end)
        async for batch in Follower(self._client, self._log, self._name, cursor).batches():
            self._keep(batch)
            self._notify()

    async def _end(self) -> int:
        while True:
            try:
                return await self._log.last_position()
            except UnavailableError as error:
                _log.debug("%s waits for the server: %s", self._name, error)
                await asyncio.sleep(_PAUSE_SECONDS)

    def _keep(self, batch: list[Recorded]) -> None:
        self._events += batch
        self._bytes += sum([len(event.data) for event in batch])
        if len(self._events) <= 2 * _KEPT_EVENTS and self._bytes <= 2 * _KEPT_BYTES:
            return
        dropped = 0
        while len(self._events) - dropped > _KEPT_EVENTS or self._bytes > _KEPT_BYTES:
            self._bytes -= len(self._events[dropped].data)
            dropped += 1
        del self._events[:dropped]

    async def start_position(self) -> int:
        """Return the position after which every event is kept."""
        return self._events[0].position - 1 if self._events else await asyncio.shield(self._first_position)

    async def batches(self, position: int) -> AsyncIterator[list[Recorded]]:
        """Yield events after a position, in order; end when they are no longer kept.

        Raises:
            LostEventsError: the log has changed.
        """
        while position >= await self.start_position():
            more_event = self._more_event
            newest = self._events[-1].position if self._events else position
            if newest > position:
                batch = self._events[position - newest :]  # positions have no gaps
                position = newest
                yield batch
            elif self._failed is not None:
                raise self._failed
            else:
                await more_event.wait()

    def _notify(self) -> None:
        more_event, self._more_event = self._more_event, asyncio.Event()
        more_event.set()
