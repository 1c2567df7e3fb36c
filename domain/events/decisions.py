"""Events the ledger records itself: decisions, budgets, policies. Storage formats, like facts.

Each carries the request that caused it (``source``, ``request_id``, ``request_sha256``) and
``seen_position``: how far the decider had read the log.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from domain.events.administration import CustomerForgotten, ProjectionSkipped, TrailRead
from domain.events.facts import Basis, Kind
from domain.events.flags import FlagAnswered, FlagRaised, FlagReviewed, FlagUnmasked, FlagUpdated
from domain.money import Money
from domain.serialization import Id, Instant, Personal

LEDGER_SOURCE = "resolution-ledger"
"""The CloudEvents ``source`` of everything recorded here."""


class Limit(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A limit that was met: its name, its amount (none: unlimited) and what was used before."""

    name: str
    limit: Money | None = None
    used: Money


class Reason(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why authority fell short: the rule, in words, and its numbers where it has some."""

    rule: str
    message: str
    limit: Money | None = None
    used: Money | None = None
    asked: Money | None = None


class Shadow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a policy in the shadow of the one in force would have said."""

    policy_version: int
    outcome: Literal["taken", "escalate", "refused"]
    reasons: tuple[Reason, ...] = ()


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of what the ledger records: the request behind it, or the fact told to us.

    The one event of a request that is its answer also carries the hash of its body. What the clock or a
    fact caused has that fact's (or the first request's) source and id.
    """

    source: str
    request_id: str
    seen_position: int
    request_sha256: str | None = None


class PolicyPublished(Record, frozen=True, kw_only=True):
    """The rules, from ``effective_from`` of the document on."""

    policy: dict[str, Any]
    version: int
    published_by: Id
    sha256: str
    trial_teams: tuple[str, ...] = ()
    """The teams that a trial in it has drawn."""


class OpenHold(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is reserved for one action."""

    action_id: str
    amount: Money
    interaction_id: Id | None = None


class BudgetOpened(Record, frozen=True, kw_only=True):
    """A holder's money for one period."""

    holder: str
    period: str
    currency: str
    granted: Money
    carried_over: Money
    policy_version: int
    holds: tuple[OpenHold, ...] = ()
    """Reservations that were open when the period before was closed, and go on here."""
    escalations: tuple[str, ...] = ()
    """Escalations of this agent that nobody had decided by then."""
    reopened: bool = False
    """A clock that ran ahead had closed this period before its end: the amount that lapsed is granted again."""


class BudgetGranted(Record, frozen=True, kw_only=True):
    """More money, by somebody, for a reason."""

    holder: str
    period: str
    amount: Money
    granted_by: Id
    reason: str


class BudgetTransferred(Record, frozen=True, kw_only=True):
    """Money went from one budget to another: one entry in the books of each, for the same transfer."""

    holder: str
    period: str
    direction: Literal["out", "in"]
    other_holder: str
    amount: Money
    granted_by: Id
    reason: str


class BudgetDrawn(Record, frozen=True, kw_only=True):
    """An agent's budget drew on the team's pool: one entry in the books of each."""

    holder: str
    period: str
    direction: Literal["out", "in"]
    other_holder: str
    amount: Money
    action_id: str


class BudgetClosed(Record, frozen=True, kw_only=True):
    """The books of a period, closed for ever: what remained lapsed or was carried over.

    What was reserved goes on, reserved, in the next period. ``overdrawn`` is what reported actions had
    taken beyond the budget; nobody owes it in the next period.
    """

    holder: str
    period: str
    spent: Money
    lapsed: Money
    carried_over: Money
    reserved: Money | None = None
    overdrawn: Money | None = None
    reopened: bool = False
    """The books had been closed before, by a clock that ran ahead, and opened again."""


class Done(Record, frozen=True, kw_only=True):
    """Base of what was done for a customer: what was asked, by whom, on which budget."""

    action_id: str
    agent_id: Id
    role: str
    kind: Kind
    basis: Basis
    amount: Money
    reason: str
    holder: str
    period: str
    policy_version: int
    training: tuple[str, ...]
    limits: tuple[Limit, ...]
    team_id: Id | None = None
    customer_id: Id | None = None
    interaction_id: Id | None = None
    order_id: Id | None = None
    note: Personal | None = None
    note_hash: str | None = None
    """By which the guard knows copies of a note, also when nobody can read it any more."""
    guideline: Id | None = None
    escalation_id: Id | None = None
    shadow: Shadow | None = None


class ActionTaken(Done, frozen=True, kw_only=True):
    """Something was done for a customer, within somebody's authority."""

    authority: Literal["own", "approved"]
    decided_by: Id | None = None
    on_behalf_of: Id | None = None
    """Whose authority it was, where ``decided_by`` was their delegate."""


class ActionHeld(Done, frozen=True, kw_only=True):
    """Money is reserved: until it is settled, or while an escalation waits (then with its id)."""

    expires_at: Instant | None = None


class Posting(Record, frozen=True, kw_only=True):
    """Base of what becomes of an action later, posted to the budget that is open by then."""

    action_id: str
    holder: str
    period: str
    amount: Money
    agent_id: Id
    basis: Basis = "goodwill"
    customer_id: Id | None = None
    interaction_id: Id | None = None


class ActionSettled(Posting, frozen=True, kw_only=True):
    """The held money went, all or a part; the rest is free again."""

    held: Money
    relates_to: int | None = None
    """The position of the ``refund.settled`` that said so, where a fact did."""


