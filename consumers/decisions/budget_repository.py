"""Books as the decider holds them: budgets and guards, loaded from their subject, cached with its last sequence."""

from __future__ import annotations

import asyncio
import copy
import hashlib
from collections import OrderedDict
from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from config import topology
from domain.budgets.budget import Budget
from domain.budgets.postings import opening, period_to_book
from domain.commands import RequestError, action_id_of
from domain.events.decisions import LEDGER_SOURCE, TYPE_OF, BudgetClosed, BudgetDrawn, BudgetOpened, BudgetTransferred
from domain.periods import days_of
from domain.serialization import encode
from ledger.store.cloudevents import encode_event
from ledger.store.subject_tokens import token_of_id
from projections.engine.events import read_event

if TYPE_CHECKING:
    from collections.abc import Callable

    from domain.budgets.postings import RequestContext
    from domain.events.decisions import Record
    from domain.policy.history import PolicyHistory
    from domain.policy.model import Rules
    from ledger.store.log import Log, Recorded

_CACHED_BOOKS = 50_000
_A_MOMENT_AHEAD = timedelta(days=1)  # more than any two time zones are apart
_READ_TOGETHER = 8
Key = tuple[str, str]
"""Whose book: (holder, currency), or (holder, currency.period) for one that is not the newest. A customer's guard has
no currency, and a request without policy no holder."""


class BudgetNotLoadedError(Exception):
    """This book has to be read first."""

    def __init__(self, key: Key) -> None:
        super().__init__(key)
        self.key = key


class BudgetStream:
    """One holder's newest budget in a currency (or a guard, without any) and its subject's last sequence."""

    __slots__ = ("budget", "key", "last", "own", "subject", "unstored")

    def __init__(self, key: Key, subject: str, budget: Budget | None, last: int) -> None:
        self.key = key
        self.subject = subject
        self.budget = budget
        self.last = last
        self.own = False  # whether this process wrote its last event
        self.unstored = 0  # drafts that are not stored yet


class BudgetRepository:
    """Loads and caches books; ``forget`` after a conflict or an unclear append."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.begun_before: set[Key] = set()
        """Books whose next period another event has begun: to be looked at before it is opened."""
        self._cache: OrderedDict[Key, BudgetStream] = OrderedDict()
        self._reading = asyncio.Semaphore(_READ_TOGETHER)  # more would keep each other from coming in time
        self.touched: list[BudgetStream] = []
        """Those that the ruling under way has written to."""

    def get(self, key: Key) -> BudgetStream:
        """A book that is in the cache.

        Raises:
            MissingError: it is not; ``load`` it.

        """
        book = self._cache.get(key)
        if book is None:
            raise BudgetNotLoadedError(key)
        return book

    async def load(self, key: Key) -> None:
        """Read a book from its newest subject."""
        async with self._reading:
            self._cache[key] = await self._read(key)
        if len(self._cache) > _CACHED_BOOKS:
            oldest = next((key for key, book in self._cache.items() if not book.unstored), None)
            if oldest is not None:
                del self._cache[oldest]

    def forget(self, book: BudgetStream) -> None:
        """Read this book again the next time."""
        if self._cache.get(book.key) is book:
            del self._cache[book.key]

    async def _read(self, key: Key) -> BudgetStream:
        holder, currency = key
        if not currency:
            subject = guard_subject(holder)
            newest = await self._log.last(subject)
            return BudgetStream(key, subject, None, newest.position if newest else 0)
        if "." in currency:
            subject = subject_of(holder, *currency.split(".", 1))
            stored = await self._log.read_subject(subject)
            return BudgetStream(
                key, subject, budget_of(stored) if stored else None, stored[-1].position if stored else 0
            )
        newest = await self._log.last(f"{topology.BUDGET_SUBJECT}.{token_of_id(holder)}.{currency}.*")
        if newest is None:
            return BudgetStream(key, "", None, 0)
        stored = await self._log.read_subject(newest.subject)
        return BudgetStream(key, newest.subject, budget_of(stored), stored[-1].position)


def budget_of(stored: list[Recorded]) -> Budget:
    """The budget that the events of one subject, oldest first, left behind."""
    events = [read_event(recorded) for recorded in stored]
    return Budget.from_records([(event.body, event.time) for event in events])


def subject_of(holder: str, currency: str, period: str) -> str:
    """The subject of a budget."""
    return f"{topology.BUDGET_SUBJECT}.{token_of_id(holder)}.{currency}.{period}"


def currency_of(subject: str) -> str:
    """The currency of the budget whose subject this is."""
    return subject.rsplit(".", 2)[1]


def guard_subject(customer: str) -> str:
    """The subject of a customer's guard."""
    return f"{topology.CUSTOMER_SUBJECT}.{token_of_id(customer)}"


class PendingDraft(NamedTuple):
    """A draft on a book; what it expects is known only when it is sent."""

    book: BudgetStream
    subject: str
    data: bytes
    begins: bool
    """Whether the subject must be empty."""
    record: Any


class _Slot:
    __slots__ = ("book", "budget", "earlier", "pending", "subject")

    def __init__(self, book: BudgetStream, budget: Budget, subject: str) -> None:
        self.book = book
        self.budget = budget
        self.subject = subject
        self.earlier: BudgetStream | None = None  # of the same period, closed before its end
        self.pending: list[tuple[str, Record, bool]] = []


