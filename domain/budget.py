"""A budget: one holder's money in one period, the consistency boundary of a decision.

An `eventsourcing` aggregate with explicit event classes. Each wraps the record that is stored; its
id is ``<holder>/<period>``, its version the number of events on the budget's subject.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from eventsourcing.domain import BaseAggregate, CanInitAggregate, CanMutateAggregate

from domain.money import Money
from domain.records import (
    ActionTaken,
    Answered,
    AuthorityFellShort,
    BudgetClosed,
    BudgetGranted,
    BudgetOpened,
)

if TYPE_CHECKING:
    import msgspec


@dataclass(frozen=True)
class BudgetEvent(CanMutateAggregate[str]):
    """Something that happened to a budget."""

    originator_id: str
    originator_version: int
    timestamp: datetime
    record: Any

    def apply(self, aggregate: Any) -> None:
        """Fold the record; remember the answers given from this budget."""
        if isinstance(self.record, Answered):
            key = (self.record.source, self.record.request_id)
            aggregate.answered[key] = self.originator_version


class Budget(BaseAggregate[str]):
    """What one holder may still spend in one period.

    granted = spent + reserved + remaining, at every version; ``granted`` is net of carry-over, and
    after closing of what lapsed.
    """

    Event = BudgetEvent

    @dataclass(frozen=True)
    class Opened(CanInitAggregate[str], BudgetEvent):
        """The period's first use."""

        originator_topic: str

    @dataclass(frozen=True)
    class Taken(BudgetEvent):
        """An action was taken; goodwill draws on the budget."""

        def apply(self, aggregate: Any) -> None:
            """Spend, and remember what this interaction cost."""
            super().apply(aggregate)
            record: ActionTaken = self.record
            if record.basis != "goodwill":
                return
            aggregate.spent_minor += record.amount.minor
            if record.interaction_id is not None:
                spent = aggregate.by_interaction.get(record.interaction_id, 0)
                aggregate.by_interaction[record.interaction_id] = spent + record.amount.minor

    @dataclass(frozen=True)
    class FellShort(BudgetEvent):
        """Authority did not reach; no money moved."""

    @dataclass(frozen=True)
    class Granted(BudgetEvent):
        """More was granted."""

        def apply(self, aggregate: Any) -> None:
            """Grant."""
            super().apply(aggregate)
            aggregate.granted_minor += self.record.amount.minor

    @dataclass(frozen=True)
    class Closed(BudgetEvent):
        """The books are closed."""

        def apply(self, aggregate: Any) -> None:
            """What remained left the budget."""
            aggregate.granted_minor -= self.record.lapsed.minor + self.record.carried_over.minor
            aggregate.closed = True

    def __init__(self, record: BudgetOpened) -> None:
        """Begin from the opening."""
        self.holder = record.holder
        self.period = record.period
        self.currency = record.currency
        self.granted_minor = record.granted.minor + record.carried_over.minor
        self.spent_minor = 0
        self.reserved_minor = 0
        self.by_interaction: dict[str, int] = {}
        self.answered: dict[tuple[str, str], int] = {}
        self.closed = False

    @classmethod
    def open(cls, record: BudgetOpened, now: datetime) -> Budget:
        """A new budget, its opening pending."""
        return cls._create(cls.Opened, id=f"{record.holder}/{record.period}", timestamp=now, record=record)

    @classmethod
    def from_records(cls, records: list[tuple[Any, datetime]]) -> Budget:
        """The budget that these records (oldest first, with their times) left behind."""
        (first, at), *rest = records
        budget = cls.open(first, at)
        for record, moment in rest:
            budget.record(record, moment)
        budget.collect_events()
        return budget

    def record(self, record: msgspec.Struct, now: datetime) -> None:
        """Let what was decided happen to this budget; it is pending until it is stored."""
        self.trigger_event(_EVENT_OF[type(record)], timestamp=now, record=record)

    @property
    def remaining_minor(self) -> int:
        """What may still be spent; negative only where reported actions overdrew."""
        return self.granted_minor - self.spent_minor - self.reserved_minor

    def money(self, minor: int) -> Money:
        """An amount in the budget's currency."""
        return Money(minor, self.currency)

    def wire(self) -> dict[str, Any]:
        """The balance as answers and reports show it."""
        return {
            "holder": self.holder,
            "period": self.period,
            "granted": self.money(self.granted_minor).wire(),
            "spent": self.money(self.spent_minor).wire(),
            "reserved": self.money(self.reserved_minor).wire(),
            "remaining": self.money(self.remaining_minor).wire(),
        }


_EVENT_OF: dict[type[msgspec.Struct], type[BudgetEvent]] = {
    ActionTaken: Budget.Taken,
    AuthorityFellShort: Budget.FellShort,
    BudgetGranted: Budget.Granted,
    BudgetClosed: Budget.Closed,
}
