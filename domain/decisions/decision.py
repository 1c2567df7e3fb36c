"""One decision: the state that it reads, the events that it causes, and its answer."""

from __future__ import annotations

import copy
from datetime import UTC, datetime, time, timedelta
from enum import Enum
from typing import TYPE_CHECKING, Self

import msgspec

from domain.budgets.budget import Budget
from domain.budgets.postings import RequestContext, opening, period_to_book
from domain.commands import RequestError
from domain.decisions.answers import answer_of
from domain.decisions.known import KnownState, LoadedStreams
from domain.decisions.streams import BudgetKey, BudgetPeriod, NewEvent
from domain.events.decisions import Record
from domain.events.flags import FlagEvent
from domain.periods import bounds_of, days_of, zone_of
from domain.serialization import JsonObject

if TYPE_CHECKING:
    from collections.abc import Iterator

    from domain.decisions.streams import Stream
    from domain.policy.model import Rules

_NEAR_FUTURE = timedelta(days=1)  # more than any two time zones are apart


class Retry(Enum):
    """The result of a decision that the known state does not suffice for."""

    AFTER_CATCH_UP = "read to the end of the log first"
    WHEN_IDLE = "wait until all events of earlier decisions are stored and read"


class RetryError(Exception):
    """Ends a decision with a ``Retry``; ``decide`` returns it as a value."""

    def __init__(self, retry: Retry) -> None:
        super().__init__(retry.value)
        self.retry = retry


class _OpenedBudget(msgspec.Struct, eq=False):
    """A budget that a decision reads; ``before`` holds the events that open it and must precede its first event."""

    key: BudgetKey
    period: BudgetPeriod
    budget: Budget
    before: list[NewEvent] = []


class Decision(msgspec.Struct, eq=False):
    """A decision under way, and then its result.

    Budgets change by ``write`` alone, so a preview is a decision that is dropped. A command must be refused before the
    first ``write``.
    """

    state: KnownState
    streams: LoadedStreams
    cause: RequestContext
    now: datetime
    state_is_current: bool
    """The state was brought up to date for this command."""
    history: bool = False
    """Requests name their time, so a time may lie before the newest budget.

    Otherwise a budget lies in the future only where a clock once ran ahead; that budget is used.
    """
    events: list[NewEvent] = []
    """The events, in order."""
    changed: dict[BudgetKey, Budget] = {}
    """The newest budgets after the events."""
    answer: JsonObject = {}
    answering: Record | FlagEvent | None = None
    """The record that is the answer: its position is added to the answer once it is stored."""
    budgets: list[_OpenedBudget] = []
    """The budgets that it has read."""

    def need(self, retry: Retry) -> None:
        """End the decision with this retry, unless the state is current."""
        if not self.state_is_current:
            raise RetryError(retry)

    def budget(self, holder: str, rules: Rules, currency: str | None = None, *, late: bool = False) -> Budget:
        """Return the holder's budget of the current period.

        With ``late``, return the newest budget where that one is later: a fact is posted late, and a past period is
        never opened for it.

        Raises:
            RequestError: in history mode, a later period is open already.
            StreamNotLoadedError: the budget must be loaded first.

        """
        currency = currency or rules.policy.currency
        for read in self.budgets:
            if read.key.holder == holder and read.key.currency == currency:
                return read.budget
        key = BudgetKey(holder, currency)
        newest = self.streams.newest(key)
        try:
            period, back = period_to_book(rules, newest, self.state.policies, self.now), False
        except ValueError as error:
            assert newest is not None
            if self.history and not late:
                message = f"{error}: {holder} has a budget for {newest.period}"
                raise RequestError("clock", message, "time") from None
            period, back = (newest.period, False) if late else self._period_ahead(rules, newest)
        if newest is not None and newest.period == period:
            found = _OpenedBudget(key, BudgetPeriod(holder, currency, period), newest)
        else:
            found = self._open(key, period, rules, newest, back=back)
        self.budgets.append(found)
        return found.budget

    def opens(self, budget: Budget) -> bool:
        """Return whether the first event on a budget of this decision would open it."""
        return any(read.before for read in self.budgets if read.budget is budget)

    def require_read(self, budget: Budget) -> None:
        """End the decision with a retry unless the known state contains all events of this budget."""
        if not self.streams.is_read(BudgetKey(budget.holder, budget.currency)):
            raise RetryError(Retry.WHEN_IDLE)

    def write(self, budget: Budget, record: Record) -> None:
        """Apply a record to a budget, after the events that open the budget."""
        [read] = [read for read in self.budgets if read.budget is budget]
        if read.before:
            self.events += read.before
            read.before.clear()
        budget.record(record, self.now)
        self.events.append(NewEvent(read.period, record))
        self.changed[read.key] = budget

    def write_to(self, stream: Stream, record: Record | FlagEvent, *, begins: bool = False) -> None:
        """Write to a stream that has no budget; ``begins``: it must be empty."""
        self.events.append(NewEvent(stream, record, begins=begins))

    def answer_with(self, record: Record | FlagEvent, budget: Budget | None = None) -> Self:
        """Let a record be the answer, with the balance of a budget after it; return this decision."""
        self.answer = answer_of(record, budget)
        self.answering = record
        return self

    def answer_only(self, answer: JsonObject) -> Self:
        """Give an answer that no record stands for; return this decision."""
        self.answer = answer
        return self

    def _open(self, key: BudgetKey, period: str, rules: Rules, before: Budget | None, *, back: bool) -> _OpenedBudget:
        place = BudgetPeriod(key.holder, key.currency, period)
        again = self.streams.of_period(place) if back or self.streams.may_exist(key) else None
        opened, closed = opening(
            rules,
            key.holder,
            period,
            before,
            self.cause,
            self._role_of(key.holder, rules),
            key.currency,
            back=back,
            again=again,
            granted_in=self._currency_granted(key, rules),
        )
        if again is None:
            budget = Budget.open(opened, self.now)
        else:
            budget = copy.deepcopy(again)  # the command may still be refused
            budget.record(opened, self.now)
        events = [NewEvent(place, opened, begins=again is None, reopens=again is not None)]
        if closed is not None and before is not None:
            events.insert(0, NewEvent(BudgetPeriod(key.holder, key.currency, before.period), closed))
        return _OpenedBudget(key, place, budget, events)

    def running_elsewhere(self, key: BudgetKey, rules: Rules) -> Iterator[Budget]:
        """Yield the holder's budgets in currencies of earlier policies whose periods have not ended."""
        policies = self.state.policies
        for currency in sorted(policies.currencies - {key.currency}):
            budget = self.streams.newest(BudgetKey(key.holder, currency))
            if budget is None:
                continue
            opened_by = policies.get(budget.policy_version) or rules
            if self.now < bounds_of(budget.period, zone_of(opened_by.policy.time_zone))[1]:
                yield budget

    def _currency_granted(self, key: BudgetKey, rules: Rules) -> str | None:
        """Return the currency in which the holder has a grant for this time, where the policy has changed it."""
        if not rules.is_strict or key.currency != rules.policy.currency:
            return None
        running = self.running_elsewhere(key, rules)
        return next((budget.currency for budget in running if budget.opening_grant_minor > 0), None)

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
        if self.history or begins - self.now < _NEAR_FUTURE:
            return before.period, False
        return rules.period_at(self.now, None), True
