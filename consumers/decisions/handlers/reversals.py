"""Reversals of actions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from consumers.decisions.handlers.context import known_action, required_rules
from consumers.decisions.unit_of_work import CommandResult, NeedsIdlePipelineError
from domain.budgets import postings
from domain.commands import RequestError

if TYPE_CHECKING:
    from consumers.decisions.unit_of_work import UnitOfWork
    from domain.commands import ReversalRequest


def reverse(command: ReversalRequest, unit: UnitOfWork) -> CommandResult:
    """Reverse an action, or a part of it."""
    rules = required_rules(unit)
    action = known_action(unit, command.action_id)
    if action.state == "reported" and action.goodwill:
        if not unit.state_is_current:
            raise NeedsIdlePipelineError
        message = "this reported action is not posted to its budget yet; ask again"
        raise RequestError("not_posted", message, "action_id")
    if action.state in ("held", "voided"):
        message = f"this action is {action.state}: void a hold instead of reversing it"
        raise RequestError("not_taken", message, "action_id")
    budget = unit.budget(action.holder, rules, action.budget_currency)
    unit.require_read(budget)
    late = budget.period != action.period
    record = postings.reversed_by(command, action, action.left, action.position, budget, unit.cause, late=late)
    unit.write(budget, record)
    return CommandResult.of(unit, record, budget)
