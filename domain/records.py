"""Events the ledger records itself: decisions, budgets, policies. Storage formats, like facts.

Each carries the request that caused it (``source``, ``request_id``, ``request_sha256``) and
``seen_position``: how far the decider had read the log.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from domain.facts import Basis, Kind
from domain.money import Money
from domain.wire import Id, Personal

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


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of what a request caused."""

    source: str
    request_id: str
    seen_position: int


class Answered(Record, frozen=True, kw_only=True):
    """Base of the one event that holds the answer to a request."""

    request_sha256: str


class PolicyPublished(Answered, frozen=True, kw_only=True):
    """The rules, from ``effective_from`` of the document on."""

    policy: dict[str, Any]
    version: int
    published_by: Id
    sha256: str


class BudgetOpened(Record, frozen=True, kw_only=True):
    """A holder's money for one period."""

    holder: str
    period: str
    currency: str
    granted: Money
    carried_over: Money
    policy_version: int


class BudgetGranted(Answered, frozen=True, kw_only=True):
    """More money, by somebody, for a reason."""

    holder: str
    period: str
    amount: Money
    granted_by: Id
    reason: str


class BudgetClosed(Record, frozen=True, kw_only=True):
    """The books of a period, closed for ever: what remained lapsed or was carried over."""

    holder: str
    period: str
    spent: Money
    lapsed: Money
    carried_over: Money


class ActionTaken(Answered, frozen=True, kw_only=True):
    """Something was done for a customer, within somebody's authority."""

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
    authority: Literal["own", "approved"]
    team_id: Id | None = None
    customer_id: Id | None = None
    interaction_id: Id | None = None
    order_id: Id | None = None
    note: Personal | None = None
    guideline: Id | None = None
    escalation_id: Id | None = None
    decided_by: Id | None = None


class AuthorityFellShort(Answered, frozen=True, kw_only=True):
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


class ProjectionSkipped(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Somebody told a projection to pass over an event it could not digest."""

    projection: str
    position: int
    reason: str
    by: Id


_NAMES: dict[str, type[msgspec.Struct]] = {
    "policy.published": PolicyPublished,
    "budget.opened": BudgetOpened,
    "budget.granted": BudgetGranted,
    "budget.closed": BudgetClosed,
    "action.taken": ActionTaken,
    "authority.fell_short": AuthorityFellShort,
    "projection.skipped": ProjectionSkipped,
}
RECORDS: dict[str, type[msgspec.Struct]] = {f"resolution.{name}.v1": cls for name, cls in _NAMES.items()}
"""Stored type name -> class, for what the ledger records today."""

TYPE_OF: dict[type[msgspec.Struct], str] = {cls: name for name, cls in RECORDS.items()}

RESERVED: frozenset[str] = frozenset(RECORDS) | {
    f"resolution.{name}.v1"
    for name in (
        "budget.transferred", "budget.drawn", "action.charged", "action.held", "action.settled",
        "action.voided", "action.reversed", "escalation.requested", "escalation.forwarded",
        "escalation.approved", "escalation.denied", "escalation.withdrawn", "escalation.expired",
        "flag.raised", "flag.updated", "flag.reviewed", "flag.answered", "customer.forgotten",
    )
}  # fmt: skip
"""Types that only the ledger records: from outside they are rejected."""
