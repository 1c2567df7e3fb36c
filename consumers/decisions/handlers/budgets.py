"""Grants and transfers of budgets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from consumers.decisions.handlers.context import check_currencies, known_agent, required_rules
from consumers.decisions.unit_of_work import CommandResult
from domain.budgets import postings
from domain.commands import RequestError

if TYPE_CHECKING:
    from consumers.decisions.unit_of_work import UnitOfWork
    from domain.commands import GrantRequest, TransferRequest
    from domain.policy.model import Rules

_NO_BUDGETS = "there are no budgets"


def grant(command: GrantRequest, unit: UnitOfWork) -> CommandResult:
    """Grant a holder more for the current period."""
    rules = required_rules(unit, _NO_BUDGETS)
    _check_holder(unit, command.holder, "holder", rules)
    budget = unit.budget(command.holder, rules)
    check_currencies(unit, budget, command.amount)
    record = postings.granted(command, budget, unit.cause)
    unit.write(budget, record)
    return CommandResult.of(unit, record, budget)


def transfer(command: TransferRequest, unit: UnitOfWork) -> CommandResult:
    """Transfer an amount from one holder to another."""
    rules = required_rules(unit, _NO_BUDGETS)
    _check_holder(unit, command.holder, "holder", rules)
    _check_holder(unit, command.to_holder, "to_holder", rules)
    giver, taker = unit.budget(command.holder, rules), unit.budget(command.to_holder, rules)
    check_currencies(unit, giver, command.amount)
    out, into = postings.transferred(command, giver, taker, unit.cause)
    unit.write(giver, out)
    unit.write(taker, into)
    return CommandResult.of(unit, out, giver)


def _check_holder(unit: UnitOfWork, holder: str, field: str, rules: Rules) -> None:
    kind, _, name = holder.partition(":")
    if kind not in ("agent", "team") or not name:
        raise RequestError("invalid", "a holder is agent:<id> or team:<id>", field)
    if kind == "agent":
        known_agent(unit, name, rules, field)
