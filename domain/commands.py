"""Requests for decisions, and the errors that they may meet before a decision is made."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Annotated, Any, Literal

import msgspec

from domain.events.decisions import LimitEvidence
from domain.events.facts import Basis, Kind
from domain.events.flags import Verdict
from domain.money import Money
from domain.serialization import Holder, Id, Instant, JsonObject, Personal


class RequestError(Exception):
    """An error that recorded nothing; the request may be sent again, corrected or later.

    Attributes:
        code: a stable word for programs, e.g. `unknown_agent`.
        message: the fault and its remedy.
        field: the field of the request at fault, if any.

    """

    def __init__(self, code: str, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.field = field

    def wire(self) -> JsonObject:
        """Return the answer that reports this error."""
        error = {"code": self.code, "message": self.message}
        if self.field:
            error["field"] = self.field
        return {"outcome": "error", "error": error}


class Preview(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A preview of an action request; without ``amount`` it asks for the most that this agent could give."""

    agent_id: Id
    kind: Kind
    reason: str = ""
    amount: Money | None = None
    request_id: Id | None = None
    customer_id: Id | None = None
    interaction_id: Id | None = None
    order_id: Id | None = None
    note: Personal | None = None
    note_hash: str | None = None
    """A keyed hash of the note's normal form; the ledger sets it."""
    guideline: Id | None = None
    team_id: Id | None = None
    basis: Basis = "goodwill"
    escalate: bool = False
    hold: bool = False
    time: Instant | None = None


class ActionRequest(Preview, frozen=True, kw_only=True):
    """A request to take an action for a customer within the agent's authority."""

    request_id: Id
    amount: Money
    reason: str


class GrantRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A request to grant a holder more in the current period."""

    request_id: Id
    operation: Literal["grant"]
    holder: Holder
    amount: Money
    granted_by: Id
    reason: str
    time: Instant | None = None


class TransferRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A request to transfer money that one holder has left to another."""

    request_id: Id
    operation: Literal["transfer"]
    holder: Holder
    to_holder: Holder
    amount: Money
    granted_by: Id
    reason: str
    time: Instant | None = None


class HoldRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A request to settle held money (all, or ``amount`` of it), or to void the hold."""

    request_id: Id
    action_id: Id
    operation: Literal["settle", "void"]
    amount: Money | None = None
    reason: str | None = None
    time: Instant | None = None


class ReversalRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A request to reverse an action, all or ``amount`` of it; ``recovered`` says whether the money came back."""

    request_id: Id
    action_id: Id
    reversed_by: Id
    reason: str
    recovered: bool
    amount: Money | None = None
    time: Instant | None = None


class EscalationAsk(ActionRequest, frozen=True, kw_only=True):
    """A request for an action that needs an approver's authority."""

    operation: Literal["request"]


class EscalationDecision(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A decision on an escalation; ``to`` is the person to forward it to (absent: one level up)."""

    request_id: Id
    operation: Literal["approve", "deny", "withdraw", "forward"]
    escalation_id: Id
    decided_by: Id
    amount: Money | None = None
    reason: str | None = None
    to: Id | None = None
    time: Instant | None = None


class BriefRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A request for the case file of a customer or an interaction, to take it over."""

    agent_id: Id
    customer_id: Id | None = None
    interaction_id: Id | None = None
    request_id: Id | None = None


class NotificationsRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A request for the kept notifications after a sequence; ``next`` of an answer is ``after`` of the next request."""

    after: Annotated[int, msgspec.Meta(ge=0, le=2**53)] = 0
    limit: Annotated[int, msgspec.Meta(ge=1, le=500)] = 100
    request_id: Id | None = None


class ReceiptRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """A request for receipts: one ``id``, up to 1000 ``ids``, or ``stream`` and ``seq`` from the PubAck.

    ``source`` names the source where several share an old token. Every text is allowed as an id: the receipt of an
    invalid id says that it is invalid.
    """

    id: str | None = None
    ids: tuple[str, ...] = ()
    source: str | None = None
    stream: str | None = None
    seq: int | None = None


class FlagRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A review of a flag, or the answer of the employee concerned.

    A review has ``verdict`` and ``reviewed_by``, an answer has ``employee_id`` and ``text``. With ``unmasked_by`` alone
    it starts the review, so that the flag shows names.
    """

    request_id: Id
    flag_id: str
    unmasked_by: Id | None = None
    verdict: Verdict | None = None
    reviewed_by: Id | None = None
    note: Personal | None = None
    employee_id: Id | None = None
    text: Personal | None = None
    time: Instant | None = None


class PolicyRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A request of an operator to publish a policy; ``break_glass``: past the governance of the one in force.

    ``replaces`` is the newest enforced version that the operator saw; the request is refused where it is another one.
    """

    request_id: Id
    policy: dict[str, Any]
    published_by: Id
    replaces: int | None = None
    break_glass: bool = False
    reason: str | None = None
    evidence: LimitEvidence | None = None
    time: Instant | None = None


class PolicyProposal(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A proposal of a policy in the place of the newest enforced version, which ``replaces`` names."""

    request_id: Id
    operation: Literal["propose"]
    policy: dict[str, Any]
    replaces: int
    proposed_by: Id
    evidence: LimitEvidence | None = None
    time: Instant | None = None


class PolicyApproval(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An approval of the proposal of the policy with this SHA-256."""

    request_id: Id
    operation: Literal["approve"]
    sha256: str
    approved_by: Id
    time: Instant | None = None


class PolicyObjection(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An objection to the proposal of the policy with this SHA-256, which stops it."""

    request_id: Id
    operation: Literal["object"]
    sha256: str
    objected_by: Id
    reason: str
    time: Instant | None = None


type PolicyCommand = PolicyRequest | PolicyProposal | PolicyApproval | PolicyObjection


@lru_cache(maxsize=1024)  # called several times for each request
def action_id_of(source: str, identifier: str) -> str:
    """Return the id of an action: ``act-`` and 32 hexadecimal digits, which its sender can compute too.

    The digits are the first of SHA-256 over the source, a line feed and the id, in UTF-8. The id is that of the
    request, or of the fact that reported the action.
    """
    return "act-" + hashlib.sha256(f"{source}\n{identifier}".encode()).hexdigest()[:32]


def escalation_id_of(source: str, request_id: str) -> str:
    """Return the id of an escalation: ``esc-`` and the digits of its action's id."""
    return "esc-" + action_id_of(source, request_id).removeprefix("act-")
