"""The work of one decision: the streams that it reads from the cache, and its events as drafts."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple, Protocol

from consumers.decisions.budget_repository import BudgetStream, subject_of, subject_of_stream
from domain.commands import action_id_of
from domain.decisions.streams import BudgetKey, BudgetPeriod, CustomerStream, FlagStream, PolicyStream, RefusalStream
from domain.events import decisions
from domain.events.decisions import Record
from domain.events.flags import FlagEvent
from domain.serialization import encode
from ledger.store.cloudevents import encode_event

if TYPE_CHECKING:
    from collections.abc import Container
    from datetime import datetime

    from consumers.decisions.state.follower import DecisionState
    from domain.budgets.budget import Budget
    from domain.decisions.decision import Decision
    from domain.decisions.streams import LoadableStream, NewEvent


class PendingDraft(NamedTuple):
    """An event to append to a stream; its expected sequence is set when it is sent."""

    stream: BudgetStream
    subject: str
    data: bytes
    begins: bool
    """True where the subject must be empty."""
    record: Record | FlagEvent


class CachedStreams(Protocol):
    """The streams of the decider's cache, or those of a log that is read again."""

    @property
    def opened_by_others(self) -> Container[LoadableStream]:
        """Budgets whose next period may exist, although it is not the newest one."""

    def get(self, key: LoadableStream) -> BudgetStream:
        """Return a stream; raises ``StreamNotLoadedError`` where it must be loaded first."""

    def forget(self, stream: BudgetStream) -> None:
        """Remove a stream from the cache."""


class UnitOfWork:
    """The cached streams that one decision reads; ``drafts`` turns its events into drafts on them."""

    __slots__ = ("_budgets", "_read", "_state")

    def __init__(self, budgets: CachedStreams, state: DecisionState) -> None:
        self._budgets = budgets
        self._state = state
        self._read: list[BudgetStream] = []

    def newest(self, key: BudgetKey) -> Budget | None:
        """Return the newest budget of a holder in a currency; see ``LoadedStreams``."""
        stream = self._budgets.get(key)
        self._read.append(stream)
        return stream.budget

    def of_period(self, period: BudgetPeriod) -> Budget | None:
        """Return the budget of a period where it is not the newest one; see ``LoadedStreams``."""
        return self._budgets.get(period).budget

    def may_exist(self, key: BudgetKey) -> bool:
        """Return whether another decider may have opened the next period; see ``LoadedStreams``."""
        return key in self._budgets.opened_by_others

    def is_read(self, key: BudgetKey) -> bool:
        """Return whether the decision state has read all events of a budget; see ``LoadedStreams``."""
        stream = self._budgets.get(key)
        return not stream.unstored and stream.last <= self._state.position

    def customer_is_known(self, customer_id: str) -> bool:
        """Return whether the decision state has read all that others gave to a customer; see ``LoadedStreams``."""
        stream = self._budgets.get(CustomerStream(customer_id))
        return stream.own or stream.last <= self._state.position

    def last_position(self, stream: FlagStream | PolicyStream) -> int:
        """Return the position of the last event of a stream; it is loaded anew for each decision."""
        found = self._budgets.get(stream)
        self._read.append(found)
        return found.last

    def drafts(self, decision: Decision) -> list[PendingDraft]:
        """Return the events of a decision as drafts, and let the cached streams go on from them."""
        drafts = [self._draft(event, decision.now) for event in decision.events]
        for key, budget in decision.changed.items():
            stream = self._budgets.get(key)
            if stream.budget is None or stream.budget.period != budget.period:
                stream.subject = subject_of(key.holder, key.currency, budget.period)
            stream.budget = budget
        for stream in self._read:
            if isinstance(stream.key, (FlagStream, PolicyStream)):
                self._budgets.forget(stream)
        return drafts

    def abandon(self) -> None:
        """Forget the streams that the decision has read, because it may have changed them without a result."""
        for stream in self._read:
            self._budgets.forget(stream)

    def _draft(self, event: NewEvent, now: datetime) -> PendingDraft:
        place, begins = event.stream, event.begins
        match place:
            case BudgetPeriod() if event.reopens:
                stream = self._budgets.get(place)
                subject = stream.subject
                self._budgets.forget(stream)
            case BudgetPeriod():
                stream = self._budgets.get(BudgetKey(place.holder, place.currency))
                is_newest = stream.budget is not None and stream.budget.period == place.period
                subject = stream.subject if is_newest else subject_of(place.holder, place.currency, place.period)
            case RefusalStream():
                subject = subject_of_stream(place)
                stream = BudgetStream(None, subject, None, 0)
            case CustomerStream() | FlagStream() | PolicyStream():
                stream = self._budgets.get(place)
                subject, begins = stream.subject, not stream.last and not stream.unstored
        stream.unstored += 1
        return PendingDraft(stream, subject, stored_form(event.record, now), begins, event.record)


def stored_form(record: Record | FlagEvent, now: datetime) -> bytes:
    """Return a record as an event to append. Its id follows from its content, so that a retry has the same id."""
    name = decisions.TYPE_OF[type(record)]
    short = name[11:-3]  # without "resolution." and ".v1"
    match record:
        case decisions.BudgetOpened() | decisions.BudgetClosed():
            again = f"\n{record.source}\n{record.request_id}" if record.reopened else ""
            currency = record.currency if isinstance(record, decisions.BudgetOpened) else record.spent.currency
            digest = _digest(f"{record.holder}\n{record.period}\n{currency}{again}")
        case decisions.BudgetTransferred() | decisions.BudgetDrawn():
            digest = _digest(f"{record.source}\n{record.request_id}\n{record.holder}")
        case _:  # the digits of the action's id
            digest = action_id_of(record.source, record.request_id)[4:]
    return encode_event(decisions.LEDGER_SOURCE, f"{short}-{digest}", name, now, encode(record))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
