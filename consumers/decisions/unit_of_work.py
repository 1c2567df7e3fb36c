"""The work of one decision: the streams that it reads from the cache, and its events as drafts."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Protocol

import msgspec

from consumers.decisions.budget_repository import BudgetStream, subject_of, subject_of_stream
from consumers.decisions.state.actions import StateAction
from consumers.decisions.state.follower import DecisionState
from domain.commands import action_id_of
from domain.decisions.streams import (
    BudgetKey,
    BudgetPeriod,
    CustomerStream,
    FlagStream,
    OrderStream,
    PolicyStream,
    RefusalStream,
)
from domain.events import decisions
from domain.events.decisions import Record
from domain.events.flags import FlagEvent
from domain.serialization import encode
from ledger.store.cloudevents import encode_event, with_traceparent

if TYPE_CHECKING:
    from collections.abc import Container
    from datetime import datetime

    from domain.budgets.budget import Budget
    from domain.decisions.decision import Decision
    from domain.decisions.known import KnownFlag
    from domain.decisions.streams import LoadableStream, NewEvent


class PendingDraft(msgspec.Struct, eq=False):
    """An event to append to a stream; its expected sequence is set when it is sent."""

    stream: BudgetStream
    subject: str
    data: bytes
    begins: bool
    """True where the subject must be empty."""
    record: Record | FlagEvent
    row: StateAction | None = None
    """The action of the event; it gets its position when it is stored."""
    expect_none_of: str = ""
    """After the opening of a holder's first budget: the subjects of all its periods, none of which has an event."""


class CachedStreams(Protocol):
    """The streams of the decider's cache, or those of a log that is read again."""

    @property
    def opened_by_others(self) -> Container[LoadableStream]:
        """Budgets whose next period may exist, although it is not the newest one."""

    def get(self, key: LoadableStream, /) -> BudgetStream:
        """Return a stream; raises ``StreamNotLoadedError`` where it must be loaded first."""

    def forget(self, stream: BudgetStream) -> None:
        """Remove a stream from the cache."""