class ActionVoided(Posting, frozen=True, kw_only=True):
    """The held money is free again: somebody voided it, or it expired."""

    reason: str
    escalation_id: Id | None = None


class ActionCharged(Posting, frozen=True, kw_only=True):
    """A reported action, posted to its agent's budget, even beyond it."""

    overdrawn: Money
    relates_to: int
    """The position of the ``action.reported``."""


class ActionReversed(Posting, frozen=True, kw_only=True):
    """An action was undone, all or a part; where the money came back, authority does too."""

    recovered: bool
    reversed_by: Id
    reason: str
    relates_to: int
    """The position of the action."""
    late: bool = False
    """The books of the action's period are closed: what was recovered is added to this one's grant."""


class CustomerCharged(Record, frozen=True, kw_only=True):
    """Goodwill for a customer near the cap: written to the customer's own guard, in the action's batch."""

    customer_id: Id
    action_id: str
    amount: Money
    limit: Money
    used: Money
    days: int


class AuthorityFellShort(Record, frozen=True, kw_only=True):
    """What was asked and could not be given by this agent (`escalate`) or by anybody (`refused`)."""

    agent_id: Id
    kind: Kind
    basis: Basis
    amount: Money
    reason: str
    outcome: Literal["escalate", "refused"]
    reasons: tuple[Reason, ...]
    preview: bool
    role: str | None = None
    team_id: Id | None = None
    customer_id: Id | None = None
    interaction_id: Id | None = None
    order_id: Id | None = None
    note: Personal | None = None
    guideline: Id | None = None
    holder: str | None = None
    period: str | None = None
    policy_version: int | None = None
    escalation_id: Id | None = None
    shadow: Shadow | None = None


class EscalationRequested(Record, frozen=True, kw_only=True):
    """Somebody asked for what needs another's authority. ``holder`` is where it is reserved, if anywhere."""

    escalation_id: str
    action_id: str
    agent_id: Id
    role: str
    kind: Kind
    basis: Basis
    amount: Money
    reason: str
    reasons: tuple[Reason, ...]
    payer: Literal["team", "approver"]
    to: tuple[str, ...]
    """Who is asked to decide: the manager who may, or everybody who may where no manager is known."""
    due: Instant
    policy_version: int
    budget: str
    """The budget on whose subject this escalation lives: its agent's."""
    period: str
    currency: str
    holder: str | None = None
    team_id: Id | None = None
    customer_id: Id | None = None
    interaction_id: Id | None = None
    order_id: Id | None = None
    note: Personal | None = None
    guideline: Id | None = None


class EscalationStep(Record, frozen=True, kw_only=True):
    """Base of what happens to an escalation. ``decided_by`` is absent where the clock did it."""

    escalation_id: str
    agent_id: Id
    budget: str
    period: str
    amount: Money
    waited_seconds: float
    decided_by: Id | None = None
    on_behalf_of: Id | None = None
    reason: str | None = None
    interaction_id: Id | None = None
    customer_id: Id | None = None


class EscalationForwarded(EscalationStep, frozen=True, kw_only=True):
    """Somebody else is asked: sent on, or gone up a level because nobody answered in time."""

    to: tuple[str, ...]
    due: Instant


class EscalationApproved(EscalationStep, frozen=True, kw_only=True):
    """Yes, in full or less; the action is taken in the same batch."""

    asked: Money
    action_id: str
    paid_by: str


class EscalationDenied(EscalationStep, frozen=True, kw_only=True):
    """No."""


class EscalationWithdrawn(EscalationStep, frozen=True, kw_only=True):
    """Whoever asked does not ask any more."""


class EscalationExpired(EscalationStep, frozen=True, kw_only=True):
    """Nobody answered, and there is nobody above."""


_NAMES: dict[str, type[msgspec.Struct]] = {
    "policy.published": PolicyPublished,
    "budget.opened": BudgetOpened,
    "budget.granted": BudgetGranted,
    "budget.transferred": BudgetTransferred,
    "budget.drawn": BudgetDrawn,
    "budget.closed": BudgetClosed,
    "action.taken": ActionTaken,
    "action.held": ActionHeld,
    "action.settled": ActionSettled,
    "action.voided": ActionVoided,
    "action.charged": ActionCharged,
    "action.reversed": ActionReversed,
    "authority.fell_short": AuthorityFellShort,
    "customer.charged": CustomerCharged,
    "escalation.requested": EscalationRequested,
    "escalation.forwarded": EscalationForwarded,
    "escalation.approved": EscalationApproved,
    "escalation.denied": EscalationDenied,
    "escalation.withdrawn": EscalationWithdrawn,
    "escalation.expired": EscalationExpired,
    "projection.skipped": ProjectionSkipped,
    "customer.forgotten": CustomerForgotten,
    "trail.read": TrailRead,
    "flag.raised": FlagRaised,
    "flag.updated": FlagUpdated,
    "flag.unmasked": FlagUnmasked,
    "flag.reviewed": FlagReviewed,
    "flag.answered": FlagAnswered,
}
RECORDS: dict[str, type[msgspec.Struct]] = {f"resolution.{name}.v1": cls for name, cls in _NAMES.items()}
"""Stored type name -> class, for what the ledger records today."""

TYPE_OF: dict[type[msgspec.Struct], str] = {cls: name for name, cls in RECORDS.items()}

RESERVED: frozenset[str] = frozenset(RECORDS)
"""Types that only the ledger records: from outside they are rejected."""
