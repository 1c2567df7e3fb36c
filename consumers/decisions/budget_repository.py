"""Budgets and customers' guards, read from their subjects and cached with the subject's last sequence."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from config import topology
from domain.budgets.budget import Budget
from ledger.store.subject_tokens import token_of_id
from projections.engine.events import read_event

if TYPE_CHECKING:
    from ledger.store.log import Log, Recorded

_CACHED_STREAMS = 50_000
_CONCURRENT_READS = 8
StreamKey = tuple[str, str]
"""The key of a stream: (holder, currency) for the newest budget, (holder, currency.period) for an earlier one.

A customer's guard has no currency. A stream that is not cached has the key ("", "").
"""


class BudgetNotLoadedError(Exception):
    """A stream must be loaded before the command can be handled."""

    def __init__(self, key: StreamKey) -> None:
        super().__init__(key)
        self.key = key


@dataclass(slots=True, eq=False)
class BudgetStream:
    """A cached budget (``None`` for a guard) with its subject and the expected sequence of that subject."""

    key: StreamKey
    subject: str
    budget: Budget | None
    last: int
    own: bool = False
    """True where this process wrote the last event."""
    unstored: int = 0
    """The number of drafts that are not stored yet."""


class BudgetRepository:
    """Loads and caches streams; ``forget`` a stream after a conflict or an append with an unknown outcome."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.opened_by_others: set[StreamKey] = set()
        """Streams with a next period that another decider has opened: read that period before opening it."""
        self._cache: dict[StreamKey, BudgetStream] = {}
        self._reading = asyncio.Semaphore(_CONCURRENT_READS)  # more reads at once would time out
        self.touched: list[BudgetStream] = []
        """The streams that the current command has written to."""

    def get(self, key: StreamKey) -> BudgetStream:
        """Return a cached stream.

        Raises:
            BudgetNotLoadedError: it is not cached; ``load`` it.

        """
        stream = self._cache.get(key)
        if stream is None:
            raise BudgetNotLoadedError(key)
        return stream

    async def load(self, key: StreamKey) -> None:
        """Read a stream into the cache."""
        async with self._reading:
            self._cache[key] = await self._read(key)
        if len(self._cache) > _CACHED_STREAMS:
            oldest = next((key for key, stream in self._cache.items() if not stream.unstored), None)
            if oldest is not None:
                del self._cache[oldest]

    def forget(self, stream: BudgetStream) -> None:
        """Remove a stream from the cache."""
        if self._cache.get(stream.key) is stream:
            del self._cache[stream.key]

    async def _read(self, key: StreamKey) -> BudgetStream:
        holder, currency = key
        if not currency:
            subject = f"{topology.CUSTOMER_SUBJECT}.{token_of_id(holder)}"
            newest = await self._log.last(subject)
            return BudgetStream(key, subject, None, newest.position if newest else 0)
        if "." in currency:
            subject = subject_of(holder, *currency.split(".", 1))
        else:
            newest = await self._log.last(subject_of(holder, currency, "*"))
            if newest is None:
                return BudgetStream(key, "", None, 0)
            subject = newest.subject
        stored = await self._log.read_subject(subject)
        return BudgetStream(key, subject, budget_of(stored) if stored else None, stored[-1].position if stored else 0)


def budget_of(stored: list[Recorded]) -> Budget:
    """Return the budget after the events of its subject, oldest first."""
    events = [read_event(recorded) for recorded in stored]
    return Budget.from_records([(event.body, event.time) for event in events])


def subject_of(holder: str, currency: str, period: str) -> str:
    """Return the subject of a budget."""
    return f"{topology.BUDGET_SUBJECT}.{token_of_id(holder)}.{currency}.{period}"


def currency_of(subject: str) -> str:
    """Return the currency in the subject of a budget."""
    return subject.rsplit(".", 2)[1]
