"""Requests that ask for a decision, and errors they may meet before one is made."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any, Literal

import msgspec

from domain.events.facts import Basis, Kind
from domain.events.flags import Verdict
from domain.money import Money
from domain.serialization import Holder, Id, Instant, Personal


class RequestError(Exception):
    """Nothing was recorded; the request may be sent again, corrected or later.

    Attributes:
        code: stable word for machines, e.g. `unknown_agent`.
        message: what is wrong and what to do.
        field: the field of the request that is meant, where one is.

    """

    def __init__(self, code: str, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.field = field

    def wire(self) -> dict[str, Any]:
        """The answer that says so."""
        error = {"code": self.code, "message": self.message}
        if self.field:
            error["field"] = self.field
        return {"outcome": "error", "error": error}


class Preview(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What could be done: an action request; without ``amount``, how much this agent could give."""

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
    """Of the note's normal form, with the ledger's own key; set by the ledger."""
    guideline: Id | None = None
    team_id: Id | None = None
    basis: Basis = "goodwill"
    escalate: bool = False
    hold: bool = False
    time: Instant | None = None


class ActionRequest(Preview, frozen=True, kw_only=True):
    """Take an action for a customer, if I may (contract: Decision request and answer)."""

    request_id: Id
    amount: Money
    reason: str


class GrantRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Give a holder more for the present period."""

    request_id: Id
    operation: Literal["grant"]
    holder: Holder
    amount: Money
    granted_by: Id
    reason: str
    time: Instant | None = None


class TransferRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Give one holder what another has left."""

    request_id: Id
    operation: Literal["transfer"]
    holder: Holder
    to_holder: Holder
    amount: Money
    granted_by: Id
    reason: str
    time: Instant | None = None


class HoldRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of money that was held: it went (all, or ``amount`` of it), or it will not."""

    request_id: Id
    action_id: Id
    operation: Literal["settle", "void"]
    amount: Money | None = None
    reason: str | None = None
    time: Instant | None = None


class ReversalRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Undo an action, all or ``amount`` of it; ``recovered`` where the money came back."""

    request_id: Id
    action_id: Id
    reversed_by: Id
    reason: str
    recovered: bool
    amount: Money | None = None
    time: Instant | None = None


class EscalationAsk(ActionRequest, frozen=True, kw_only=True):
    """Ask for what needs somebody else's authority."""

    operation: Literal["request"]


class EscalationDecision(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Decide what somebody asked for; ``to`` is whom to forward it to (absent: a level up)."""

    request_id: Id
    operation: Literal["approve", "deny", "withdraw", "forward"]
    escalation_id: Id
    decided_by: Id
    amount: Money | None = None
    reason: str | None = None
    to: Id | None = None
    time: Instant | None = None


class BriefRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What whoever takes over needs to know; a customer or an interaction is named."""

    agent_id: Id
    customer_id: Id | None = None
    interaction_id: Id | None = None
    request_id: Id | None = None


class FlagRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Review a flag (``verdict``, ``reviewed_by``), or answer it, if one is concerned (``employee_id``, ``text``).

    With ``unmasked_by`` alone: begin to look at it, so that it shows names.
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
    """Publish these rules."""

    request_id: Id
    policy: dict[str, Any]
    published_by: Id
    time: Instant | None = None


@lru_cache(maxsize=1024)  # asked several times while a request is decided
def action_id_of(source: str, identifier: str) -> str:
    """The id of an action: ``act-`` and 32 hex digits that its sender can compute too.

    They are the first of SHA-256 over the source, a line feed and the id of the request, or of the
    fact that reported the action, in UTF-8.
    """
    return "act-" + hashlib.sha256(f"{source}\n{identifier}".encode()).hexdigest()[:32]


def escalation_id_of(source: str, request_id: str) -> str:
    """The id of an escalation: ``esc-`` and the hash that the action would have."""
    return "esc-" + action_id_of(source, request_id).removeprefix("act-")
