"""Facts told to us by upstream systems: one immutable class for each type.

These are storage formats. A class here never changes its meaning: a new version gets a new type
name and an upcast. Fields the classes do not know are kept in the stored event all the same, and
count as personal.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from domain.money import Money
from domain.serialization import Id, Instant, Personal, RecordedId

Kind = Literal[
    "refund", "credit", "discount", "replacement", "keep_item", "fee_waiver", "upgrade", "gift", "fix", "other"
]
Basis = Literal["goodwill", "entitlement", "correction"]
Line = Annotated[int, msgspec.Meta(ge=1, le=9)]
Seconds = Annotated[float, msgspec.Meta(ge=0)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class Fact(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of all facts; holds nothing."""


class InteractionOpened(Fact, frozen=True, kw_only=True):
    """A customer's matter begins."""

    interaction_id: Id
    customer_id: Id | None = None
    channel: str | None = None
    reason: str | None = None
    agent_id: Id | None = None
    team_id: Id | None = None
    line: Line | None = None
    order_id: Id | None = None
    severity: str | int | None = None


class InteractionTransferred(Fact, frozen=True, kw_only=True):
    """Somebody else takes the matter over."""

    interaction_id: Id
    to_agent_id: Id | None = None
    to_team_id: Id | None = None
    from_agent_id: Id | None = None
    from_team_id: Id | None = None
    line: Line | None = None
    story_repeated: bool | None = None
    waited_seconds: Seconds | None = None


class InteractionResolved(Fact, frozen=True, kw_only=True):
    """The matter is settled, as far as the company knows."""

    interaction_id: Id
    agent_id: Id | None = None
    resolution: str | None = None


class InteractionReopened(Fact, frozen=True, kw_only=True):
    """It was not settled after all."""

    interaction_id: Id
    reason: str | None = None


class PurchaseCompleted(Fact, frozen=True, kw_only=True):
    """A customer paid for an order."""

    order_id: Id
    customer_id: Id | None = None
    total: Money
    margin: Money | None = None


class PurchaseReturned(Fact, frozen=True, kw_only=True):
    """Goods came back, or their price was given back."""

    total: Money
    customer_id: Id | None = None
    order_id: Id | None = None
    item_kept: bool | None = None


class FeedbackReceived(Fact, frozen=True, kw_only=True):
    """A customer's answer to a survey, or a review."""

    customer_id: Id
    instrument: Literal["csat", "nps", "ces", "review"]
    score: float
    best: float
    worst: float
    interaction_id: Id | None = None
    comment: Personal | None = None


class RecognitionGiven(Fact, frozen=True, kw_only=True):
    """Thanks, recorded."""

    recognition_id: Id
    giver_id: Id
    receiver_id: Id
    reason: str
    points: Count | None = None
    interaction_id: Id | None = None
    giver_kind: Literal["customer", "peer", "manager"] | None = None


class CustomerReferred(Fact, frozen=True, kw_only=True):
    """One customer brought another."""

    customer_id: Id
    referred_customer_id: Id


class CustomerLinked(Fact, frozen=True, kw_only=True):
    """Two customer ids are one person or one household."""

    a: Id
    b: Id
    relation: Literal["same_person", "household"]


class CustomerUnlinked(Fact, frozen=True, kw_only=True):
    """They are not."""

    a: Id
    b: Id
    relation: Literal["same_person", "household"]


class EmployeeJoined(Fact, frozen=True, kw_only=True):
    """Somebody begins to work here in a role."""

    employee_id: Id
    role: Id
    team_ids: tuple[Id, ...]
    manager_id: Id | None = None


class EmployeeChanged(Fact, frozen=True, kw_only=True):
    """Another role, other teams or another manager, whole."""

    employee_id: Id
    role: Id
    team_ids: tuple[Id, ...]
    manager_id: Id | None = None


class EmployeeLeft(Fact, frozen=True, kw_only=True):
    """Somebody works here no more."""

    employee_id: Id
    reason: str | None = None


class TrainingCompleted(Fact, frozen=True, kw_only=True):
    """A course that may open authority, until it expires."""

    employee_id: Id
    course_id: Id
    valid_until: Instant | None = None


class ShiftStarted(Fact, frozen=True, kw_only=True):
    """Somebody is on duty."""

    employee_id: Id


class ShiftEnded(Fact, frozen=True, kw_only=True):
    """Somebody is off duty."""

    employee_id: Id


