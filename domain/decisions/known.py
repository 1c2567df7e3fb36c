"""The state that decisions read, as protocols: the decider keeps it in memory and files, a test in a dictionary."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from domain.budgets.postings import ActionLike

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence

    from domain.budgets.budget import Budget
    from domain.decisions.approvals import Open
    from domain.decisions.authority import Gift
    from domain.decisions.owed import OrderAction, OrderFact
    from domain.decisions.streams import BudgetKey, BudgetPeriod, CustomerStream, FlagStream, OrderStream, PolicyStream
    from domain.money import Money
    from domain.policy.history import PolicyHistory
    from domain.policy.proposals import Proposals
    from domain.staff import Staff


class KnownAction(ActionLike, Protocol):
    """An action with its state and its budget."""

    @property
    def state(self) -> str:
        """``taken``, ``held``, ``settled``, ``voided``, ``reported`` or ``charged``."""

    @property
    def holder(self) -> str:
        """The holder of the budget that it is booked on."""

    @property
    def period(self) -> str:
        """The period of that budget."""

    @property
    def budget_currency(self) -> str:
        """The currency of that budget."""

    @property
    def currency(self) -> str:
        """The currency of the action."""

    @property
    def goodwill(self) -> bool:
        """True where limits and budgets apply to it."""

    @property
    def minor(self) -> int:
        """The amount that counts as goodwill now, in minor units."""

    @property
    def left(self) -> Money:
        """The amount that may still be reversed."""

    @property
    def position(self) -> int:
        """The position of its event."""

    @property
    def source(self) -> str | None:
        """The source that requested or reported it; ``None``: an earlier version did not keep it."""

    @property
    def expires_at(self) -> float | None:
        """The time at which its hold expires (seconds since 1970), or ``None``."""


class KnownActions(Protocol):
    """All actions, and the links between customers."""

    def action(self, action_id: str) -> KnownAction | None:
        """Return an action, or ``None``. Of a decision and a report with one id, the decision counts if it stands."""

    def reported(self, action_id: str) -> KnownAction | None:
        """Return the action that a fact reported under this id, whether or not it is charged; or ``None``."""

    def group_of(self, customer_id: str) -> frozenset[str]:
        """Return the customer and all customers linked with them."""

    def to_group(self, group: frozenset[str]) -> Sequence[Gift]:
        """Return the actions for these customers."""

    def unnamed_by(self, agent_id: str, since: float, until: float) -> Sequence[Gift]:
        """Return an agent's actions without a customer, at least those between two moments (seconds since 1970)."""

    def on_order(self, order_id: str) -> Sequence[OrderAction]:
        """Return the actions that name an order."""

    def on_interaction(self, interaction_id: str) -> Sequence[Gift]:
        """Return the actions on an interaction."""


class KnownOrders(Protocol):
    """The facts about orders."""

    def of_order(self, order_id: str) -> Sequence[OrderFact]:
        """Return what sources recorded as paid for an order, and as given back."""


class KnownWork(Protocol):
    """Open escalations, and the positions of facts that must be posted to a budget."""

    @property
    def open(self) -> Mapping[str, Open]:
        """The open escalations, by id."""

    @property
    def dues(self) -> Container[int]:
        """The positions of facts that must be posted."""

    def verdict_on(self, escalation_id: str) -> str | None:
        """Return the last step of a closed escalation, or ``None``."""


class KnownFlag(NamedTuple):
    """The parts of a flag that its review depends on."""

    about: tuple[str, ...]
    """The people concerned, as ``agent:<id>`` and ``customer:<id>``."""
    givers: frozenset[str]
    """The people who approved, granted or published what the flag's evidence shows."""


class KnownState(Protocol):
    """All state but the budgets. It may be some milliseconds old, unless ``Decision.state_is_current``."""

    @property
    def position(self) -> int:
        """The position up to which it has read the log."""

    @property
    def policies(self) -> PolicyHistory:
        """All published policies."""

    @property
    def proposals(self) -> Proposals:
        """The proposals of policies."""

    @property
    def staff(self) -> Staff:
        """The staff."""

    @property
    def actions(self) -> KnownActions:
        """All actions."""

    @property
    def orders(self) -> KnownOrders:
        """The facts about orders."""

    @property
    def pending(self) -> KnownWork:
        """The pending work."""


class LoadedStreams(Protocol):
    """The budgets and the other streams that were loaded for a decision.

    Each method raises ``StreamNotLoadedError`` for a stream that was not loaded.
    """

    def newest(self, key: BudgetKey) -> Budget | None:
        """Return the newest budget of a holder in a currency, pending events included; ``None``: there is none."""

    def of_period(self, period: BudgetPeriod) -> Budget | None:
        """Return the budget of a period where it is not the newest one; ``None``: there is none."""

    def may_exist(self, key: BudgetKey) -> bool:
        """Return whether another decider may have opened the period after the newest budget's."""

    def is_read(self, key: BudgetKey) -> bool:
        """Return whether the known state contains all events of the newest budget."""

    def is_known(self, stream: BudgetKey | CustomerStream | OrderStream) -> bool:
        """Return whether the known state contains all that other deciders wrote to a stream."""

    def last_position(self, stream: PolicyStream) -> int:
        """Return the position of the last event of a stream that has no budget; 0 where it is empty."""

    def flag(self, stream: FlagStream) -> KnownFlag | None:
        """Return a flag; ``None`` where it was not raised."""
