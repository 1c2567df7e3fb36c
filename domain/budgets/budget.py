"""A budget: one holder's money in one period and currency, the consistency boundary of a decision.

An `eventsourcing` aggregate with explicit event classes. Each wraps the record that is stored; its
id is ``<holder>/<period>``, its version the number of events on the budget's subject.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from eventsourcing.domain import BaseAggregate, CanInitAggregate, CanMutateAggregate

from domain.events import decisions
from domain.money import Money
from domain.serialization import raw_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import msgspec


class Hold(NamedTuple):
    """What is reserved for one action."""

    minor: int
    interaction_id: str | None


@dataclass(frozen=True)
class BudgetEvent(CanMutateAggregate[str]):
    """Something that happened to a budget; the base moves no money."""

    originator_id: str
    originator_version: int
    timestamp: datetime
    record: Any

    def apply(self, aggregate: Any) -> None:
        """Fold the record; remember the answers given from this budget."""
        if self.record.request_sha256 is not None:
            aggregate.answered[self.record.source, self.record.request_id] = self.originator_version
        self.fold(aggregate, self.record)

    def fold(self, budget: Budget, record: Any) -> None:
        """Let it happen."""


class Budget(BaseAggregate[str]):
    """What one holder may still spend in one period.

    granted = spent + reserved + remaining, at every version; ``granted`` is net of carry-over, transfers
    and draws, and after closing of what lapsed or went on.
    """

    Event = BudgetEvent

    @dataclass(frozen=True)
    class Opened(CanInitAggregate[str], BudgetEvent):
        """The period's first use."""

        originator_topic: str

    @dataclass(frozen=True)
    class Noted(BudgetEvent):
        """Nothing moved; an escalation may have been forwarded."""

    @dataclass(frozen=True)
    class FellShort(BudgetEvent):
        """Authority did not reach; a preview that said so says it once."""

        def fold(self, budget: Budget, record: Any) -> None:
            """Remember which previews were noted."""
            if record.preview:
                budget.noted_previews.add((record.interaction_id, record.kind))

    @dataclass(frozen=True)
    class Taken(BudgetEvent):
        """An action was taken; goodwill draws on the budget, and on what was reserved for it."""

        def fold(self, budget: Budget, record: decisions.ActionTaken) -> None:
            """Spend, and remember what this interaction cost."""
            budget.free(record.action_id)
            if record.basis == "goodwill":
                budget.spent_minor += record.amount.minor
                budget.count(record.interaction_id, record.amount.minor)

    @dataclass(frozen=True)
    class Held(BudgetEvent):
        """Money is reserved."""

        def fold(self, budget: Budget, record: decisions.ActionHeld) -> None:
            """Reserve."""
            minor = record.amount.minor if record.basis == "goodwill" else 0
            budget.hold(record.action_id, minor, record.interaction_id)

    @dataclass(frozen=True)
    class Settled(BudgetEvent):
        """What was held is spent, all or a part."""

        def fold(self, budget: Budget, record: decisions.ActionSettled) -> None:
            """Free all, spend what went."""
            budget.free(record.action_id)
            if record.basis == "goodwill":
                budget.spent_minor += record.amount.minor
                budget.count(record.interaction_id, record.amount.minor)

    @dataclass(frozen=True)
    class Voided(BudgetEvent):
        """What was held is free."""

        def fold(self, budget: Budget, record: decisions.ActionVoided) -> None:
            """Free it."""
            budget.free(record.action_id)

    @dataclass(frozen=True)
    class Charged(BudgetEvent):
        """A reported action is spent, whether or not there was enough."""

        def fold(self, budget: Budget, record: decisions.ActionCharged) -> None:
            """Spend."""
            budget.spent_minor += record.amount.minor
            budget.count(record.interaction_id, record.amount.minor)

    @dataclass(frozen=True)
    class Reversed(BudgetEvent):
        """An action was undone; what was recovered may be spent again."""

        def fold(self, budget: Budget, record: decisions.ActionReversed) -> None:
            """Restore, to the grant where the action's own period is closed."""
            if not record.recovered or record.basis != "goodwill":
                return
            if record.late:
                budget.granted_minor += record.amount.minor
            else:
                budget.spent_minor -= record.amount.minor
                budget.count(record.interaction_id, -record.amount.minor)

    @dataclass(frozen=True)
    class Granted(BudgetEvent):
        """More was granted."""

        def fold(self, budget: Budget, record: decisions.BudgetGranted) -> None:
            """Grant."""
            budget.granted_minor += record.amount.minor

    @dataclass(frozen=True)
    class Moved(BudgetEvent):
        """Money came from another budget, or went there: a transfer, or a draw on a pool."""

        def fold(self, budget: Budget, record: decisions.BudgetTransferred | decisions.BudgetDrawn) -> None:
            """Move it."""
            budget.granted_minor += record.amount.minor if record.direction == "in" else -record.amount.minor

    @dataclass(frozen=True)
    class Asked(BudgetEvent):
        """An escalation was filed."""

        def fold(self, budget: Budget, record: decisions.EscalationRequested) -> None:
            """It is open."""
            budget.escalations.add(record.escalation_id)

    @dataclass(frozen=True)
    class Decided(BudgetEvent):
        """An escalation came to its end."""

        def fold(self, budget: Budget, record: decisions.EscalationStep) -> None:
            """It is open no more."""
            budget.escalations.discard(record.escalation_id)

    @dataclass(frozen=True)
    class Closed(BudgetEvent):
        """The books are closed."""

        def fold(self, budget: Budget, record: decisions.BudgetClosed) -> None:
            """What remained, and what was reserved, left the budget."""
            budget.lapsed_minor = record.lapsed.minor
            budget.granted_minor -= record.lapsed.minor + record.carried_over.minor + budget.reserved_minor
            for held in budget.holds.values():
                budget.count(held.interaction_id, -held.minor)
            budget.reserved_minor = 0
            budget.holds.clear()
            budget.escalations.clear()
            budget.closed = True

    @dataclass(frozen=True)
    class Reopened(BudgetEvent):
        """The books had been closed before their time, by a clock that ran ahead."""

        def fold(self, budget: Budget, record: decisions.BudgetOpened) -> None:
            """Grant again the amount that had lapsed; holds and escalations go on here."""
            budget.granted_minor += record.granted.minor + record.carried_over.minor
            budget.lapsed_minor = 0
            budget.escalations |= set(record.escalations)
            budget.closed, budget.reopened = False, True
            budget.take_over(record.holds)

    def __init__(self, record: decisions.BudgetOpened) -> None:
        """Begin from the opening."""
        self.holder = record.holder
        self.period = record.period
        self.currency = record.currency
        self.policy_version = record.policy_version
        self.opening_grant_minor = record.granted.minor
        self.base_minor = record.granted.minor + record.carried_over.minor
        self.granted_minor = self.base_minor
        self.spent_minor = 0
        self.reserved_minor = 0
        self.by_interaction: dict[str, int] = {}
        self.holds: dict[str, Hold] = {}
        self.escalations: set[str] = set(record.escalations)
        self.noted_previews: set[tuple[str | None, str]] = set()
        self.answered: dict[tuple[str, str], int] = {}
        self.closed = False
        self.lapsed_minor = 0
        self.reopened = False
        self.take_over(record.holds)

    @classmethod
    def open(cls, record: decisions.BudgetOpened, now: datetime) -> Budget:
        """A new budget."""
        budget = cls._create(cls.Opened, id=f"{record.holder}/{record.period}", timestamp=now, record=record)
        budget.collect_events()
        return budget

    @classmethod
    def from_records(cls, stored: list[tuple[Any, datetime]]) -> Budget:
        """The budget that these records (oldest first, with their times) left behind."""
        (first, at), *rest = stored
        budget = cls.open(first, at)
        for record, moment in rest:
            budget.record(record, moment)
        return budget

    def record(self, record: msgspec.Struct, now: datetime) -> None:
        """Let what was decided happen to this budget; storing it is the caller's."""
        event = _EVENT_OF[type(record)](self.id, self.version + 1, now, record)
        event.mutate(self)

    def hold(self, action_id: str, minor: int, interaction_id: str | None) -> None:
        """Reserve for an action."""
        self.holds[action_id] = Hold(minor, interaction_id)
        self.reserved_minor += minor
        self.count(interaction_id, minor)

    def take_over(self, holds: Sequence[decisions.OpenHold]) -> None:
        """Reserve what was reserved in the books before."""
        for hold in holds:
            self.granted_minor += hold.amount.minor
            self.hold(hold.action_id, hold.amount.minor, hold.interaction_id)

    def free(self, action_id: str) -> Hold:
        """Reserve nothing for this action any more; what was."""
        held = self.holds.pop(action_id, None) or Hold(0, None)
        self.reserved_minor -= held.minor
        self.count(held.interaction_id, -held.minor)
        return held

    def count(self, interaction_id: str | None, minor: int) -> None:
        """Add to what this holder gave on one interaction."""
        if interaction_id is not None and minor:
            self.by_interaction[interaction_id] = self.by_interaction.get(interaction_id, 0) + minor

    def balance(self) -> dict[str, Any]:
        """The balance as answers show it, each amount as its JSON text: most answers have one."""
        currency = self.currency
        return {
            "holder": self.holder,
            "period": self.period,
            "granted": raw_of(self.granted_minor, currency),
            "spent": raw_of(self.spent_minor, currency),
            "reserved": raw_of(self.reserved_minor, currency),
            "remaining": raw_of(self.remaining_minor, currency),
        }

    @property
    def remaining_minor(self) -> int:
        """What may still be spent; negative only where reported actions overdrew."""
        return self.granted_minor - self.spent_minor - self.reserved_minor

    def money(self, minor: int) -> Money:
        """An amount in the budget's currency."""
        return Money(minor, self.currency)


_EVENT_OF: dict[type[msgspec.Struct], type[BudgetEvent]] = {
    decisions.ActionTaken: Budget.Taken,
    decisions.ActionHeld: Budget.Held,
    decisions.ActionSettled: Budget.Settled,
    decisions.ActionVoided: Budget.Voided,
    decisions.ActionCharged: Budget.Charged,
    decisions.ActionReversed: Budget.Reversed,
    decisions.AuthorityFellShort: Budget.FellShort,
    decisions.BudgetGranted: Budget.Granted,
    decisions.BudgetTransferred: Budget.Moved,
    decisions.BudgetDrawn: Budget.Moved,
    decisions.BudgetClosed: Budget.Closed,
    decisions.BudgetOpened: Budget.Reopened,
    decisions.EscalationRequested: Budget.Asked,
    decisions.EscalationForwarded: Budget.Noted,
    decisions.EscalationApproved: Budget.Decided,
    decisions.EscalationDenied: Budget.Decided,
    decisions.EscalationWithdrawn: Budget.Decided,
    decisions.EscalationExpired: Budget.Decided,
}
