"""Facts: events that upstream systems report, one immutable class for each type.

These classes are storage formats. A class never changes its meaning: a new version gets a new type name and an upcast.
Fields that a class does not know are kept in the stored event, and count as personal.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import msgspec

from domain.money import Money
from domain.serialization import Id, Instant, Personal, RecordedId

Kind = Literal[
    "refund", "credit", "discount", "replacement", "keep_item", "fee_waiver", "upgrade", "gift", "fix", "other"
]
Basis = Literal["goodwill", "entitlement", "correction"]
AgentKind = Literal["human", "ai"]
ActionState = Literal["taken", "held", "settled", "voided", "reported", "charged"]
Line = Annotated[int, msgspec.Meta(ge=1, le=9)]
Seconds = Annotated[float, msgspec.Meta(ge=0)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class Fact(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The base class of all facts, without fields."""


class InteractionOpened(Fact, frozen=True, kw_only=True):
    """A customer contacted the company about a matter."""

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
    """Another agent or team took over the interaction."""

    interaction_id: Id
    to_agent_id: Id | None = None
    to_team_id: Id | None = None
    from_agent_id: Id | None = None
    from_team_id: Id | None = None
    line: Line | None = None
    story_repeated: bool | None = None
    waited_seconds: Seconds | None = None


class InteractionResolved(Fact, frozen=True, kw_only=True):
    """The interaction was settled, as far as the company knows."""

    interaction_id: Id
    agent_id: Id | None = None
    resolution: str | None = None


class InteractionReopened(Fact, frozen=True, kw_only=True):
    """A resolved interaction was opened again."""

    interaction_id: Id
    reason: str | None = None


class PurchaseCompleted(Fact, frozen=True, kw_only=True):
    """A customer paid for an order."""

    order_id: Id
    customer_id: Id | None = None
    total: Money
    margin: Money | None = None


class PurchaseReturned(Fact, frozen=True, kw_only=True):
    """A customer returned goods, or got their price back."""

    total: Money
    customer_id: Id | None = None
    order_id: Id | None = None
    item_kept: bool | None = None


class FeedbackReceived(Fact, frozen=True, kw_only=True):
    """A customer answered a survey or wrote a review."""

    customer_id: Id
    instrument: Literal["csat", "nps", "ces", "review"]
    score: float
    best: float
    worst: float
    interaction_id: Id | None = None
    comment: Personal | None = None


class RecognitionGiven(Fact, frozen=True, kw_only=True):
    """An employee was thanked by a customer, a peer or a manager."""

    recognition_id: Id
    giver_id: Id
    receiver_id: Id
    reason: str
    points: Count | None = None
    interaction_id: Id | None = None
    giver_kind: Literal["customer", "peer", "manager"] | None = None


class CustomerReferred(Fact, frozen=True, kw_only=True):
    """A customer brought a new customer."""

    customer_id: Id
    referred_customer_id: Id


class CustomerLinked(Fact, frozen=True, kw_only=True):
    """Two customer ids were found to be one person or one household."""

    a: Id
    b: Id
    relation: Literal["same_person", "household"]


class CustomerUnlinked(Fact, frozen=True, kw_only=True):
    """Two linked customer ids were found to be separate."""

    a: Id
    b: Id
    relation: Literal["same_person", "household"]


class EmployeeJoined(Fact, frozen=True, kw_only=True):
    """An employee, or an AI agent (`kind`: `ai`), started in a role. A person answers for an AI (`accountable_id`)."""

    employee_id: Id
    role: Id
    team_ids: tuple[Id, ...]
    manager_id: Id | None = None
    name: Personal | None = None
    kind: AgentKind | None = None
    accountable_id: Id | None = None


class EmployeeChanged(Fact, frozen=True, kw_only=True):
    """An employee's role, teams or manager changed; the event holds all three. Without `kind` it stays as it was."""

    employee_id: Id
    role: Id
    team_ids: tuple[Id, ...]
    manager_id: Id | None = None
    name: Personal | None = None
    kind: AgentKind | None = None
    accountable_id: Id | None = None


class EmployeeLeft(Fact, frozen=True, kw_only=True):
    """An employee left the company."""

    employee_id: Id
    reason: str | None = None


class TrainingCompleted(Fact, frozen=True, kw_only=True):
    """An employee completed a course, which may extend authority until it expires."""

    employee_id: Id
    course_id: Id
    valid_until: Instant | None = None


class ShiftStarted(Fact, frozen=True, kw_only=True):
    """An employee went on duty."""

    employee_id: Id


class ShiftEnded(Fact, frozen=True, kw_only=True):
    """An employee went off duty."""

    employee_id: Id


class RelationshipDeclared(Fact, frozen=True, kw_only=True):
    """An employee declared a relationship with a customer."""

    employee_id: Id
    customer_id: Id
    nature: str


class DelegationDeclared(Fact, frozen=True, kw_only=True):
    """An employee delegated decisions to another for a time."""

    from_employee_id: Id
    to_employee_id: Id
    from_time: Instant
    until_time: Instant


class ObstacleReported(Fact, frozen=True, kw_only=True):
    """An employee reported an obstacle: a thing that could not be done for a customer."""

    obstacle_id: Id
    employee_id: Id
    text: Personal
    kind: str | None = None
    amount: Money | None = None


class ObstacleAnswered(Fact, frozen=True, kw_only=True):
    """A reported obstacle was answered."""

    obstacle_id: Id
    answered_by: Id
    text: Personal


class IdeaSubmitted(Fact, frozen=True, kw_only=True):
    """An employee submitted an idea for improvement."""

    idea_id: Id
    employee_id: Id
    text: Personal


class IdeaDecided(Fact, frozen=True, kw_only=True):
    """A submitted idea was decided."""

    idea_id: Id
    decision: str
    decided_by: Id


class MoraleSurveyed(Fact, frozen=True, kw_only=True):
    """A team answered a morale survey; the event holds counts and the score."""

    team_id: Id
    period: str
    invited: Count
    respondents: Count
    score: float
    best: float
    worst: float


class ActionReported(Fact, frozen=True, kw_only=True):
    """An action was taken offline before it was reported; it is always recorded."""

    state: ClassVar[ActionState] = "reported"
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
    """The payment processor paid a refund: of an action, or of an order with the processor's own reference."""

    action_id: Id | None = None
    total: Money
    order_id: Id | None = None
    processor_reference: str | None = None

    def __post_init__(self) -> None:
        """Require a name of the refund.

        Raises:
            ValueError: it names neither an action nor an order with a reference.

        """
        if self.action_id is None and (self.order_id is None or self.processor_reference is None):
            raise ValueError("name the action_id, or the order_id and the processor_reference")


class EscalationReported(Fact, frozen=True, kw_only=True):
    """An escalation was requested in another system."""

    escalation_id: Id
    kind: str | None = None
    amount: Money
    requested_by: Id | None = None
    interaction_id: Id | None = None
    customer_id: Id | None = None
    reason: str | None = None


class EscalationOutcomeReported(Fact, frozen=True, kw_only=True):
    """An escalation ended in the other system."""

    escalation_id: Id
    verdict: Literal["approved", "denied", "withdrawn", "expired"]
    decided_by: Id | None = None
    amount: Money | None = None
    reason: str | None = None


class FactCorrected(Fact, frozen=True, kw_only=True):
    """A source corrected its earlier fact: with the right data, or null if the fact never happened."""

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
"""Class by stored type name, e.g. ``resolution.purchase.completed.v1``. A class may move, its stored name stays."""
