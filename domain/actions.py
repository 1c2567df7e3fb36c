"""The life of an action: taken, held or reported; then settled, voided or charged; reversed in one or more parts.

The class of each event names the state that follows it (``state``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, TypedDict

from domain.events.decisions import ActionCharged, ActionReversed, ActionSettled, ActionVoided
from domain.events.facts import ActionReported, ActionState, AgentKind, Basis, Kind

if TYPE_CHECKING:
    from domain.commands import Preview
    from domain.events.decisions import AuthorityFellShort, Done, EscalationRequested, Posting
    from domain.money import Money


class ActionFields(TypedDict):
    """The fields that a request for an action shares with the records of the decision on it."""

    agent_id: str
    kind: Kind
    basis: Basis
    amount: Money
    reason: str
    team_id: str | None
    customer_id: str | None
    interaction_id: str | None
    order_id: str | None
    note: str | None
    guideline: str | None


class AgentFields(TypedDict):
    """The fields of a record about its agent, as the decider knew them."""

    team_id: str | None
    team_filled: bool
    manager_id: str | None
    agent_kind: AgentKind


ACTION_FIELDS = tuple(ActionFields.__annotations__)
"""The names of these fields."""


class HeldMoney(Protocol):
    """The field of an `action.held` that tells its two uses apart."""

    @property
    def escalation_id(self) -> str | None:
        """The id of the escalation that the money waits for."""


class ActionChange(NamedTuple):
    """The effect of a later event on an action."""

    state: ActionState | None
    """The state from now on; ``None``: as before."""
    amount_minor: int | None = None
    """The amount from now on, in minor units; ``None``: as before."""
    reversed_minor: int = 0
    """The amount that is reversed, in minor units."""
    recovered_minor: int = 0
    """The part of it that came back, and no longer counts towards limits."""
    added_minor: int = 0
    """The amount that a report adds to a decided action, in minor units."""


def action_fields(of: Preview | Done | AuthorityFellShort | EscalationRequested, amount: Money) -> ActionFields:
    """Return the shared fields of a request or a record, with this amount."""
    return {
        "agent_id": of.agent_id,
        "kind": of.kind,
        "basis": of.basis,
        "amount": amount,
        "reason": of.reason,
        "team_id": of.team_id,
        "customer_id": of.customer_id,
        "interaction_id": of.interaction_id,
        "order_id": of.order_id,
        "note": of.note,
        "guideline": of.guideline,
    }


def command_fields(of: Done | AuthorityFellShort) -> ActionFields:
    """Return the shared fields of a record as the request wrote them."""
    fields = action_fields(of, of.amount)
    if of.team_filled:
        fields["team_id"] = None
    return fields


def named_team(of: Done | EscalationRequested | ActionReported) -> str | None:
    """Return the team that the request itself names; ``None`` where the ledger filled it in."""
    filled = not isinstance(of, ActionReported) and of.team_filled
    return None if filled else of.team_id


def counted_minor(basis: Basis, amount: Money, owed: Money | None) -> int:
    """Return the part of an amount that counts as goodwill, in minor units.

    ``owed`` is the part of an entitlement or a correction that needs no authority; ``None`` where a policy of earlier
    rules asked for no proof, so that all of it needs none.
    """
    if basis == "goodwill":
        return amount.minor
    return 0 if owed is None else amount.minor - owed.minor


def is_reservation(held: HeldMoney) -> bool:
    """Return whether money is reserved for an open escalation; such a record is not an action yet."""
    return held.escalation_id is not None


def change_of(posting: Posting) -> ActionChange:
    """Return the effect of a later event on its action."""
    match posting:
        case ActionSettled():
            return ActionChange(posting.state, posting.amount.minor)
        case ActionVoided():
            return ActionChange(posting.state, 0)
        case ActionReversed():
            minor = posting.amount.minor
            return ActionChange(None, None, minor, minor if posting.recovered else 0)
        case ActionCharged() if posting.decided is not None:
            return ActionChange(None, added_minor=posting.amount.minor)
        case _:
            return ActionChange(posting.state)
