"""Commands of decision scenarios, with defaults for the fields that a scenario does not name."""

from __future__ import annotations

from typing import Any

from domain import commands
from tests.support.decision_events import money
from tests.support.documents import Document


def action(amount: str, agent_id: str = "A-7", **fields: Any) -> commands.ActionRequest:
    """Return a request for an action: a refund because of a late delivery, unless ``fields`` say otherwise."""
    given: Document = {"request_id": "r-1", "kind": "refund", "reason": "late"} | fields
    return commands.ActionRequest(agent_id=agent_id, amount=money(amount), **given)


def preview(amount: str | None = None, agent_id: str = "A-7", **fields: Any) -> commands.Preview:
    """Return a preview of such an action; without an amount it asks for the most that the agent could give."""
    given: Document = {"kind": "refund", "reason": "late"} | fields
    return commands.Preview(agent_id=agent_id, amount=money(amount) if amount else None, **given)


def settle(action_id: str, amount: str | None = None, **fields: Any) -> commands.HoldRequest:
    """Return a request to settle a hold, wholly or in part."""
    return _hold("settle", action_id, amount, **fields)


def void(action_id: str, **fields: Any) -> commands.HoldRequest:
    """Return a request to void a hold."""
    return _hold("void", action_id, None, **fields)


def _hold(operation: Any, action_id: str, amount: str | None, **fields: Any) -> commands.HoldRequest:
    given: Document = {"request_id": "h-1"} | fields
    return commands.HoldRequest(
        operation=operation, action_id=action_id, amount=money(amount) if amount else None, **given
    )


def reverse(action_id: str, amount: str | None = None, **fields: Any) -> commands.ReversalRequest:
    """Return a request to reverse an action; the money was recovered unless ``fields`` say otherwise."""
    given: Document = {"request_id": "v-1", "reversed_by": "M-1", "reason": "item found", "recovered": True} | fields
    return commands.ReversalRequest(action_id=action_id, amount=money(amount) if amount else None, **given)


def ask(amount: str, agent_id: str = "A-7", **fields: Any) -> commands.EscalationAsk:
    """Return a request for an escalation."""
    given: Document = {"request_id": "e-1", "kind": "refund", "reason": "late"} | fields
    return commands.EscalationAsk(operation="request", agent_id=agent_id, amount=money(amount), **given)


def approve(escalation_id: str, by: str, amount: str | None = None, **fields: Any) -> commands.EscalationDecision:
    """Return an approval, in full or for less."""
    return _step("approve", escalation_id, by, amount=money(amount) if amount else None, **fields)


def deny(escalation_id: str, by: str, **fields: Any) -> commands.EscalationDecision:
    """Return a denial."""
    return _step("deny", escalation_id, by, **fields)


def withdraw(escalation_id: str, by: str, **fields: Any) -> commands.EscalationDecision:
    """Return a withdrawal."""
    return _step("withdraw", escalation_id, by, **fields)


def forward(escalation_id: str, by: str, to: str | None = None, **fields: Any) -> commands.EscalationDecision:
    """Return a request to forward an escalation: to a person, or one level up."""
    return _step("forward", escalation_id, by, to=to, **fields)


def _step(operation: Any, escalation_id: str, by: str, **fields: Any) -> commands.EscalationDecision:
    given: Document = {"request_id": "d-1"} | fields
    return commands.EscalationDecision(operation=operation, escalation_id=escalation_id, decided_by=by, **given)


def grant(holder: str, amount: str, **fields: Any) -> commands.GrantRequest:
    """Return a request for a grant."""
    given: Document = {"request_id": "g-1", "granted_by": "M-1", "reason": "a busy week"} | fields
    return commands.GrantRequest(operation="grant", holder=holder, amount=money(amount), **given)


def transfer(holder: str, to_holder: str, amount: str, **fields: Any) -> commands.TransferRequest:
    """Return a request for a transfer."""
    given: Document = {"request_id": "t-1", "granted_by": "M-1", "reason": "a busy week"} | fields
    return commands.TransferRequest(
        operation="transfer", holder=holder, to_holder=to_holder, amount=money(amount), **given
    )


def publish(policy: Document, **fields: Any) -> commands.PolicyRequest:
    """Return a request to publish a policy."""
    given: Document = {"request_id": "p-1", "published_by": "owner"} | fields
    return commands.PolicyRequest(policy=policy, **given)


def propose(policy: Document, **fields: Any) -> commands.PolicyProposal:
    """Return a proposal of a policy in the place of version 1."""
    given: Document = {"request_id": "pp-1", "proposed_by": "H-1", "replaces": 1} | fields
    return commands.PolicyProposal(operation="propose", policy=policy, **given)


def approve_policy(sha256: str, **fields: Any) -> commands.PolicyApproval:
    """Return an approval of a proposal."""
    given: Document = {"request_id": "pa-1", "approved_by": "H-2"} | fields
    return commands.PolicyApproval(operation="approve", sha256=sha256, **given)


def object_to_policy(sha256: str, **fields: Any) -> commands.PolicyObjection:
    """Return an objection to a proposal."""
    given: Document = {"request_id": "po-1", "objected_by": "U-1", "reason": "too wide"} | fields
    return commands.PolicyObjection(operation="object", sha256=sha256, **given)


def review(flag_id: str = "flag-1", **fields: Any) -> commands.FlagRequest:
    """Return a request about a flag; ``fields`` say which: a verdict, an answer, or a look at the names."""
    return commands.FlagRequest(flag_id=flag_id, **({"request_id": "f-1"} | fields))
