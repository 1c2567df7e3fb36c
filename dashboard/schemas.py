"""The answers of the HTTP API, as documents of known shape, and the forms of its responses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NotRequired, TypedDict

import msgspec
from fastapi import Response
from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from domain.analytics.empowerment_gap import Share  # noqa: TC001 - schemas are made from the annotations
from domain.documents.replies import ErrorCode
from domain.documents.rows import (  # noqa: TC001 - schemas are made from the annotations
    ActionRow,
    EscalationRow,
    SignedMoney,
    TrailRow,
)
from domain.events.decisions import LimitEvidence, Reason  # noqa: TC001 - schemas are made from the annotations
from projections.policy_history import PolicyChange, PolicyVersion  # noqa: TC001 - schemas are made from the annotations
from projections.reports.authority_now import AuthorityNow
from projections.reports.beyond_authority import BeyondAuthority
from projections.reports.consistency import ConsistencyReport
from projections.reports.empowerment_gap import GapReport
from projections.reports.explanation import Explanation
from projections.reports.limit_simulation import LimitWhatIf
from projections.reports.loyalty import LoyaltyReport
from projections.reports.recognition import RecognitionReport
from projections.reports.service_quality import QualityReport
from projections.reports.summary import Summary
from projections.reports.unused_authority import UnusedAuthorityReport

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from domain.ids import IdFault

PROBLEM = "application/problem+json"


class JsonResponse(Response):
    """A JSON response, encoded by msgspec. No shared cache may keep it, because it is that of one caller."""

    media_type = "application/json"

    def init_headers(self, headers: Mapping[str, str] | None = None) -> None:
        """Set the headers, and ``Cache-Control`` where there is none."""
        super().init_headers(headers)
        self.headers.setdefault("Cache-Control", "private, no-cache")

    def render(self, content: object) -> bytes:
        """Return the content as JSON."""
        return msgspec.json.encode(content)


def checked_by(fault_of: Callable[[str], IdFault | None]) -> AfterValidator:
    """Return a validator of texts that rejects those with a fault."""

    def check(text: str) -> str:
        if (fault := fault_of(text)) is not None:
            raise PydanticCustomError(fault.code, "{message}", {"message": fault.message})
        return text

    return AfterValidator(check)


_Range = TypedDict("_Range", {"from": str | None, "to": str | None, "time_zone": str, "by_time": str}, total=False)
"""The range of event times, where the request limits it."""


class _Answer(TypedDict):
    """The fields of every answer of a view."""

    position: int
    """The position up to which the view has read the log."""
    lag_seconds: float


class _Total(TypedDict):
    """The total of a list, where the request asks for it."""

    total: NotRequired[int | None]
    """The number of items in the whole list, where `count` asks for it; null where counting takes more than 0.1 s."""


class Page[Row](_Answer, _Range, _Total):
    """A page of a list in the order of the log."""

    items: list[Row]
    next: NotRequired[int | None]


class KeyPage[Row](_Answer, _Range, _Total):
    """A page of a list in the order of its key."""

    items: list[Row]
    next: NotRequired[str | None]


class PluginRow(TypedDict):
    """A row of a view that another package adds; its fields are those of the table."""


class Purchases(TypedDict):
    """A customer's purchases within a time."""

    purchases: int
    revenue: SignedMoney
    """The amount paid."""
    returned: SignedMoney
    """The amount given back."""


class EffectWindow(TypedDict):
    """The purchases before an action and after it; null where the time is not over."""

    before: Purchases | None
    """The purchases before the action."""
    after: Purchases | None
    """The purchases after the action."""


class EffectRow(TypedDict):
    """An action for a customer, with the purchases around it."""

    action_id: str
    customer_id: str | None
    agent_id: str | None
    kind: str
    basis: str
    time: str
    cost: SignedMoney
    """The cost to the company."""
    windows: dict[str, EffectWindow]
    """The purchases around it, by number of days."""
    position: int


class LoyaltyAnswer(LoyaltyReport):
    """Customer value, by evidence level, with a page of actions."""

    lag_seconds: float
    items: list[EffectRow]
    next: int | None


class BeyondAuthorityAnswer(BeyondAuthority):
    """Actions beyond the front line's authority in a range of days."""

    lag_seconds: float


class ConsistencyAnswer(ConsistencyReport):
    """The consistency of goodwill in a range of days."""

    lag_seconds: float


class GapAnswer(GapReport):
    """The authority gap."""

    lag_seconds: float


class LimitWhatIfAnswer(LimitWhatIf):
    """The effect of another limit of one action, in a replay of history."""

    lag_seconds: float


class QualityAnswer(QualityReport):
    """Service quality."""

    lag_seconds: float


class RecognitionAnswer(RecognitionReport):
    """Recognition, training, ideas, morale and retention."""

    lag_seconds: float


class SummaryAnswer(Summary):
    """Totals of a range of days, with the range before."""

    lag_seconds: float


class UnusedAuthorityAnswer(UnusedAuthorityReport):
    """Employees with less than a tenth of their budget spent in a period, by kind of action."""

    lag_seconds: float


class AuthorityAnswer(AuthorityNow):
    """The authority of an employee now, without approval."""

    lag_seconds: float


class StorySentence(TypedDict):
    """A sentence of an action's story."""

    what: str
    said: str


class ExplanationAnswer(Explanation):
    """The reasons for an action, and its story in sentences."""

    story: list[StorySentence]


