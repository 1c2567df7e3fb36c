"""The end of the log, read once for all who follow it in one process."""

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
    """Keeps the newest events. Run it; whoever has read up to about where it begins goes on with what it keeps.

    Nine followers of one log would have the server send, and this process take apart, each event nine times.
    """

    def __init__(self, client: LedgerClient, log: Log, name: str) -> None:
        self._client, self._log, self._name = client, log, name
        self._events: list[Recorded] = []
        self._bytes = 0
        self._first_position: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._more = asyncio.Event()
        self._failed: BaseException | None = None

    async def run(self) -> None:
        """Read on for ever.

        Raises:
            LostEventsError: the log is not what it was; whoever follows is told the same.

        """
        try:
            end = await self._end()
            self._first_position.set_result(end)
            while True:
                try:
                    await self._follow(end)
                except LedgerError:
                    raise
                except Exception as error:  # noqa: BLE001 - an error of ours delays those who follow, and ends nothing
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
        anchor = ReadCursor(last.position, digest_of(last.data)) if last is not None else ReadCursor(end)
        async for batch in Follower(self._client, self._log, self._name, anchor).batches():
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
        gone = 0
        while len(self._events) - gone > _KEPT_EVENTS or self._bytes > _KEPT_BYTES:
            self._bytes -= len(self._events[gone].data)
            gone += 1
        del self._events[:gone]

    async def start_position(self) -> int:
        """The position behind which it keeps every event."""
        return self._events[0].position - 1 if self._events else await asyncio.shield(self._first_position)

    async def batches(self, position: int) -> AsyncIterator[list[Recorded]]:
        """What comes behind a position, in order; ends where this is not kept any more.

        Raises:
            LostEventsError: the log is not what it was.

        """
        while position >= await self.start_position():
            more = self._more
            newest = self._events[-1].position if self._events else position
            if newest > position:
                batch = self._events[position - newest :]  # positions have no gaps
                position = newest
                yield batch
            elif self._failed is not None:
                raise self._failed
            else:
                await more.wait()

    def _notify(self) -> None:
        more, self._more = self._more, asyncio.Event()
        more.set()
