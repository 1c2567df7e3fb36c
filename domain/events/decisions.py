"""Events that the ledger records itself: decisions, budgets, policies. These classes are storage formats, as facts are.

Each event carries its cause (``domain.events.causes.Caused``).
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import msgspec

from domain.events.administration import (
    AccessRecorded,
    CustomerForgotten,
    EmployeeForgotten,
    ProjectionSkipped,
    SourceChanged,
    SourceRegistered,
    SourceRetired,
    SourceStopped,
    TrailRead,
)
from domain.events.causes import Caused
from domain.events.facts import ActionState, AgentKind, Basis, Count, Kind
from domain.events.flags import (
    CaseOpened,
    CaseRanked,
    CaseUpdated,
    FlagAnswered,
    FlagRaised,
    FlagReviewed,
    FlagUnmasked,
    FlagUpdated,
)
from domain.money import Money
from domain.serialization import Id, Instant, Personal

LEDGER_SOURCE = "resolution-ledger"
"""The CloudEvents ``source`` of all events that the ledger records itself."""


class Limit(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A limit that applied to an action: its name, its amount (absent: unlimited) and the amount used before."""

    name: str
    limit: Money | None = None
    used: Money


class Reason(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A reason why authority fell short: the rule, a message, and amounts where the rule has some."""

    rule: str
    message: str
    limit: Money | None = None
    used: Money | None = None
    asked: Money | None = None


class Shadow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The verdict of a policy in shadow mode on the same request."""

    policy_version: int
    outcome: Literal["taken", "escalate", "refused"]
    reasons: tuple[Reason, ...] = ()


class Record(Caused, frozen=True, kw_only=True):
    """The base of the events that decisions cause."""


class LimitEvidence(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The effect of a limit of one action in a replay of history as of a position, which its proposer attached."""

    position: Count
    role: str
    kind: Kind
    limit: Money
    days: Annotated[float, msgspec.Meta(ge=0, le=1e6)]
    given_at_once: Count
    escalations_spared: Count
    not_approved: Money
    """The amount of the escalations that had no approval in history."""
    would_escalate: Count
    """The actions that were given at once, and that would have needed an approval."""
    people_of: Id | None = None
    """The manager whose people were counted; absent: all people."""


class PolicyPublished(Record, frozen=True, kw_only=True):
    """A policy was published, in force from the document's ``effective_from`` on."""

    policy: dict[str, Any]
    version: int
    published_by: Id
    sha256: str
    trial_teams: tuple[str, ...] = ()
    """The teams that the policy's trial has drawn."""
    approved_by: tuple[Id, ...] = ()
    """The ids of the people who approved the proposal of this version."""
    break_glass: bool = False
    """An operator published it past the governance of the policy in force."""
    reason: str | None = None
    evidence: LimitEvidence | None = None


class PolicyProposed(Record, frozen=True, kw_only=True):
    """A policy was proposed in the place of a version; others approve it or object to it."""

    policy: dict[str, Any]
    sha256: str
    replaces: int
    """The newest enforced version at that time; once another one is published, the proposal has lapsed."""
    proposed_by: Id
    missing: int
    """The approvals that it needs."""
    signed_in: bool = False
    """The proposer signed in themselves, so they count as one person beside those who approve."""
    due: Instant | None = None
    """The end of the time for objections, where the governance has one."""
    evidence: LimitEvidence | None = None


class PolicyApproved(Record, frozen=True, kw_only=True):
    """A proposal was approved; the last approval is in one batch with the publication."""

    sha256: str
    approved_by: Id
    missing: int
    """The approvals that it still needs."""
    version: int | None = None
    """The version under which it was published; ``None``: it waits for other approvals or for its time."""


class PolicyObjected(Record, frozen=True, kw_only=True):
    """A proposal was stopped by an objection."""

    sha256: str
    objected_by: Id
    reason: str


type ProposalEvent = PolicyProposed | PolicyApproved | PolicyObjected


class OpenHold(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The amount that is reserved for one action."""

    action_id: str
    amount: Money
    interaction_id: Id | None = None


class BudgetOpened(Record, frozen=True, kw_only=True):
    """A holder's budget was opened for one period."""

    holder: str
    period: str
    currency: str
    granted: Money
    carried_over: Money
    policy_version: int
    holds: tuple[OpenHold, ...] = ()
    """Reservations that were open when the period before was closed, and go on in this one."""
    escalations: tuple[str, ...] = ()
    """Escalations of this agent that were open by then."""
    reopened: bool = False
    """A clock that ran ahead had closed this period before its end. The amount that lapsed is granted again."""
    granted_in: str | None = None
    """The currency of a budget with a grant for the same time; this one is granted nothing until the next period."""


class BudgetGranted(Record, frozen=True, kw_only=True):
    """A holder was granted more money, with a reason."""

    holder: str
    period: str
    amount: Money
    granted_by: Id
    reason: str


class GrantorCharged(Record, frozen=True, kw_only=True):
    """A grant was counted towards its grantor's amount for the period; recorded on the grantor's own budget."""

    holder: str
    """The budget of the person who granted, ``agent:<id>``."""
    period: str
    amount: Money
    granted_to: str
    limit: Money
    used: Money
    """The amount that this person had granted in the period before."""


class BudgetTransferred(Record, frozen=True, kw_only=True):
    """Money was transferred between two budgets; each budget records its side."""

    holder: str
    period: str
    direction: Literal["out", "in"]
    other_holder: str
    amount: Money
    granted_by: Id
    reason: str


class BudgetDrawn(Record, frozen=True, kw_only=True):
    """An agent's budget drew on the team's pool; each budget records its side."""

    holder: str
    period: str
    direction: Literal["out", "in"]
    other_holder: str
    amount: Money
    action_id: str


class BudgetClosed(Record, frozen=True, kw_only=True):
    """A period's budget was closed for ever; the remaining amount lapsed or was carried over.

    Reservations go on in the next period. ``overdrawn`` is the amount by which reported actions exceeded the budget.
    The next period does not repay it.
    """

    holder: str
    period: str
    spent: Money
    lapsed: Money
    carried_over: Money
    reserved: Money | None = None
    overdrawn: Money | None = None
    reopened: bool = False
    """The budget had been closed before, by a clock that ran ahead, and opened again."""


class Done(Record, frozen=True, kw_only=True):
    """The base of actions for a customer: the request, the agent, the budget and the limits that applied."""

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
    """A keyed hash of the note. The guard recognises copies by it, even after the note can no longer be read."""
    guideline: Id | None = None
    escalation_id: Id | None = None
    shadow: Shadow | None = None
    escalate: bool = False
    """The request asked for an escalation where the authority falls short."""
    owed: Money | None = None
    """The part of an entitlement or a correction that draws no budget; the rest counts as goodwill."""
    team_filled: bool = False
    """The request named no team: ``team_id`` is the first of the agent's teams, as the decider knew them."""
    manager_id: Id | None = None
    """The agent's manager, as the decider knew."""
    agent_kind: AgentKind = "human"


class ActionTaken(Done, frozen=True, kw_only=True):
    """An action was taken for a customer, within the agent's or an approver's authority."""

    state: ClassVar[ActionState] = "taken"
    authority: Literal["own", "approved"]
    decided_by: Id | None = None
    on_behalf_of: Id | None = None
    """The absent person that lends the authority, where ``decided_by`` was their delegate."""
    requested_by_source: str | None = None
    """The source of the escalation, where another source sent the approval."""


class ActionHeld(Done, frozen=True, kw_only=True):
    """Money was reserved until it is settled, or while an escalation is open (then with its id)."""

    state: ClassVar[ActionState] = "held"
    expires_at: Instant | None = None


class Posting(Record, frozen=True, kw_only=True):
    """The base of later changes of an action, posted to the budget that is open by then."""

    state: ClassVar[ActionState | None] = None
    """The action's state after this event; ``None``: as before."""
    action_id: str
    holder: str
    period: str
    amount: Money
    agent_id: Id
    basis: Basis = "goodwill"
    customer_id: Id | None = None
    interaction_id: Id | None = None
    owed: Money | None = None
    """The part of the amount that draws no budget; the rest counts as goodwill."""


class ActionSettled(Posting, frozen=True, kw_only=True):
    """Held money was paid, wholly or in part; the rest was released."""

    state: ClassVar[ActionState | None] = "settled"
    held: Money
    relates_to: int | None = None
    """The position of the ``refund.settled`` that reported the payment, where a fact did."""
    beyond: Money | None = None
    """The part of a reported payment above the hold; no budget pays it."""


class ActionVoided(Posting, frozen=True, kw_only=True):
    """Held money was released: the hold was voided, or it expired."""

    state: ClassVar[ActionState | None] = "voided"
    reason: str
    escalation_id: Id | None = None


class ActionCharged(Posting, frozen=True, kw_only=True):
    """A reported action was posted to its agent's budget, even beyond it.

    Where the ledger had decided the same action before, ``amount`` is only the part that the report adds to it, and
    the budget is that of the decision.
    """

    state: ClassVar[ActionState | None] = "charged"
    overdrawn: Money
    relates_to: int
    """The position of the ``action.reported``."""
    decided: Money | None = None
    """The amount that the decision on the same action had posted; ``None``: the ledger had not granted it."""
    reported: Money | None = None
    """The amount of the report, beside ``decided``."""


class ActionReversed(Posting, frozen=True, kw_only=True):
    """An action was reversed, wholly or in part; a recovered amount restores authority."""

    recovered: bool
    reversed_by: Id
    reason: str
    relates_to: int
    """The position of the action."""
    late: bool = False
    """The action's own period is closed, so the recovered amount is added to the open period's grant."""


class CustomerCharged(Record, frozen=True, kw_only=True):
    """Goodwill was given to a customer near the cap; recorded on the customer's own stream, in the action's batch."""

    customer_id: Id
    action_id: str
    amount: Money
    limit: Money
    used: Money
    days: int


class OrderCharged(Record, frozen=True, kw_only=True):
    """Much of what was paid for an order is given back; recorded on the order's own stream, in the action's batch."""

    order_id: Id
    action_id: str
    amount: Money
    paid: Money
    used: Money
    """The amount that was given back before."""


class AuthorityFellShort(Record, frozen=True, kw_only=True):
    """A request exceeded the agent's authority (`escalate`) or everyone's (`refused`)."""

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
    note_hash: str | None = None
    escalate: bool = False
    """The request asked for an escalation."""
    hold: bool = False
    """The request asked to hold the money."""
    owed: Money | None = None
    """The part of an entitlement or a correction that needs no authority."""
    team_filled: bool = False
    """The request named no team: ``team_id`` is the first of the agent's teams, as the decider knew them."""
    manager_id: Id | None = None
    """The agent's manager, as the decider knew."""
    agent_kind: AgentKind = "human"


EscalationStatus = Literal["requested", "forwarded", "approved", "denied", "withdrawn", "expired"]
"""The last step of an escalation, as answers, views and summaries name it; a view calls an open one ``waiting``."""


class EscalationRequested(Record, frozen=True, kw_only=True):
    """An escalation was requested; ``holder`` is the budget that reserves its amount, if any."""

    status: ClassVar[EscalationStatus] = "requested"
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
    """The people asked to decide: the manager with the right to approve, or without a known manager all such people."""
    due: Instant
    policy_version: int
    budget: str
    """The agent's budget; the escalation is recorded on its subject."""
    period: str
    currency: str
    holder: str | None = None
    team_id: Id | None = None
    customer_id: Id | None = None
    interaction_id: Id | None = None
    order_id: Id | None = None
    note: Personal | None = None
    guideline: Id | None = None
    owed: Money | None = None
    """The part that was shown as owed by then; the approval looks again."""

    @property
    def owed_minor(self) -> int | None:
        """The owed part in minor units."""
        return None if self.owed is None else self.owed.minor

    @property
    def counted(self) -> Money:
        """The part that an approver has to allow."""
        return self.amount if self.owed is None else Money(self.amount.minor - self.owed.minor, self.amount.currency)

    team_filled: bool = False
    """The request named no team: ``team_id`` is the first of the agent's teams, as the decider knew them."""
    manager_id: Id | None = None
    """The agent's manager, as the decider knew."""
    agent_kind: AgentKind = "human"


class EscalationStep(Record, frozen=True, kw_only=True):
    """The base of later events of an escalation; ``decided_by`` is absent where a timer caused it."""

    status: ClassVar[EscalationStatus]
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
    team_id: Id | None = None
    """The team of the escalation."""
    requested_by_source: str | None = None
    """The source of the escalation, where another source or a timer made the step."""


class EscalationForwarded(EscalationStep, frozen=True, kw_only=True):
    """An escalation was passed on: by a person, or up one level because no answer came in time."""

    status: ClassVar[EscalationStatus] = "forwarded"
    to: tuple[str, ...]
    due: Instant


class EscalationApproved(EscalationStep, frozen=True, kw_only=True):
    """An escalation was approved, in full or for less; the action is taken in the same batch."""

    status: ClassVar[EscalationStatus] = "approved"
    asked: Money
    action_id: str
    paid_by: str


class EscalationDenied(EscalationStep, frozen=True, kw_only=True):
    """An escalation was denied."""

    status: ClassVar[EscalationStatus] = "denied"


class EscalationWithdrawn(EscalationStep, frozen=True, kw_only=True):
    """An escalation was withdrawn by its requester."""

    status: ClassVar[EscalationStatus] = "withdrawn"


class EscalationExpired(EscalationStep, frozen=True, kw_only=True):
    """An escalation expired without an answer, with no higher level to ask, or its requester has left."""

    status: ClassVar[EscalationStatus] = "expired"


_NAMES: dict[str, type[msgspec.Struct]] = {
    "policy.published": PolicyPublished,
    "policy.proposed": PolicyProposed,
    "policy.approved": PolicyApproved,
    "policy.objected": PolicyObjected,
    "budget.opened": BudgetOpened,
    "budget.granted": BudgetGranted,
    "grantor.charged": GrantorCharged,
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
    "order.charged": OrderCharged,
    "escalation.requested": EscalationRequested,
    "escalation.forwarded": EscalationForwarded,
    "escalation.approved": EscalationApproved,
    "escalation.denied": EscalationDenied,
    "escalation.withdrawn": EscalationWithdrawn,
    "escalation.expired": EscalationExpired,
    "projection.skipped": ProjectionSkipped,
    "customer.forgotten": CustomerForgotten,
    "employee.forgotten": EmployeeForgotten,
    "trail.read": TrailRead,
    "source.registered": SourceRegistered,
    "source.changed": SourceChanged,
    "source.stopped": SourceStopped,
    "source.retired": SourceRetired,
    "access.recorded": AccessRecorded,
    "flag.raised": FlagRaised,
    "flag.updated": FlagUpdated,
    "flag.unmasked": FlagUnmasked,
    "flag.reviewed": FlagReviewed,
    "flag.answered": FlagAnswered,
    "case.ranked": CaseRanked,
    "case.opened": CaseOpened,
    "case.updated": CaseUpdated,
}
RECORDS: dict[str, type[msgspec.Struct]] = {f"resolution.{name}.v1": cls for name, cls in _NAMES.items()}
"""Class by stored type name, for the events that the ledger records today."""

TYPE_OF: dict[type[msgspec.Struct], str] = {cls: name for name, cls in RECORDS.items()}

RESERVED: frozenset[str] = frozenset(RECORDS)
"""Types that only the ledger may record; facts from outside with such a type are rejected."""
