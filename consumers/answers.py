"""Answers to requests, built from what was recorded; so the first answer can be given again for ever."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from consumers.budgets import budget_of, subject_of
from domain.policy import not_enforced, parse_policy
from domain.records import ActionTaken, AuthorityFellShort, BudgetGranted, PolicyPublished
from domain.wire import plain
from ledger.errors import LostEventsError
from projections.events import read_event

if TYPE_CHECKING:
    from domain.budget import Budget
    from domain.deciding import Verdict
    from ledger.log import Log


def answer_of(record: Any, budget: Budget | None, position: int | None = None) -> dict[str, Any]:
    """The answer that this record is: ``budget`` as it stood right after it."""
    match record:
        case ActionTaken():
            return {
                "outcome": "taken",
                "action_id": record.action_id,
                "position": position,
                "policy_version": record.policy_version,
                "reasons": [],
                "budget": budget.wire() if budget else None,
            }
        case AuthorityFellShort():
            return {
                "outcome": record.outcome,
                "position": position,
                "policy_version": record.policy_version,
                "reasons": plain(record.reasons),
                "budget": budget.wire() if budget else None,
            }
        case BudgetGranted():
            return {"outcome": "done", "position": position, "budget": budget.wire() if budget else None}
        case PolicyPublished():
            policy = parse_policy(record.policy)
            return {
                "outcome": "done",
                "position": position,
                "policy_version": record.version,
                "effective_from": plain(policy.effective_from),
                "sha256": record.sha256,
                "warnings": [{"field": p.field, "message": p.message} for p in not_enforced(policy)],
            }
    message = f"{type(record)} answers no request"
    raise TypeError(message)


def preview_answer(verdict: Verdict, version: int | None, budget: Budget | None) -> dict[str, Any]:
    """What a decision would be answered now; nothing was recorded, so there is no position."""
    return {
        "outcome": verdict.outcome,
        "policy_version": version,
        "reasons": plain(verdict.reasons),
        "budget": budget.wire() if budget else None,
    }


async def first_answer(log: Log, position: int) -> dict[str, Any]:
    """The answer given when the event at this position was recorded.

    Raises:
        LostEventsError: the log has no event there.

    """
    recorded = await log.at(position)
    if recorded is None:
        raise LostEventsError("a request was answered by an event that is gone", position)
    record = read_event(recorded).body
    budget: Budget | None = None
    if getattr(record, "holder", None):
        subject = subject_of(record.holder, record.period)
        budget = budget_of([event for event in await log.read_subject(subject) if event.position <= position])
    return answer_of(record, budget, position)
