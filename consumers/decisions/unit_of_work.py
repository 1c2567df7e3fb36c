"""The work of one command: the budgets that it reads, the events that it writes, and its result."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING, NamedTuple, Self

from consumers.decisions.budget_repository import BudgetStream, subject_of
from consumers.decisions.responses import answer_of
from domain.budgets.budget import Budget
from domain.budgets.postings import opening, period_to_book
from domain.commands import RequestError, action_id_of
from domain.events import decisions
from domain.events.decisions import Record
from domain.events.flags import FlagEvent
from domain.periods import days_of
from domain.serialization import JsonObject, encode
from ledger.store.cloudevents import encode_event

if TYPE_CHECKING:
    from consumers.decisions.budget_repository import BudgetRepository, StreamKey
    from consumers.decisions.state.follower import DecisionState
    from domain.budgets.postings import RequestContext
    from domain.policy.model import Rules
    from ledger.store.log import Log

_NEAR_FUTURE = timedelta(days=1)  # more than any two time zones are apart


class NeedsCatchUpError(Exception):
    """The command needs state that may not have been read yet: read up to the end of the log, then retry."""


class NeedsIdlePipelineError(Exception):
    """The command needs events that are being stored now: retry when the pipeline is idle."""


class PendingDraft(NamedTuple):
    """An event to append to a stream; its expected sequence is set when it is sent."""

    stream: BudgetStream
    subject: str
    data: bytes
    begins: bool
    """True where the subject must be empty."""
    record: Record | FlagEvent


@dataclass(slots=True, eq=False)
class _Slot:
    """A budget that a command reads, with the events that must come before the first event on it."""

    stream: BudgetStream
    budget: Budget
    subject: str
    reopened: BudgetStream | None = None
    """The stream of the same period, closed before its end."""
    opening: list[tuple[str, Record, bool]] = field(default_factory=list)


class UnitOfWork:
    """One command's view of the state, and the events that it writes, in order.

    No budget changes before ``write``, so a preview is a unit that is dropped. A handler must refuse a command before
    its first ``write``.
    """

    def __init__(
        self,
        log: Log,
        state: DecisionState,
        budgets: BudgetRepository,
        cause: RequestContext,
        now: datetime,
        *,
        state_is_current: bool,
        history: bool = False,
    ) -> None:
        """``state_is_current``: the state was brought up to date for this command.

        ``history``: requests name their time, so a time may lie before the newest budget. Otherwise a budget lies in
        the future only where a clock once ran ahead; that budget is used.
        """
        self.log = log
        self.state = state
        self.cause = cause
        self.now = now
        self.state_is_current = state_is_current
        self.drafts: list[PendingDraft] = []
        self._budgets = budgets
        self._history = history
        self._slots: dict[StreamKey, _Slot] = {}

    def budget(self, holder: str, rules: Rules, currency: str | None = None, *, late: bool = False) -> Budget:
        """Return the holder's budget of the current period.

        With ``late``, return the newest budget where that one is later: a fact is posted late, and a past period is
        never opened for it.

        Raises:
            RequestError: in history mode, a later period is open already.
            BudgetNotLoadedError: the budget must be loaded first.

        """
        key = (holder, currency or rules.policy.currency)
        slot = self._slots.get(key)
        if slot is None:
            slot = self._slots[key] = self._slot(key, rules, late=late)
        return slot.budget

    def opens(self, budget: Budget) -> bool:
        """Return whether the first event on a budget of this unit would open it."""
        return bool(self._slots[budget.holder, budget.currency].opening)

    def require_read(self, budget: Budget) -> None:
        """Require that the decision state has read all events of a budget of this unit.

        Raises:
            NeedsIdlePipelineError: it has not.

        """
        stream = self._slots[budget.holder, budget.currency].stream
        if stream.unstored or stream.last > self.state.position:
            raise NeedsIdlePipelineError

    def customer_stream(self, customer_id: str) -> BudgetStream:
        """Return the stream that guards a customer's cap.

        Raises:
            BudgetNotLoadedError: the stream must be loaded first.
            NeedsCatchUpError: another decider gave to this customer, and the amount is not known yet.

        """
        stream = self._budgets.get((f"customer:{customer_id}", ""))
        if not stream.own and stream.last > self.state.position:
            raise NeedsCatchUpError
        return stream

    def _slot(self, key: StreamKey, rules: Rules, *, late: bool) -> _Slot:
        stream = self._budgets.get(key)
        holder, currency = key
        before = stream.budget
        try:
            period, back = period_to_book(rules, before, self.state.policies, self.now), False
        except ValueError as error:
            assert before is not None
            if self._history and not late:
                message = f"{error}: {holder} has a budget for {before.period}"
                raise RequestError("clock", message, "time") from None
            period, back = (before.period, False) if late else self._period_ahead(rules, before)
        if before is not None and before.period == period:
            return _Slot(stream, before, stream.subject)
        check_period = back or key in self._budgets.opened_by_others
        same_period = self._budgets.get((holder, f"{currency}.{period}")) if check_period else None
        again = same_period.budget if same_period is not None else None
        role = self._role_of(holder, rules)
        opened, closed = opening(rules, holder, period, before, self.cause, role, currency, back=back, again=again)
        if again is None:
            budget = Budget.open(opened, self.now)
        else:
            budget = copy.deepcopy(again)  # the command may still be refused
            budget.record(opened, self.now)
        slot = _Slot(stream, budget, subject_of(holder, currency, period))
        slot.reopened = same_period if again is not None else None
        if closed is not None:
            slot.opening.append((stream.subject, closed, False))
        slot.opening.append((slot.subject, opened, True))
        return slot

    def _role_of(self, holder: str, rules: Rules) -> str | None:
        kind, _, name = holder.partition(":")
        agent = self.state.staff.agent(name, rules.policy.default_role) if kind == "agent" else None
        return agent.role if agent else None

    def _period_ahead(self, rules: Rules, before: Budget) -> tuple[str, bool]:
        """Return the period to use where the newest budget's has not begun, and whether to go back to that period.

        Another decider's clock may be slightly ahead: then its budget is used. A budget that was opened far ahead is
        closed, and opened again when its period begins.
        """
        begins = datetime.combine(days_of(before.period)[0], time(), UTC)
        if self._history or begins - self.now < _NEAR_FUTURE:
            return before.period, False
        return rules.period_at(self.now, None), True

    def write(self, budget: Budget, record: Record) -> None:
        """Apply a record to a budget and draft its event, after the events that open the budget."""
        slot = self._slots[budget.holder, budget.currency]
        stream = slot.stream
        for subject, earlier, begins in slot.opening:
            if begins and slot.reopened is not None:
                self._draft(slot.reopened, subject, earlier)
                self._budgets.forget(slot.reopened)
            else:
                self._draft(stream, subject, earlier, begins=begins)
        slot.opening.clear()
        stream.budget, stream.subject = budget, slot.subject
        budget.record(record, self.now)
        self._draft(stream, slot.subject, record)

    def write_guard(self, stream: BudgetStream, record: Record) -> None:
        """Draft an event on a customer's stream, which has no budget."""
        self._draft(stream, stream.subject, record, begins=not stream.last and not stream.unstored)

    def write_after(self, subject: str, last: int, record: Record | FlagEvent) -> None:
        """Draft an event on a subject after its last event, at this position (0: the subject must be empty)."""
        self._draft(BudgetStream(("", ""), subject, None, last), subject, record, begins=not last)

    def _draft(self, stream: BudgetStream, subject: str, record: Record | FlagEvent, *, begins: bool = False) -> None:
        stream.unstored += 1
        self._budgets.touched.append(stream)
        self.drafts.append(PendingDraft(stream, subject, stored_form(record, self.now), begins, record))


class CommandResult(NamedTuple):
    """The result of a command: its answer, and the unit with its events, or ``None`` where nothing is recorded.

    ``answering`` is the record that is the answer. Its position is added to the answer once it is stored.
    """

    unit: UnitOfWork | None
    answer: JsonObject
    answering: Record | FlagEvent | None = None

    @classmethod
    def of(cls, unit: UnitOfWork, record: Record | FlagEvent, budget: Budget | None = None) -> Self:
        """Return the result that a record answers, with the balance of a budget after it."""
        return cls(unit, answer_of(record, budget), record)


NOTHING = CommandResult(None, {})


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
