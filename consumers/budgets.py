"""Budgets as the decider holds them: loaded from their subject, cached with its last sequence."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from config import topology
from domain.budget import Budget
from domain.deciding import Agent, Cause, opening
from domain.periods import days_of
from domain.records import LEDGER_SOURCE, TYPE_OF, BudgetClosed, BudgetOpened
from domain.requests import RequestError
from domain.wire import encode
from ledger.cloudevents import encode_event
from ledger.log import Draft
from ledger.names import token_of_id
from projections.events import read_event

if TYPE_CHECKING:
    from datetime import datetime

    import msgspec

    from consumers.directory import InForce
    from ledger.log import Log, Recorded

_CACHED_BUDGETS = 50_000


class Account:
    """One holder's newest budget and the sequence of its subject's last event."""

    __slots__ = ("budget", "last")

    def __init__(self, budget: Budget | None, last: int) -> None:
        self.budget = budget
        self.last = last

    def has_answered(self, cause: Cause) -> bool:
        """Whether the newest budget holds the answer to this request."""
        return self.budget is not None and (cause.source, cause.request_id) in self.budget.answered


class Budgets:
    """Loads and caches accounts; ``forget`` after a conflict or an unclear append."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._cache: OrderedDict[str, Account] = OrderedDict()

    def cached(self, holder: str) -> Account | None:
        """The holder's account, where it is in the cache."""
        account = self._cache.get(holder)
        if account is not None:
            self._cache.move_to_end(holder)
        return account

    async def load(self, holder: str) -> Account:
        """The holder's account, read from its newest subject."""
        account = await self._read(holder)
        self._cache[holder] = account
        if len(self._cache) > _CACHED_BUDGETS:
            self._cache.popitem(last=False)
        return account

    def forget(self, holder: str) -> None:
        """Read this holder's account again the next time."""
        self._cache.pop(holder, None)

    async def _read(self, holder: str) -> Account:
        newest = await self._log.last(f"{topology.BUDGET_SUBJECT}.{token_of_id(holder)}.*")
        if newest is None:
            return Account(None, 0)
        stored = await self._log.read_subject(newest.subject)
        return Account(budget_of(stored), stored[-1].position)


def budget_of(stored: list[Recorded]) -> Budget:
    """The budget that the events of one subject, oldest first, left behind."""
    events = [read_event(recorded) for recorded in stored]
    return Budget.from_records([(event.body, event.time) for event in events])


def subject_of(holder: str, period: str) -> str:
    """The subject of a budget."""
    return f"{topology.BUDGET_SUBJECT}.{token_of_id(holder)}.{period}"


class Unit:
    """What one request does to one account: its drafts in order, its record, its answer.

    The account is not touched before ``write``; so a preview is a unit that is thrown away.

    Raises:
        RequestError: the books of the present period are closed, since a later one is open.

    """

    def __init__(self, account: Account, rules: InForce, holder: str, agent: Agent | None, cause: Cause,
                 now: datetime) -> None:  # fmt: skip
        self.account = account
        self.cause = cause
        self.now = now
        self.drafts: list[Draft] = []
        self.answer: dict[str, Any] = {}
        self.budget = self._present_budget(rules, holder, agent)

    def _present_budget(self, rules: InForce, holder: str, agent: Agent | None) -> Budget:
        period = rules.policy.period_at(self.now)
        before = self.account.budget
        if before is not None and before.period == period:
            return before
        if before is not None and days_of(before.period)[0] > days_of(period)[0]:
            message = f"the books of {period} are closed: {holder} has a budget for {before.period}"
            raise RequestError("clock", message, "time")
        opened, closed = opening(rules.policy, rules.version, holder, period, before, self.cause, agent)
        if before is not None and closed is not None:
            self._draft(subject_of(holder, before.period), closed, self.account.last)
        self._draft(subject_of(holder, period), opened, 0)
        budget = Budget.open(opened, self.now)
        budget.collect_events()
        return budget

    def write(self, record: msgspec.Struct) -> None:
        """Let this happen to the budget, and draft it."""
        expect = None if self.drafts else self.account.last
        self.budget.record(record, self.now)
        self.budget.collect_events()
        self.account.budget = self.budget
        self._draft(subject_of(self.budget.holder, self.budget.period), record, expect)

    def _draft(self, subject: str, record: msgspec.Struct, expect: int | None) -> None:
        self.drafts.append(Draft(subject, stored_form(record, self.cause, self.now), expect))


def stored_form(record: Any, cause: Cause, now: datetime) -> bytes:
    """A record as the event to append; its id follows from what it is, so that it can be told again."""
    name = TYPE_OF[type(record)]
    short = name.removeprefix("resolution.").removesuffix(".v1")
    match record:
        case BudgetOpened() | BudgetClosed():
            parts = (short, record.holder, record.period)
        case _:
            parts = (short, cause.source, cause.request_id)
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
    return encode_event(LEDGER_SOURCE, f"{short}-{digest}", name, now, encode(record))
