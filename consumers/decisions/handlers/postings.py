"""Postings of facts to budgets."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from consumers.decisions.handlers.context import required_rules
from consumers.decisions.state.pending import DuePosting
from consumers.decisions.unit_of_work import NOTHING, CommandResult
from domain.budgets import postings
from domain.events.facts import ActionReported, RefundSettled

if TYPE_CHECKING:
    from consumers.decisions.unit_of_work import UnitOfWork


class PostingCommand(NamedTuple):
    """The command to post a fact's amount to its budget."""

    due: DuePosting
    fact: ActionReported | RefundSettled


def post_fact(command: PostingCommand, unit: UnitOfWork) -> CommandResult:
    """Post a fact's amount to its budget, once."""
    due, fact = command.due, command.fact
    if due.position not in unit.state.pending.dues:
        return NOTHING
    rules = required_rules(unit)
    action = unit.state.actions.action(due.action_id)
    fact_currency = fact.amount.currency if isinstance(fact, ActionReported) else fact.total.currency
    budget = unit.budget(due.holder, rules, action.budget_currency if action else fact_currency, late=True)
    unit.require_read(budget)
    if isinstance(fact, ActionReported):
        unit.write(budget, postings.charged(fact, due.action_id, due.position, budget, unit.cause))
        return CommandResult(unit, {})
    hold = budget.holds.get(due.action_id)
    if hold is None or action is None or fact.total.currency != action.currency:
        return NOTHING
    unit.write(budget, postings.settled_by_fact(action, hold.minor, fact.total, due.position, budget, unit.cause))
    return CommandResult(unit, {})