class EscalationCase(_Answer):
    """An escalation with all that its decision rests on."""

    escalation: EscalationRow
    """The escalation."""
    limits: list[Reason]
    """The limits that it met; none for one that was reported by another system."""
    customer_ids: list[str]
    """The customer, and the customers linked with them."""
    actions: list[ActionRow]
    """The last actions for this customer, the newest first."""
    waiting: list[EscalationRow]
    """Other escalations about this customer that wait."""
    alike: list[EscalationRow]
    """The last decided escalations of the same kind and reason, the newest first."""
    alike_decided: Share
    """The share that was approved, of the last 200 of the same kind and reason."""
    story: list[TrailRow]
    """The last events of the interaction, the oldest first."""


class EventAnswer(_Answer):
    """An event as it was recorded, with its position, and in one sentence."""

    event: dict[str, Any]
    what: str


class EventReceipt(TypedDict):
    """The receipt of a published event; `GET /api/v1/receipts/{id}` has its outcome."""

    id: str
    status: Literal["pending"]
    """Durable in the inbox, and not yet recorded or rejected."""
    stream: str
    seq: int


class PublishedEvents(TypedDict):
    """The receipts of published events, in the order of the request."""

    receipts: list[EventReceipt]


class ProposalState(TypedDict):
    """A proposed policy, and how far it has come."""

    sha256: str
    state: Literal["open", "objected", "published"]
    policy: dict[str, Any]
    replaces: int
    proposed_by: str
    at: str
    """The time of the proposal."""
    signed_in: bool
    due: str | None
    """The end of the time for objections."""
    approved_by: list[str]
    missing: int
    evidence: LimitEvidence | None
    """The effect of its limit in a replay of history, where its proposer attached it."""


class PolicyProposals(TypedDict):
    """All proposals, the newest first."""

    items: list[ProposalState]
    position: int


class LimitChange(TypedDict):
    """The change of the policy that another limit would make."""

    proposed: bool
    """It is proposed, and needs approvals; false: it is published at once."""
    replaces: int
    """The newest enforced version; send it with the command, so that another version since is noticed."""
    effective_from: str
    """The time from which the changed policy is in force."""
    changes: list[PolicyChange]
    """The fields that differ from the policy in force."""


class PolicyVersions(TypedDict):
    """All published versions of the policy, the newest first."""

    items: list[PolicyVersion]
    position: int


class EmployeeName(TypedDict):
    """The name of an employee."""

    employee_id: str
    name: str | None
    """The name; null where no source gave one, or it was forgotten."""


class EmployeeNames(_Answer):
    """The names of employees that the caller sees, and of their managers."""

    items: list[EmployeeName]


class CheckpointRow(TypedDict):
    """A checkpoint of the seal that the ledger holds."""

    number: int
    """Its number by size, from 1."""
    size: int
    """The number of positions that it covers."""
    time: str | None
    """The recorded time of the last event that it covers; null where that position was lost."""
    root: str
    """The root hash, as hexadecimal digits."""
    signed_by: list[str]
    """The ids of the trusted keys that signed it."""
    witnesses: int
    """The number of other signatures."""
    verified: bool
    """A trusted key signed it, and its root is that of the stored tiles. `audit verify` compares the whole log."""
    note: str
    """The checkpoint as a signed note (C2SP tlog-checkpoint), to keep elsewhere."""


class CheckpointList(TypedDict):
    """The checkpoints that the ledger holds, the newest first."""

    items: list[CheckpointRow]


class Caller(TypedDict):
    """The caller, and the people and teams that they may see."""

    name: str
    """The name of the token."""
    role: Literal["agent", "manager", "auditor", "operator"]
    person_id: str | None
    source: str | None
    """The source of the token; always null here."""
    people: list[str] | None
    teams: list[str]
    newest_action: str | None
    """The event time of the newest action that they see."""


class SchemaList(TypedDict):
    """The paths of all JSON Schemas."""

    items: list[str]


class SessionState(TypedDict):
    """The state of a browser's session."""

    known: bool
    openid: bool
    """People may sign in by an OpenID provider, at `/openid/sign-in`."""
    caller: Caller | None
    """The bearer of a valid session."""


class SessionRow(TypedDict):
    """An open session of a browser."""

    id: str
    """The SHA-256 of the session's secret, which opens nothing."""
    name: str
    """The name of the token."""
    role: Literal["agent", "manager", "auditor", "operator"]
    person_id: str | None
    begun: str
    expires: str
    """The time at which it ends by itself."""
    current: bool


class SessionList(TypedDict):
    """The open sessions that the caller may see, the newest first."""

    items: list[SessionRow]


class Health(TypedDict):
    """The health of the server."""

    status: Literal["ok"]


ProblemCode = ErrorCode | Literal["unknown_parameter", "repeated_parameter"]


class EventFault(TypedDict):
    """The fault of one event of a request."""

    number: int
    """Its number in the batch, from 0."""
    id: str
    code: ErrorCode
    field: str
    message: str


class Problem(TypedDict):
    """Problem details (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    field: NotRequired[str | None]
    code: NotRequired[ProblemCode | None]
    errors: NotRequired[list[EventFault]]


TITLES = {
    400: "bad request",
    401: "unauthorized",
    403: "forbidden",
    404: "not found",
    405: "method not allowed",
    408: "request timeout",
    409: "conflict",
    413: "content too large",
    421: "misdirected request",
    422: "unprocessable content",
    429: "too many requests",
    431: "request header fields too large",
    503: "service unavailable",
}
