"""Streams that decisions depend on, read from their subjects and cached with the subject's last sequence."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from config import topology
from domain.budgets.budget import Budget
from domain.decisions.known import KnownFlag
from domain.decisions.streams import (
    BudgetKey,
    BudgetPeriod,
    CustomerStream,
    FlagStream,
    LoadableStream,
    OrderStream,
    PolicyStream,
    RefusalStream,
    StreamNotLoadedError,
)
from domain.events.flags import FlagRaised
from ledger.store.subject_tokens import token_of_id
from projections.engine.events import UnknownEventError, read_event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ledger.store.log import Log, Recorded

_CACHED_STREAMS = 50_000
_CONCURRENT_READS = 8


@dataclass(slots=True, eq=False)
class BudgetStream:
    """A stream with the expected sequence of its subject, and with its budget where it has one.

    The stream of a ``BudgetKey`` is that of the holder's newest budget. A stream that is never cached has no key.
    """

    key: LoadableStream | None
    subject: str
    budget: Budget | None
    last: int
    own: bool = False
    """True where this process wrote the last event."""
    unstored: int = 0
    """The number of drafts that are not stored yet."""
    read_to: int = 0
    """The position of the last event that the state has read meanwhile, of this process or of another one."""
    flag: KnownFlag | None = None
    """The flag of a ``FlagStream``."""


class _Cache(dict[LoadableStream, BudgetStream]):
    def __missing__(self, key: LoadableStream) -> BudgetStream:
        raise StreamNotLoadedError(key)


class BudgetRepository:
    """Loads and caches streams; ``forget`` a stream after a conflict or an append with an unknown outcome."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.opened_by_others: set[LoadableStream] = set()
        """Budgets whose next period another decider has opened: read that period before opening it."""
        self._cache = _Cache()
        self.get: Callable[[LoadableStream], BudgetStream] = self._cache.__getitem__
        """Returns a cached stream; raises ``StreamNotLoadedError`` where it must be loaded first."""
        self._reading = asyncio.Semaphore(_CONCURRENT_READS)  # more reads at once would time out
        self._by_holder: dict[str, BudgetStream] = {}  # of holders' newest budgets, by subject without the period
        self._read_meanwhile: dict[str, int] = {}  # the newest position of the budgets that are being loaded

    async def load(self, key: LoadableStream) -> None:
        """Read a stream into the cache."""
        async with self._reading:
            stream = await (self._read_budget(key) if isinstance(key, BudgetKey) else self._read(key))
        self._cache[key] = stream
        if len(self._cache) > _CACHED_STREAMS:
            oldest = next((stream for stream in self._cache.values() if not stream.unstored), None)
            if oldest is not None:
                self.forget(oldest)

    def forget(self, stream: BudgetStream) -> None:
        """Remove a stream from the cache."""
        if stream.key is not None and self._cache.get(stream.key) is stream:
            del self._cache[stream.key]
            if isinstance(stream.key, BudgetKey):
                self._by_holder.pop(_subject_of_holder(stream.key), None)

    def note_read(self, batch: Sequence[Recorded]) -> None:
        """Forget budgets that others have written to; a decision may read a budget without writing to it."""
        for recorded in batch:
            holder = recorded.subject.rpartition(".")[0]
            stream = self._by_holder.get(holder)
            if stream is not None and stream.unstored:
                stream.read_to = recorded.position
            elif stream is not None and recorded.position > stream.last:
                self.forget(stream)
            if holder in self._read_meanwhile:
                self._read_meanwhile[holder] = recorded.position

    async def _read_budget(self, key: BudgetKey) -> BudgetStream:
        """Read a holder's newest budget, again where the log was read beyond it in the meantime."""
        holder = _subject_of_holder(key)
        while True:
            self._read_meanwhile[holder] = 0
            stream = await self._read(key)
            if self._read_meanwhile.pop(holder, 0) <= stream.last:
                self._by_holder[holder] = stream
                return stream

    async def _read(self, key: LoadableStream) -> BudgetStream:
        match key:
            case BudgetKey():
                newest = await self._log.last(subject_of(key.holder, key.currency, "*"))
                if newest is None:
                    return BudgetStream(key, "", None, 0)
                subject = newest.subject
            case BudgetPeriod():
                subject = subject_of(key.holder, key.currency, key.period)
            case FlagStream():
                stored = await self._log.read_subject(subject := subject_of_stream(key))
                last = stored[-1].position if stored else 0
                return BudgetStream(key, subject, None, last, flag=await known_flag(self._log, stored))
            case CustomerStream() | OrderStream() | PolicyStream():
                subject = subject_of_stream(key)
                newest = await self._log.last(subject)
                return BudgetStream(key, subject, None, newest.position if newest else 0)
        stored = await self._log.read_subject(subject)
        return BudgetStream(key, subject, budget_of(stored) if stored else None, stored[-1].position if stored else 0)


class ReadableLog(Protocol):
    """A log with events at positions."""

    async def at(self, position: int) -> Recorded | None:
        """Return the event at a position, or ``None``."""


async def known_flag(log: ReadableLog, stored: Sequence[Recorded]) -> KnownFlag | None:
    """Return a flag from the events of its subject, with the givers that its evidence names; ``None``: none."""
    raised = [body for body in (read_event(one).body for one in stored) if isinstance(body, FlagRaised)]
    if not raised:
        return None
    givers = set[str]()
    for position in raised[-1].evidence:
        recorded = await log.at(position)
        if recorded is not None:
            givers.update(_givers_in(recorded))
    return KnownFlag(raised[-1].about, frozenset(givers))


def _givers_in(recorded: Recorded) -> Iterator[str]:
    try:
        body = read_event(recorded).body
    except UnknownEventError:
        return
    for field in ("decided_by", "on_behalf_of", "granted_by", "published_by"):
        if isinstance(name := getattr(body, field, None), str):
            yield name


def budget_of(stored: list[Recorded]) -> Budget:
    """Return the budget after the events of its subject, oldest first."""
    events = [read_event(recorded) for recorded in stored]
    return Budget.from_records([(event.body, event.time) for event in events])


def _subject_of_holder(key: BudgetKey) -> str:
    return f"{topology.BUDGET_SUBJECT}.{token_of_id(key.holder)}.{key.currency}"


def subject_of(holder: str, currency: str, period: str) -> str:
    """Return the subject of a budget."""
    return f"{topology.BUDGET_SUBJECT}.{token_of_id(holder)}.{currency}.{period}"


def subject_of_stream(stream: CustomerStream | OrderStream | FlagStream | PolicyStream | RefusalStream) -> str:
    """Return the subject of a stream that has no budget."""
    match stream:
        case CustomerStream():
            return f"{topology.CUSTOMER_SUBJECT}.{token_of_id(f'customer:{stream.customer_id}')}"
        case OrderStream():
            return f"{topology.ORDER_SUBJECT}.{token_of_id(f'order:{stream.order_id}')}"
        case FlagStream():
            return f"{topology.FLAG_SUBJECT}.{token_of_id(stream.flag_id)}"
        case RefusalStream():
            digest = hashlib.sha256(f"{stream.source} {stream.request_id}".encode()).hexdigest()
            return f"{topology.REFUSED_SUBJECT}.{digest[:32]}"
        case PolicyStream():
            return topology.POLICY_SUBJECT


def currency_of(subject: str) -> str:
    """Return the currency in the subject of a budget."""
    return subject.rsplit(".", 2)[1]
