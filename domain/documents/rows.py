"""Rows of lists, as the HTTP API, the command line and briefs show them; each document is one row.

Later versions may add fields. An amount is `{"amount": "5.00", "currency": "GBP"}`; only a remainder can be negative.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypedDict

import msgspec

from domain.events.facts import AgentKind, Basis  # noqa: TC001 - msgspec reads the annotations

type Moment = str
"""A time in UTC (RFC 3339, microseconds)."""
SIGNED_AMOUNT = r"^-?(0|[1-9][0-9]*)(\.[0-9]+)?$"


class SignedMoney(msgspec.Struct, frozen=True):
    """An amount in an answer. A budget that reported actions overdrew has a negative remainder."""

    amount: Annotated[str, msgspec.Meta(pattern=SIGNED_AMOUNT)]
    """The amount as text, with the digits of its currency."""
    currency: Annotated[str, msgspec.Meta(pattern="^[A-Z]{3}$")]


class Balance(msgspec.Struct, frozen=True):
    """A budget in an answer, right after the decision."""

    holder: str
    period: str
    granted: SignedMoney
    spent: SignedMoney
    reserved: SignedMoney
    remaining: SignedMoney


class BalanceRow(TypedDict):
    """A holder's budget for one period."""

    holder: str
    period: str
    granted: SignedMoney
    spent: SignedMoney
    reserved: SignedMoney
    remaining: SignedMoney
    granted_in_period: SignedMoney
    """The amount granted, also the part that lapsed or was carried over when the period was closed."""
    opened: Moment
    closed: bool
    """The period is closed."""


ActionRowState = Literal["taken", "held", "settled", "voided", "charged", "reversed", "reported", "never happened"]


class ActionRow(TypedDict):
    """An action with its present state."""

    action_id: str
    position: int | None
    time: Moment | None
    state: ActionRowState | None
    agent_id: str | None
    team_id: str | None
    customer_id: str | None
    interaction_id: str | None
    role: str | None
    kind: str | None
    basis: Basis | None
    reason: str | None
    holder: str | None
    period: str | None
    escalation_id: str | None
    decided_by: str | None
    manager_id: str | None
    agent_kind: AgentKind | None
    amount: SignedMoney | None
    reversed: SignedMoney | None
    """The part that was reversed."""
    settled: SignedMoney | None
    """The part that was paid, once a payment system or a request says so."""


class EscalationRow(TypedDict):
    """An escalation with its outcome."""

    escalation_id: str
    position: int | None
    requested: Moment | None
    status: Literal["waiting", "approved", "denied", "withdrawn", "expired"] | None
    agent_id: str | None
    team_id: str | None
    customer_id: str | None
    interaction_id: str | None
    kind: str | None
    reason: str | None
    asked_of: list[str]
    due: Moment | None
    decided_by: str | None
    manager_id: str | None
    agent_kind: AgentKind | None
    waited_seconds: float | None
    action_id: str | None
    reported_by: str | None
    """The source that reported it from another system; null for one that was filed here."""
    asked: SignedMoney | None
    amount: SignedMoney | None
    """The amount that was approved."""


class EmployeeRow(TypedDict):
    """An employee, or an AI agent, with the name that their source gave."""

    employee_id: str
    name: str | None
    """The name; null where no source gave one, or it was forgotten."""
    role: str | None
    team_ids: list[str]
    manager_id: str | None
    manager_name: str | None
    """The manager's name."""
    joined: Moment | None
    """The time at which they joined."""
    left: Moment | None
    """The time at which they left the company."""


class ObstacleRow(TypedDict):
    """An obstacle that an employee has reported, with its answer."""

    obstacle_id: str
    time: Moment
    employee_id: str
    kind: str | None
    """The subject, in the words of the source."""
    text: str | None
    """The employee's words; null once they are forgotten."""
    answered_at: Moment | None
    """The time of the answer."""
    answered_by: str | None
    answer: str | None
    """The text of the answer; null once its writer is forgotten."""