class UnitOfWork:
    """What one request does to the books: entries in order, one of them the answer.

    No book is touched before ``write``; so a preview is a unit that is thrown away, and whatever is
    refused has to be refused before the first ``write``.
    """

    def __init__(
        self,
        books: BudgetRepository,
        cause: RequestContext,
        now: datetime,
        role_of: Callable[[str, Rules], str | None],
        policies: PolicyHistory,
        *,
        history: bool = False,
    ) -> None:
        """``history``: requests name the time, so one may name a time before the newest budget.

        Without it only a clock that once ran ahead opens a budget before its time; that is used then.
        """
        self.books = books
        self.cause = cause
        self.now = now
        self.entries: list[PendingDraft] = []
        self._role_of = role_of
        self._policies = policies
        self._history = history
        self._slots: dict[Key, _Slot] = {}

    def budget(self, holder: str, rules: Rules, currency: str | None = None, *, late: bool = False) -> Budget:
        """The holder's budget of the present period; ``late`` takes the newest where that one is later.

        A fact is posted late: its moment lies in the past, and no past period is opened for it.

        Raises:
            RequestError: in history mode, the books of the present period are closed, since a later one is open.
            MissingError: the book has to be read first.

        """
        key = (holder, currency or rules.policy.currency)
        slot = self._slots.get(key)
        if slot is None:
            slot = self._slots[key] = self._slot(key, rules, late=late)
        return slot.budget

    def opens(self, budget: Budget) -> bool:
        """Return whether writing to a budget that ``budget`` gave would open it."""
        return bool(self._slots[budget.holder, budget.currency].pending)

    def book_of(self, budget: Budget) -> BudgetStream:
        """The book of a budget that ``budget`` gave."""
        return self._slots[budget.holder, budget.currency].book

    def _slot(self, key: Key, rules: Rules, *, late: bool) -> _Slot:
        book = self.books.get(key)
        holder, currency = key
        before = book.budget
        try:
            period, back = period_to_book(rules, before, self._policies, self.now), False
        except ValueError as error:
            assert before is not None
            if self._history and not late:
                message = f"{error}: {holder} has a budget for {before.period}"
                raise RequestError("clock", message, "time") from None
            period, back = (before.period, False) if late else self._period_ahead(rules, before)
        if before is not None and before.period == period:
            return _Slot(book, before, book.subject)
        there = self.books.get((holder, f"{currency}.{period}")) if back or key in self.books.begun_before else None
        again = there.budget if there is not None else None
        role = self._role_of(holder, rules)
        opened, closed = opening(rules, holder, period, before, self.cause, role, currency, back=back, again=again)
        if again is None:
            budget = Budget.open(opened, self.now)
        else:
            budget = copy.deepcopy(again)  # this ruling may come to nothing
            budget.record(opened, self.now)
        slot = _Slot(book, budget, subject_of(holder, currency, period))
        slot.earlier = there if again is not None else None
        if closed is not None:
            slot.pending.append((book.subject, closed, False))
        slot.pending.append((slot.subject, opened, True))
        return slot

    def _period_ahead(self, rules: Rules, before: Budget) -> tuple[str, bool]:
        """The period where the newest budget's has not begun, and whether to go back to it.

        Another decider's clock may be a moment ahead: then that budget is used. One that was opened by a clock that ran
        far ahead is closed; it is opened again when its time comes.
        """
        begins = datetime.combine(days_of(before.period)[0], time(), UTC)
        if self._history or begins - self.now < _A_MOMENT_AHEAD:
            return before.period, False
        return rules.period_at(self.now, None), True

    def write(self, budget: Budget, record: Record) -> None:
        """Let this happen to a budget, and draft it; before that, what opens the budget."""
        slot = self._slots[budget.holder, budget.currency]
        book = slot.book
        for subject, earlier, begins in slot.pending:
            if begins and slot.earlier is not None:
                self._enter(slot.earlier, subject, earlier)
                self.books.forget(slot.earlier)
            else:
                self._enter(book, subject, earlier, begins=begins)
        slot.pending.clear()
        book.budget, book.subject = budget, slot.subject
        budget.record(record, self.now)
        self._enter(book, slot.subject, record)

    def guard(self, book: BudgetStream, record: Record) -> None:
        """Write to a guard: a book without a budget."""
        self._enter(book, book.subject, record, begins=not book.last and not book.unstored)

    def alone(self, subject: str, record: Record) -> None:
        """Write to a subject that nothing else is ever written to."""
        self.follow(subject, 0, record)

    def follow(self, subject: str, last: int, record: Any) -> None:
        """Write to a subject whose last event is at this position."""
        self._enter(BudgetStream(("", ""), subject, None, last), subject, record, begins=not last)

    def _enter(self, book: BudgetStream, subject: str, record: Any, *, begins: bool = False) -> None:
        book.unstored += 1
        self.books.touched.append(book)
        self.entries.append(PendingDraft(book, subject, stored_form(record, self.now), begins, record))


def stored_form(record: Any, now: datetime) -> bytes:
    """A record as the event to append; its id follows from what it is, so that it can be told again."""
    name = TYPE_OF[type(record)]
    short = name[11:-3]  # without "resolution." and ".v1"
    match record:
        case BudgetOpened() | BudgetClosed():
            again = f"\n{record.source}\n{record.request_id}" if record.reopened else ""
            digest = _digest(f"{record.holder}\n{record.period}\n{_currency(record)}{again}")
        case BudgetTransferred() | BudgetDrawn():
            digest = _digest(f"{record.source}\n{record.request_id}\n{record.holder}")
        case _:  # the same hash that the id of a request's action has
            digest = action_id_of(record.source, record.request_id)[4:]
    return encode_event(LEDGER_SOURCE, f"{short}-{digest}", name, now, encode(record))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _currency(record: BudgetOpened | BudgetClosed) -> str:
    return record.currency if isinstance(record, BudgetOpened) else record.spent.currency
