"""Holds: settled or voided by a command, and voided by the timer."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from domain.budgets import postings
from domain.commands import RequestError
from domain.decisions.context import known_action, required_rules
from domain.decisions.decision import Retry

if TYPE_CHECKING:
    from domain.commands import HoldRequest
    from domain.decisions.decision import Decision
    from domain.events.decisions import ActionSettled, ActionVoided


class OverdueHold(NamedTuple):
    """The command of the timer for a hold that was not settled by ``due`` (seconds since 1970)."""

    holder: str
    id: str
    due: float


def settle_or_void(command: HoldRequest, decision: Decision) -> Decision:
    """Settle or void a hold."""
    rules = required_rules(decision)
    action = known_action(decision, command.action_id)
    budget = decision.budget(action.holder, rules, action.budget_currency)
    hold = budget.holds.get(command.action_id)
    if hold is None:
        if action.state == "held":
            decision.need(Retry.AFTER_CATCH_UP)
        message = f"nothing is held for this action: it is {action.state if action.state != 'held' else 'over'}"
        raise RequestError("not_held", message, "action_id")
    record: ActionSettled | ActionVoided
    if command.operation == "settle":
        record = postings.settled(action, hold.minor, command, budget, decision.cause)
    else:
        record = postings.voided(action, hold.minor, command.reason or "voided", budget, decision.cause, answers=True)
    decision.write(budget, record)
    return decision.answer_with(record, budget)


def void_overdue(command: OverdueHold, decision: Decision) -> Decision:
    """Void a hold that was not settled in time."""
    rules = required_rules(decision)
    action = decision.state.actions.action(command.id)
    if action is None or action.expires_at is None or action.expires_at > command.due:
        return decision
    budget = decision.budget(action.holder, rules, action.budget_currency, late=True)
    hold = budget.holds.get(action.action_id)
    if hold is None:
        return decision
    decision.write(budget, postings.voided(action, hold.minor, "expired", budget, decision.cause))
    return decision