class RelationshipDeclared(Fact, frozen=True, kw_only=True):
    """An employee knows a customer and says so."""

    employee_id: Id
    customer_id: Id
    nature: str


class DelegationDeclared(Fact, frozen=True, kw_only=True):
    """One employee decides for another for a while."""

    from_employee_id: Id
    to_employee_id: Id
    from_time: Instant
    until_time: Instant


class ObstacleReported(Fact, frozen=True, kw_only=True):
    """What staff could not do, in their own words."""

    obstacle_id: Id
    employee_id: Id
    text: Personal
    kind: str | None = None
    amount: Money | None = None


class ObstacleAnswered(Fact, frozen=True, kw_only=True):
    """What was said to that."""

    obstacle_id: Id
    answered_by: Id
    text: Personal


class IdeaSubmitted(Fact, frozen=True, kw_only=True):
    """How it could be better."""

    idea_id: Id
    employee_id: Id
    text: Personal


class IdeaDecided(Fact, frozen=True, kw_only=True):
    """What became of it."""

    idea_id: Id
    decision: str
    decided_by: Id


class MoraleSurveyed(Fact, frozen=True, kw_only=True):
    """A team's answers, counted."""

    team_id: Id
    period: str
    invited: Count
    respondents: Count
    score: float
    best: float
    worst: float


class ActionReported(Fact, frozen=True, kw_only=True):
    """An action taken already, offline; always recorded."""

    agent_id: Id
    kind: Kind
    amount: Money
    reason: str
    customer_id: Id | None = None
    interaction_id: Id | None = None
    order_id: Id | None = None
    note: Personal | None = None
    guideline: Id | None = None
    team_id: Id | None = None
    basis: Basis = "goodwill"
    offline_reason: str | None = None


class RefundSettled(Fact, frozen=True, kw_only=True):
    """The payment processor says that the money went."""

    action_id: Id
    total: Money
    processor_reference: str | None = None


class EscalationReported(Fact, frozen=True, kw_only=True):
    """An escalation that another system handles."""

    escalation_id: Id
    kind: str | None = None
    amount: Money
    requested_by: Id | None = None
    interaction_id: Id | None = None
    customer_id: Id | None = None
    reason: str | None = None


class EscalationOutcomeReported(Fact, frozen=True, kw_only=True):
    """What became of it there."""

    escalation_id: Id
    verdict: Literal["approved", "denied", "withdrawn", "expired"]
    decided_by: Id | None = None
    amount: Money | None = None
    reason: str | None = None


class FactCorrected(Fact, frozen=True, kw_only=True):
    """An earlier fact of the same source was wrong: the right data, or null where it never happened."""

    source_of: RecordedId
    id_of: RecordedId
    data: dict[str, Any] | None
    reason: str


_NAMES: dict[str, type[Fact]] = {
    "interaction.opened": InteractionOpened,
    "interaction.transferred": InteractionTransferred,
    "interaction.resolved": InteractionResolved,
    "interaction.reopened": InteractionReopened,
    "purchase.completed": PurchaseCompleted,
    "purchase.returned": PurchaseReturned,
    "feedback.received": FeedbackReceived,
    "recognition.given": RecognitionGiven,
    "customer.referred": CustomerReferred,
    "customer.linked": CustomerLinked,
    "customer.unlinked": CustomerUnlinked,
    "employee.joined": EmployeeJoined,
    "employee.changed": EmployeeChanged,
    "employee.left": EmployeeLeft,
    "training.completed": TrainingCompleted,
    "shift.started": ShiftStarted,
    "shift.ended": ShiftEnded,
    "relationship.declared": RelationshipDeclared,
    "delegation.declared": DelegationDeclared,
    "obstacle.reported": ObstacleReported,
    "obstacle.answered": ObstacleAnswered,
    "idea.submitted": IdeaSubmitted,
    "idea.decided": IdeaDecided,
    "morale.surveyed": MoraleSurveyed,
    "action.reported": ActionReported,
    "refund.settled": RefundSettled,
    "escalation.reported": EscalationReported,
    "escalation.outcome_reported": EscalationOutcomeReported,
    "fact.corrected": FactCorrected,
}
FACTS: dict[str, type[Fact]] = {f"resolution.{name}.v1": cls for name, cls in _NAMES.items()}
"""Stored type name -> class. Names are data: a class may move, its name stays."""
