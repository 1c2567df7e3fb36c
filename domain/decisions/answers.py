"""Answers to requests, built from the records, so that a retry gets the first answer again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from domain.decisions.owed import shown
from domain.events import decisions, flags
from domain.policy.linting import contradictions
from domain.policy.parsing import read_policy
from domain.serialization import plain

if TYPE_CHECKING:
    from collections.abc import Collection

    from domain.budgets.budget import Budget
    from domain.decisions.authority import Verdict
    from domain.events.facts import AgentKind
    from domain.money import Money
    from domain.serialization import JsonObject


def answer_of(  # noqa: PLR0911 - an answer for each kind of record
    record: decisions.Record | flags.FlagEvent, budget: Budget | None, position: int | None = None
) -> JsonObject:
    """Return the answer that this record is; ``budget`` is the budget right after it."""
    balance = budget.balance() if budget else None
    match record:
        case decisions.ActionTaken() | decisions.ActionHeld():
            held = {"expires_at": plain(record.expires_at)} if isinstance(record, decisions.ActionHeld) else {}
            kind = {"agent_kind": "ai"} if record.agent_kind == "ai" else {}
            owed = {}
            if record.owed is not None:
                owed = _owed(record.owed, record.amount, {limit.name for limit in record.limits})
            return {
                "outcome": "held" if held else "taken",
                "action_id": record.action_id,
                "position": position,
                "policy_version": record.policy_version,
                "reasons": [],
                "budget": balance,
                **held,
                **kind,
                **owed,
            }
        case decisions.AuthorityFellShort():
            filed = {"escalation_id": record.escalation_id} if record.escalation_id else {}
            return {
                "outcome": record.outcome,
                "position": position,
                "policy_version": record.policy_version,
                "reasons": record.reasons,
                "budget": balance,
                **filed,
                **agent_kind_of(record.agent_kind),
                **_owed(record.owed, record.amount, {reason.rule for reason in record.reasons}),
            }
        case decisions.BudgetGranted() | decisions.BudgetTransferred():
            return {"outcome": "done", "position": position, "budget": balance}
        case decisions.Posting():
            return {
                "outcome": "done",
                "action_id": record.action_id,
                "amount": record.amount,
                "position": position,
                "budget": balance,
            }
        case decisions.EscalationRequested() | decisions.EscalationStep():
            return _escalation_answer(record, position)
        case flags.FlagReviewed() | flags.FlagAnswered() | flags.FlagUnmasked():
            verdict = {"verdict": record.verdict} if isinstance(record, flags.FlagReviewed) else {}
            return {"outcome": "done", "position": position, "flag_id": record.flag_id, **verdict}
        case decisions.PolicyProposed() | decisions.PolicyApproved() | decisions.PolicyObjected():
            return _proposal_answer(record, position)
        case decisions.PolicyPublished():
            policy = read_policy(record.policy)
            trial = {"trial_teams": list(record.trial_teams)} if policy.trial else {}
            return {
                "outcome": "done",
                "position": position,
                "policy_version": record.version,
                "effective_from": plain(policy.effective_from),
                "sha256": record.sha256,
                "warnings": [{"field": p.field, "message": p.message} for p in contradictions(policy)],
                **trial,
            }
    message = f"{type(record)} answers no request"
    raise TypeError(message)


def _escalation_answer(
    record: decisions.EscalationRequested | decisions.EscalationStep, position: int | None
) -> JsonObject:
    answer: JsonObject = {
        "outcome": "done",
        "escalation_id": record.escalation_id,
        "status": record.status,
        "amount": record.amount,
        "position": position,
    }
    match record:
        case decisions.EscalationRequested():
            answer |= {"to": list(record.to), "due": plain(record.due), "reasons": record.reasons}
            answer |= agent_kind_of(record.agent_kind)
            answer |= _owed(record.owed, record.amount, {reason.rule for reason in record.reasons})
            if not record.to:
                answer["message"] = "no announced person may approve this yet: announce one before `due`, or it expires"
        case decisions.EscalationForwarded():
            answer |= {"to": list(record.to), "due": plain(record.due)}
        case decisions.EscalationApproved():
            answer |= {"action_id": record.action_id, "paid_by": record.paid_by}
        case _:
            pass
    return answer


def _owed(owed: Money | None, amount: Money, proofs: Collection[str]) -> JsonObject:
    """Return the owed part of an entitlement or a correction, also in words."""
    if owed is None:
        return {}
    by_policy = bool(proofs) and "owed" not in proofs
    return {"owed": owed, "explanation": shown(owed, amount, by_policy=by_policy)}


def agent_kind_of(kind: AgentKind) -> JsonObject:
    """Return the field that tells an AI agent apart; the answer to a person has none."""
    return {} if kind == "human" else {"agent_kind": kind}


def _proposal_answer(record: decisions.ProposalEvent, position: int | None) -> JsonObject:
    answer: JsonObject = {"outcome": "done", "position": position, "sha256": record.sha256}
    match record:
        case decisions.PolicyProposed():
            due = {} if record.due is None else {"due": plain(record.due)}
            return answer | {"status": "proposed", "replaces": record.replaces, "missing": record.missing, **due}
        case decisions.PolicyApproved() if record.version is not None:
            return answer | {"status": "published", "missing": 0, "policy_version": record.version}
        case decisions.PolicyApproved():
            return answer | {"status": "approved", "missing": record.missing}
    return answer | {"status": "objected"}


def preview_answer(
    verdict: Verdict,
    version: int | None,
    budget: Budget | None,
    *,
    hold: bool = False,
    kind: AgentKind = "human",
    amount: Money | None = None,
) -> JsonObject:
    """Return the answer of a preview of an amount. It has no position, because nothing is recorded."""
    proofs = {met.name for met in verdict.met}
    return {
        "outcome": "held" if hold and verdict.outcome == "taken" else verdict.outcome,
        "policy_version": version,
        "reasons": verdict.reasons,
        "budget": budget.balance() if budget else None,
        **agent_kind_of(kind),
        **(_owed(verdict.owed, amount, proofs) if amount is not None else {}),
    }
