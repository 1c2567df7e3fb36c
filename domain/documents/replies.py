"""Answers to requests, one class for each operation: over NATS as they are, over HTTP with errors as problem details.

A decider writes answers from its records (``domain.decisions.answers``). Clients decode them by these classes.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from domain.decisions.notices import EscalationNotice
from domain.documents.rows import ActionRow, Balance, BriefInteraction, Promise
from domain.events.decisions import EscalationStatus, Reason
from domain.events.facts import AgentKind
from domain.events.flags import Verdict
from domain.money import Money
from domain.serialization import Instant

ErrorCode = Literal[
    "already_decided",
    "already_proposed",
    "already_reported",
    "busy",
    "clock",
    "currency",
    "duplicate_field",
    "id_not_canonical",
    "id_reused",
    "insufficient",
    "internal",
    "invalid",
    "missing",
    "no_policy",
    "nobody_above",
    "not_correctable",
    "not_governor",
    "not_held",
    "not_json",
    "not_posted",
    "not_taken",
    "not_your_fact",
    "nothing_left",
    "outdated",
    "request_id_reused",
    "reserved_attribute",
    "reserved_type",
    "source_mismatch",
    "source_not_allowed",
    "time_ahead",
    "too_large",
    "unavailable",
    "unknown_action",
    "unknown_agent",
    "unknown_escalation",
    "unknown_fact",
    "unknown_field",
    "unknown_flag",
    "unknown_interaction",
    "unknown_operation",
    "unknown_proposal",
    "unknown_type",
]
"""The codes of requests and of rejected facts; docs/integrate/errors.md has the remedy for each."""
REPEATABLE: frozenset[ErrorCode] = frozenset(("unavailable", "busy", "internal", "not_posted"))
"""The codes after which the same request may succeed."""
Outcome = Literal["taken", "held", "escalate", "refused", "done", "error"]


class ErrorDetail(msgspec.Struct, frozen=True, omit_defaults=True):
    """The error of a request that recorded nothing, or of a rejected event."""

    code: ErrorCode
    message: str
    field: str | None = None


class _Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The base of answers to decision requests."""

    outcome: Outcome
    position: int | None = None
    """The position where the decision is recorded."""
    error: ErrorDetail | None = None


class _Decided(_Answer, frozen=True, kw_only=True):
    """The base of answers that weigh an amount against the authority of a person."""

    policy_version: int | None = None
    reasons: tuple[Reason, ...] = ()
    budget: Balance | None = None
    agent_kind: AgentKind | None = None
    owed: Money | None = None
    explanation: str | None = None
    """The owed part in words."""
    escalation_id: str | None = None


class ActionAnswer(_Decided, frozen=True, kw_only=True):
    """The answer to a request for an action."""

    outcome: Literal["taken", "held", "escalate", "refused", "error"]
    action_id: str | None = None
    expires_at: Instant | None = None


class PreviewAnswer(_Decided, frozen=True, kw_only=True):
    """The answer to a preview; nothing was taken."""

    outcome: Literal["taken", "held", "escalate", "refused", "error"]
    available: Money | None = None


class HoldAnswer(_Decided, frozen=True, kw_only=True):
    """The answer to a settlement or a release of held money."""

    outcome: Literal["done", "refused", "error"]
    action_id: str | None = None
    amount: Money | None = None


class ReversalAnswer(HoldAnswer, frozen=True, kw_only=True):
    """The answer to a reversal of an action."""


class EscalationAnswer(_Decided, frozen=True, kw_only=True):
    """The answer to a request, a decision, a withdrawal or a forwarding of an escalation."""

    status: EscalationStatus | None = None
    amount: Money | None = None
    to: tuple[str, ...] | None = None
    due: Instant | None = None
    action_id: str | None = None
    paid_by: str | None = None
    expires_at: Instant | None = None
    message: str | None = None


class BudgetAnswer(_Decided, frozen=True, kw_only=True):
    """The answer to a grant or a transfer."""

    outcome: Literal["done", "refused", "error"]


class FlagAnswer(_Answer, frozen=True, kw_only=True):
    """The answer to the review of a flag, or to the answer of the employee concerned."""

    outcome: Literal["done", "refused", "error"]
    flag_id: str | None = None
    verdict: Verdict | None = None


class PolicyWarning(msgspec.Struct, frozen=True):
    """A contradiction in a policy that was published nevertheless."""

    field: str
    message: str


class PolicyAnswer(_Answer, frozen=True, kw_only=True):
    """The answer to a proposal, an approval, an objection or a publication of a policy."""

    outcome: Literal["done", "refused", "error"]
    policy_version: int | None = None
    effective_from: Instant | None = None
    sha256: str | None = None
    warnings: tuple[PolicyWarning, ...] = ()
    trial_teams: tuple[str, ...] = ()
    status: Literal["proposed", "approved", "published", "objected"] | None = None
    replaces: int | None = None
    missing: int | None = None
    due: Instant | None = None


ANSWERS: dict[str, type[msgspec.Struct]] = {
    "action": ActionAnswer,
    "preview": PreviewAnswer,
    "hold": HoldAnswer,
    "reversal": ReversalAnswer,
    "escalation": EscalationAnswer,
    "budget": BudgetAnswer,
    "policy": PolicyAnswer,
    "flag": FlagAnswer,
}
"""The answer to each operation of ``resolution.decide``."""


class KeptNotice(EscalationNotice, frozen=True, kw_only=True):
    """A kept notification, with the sequence by which a listener goes on."""

    seq: int


class NotificationList(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Kept notifications."""

    outcome: Literal["done", "error"] = "done"
    items: tuple[KeptNotice, ...] = ()
    next: int | None = None
    """The value of `after` for the next request."""
    complete: bool | None = None
    """There are no more now."""
    error: ErrorDetail | None = None


class Brief(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The brief for an agent that takes over a customer."""

    outcome: Literal["done", "error"] = "done"
    position: int | None = None
    """The position up to which the views had read the log."""
    agent_id: str | None = None
    customer_id: str | None = None
    household: tuple[str, ...] = ()
    interactions: tuple[BriefInteraction, ...] = ()
    actions: tuple[ActionRow, ...] = ()
    promises: tuple[Promise, ...] = ()
    available: dict[str, Money] = {}
    """The most that this agent may give now, by kind."""
    error: ErrorDetail | None = None


class EventOutcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The outcome of an event; ``items`` are those of several, by ``ids`` or of a batch."""

    id: str | None = None
    stream: str | None = None
    seq: int | None = None
    status: Literal["recorded", "rejected", "pending", "unknown"] | None = None
    position: int | None = None
    """The position of the event in the log, or of the duplicate that was recorded first."""
    error: ErrorDetail | None = None
    items: tuple[EventOutcome, ...] = ()


class Checked(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The result of a check of an event, without recording it; ``items`` are those of a batch."""

    accepted: bool | None = None
    type: str | None = None
    id: str | None = None
    error: ErrorDetail | None = None
    items: tuple[Checked, ...] = ()


class ViewMoved(msgspec.Struct, frozen=True):
    """An update: the position up to which a view has read the log."""

    position: int
    at: str
