"""The registry of sources as a role follows it: loaded at the start, then changed by each event of the registry."""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING

from config import topology
from domain.events.administration import SourceEvent
from domain.source_registry import SourceRegistry
from ledger.store.subscription import Follower, ReadCursor
from projections.engine.events import read_event, types_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ledger.nats.client import LedgerClient
    from ledger.store.log import Log, Recorded

_TYPES = types_of(SourceEvent)
_FRESH_SECONDS = 0.05
"""A flood of refused events causes no more than one reading in this time; `follow` has new events within it, too."""


class SourceWatch:
    """The registry, kept up to date without a request for each event or command that it is asked about."""

    def __init__(self, log: Log, *, admits_unregistered: bool = True) -> None:
        self._log = log
        self._position = 0
        self._read_at = -math.inf
        self._reading = asyncio.Lock()
        self.registry = SourceRegistry(admits_others=admits_unregistered)

    async def read(self) -> None:
        """Read the registry to its end.

        Raises:
            UnavailableError: the server does not answer.

        """
        async with self._reading:
            async for batch in self._log.subject_batches(topology.SOURCES_SUBJECT, self._position):
                self._apply(batch)
        self._read_at = time.monotonic()

    async def read_again(self) -> None:
        """Read the registry to its end before a refusal, unless that was done a moment ago; raises like ``read``."""
        if time.monotonic() - self._read_at > _FRESH_SECONDS:
            await self.read()

    async def follow(self, client: LedgerClient) -> None:
        """Apply each new event of the registry as soon as it is stored, for ever."""
        cursor = ReadCursor(self._position)
        follower = Follower(client, self._log, "sources", cursor, gaps=True, subject=topology.SOURCES_SUBJECT)
        async for batch in follower.batches():
            self._apply(batch)

    def _apply(self, batch: Sequence[Recorded]) -> None:
        for recorded in batch:
            if recorded.position > self._position:
                event = read_event(recorded, _TYPES).body
                assert isinstance(event, SourceEvent)
                self.registry.apply(event)
                self._position = recorded.position