class UnitOfWork(msgspec.Struct, eq=False):
    """The cached streams that one decision reads; ``drafts`` turns its events into drafts on them."""

    budgets: CachedStreams
    state: DecisionState
    read: list[BudgetStream] = []

    def newest(self, key: BudgetKey) -> Budget | None:
        """Return the newest budget of a holder in a currency; see ``LoadedStreams``."""
        stream = self.budgets.get(key)
        self.read.append(stream)
        return stream.budget

    def of_period(self, period: BudgetPeriod) -> Budget | None:
        """Return the budget of a period where it is not the newest one; see ``LoadedStreams``."""
        stream = self.budgets.get(period)
        self.read.append(stream)
        return stream.budget

    def may_exist(self, key: BudgetKey) -> bool:
        """Return whether another decider may have opened the next period; see ``LoadedStreams``."""
        return key in self.budgets.opened_by_others

    def is_read(self, key: BudgetKey) -> bool:
        """Return whether the decision state has read all events of a budget; see ``LoadedStreams``."""
        stream = self.budgets.get(key)
        return not stream.unstored and stream.last <= self.state.position

    def is_known(self, stream: BudgetKey | CustomerStream | OrderStream) -> bool:
        """Return whether the decision state has read all that others wrote to a stream; see ``LoadedStreams``."""
        found = self.budgets.get(stream)
        return found.own or found.last <= self.state.position

    def last_position(self, stream: PolicyStream) -> int:
        """Return the position of the last event of a stream; it is loaded anew for each decision."""
        found = self.budgets.get(stream)
        self.read.append(found)
        return found.last

    def flag(self, stream: FlagStream) -> KnownFlag | None:
        """Return a flag; it is loaded anew for each decision."""
        found = self.budgets.get(stream)
        self.read.append(found)
        return found.flag

    def drafts(self, decision: Decision, traceparent: bytes = b"") -> list[PendingDraft]:
        """Return the events of a decision as drafts, and let the cached streams go on from them.

        ``traceparent`` is the trace that caused them, or empty.
        """
        stream_of, drafts = self.budgets.get, list[PendingDraft]()
        following = ""
        for event in decision.events:
            place, begins, none_of, following = event.stream, event.begins, following, ""
            if type(place) is BudgetPeriod and not event.reopens:
                stream = self._cached(event)
                if begins and stream.budget is None:  # no closing of an earlier period contends with others
                    following = subject_of(place.holder, place.currency, "*")
                is_newest = stream.budget is not None and stream.budget.period == place.period
                subject = stream.subject if is_newest else subject_of(place.holder, place.currency, place.period)
            else:
                stream, subject, begins = self._place_of(event)
            stream.unstored += 1
            data = stored_form(event.record, decision.now)
            if traceparent:
                data = with_traceparent(data, traceparent)
            drafts.append(PendingDraft(stream, subject, data, begins, event.record, expect_none_of=none_of))
        for key, budget in decision.changed.items():
            stream = stream_of(key)
            if stream.budget is not budget:
                if stream.budget is None or stream.budget.period != budget.period:
                    stream.subject = subject_of(key.holder, key.currency, budget.period)
                stream.budget = budget
        for stream in self.read:
            if isinstance(stream.key, (FlagStream, PolicyStream)):
                self.budgets.forget(stream)
        return drafts

    def has_read_all(self, decision: Decision) -> bool:
        """Return whether the state has read every event of other deciders on the streams of a decision's events.

        Otherwise one of these events may be the first answer to the same request, given by another decider.
        """
        for event in decision.events:
            if type(event.stream) is not RefusalStream:
                stream = self._cached(event)
                if not stream.own and stream.last > self.state.position:
                    return False
        return True

    def _cached(self, event: NewEvent) -> BudgetStream:
        place = event.stream
        if type(place) is BudgetPeriod and not event.reopens:
            return self.budgets.get(BudgetKey(place.holder, place.currency))
        assert not isinstance(place, RefusalStream)
        return self.budgets.get(place)

    def abandon(self) -> None:
        """Forget the streams that the decision has read, because it may have changed them without a result."""
        for stream in self.read:
            self.budgets.forget(stream)

    def _place_of(self, event: NewEvent) -> tuple[BudgetStream, str, bool]:
        """Return the stream and subject of an event, and whether the subject must be empty."""
        place = event.stream
        match place:
            case BudgetPeriod():  # it is opened again
                stream = self.budgets.get(place)
                self.budgets.forget(stream)
                return stream, stream.subject, event.begins
            case RefusalStream():
                subject = subject_of_stream(place)
                return BudgetStream(None, subject, None, 0), subject, event.begins
            case CustomerStream() | OrderStream() | FlagStream() | PolicyStream():
                stream = self.budgets.get(place)
                return stream, stream.subject, not stream.last and not stream.unstored


_NAMES = {cls: (name, name.removeprefix("resolution.").removesuffix(".v1")) for cls, name in decisions.TYPE_OF.items()}
"""Class of record -> its type, and the beginning of its events' ids."""


def stored_form(record: Record | FlagEvent, now: datetime) -> bytes:
    """Return a record as an event to append. Its id follows from its content, so that a retry has the same id."""
    name, short = _NAMES[type(record)]
    if isinstance(record, _BUDGETS_OWN):
        digest = hashlib.sha256(_identity(record).encode()).hexdigest()[:32]
    else:  # the digits of the action's id
        digest = action_id_of(record.source, record.request_id)[4:]
    return encode_event(decisions.LEDGER_SOURCE, f"{short}-{digest}", name, now, encode(record))


type _BudgetRecord = (
    decisions.BudgetOpened | decisions.BudgetClosed | decisions.BudgetTransferred | decisions.BudgetDrawn
)
_BUDGETS_OWN = (
    decisions.BudgetOpened,
    decisions.BudgetClosed,
    decisions.BudgetTransferred,
    decisions.BudgetDrawn,
)
"""The records of which one decision may write several, one a budget."""


def _identity(record: _BudgetRecord) -> str:
    if isinstance(record, (decisions.BudgetTransferred, decisions.BudgetDrawn)):
        return f"{record.source}\n{record.request_id}\n{record.holder}"
    again = f"\n{record.source}\n{record.request_id}" if record.reopened else ""
    currency = record.currency if isinstance(record, decisions.BudgetOpened) else record.spent.currency
    return f"{record.holder}\n{record.period}\n{currency}{again}"
