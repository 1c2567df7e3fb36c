"""Reversals of actions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from domain.budgets import postings
from domain.commands import RequestError
from domain.decisions.context import known_action, required_rules
from domain.decisions.decision import Retry

if TYPE_CHECKING:
    from domain.commands import ReversalRequest
    from domain.decisions.decision import Decision


def reverse(command: ReversalRequest, decision: Decision) -> Decision:
    """Reverse an action, or a part of it."""
    rules = required_rules(decision)
    action = known_action(decision, command.action_id)
    if action.state == "reported" and (action.goodwill or action.position in decision.state.pending.dues):
        decision.need(Retry.WHEN_IDLE)
        message = "this reported action is not posted to its budget yet; ask again"
        raise RequestError("not_posted", message, "action_id")
    if action.state in ("held", "voided"):
        message = f"this action is {action.state}: void a hold instead of reversing it"
        raise RequestError("not_taken", message, "action_id")
    budget = decision.budget(action.holder, rules, action.budget_currency)
    decision.require_read(budget)
    late = budget.period != action.period
    record = postings.reversed_by(
        command, action, action.left, action.minor, action.position, budget, decision.cause, late=late
    )
    decision.write(budget, record)
    return decision.answer_with(record, budget)
