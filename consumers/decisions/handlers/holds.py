"""Holds: settled or voided by a command, and voided by the timer."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from consumers.decisions.handlers.context import known_action, required_rules
from consumers.decisions.unit_of_work import NOTHING, CommandResult, NeedsCatchUpError
from domain.budgets import postings
from domain.commands import RequestError

if TYPE_CHECKING:
    from consumers.decisions.unit_of_work import UnitOfWork
    from domain.commands import HoldRequest
    from domain.events.decisions import ActionSettled, ActionVoided


class OverdueHold(NamedTuple):
    """The command of the timer for a hold that was not settled by ``due`` (seconds since 1970)."""

    holder: str
    id: str
    due: float


def settle_or_void(command: HoldRequest, unit: UnitOfWork) -> CommandResult:
    """Settle or void a hold."""
    rules = required_rules(unit)
    action = known_action(unit, command.action_id)
    budget = unit.budget(action.holder, rules, action.budget_currency)
    hold = budget.holds.get(command.action_id)
    if hold is None:
        if not unit.state_is_current and action.state == "held":
            raise NeedsCatchUpError
        message = f"nothing is held for this action: it is {action.state if action.state != 'held' else 'over'}"
        raise RequestError("not_held", message, "action_id")
    record: ActionSettled | ActionVoided
    if command.operation == "settle":
        record = postings.settled(action, hold.minor, command, budget, unit.cause)
    else:
        record = postings.voided(action, hold.minor, command.reason or "voided", budget, unit.cause, answers=True)
    unit.write(budget, record)
    return CommandResult.of(unit, record, budget)


def void_overdue(command: OverdueHold, unit: UnitOfWork) -> CommandResult:
    """Void a hold that was not settled in time."""
    rules = required_rules(unit)
    action = unit.state.actions.action(command.id)
    if action is None or action.expires_at is None or action.expires_at > command.due:
        return NOTHING
    budget = unit.budget(action.holder, rules, action.budget_currency, late=True)
    hold = budget.holds.get(action.action_id)
    if hold is None:
        return NOTHING
    unit.write(budget, postings.voided(action, hold.minor, "expired", budget, unit.cause))
    return CommandResult(unit, {})
