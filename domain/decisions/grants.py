"""Grants and transfers of budgets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from domain.budgets import postings
from domain.commands import RequestError
from domain.decisions.context import check_currencies, known_agent, required_rules

if TYPE_CHECKING:
    from domain.commands import GrantRequest, TransferRequest
    from domain.decisions.decision import Decision
    from domain.policy.model import Rules

_NO_BUDGETS = "there are no budgets"


def grant(command: GrantRequest, decision: Decision) -> Decision:
    """Grant a holder more for the current period."""
    rules = required_rules(decision, _NO_BUDGETS)
    _check_holder(decision, command.holder, "holder", rules)
    budget = decision.budget(command.holder, rules)
    check_currencies(decision, budget, command.amount)
    record = postings.granted(command, budget, decision.cause)
    decision.write(budget, record)
    return decision.answer_with(record, budget)


def transfer(command: TransferRequest, decision: Decision) -> Decision:
    """Transfer an amount from one holder to another."""
    rules = required_rules(decision, _NO_BUDGETS)
    _check_holder(decision, command.holder, "holder", rules)
    _check_holder(decision, command.to_holder, "to_holder", rules)
    giver, taker = decision.budget(command.holder, rules), decision.budget(command.to_holder, rules)
    check_currencies(decision, giver, command.amount)
    out, into = postings.transferred(command, giver, taker, decision.cause)
    decision.write(giver, out)
    decision.write(taker, into)
    return decision.answer_with(out, giver)


def _check_holder(decision: Decision, holder: str, field: str, rules: Rules) -> None:
    kind, _, name = holder.partition(":")
    if kind not in ("agent", "team") or not name:
        raise RequestError("invalid", "a holder is agent:<id> or team:<id>", field)
    if kind == "agent":
        known_agent(decision, name, rules, field)