class IdeaRow(TypedDict):
    """An idea that an employee has submitted, with the decision on it."""

    idea_id: str
    time: Moment
    employee_id: str
    text: str | None
    """The employee's words; null once they are forgotten."""
    decided_at: Moment | None
    """The time of the decision."""
    decided_by: str | None
    decision: str | None


class ThanksRow(TypedDict):
    """Recognition that an employee got."""

    recognition_id: str
    time: Moment
    receiver_id: str
    giver_id: str
    giver_kind: str | None
    reason: str
    points: int | None
    interaction_id: str | None


class FlagRow(TypedDict):
    """A flag of the guard for human review; it is not a verdict."""

    flag_id: str
    position: int
    rule: str
    rule_version: int
    about: list[str]
    explanation: str
    evidence: list[int]
    raised: Moment
    status: Literal["open", "confirmed", "coached", "dismissed"]
    unmasked_by: str | None
    reviewed: Moment | None
    reviewed_by: str | None
    answered_by: str | None
    answer: str | None
    note: str | None


class CaseRow(TypedDict):
    """A case of the guard: flags about one subject, reviewed together."""

    case_id: str
    position: int
    subject: str
    about: list[str]
    rank: int
    score: float | None
    """The chance times 1 + the loss in usual actions; the highest comes first."""
    rules: list[str]
    flag_ids: list[str]
    expected_loss: SignedMoney | None
    explanation: str
    status: Literal["below", "open", "closed"]
    found: Moment
    opened: Moment | None
    closed: Moment | None
    """The time of the review of its last flag."""
    reviewed_flags: list[str]


class AccessRow(TypedDict):
    """An access that the ledger recorded, or a read about named people."""

    position: int
    time: Moment
    recorded: Moment
    """The recorded time."""
    who: str
    """The person or the name of a token, `operator` on the command line, `unknown` of a refused sign-in."""
    what: str
    """`sign-in`, `sign-in refused`, `sign-out`, `session ended`, `token made`, `export`, and so on, or `read`."""
    via: str | None
    """`http` or `cli`; null of a read."""
    about: list[str]
    """Of a read: the subjects that were named, such as `agent:A-7`."""
    up_to: int | None
    """Of a read: the last position that was shown."""


class TrailRow(TypedDict):
    """An event in the audit trail, in one sentence."""

    position: int
    type: str
    source: str
    event_id: str
    time: Moment
    recorded: Moment
    who: str | None
    whom: str | None
    interaction_id: str | None
    action_id: str | None
    what: str
    corrected_by: int | None


class SourceRow(TypedDict):
    """A source, with the number of its recorded events."""

    source: str
    events: int
    last_recorded: Moment


class ArrivalRow(TypedDict):
    """A recorded event of a source."""

    event_id: str
    type: str
    time: Moment
    recorded: Moment
    position: int


class RejectionRow(TypedDict):
    """A rejected event of a source, with the reason."""

    entry: int
    code: str
    field: str
    message: str
    recorded: Moment


class ViewRow(TypedDict):
    """A view, with its position in the log."""

    view: str
    position: int
    lag_seconds: float
    stopped: str | None


class StoryLine(TypedDict):
    """An event of an interaction, in one sentence."""

    time: Moment
    who: str | None
    what: str
    position: int


class BriefInteraction(TypedDict):
    """An interaction of the customer, with its story."""

    interaction_id: str
    customer_id: str | None
    status: Literal["open", "resolved"] | None
    opened: str | None
    channel: str | None
    reason: str | None
    agent_id: str | None
    team_id: str | None
    line: int | None
    order_id: str | None
    transfers: int | None
    stories_repeated: int | None
    resolution: str | None
    story: list[StoryLine]


class Promise(TypedDict, total=False):
    """A matter that is still open: held money, or an escalation without an answer."""

    what: str
    action_id: str
    escalation_id: str
    kind: str
    amount: SignedMoney
    asked: SignedMoney
    reason: str
    asked_of: list[str]
    due: str
    time: str
    interaction_id: str
