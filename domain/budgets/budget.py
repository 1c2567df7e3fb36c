"""A budget: the money of one holder in one period and currency, and the consistency boundary of a decision.

`Budget` is an `eventsourcing` aggregate with explicit event classes. Each event wraps the stored record. The
aggregate's id is ``<holder>/<period>``, e.g. ``agent:A-1/2026-11``. Its version is the number of events on the budget's
subject.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from eventsourcing.domain import BaseAggregate, CanInitAggregate, CanMutateAggregate

from domain.actions import counted_minor
from domain.events import decisions
from domain.money import Money
from domain.serialization import raw_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import msgspec


class Hold(NamedTuple):
    """The amount that is reserved for one action."""

    minor: int
    interaction_id: str | None


_NO_HOLD = Hold(0, None)


@dataclass(frozen=True)
class BudgetEvent[R: decisions.Record](CanMutateAggregate[str]):
    """An event of a budget; the base class moves no money."""

    originator_id: str
    originator_version: int
    timestamp: datetime
    record: R

    def apply(self, aggregate: Budget) -> None:
        """Fold the record."""
        self.fold(aggregate, self.record)

    @staticmethod
    def fold(budget: Budget, record: R) -> None:
        """Apply the record to the budget."""


class Budget(BaseAggregate[str]):
    """The amount that one holder may spend in one period.

    At every version, granted = spent + reserved + remaining. ``granted_minor`` includes carry-over, transfers and
    draws. Closing takes off the amounts that lapsed or moved to the next period. ``given_minor`` is the sum that this
    holder granted to others, and ``received_from`` are the givers of grants and transfers to it. ``charged`` has the
    reported actions that no decision had granted: the id, and the position of the report.
    """

    Event = BudgetEvent

    @dataclass(frozen=True)
    class Opened(CanInitAggregate[str], BudgetEvent[decisions.BudgetOpened]):
        """The first event of a period."""

        originator_topic: str

    @dataclass(frozen=True)
    class Noted(BudgetEvent[decisions.EscalationForwarded]):
        """An event without an effect on the budget, such as a forwarded escalation."""

    @dataclass(frozen=True)
    class FellShort(BudgetEvent[decisions.AuthorityFellShort]):
        """A request beyond the agent's authority, or a preview of one; a preview is recorded once."""

        @staticmethod
        def fold(budget: Budget, record: decisions.AuthorityFellShort) -> None:
            """Remember previews, so that each is recorded once."""
            if record.preview:
                budget.noted_previews.add((record.interaction_id, record.kind))

    @dataclass(frozen=True)
    class Taken(BudgetEvent[decisions.ActionTaken]):
        """An action was taken; goodwill is spent from the budget and from its own reservation."""

        @staticmethod
        def fold(budget: Budget, record: decisions.ActionTaken) -> None:
            """Release the reservation, then add goodwill to the budget's and the interaction's total."""
            budget.free(record.action_id)
            minor = record.amount.minor
            if record.basis != "goodwill":
                minor = counted_minor(record.basis, record.amount, record.owed)
            budget.spent_minor += minor
            budget.count(record.interaction_id, minor)

    @dataclass(frozen=True)
    class Held(BudgetEvent[decisions.ActionHeld]):
        """Money was reserved for an action."""

        @staticmethod
        def fold(budget: Budget, record: decisions.ActionHeld) -> None:
            """Reserve the part that counts as goodwill."""
            minor = counted_minor(record.basis, record.amount, record.owed)
            budget.hold(record.action_id, minor, record.interaction_id)

    @dataclass(frozen=True)
    class Settled(BudgetEvent[decisions.ActionSettled]):
        """A hold was paid, wholly or in part."""

        @staticmethod
        def fold(budget: Budget, record: decisions.ActionSettled) -> None:
            """Release the whole hold and spend the amount that was paid."""
            budget.free(record.action_id)
            budget.spend(record.interaction_id, counted_minor(record.basis, record.amount, record.owed))

    @dataclass(frozen=True)
    class Voided(BudgetEvent[decisions.ActionVoided]):
        """A hold ended without a payment."""

        @staticmethod
        def fold(budget: Budget, record: decisions.ActionVoided) -> None:
            """Release the hold."""
            budget.free(record.action_id)

    @dataclass(frozen=True)
    class Charged(BudgetEvent[decisions.ActionCharged]):
        """A reported action was spent, even where the budget did not reach."""

        @staticmethod
        def fold(budget: Budget, record: decisions.ActionCharged) -> None:
            """Spend the part that counts as goodwill, and remember an action that was not decided before."""
            if record.decided is None:
                budget.charged[record.action_id] = record.relates_to
            budget.spend(record.interaction_id, counted_minor(record.basis, record.amount, record.owed))

    @dataclass(frozen=True)
    class Reversed(BudgetEvent[decisions.ActionReversed]):
        """An action was reversed; a recovered amount may be spent again."""

        @staticmethod
        def fold(budget: Budget, record: decisions.ActionReversed) -> None:
            """Restore recovered goodwill: to the grant if the action's own period is closed, otherwise as not spent."""
            minor = counted_minor(record.basis, record.amount, record.owed) if record.recovered else 0
            if record.late:
                budget.granted_minor += minor
            else:
                budget.spend(record.interaction_id, -minor)

    @dataclass(frozen=True)
    class Granted(BudgetEvent[decisions.BudgetGranted]):
        """The budget was granted more."""

        @staticmethod
        def fold(budget: Budget, record: decisions.BudgetGranted) -> None:
            """Add the amount to the grant, and remember the giver."""
            budget.granted_minor += record.amount.minor
            budget.received_from |= {record.granted_by}

    @dataclass(frozen=True)
    class Counted(BudgetEvent[decisions.GrantorCharged]):
        """A grant to another holder was counted."""

        @staticmethod
        def fold(budget: Budget, record: decisions.GrantorCharged) -> None:
            """Add the amount to the grants that this holder made."""
            budget.given_minor += record.amount.minor

    @dataclass(frozen=True)
    class Moved(BudgetEvent[decisions.BudgetTransferred | decisions.BudgetDrawn]):
        """Money moved from or to another budget: a transfer, or a draw on a pool."""

        @staticmethod
        def fold(budget: Budget, record: decisions.BudgetTransferred | decisions.BudgetDrawn) -> None:
            """Add the amount to the grant, or take it off; remember the giver of a transfer."""
            budget.granted_minor += record.amount.minor if record.direction == "in" else -record.amount.minor
            if isinstance(record, decisions.BudgetTransferred) and record.direction == "in":
                budget.received_from |= {record.granted_by}

    @dataclass(frozen=True)
    class Asked(BudgetEvent[decisions.EscalationRequested]):
        """An escalation was requested."""

        @staticmethod
        def fold(budget: Budget, record: decisions.EscalationRequested) -> None:
            """Add the escalation to the open ones."""
            budget.escalations.add(record.escalation_id)

    @dataclass(frozen=True)
    class Decided(BudgetEvent[decisions.EscalationStep]):
        """An escalation ended."""

        @staticmethod
        def fold(budget: Budget, record: decisions.EscalationStep) -> None:
            """Remove the escalation from the open ones."""
            budget.escalations.discard(record.escalation_id)

    @dataclass(frozen=True)
    class Closed(BudgetEvent[decisions.BudgetClosed]):
        """The budget's period was closed."""

        @staticmethod
        def fold(budget: Budget, record: decisions.BudgetClosed) -> None:
            """Take off the remaining and reserved amounts; the next period takes over holds and escalations."""
            budget.lapsed_minor = record.lapsed.minor
            budget.granted_minor -= record.lapsed.minor + record.carried_over.minor + budget.reserved_minor
            for held in budget.holds.values():
                budget.count(held.interaction_id, -held.minor)
            budget.reserved_minor = 0
            budget.holds.clear()
            budget.escalations.clear()
            budget.closed = True

    @dataclass(frozen=True)
    class Reopened(BudgetEvent[decisions.BudgetOpened]):
        """A period that a fast clock had closed too early was opened again."""

        @staticmethod
        def fold(budget: Budget, record: decisions.BudgetOpened) -> None:
            """Grant the lapsed amount again, and take over holds and escalations."""
            budget.granted_minor += record.granted.minor + record.carried_over.minor
            budget.lapsed_minor = 0
            budget.escalations |= set(record.escalations)
            budget.closed, budget.reopened = False, True
            budget.take_over(record.holds)

    def __init__(self, record: decisions.BudgetOpened) -> None:
        """Start from the opening record."""
        self.holder = record.holder
        self.period = record.period
        self.currency = record.currency
        self.policy_version = record.policy_version
        self.opening_grant_minor = record.granted.minor
        self.base_minor = record.granted.minor + record.carried_over.minor
        self.granted_minor = self.base_minor
        self.spent_minor = 0
        self.reserved_minor = 0
        self.given_minor = 0
        self.received_from: frozenset[str] = frozenset()
        self.by_interaction: dict[str, int] = {}
        self.holds: dict[str, Hold] = {}
        self.escalations: set[str] = set(record.escalations)
        self.noted_previews: set[tuple[str | None, str]] = set()
        self.charged: dict[str, int] = {}
        self.closed = False
        self.lapsed_minor = 0
        self.reopened = False
        self.take_over(record.holds)

    @classmethod
    def open(cls, record: decisions.BudgetOpened, now: datetime) -> Budget:
        """Return a new budget."""
        budget = cls._create(cls.Opened, id=f"{record.holder}/{record.period}", timestamp=now, record=record)
        budget.collect_events()
        return budget

    @classmethod
    def from_records(cls, stored: list[tuple[msgspec.Struct, datetime]]) -> Budget:
        """Return the budget after these records, oldest first, each with its time."""
        (first, at), *rest = stored
        assert isinstance(first, decisions.BudgetOpened)
        budget = cls.open(first, at)
        for record, moment in rest:
            budget.record(record, moment)
        return budget

    def record(self, record: msgspec.Struct, now: datetime) -> None:
        """Apply a decided record to this budget; the caller stores it.

        No object of the event's class is created, because each decision would pay for it.
        """
        _EVENT_OF[type(record)].fold(self, record)
        self._version += 1
        self._modified_on = now

    def hold(self, action_id: str, minor: int, interaction_id: str | None) -> None:
        """Reserve an amount for an action."""
        self.holds[action_id] = Hold(minor, interaction_id)
        self.reserved_minor += minor
        self.count(interaction_id, minor)

    def take_over(self, holds: Sequence[decisions.OpenHold]) -> None:
        """Reserve the amounts that were reserved in the period before."""
        for hold in holds:
            self.granted_minor += hold.amount.minor
            self.hold(hold.action_id, hold.amount.minor, hold.interaction_id)

    def free(self, action_id: str) -> Hold:
        """Release the reservation of an action and return it; an empty one if there was none."""
        held = self.holds.pop(action_id, None)
        if held is None:
            return _NO_HOLD
        self.reserved_minor -= held.minor
        self.count(held.interaction_id, -held.minor)
        return held

    def spend(self, interaction_id: str | None, minor: int) -> None:
        """Add to the amount spent, and to the total that this holder gave on one interaction."""
        self.spent_minor += minor
        self.count(interaction_id, minor)

    def count(self, interaction_id: str | None, minor: int) -> None:
        """Add to the total that this holder gave on one interaction."""
        if interaction_id is not None and minor:
            self.by_interaction[interaction_id] = self.by_interaction.get(interaction_id, 0) + minor

    def balance(self) -> dict[str, str | msgspec.Raw]:
        """Return the balance as answers show it; amounts are JSON text already, because most answers carry one."""
        currency, granted, spent, reserved = self.currency, self.granted_minor, self.spent_minor, self.reserved_minor
        return {
            "holder": self.holder,
            "period": self.period,
            "granted": raw_of(granted, currency),
            "spent": raw_of(spent, currency),
            "reserved": raw_of(reserved, currency),
            "remaining": raw_of(granted - spent - reserved, currency),
        }

    @property
    def remaining_minor(self) -> int:
        """The amount that may still be spent, in minor units; negative only if reported actions overdrew the budget."""
        return self.granted_minor - self.spent_minor - self.reserved_minor

    def money(self, minor: int) -> Money:
        """Return an amount in the budget's currency."""
        return Money(minor, self.currency)


_EVENT_OF: dict[type[msgspec.Struct], type[BudgetEvent[Any]]] = {
    decisions.ActionTaken: Budget.Taken,
    decisions.ActionHeld: Budget.Held,
    decisions.ActionSettled: Budget.Settled,
    decisions.ActionVoided: Budget.Voided,
    decisions.ActionCharged: Budget.Charged,
    decisions.ActionReversed: Budget.Reversed,
    decisions.AuthorityFellShort: Budget.FellShort,
    decisions.BudgetGranted: Budget.Granted,
    decisions.GrantorCharged: Budget.Counted,
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
