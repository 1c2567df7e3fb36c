"""Grants and transfers of budgets, within the bounds of the governance in force."""

from __future__ import annotations

from typing import TYPE_CHECKING

from domain.budgets import postings
from domain.commands import RequestError
from domain.decisions.context import check_currencies, known_agent, required_rules
from domain.decisions.decision import Retry
from domain.decisions.governance import CODE, governor, is_operator, refuse_own_benefit, require_reach
from domain.decisions.streams import BudgetKey

if TYPE_CHECKING:
    from collections.abc import Iterable

    from domain.budgets.budget import Budget
    from domain.commands import GrantRequest, TransferRequest
    from domain.decisions.authority import Agent
    from domain.decisions.decision import Decision
    from domain.policy.governance import Governance, GrantRight
    from domain.policy.model import Rules

_NO_BUDGETS = "there are no budgets"


def grant(command: GrantRequest, decision: Decision) -> Decision:
    """Grant a holder more for the current period.

    A grant by a person is counted on that person's own budget, in the same batch. So the expected sequence of that
    budget keeps the sum within the period's amount, under any concurrency.
    """
    rules = required_rules(decision, _NO_BUDGETS)
    _check_holder(decision, command.holder, "holder", rules)
    _check_beneficiary(decision, command.granted_by, command.holder, "grant to")
    right = _grant_right(command, decision, rules)
    budget = decision.budget(command.holder, rules)
    check_currencies(decision, budget, command.amount)
    record = postings.granted(command, budget, decision.cause)
    charged = None
    if right is not None:
        giver = decision.budget(f"agent:{command.granted_by}", rules)
        _refuse_return(giver, command.holder)
        _refuse_second_currency(giver, decision, rules)
        charged = postings.grantor_charged(command, right.per_period, giver, decision.cause)
    decision.write(budget, record)
    if charged is not None:
        decision.write(giver, charged)
    return decision.answer_with(record, budget)


def transfer(command: TransferRequest, decision: Decision) -> Decision:
    """Transfer an amount from one holder to another."""
    rules = required_rules(decision, _NO_BUDGETS)
    _check_holder(decision, command.holder, "holder", rules)
    _check_holder(decision, command.to_holder, "to_holder", rules)
    _check_beneficiary(decision, command.granted_by, command.to_holder, "transfer to")
    _check_transfer(command, decision, rules)
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


def _check_beneficiary(decision: Decision, granted_by: str, holder: str, deed: str) -> None:
    kind, _, name = holder.partition(":")
    refuse_own_benefit(decision, granted_by, (name,) if kind == "agent" else (), "granted_by", deed)


def _governance(decision: Decision, rules: Rules) -> Governance | None:
    """Return the governance that bounds the request; ``None`` for operators, and where there is none."""
    return None if is_operator(decision.cause) else rules.policy.governance


def _grant_right(command: GrantRequest, decision: Decision, rules: Rules) -> GrantRight | None:
    governance = _governance(decision, rules)
    if governance is None:
        return None
    person = governor(decision, command.granted_by, "granted_by")
    right = governance.grants.get(person.role)
    if right is None:
        raise _no_right(decision, person, "grants", governance.grants)
    require_reach(decision, person, right.to, command.holder, "holder")
    return right


def _check_transfer(command: TransferRequest, decision: Decision, rules: Rules) -> None:
    governance = _governance(decision, rules)
    if governance is None:
        return
    person = governor(decision, command.granted_by, "granted_by")
    reach = governance.transfers.get(person.role)
    if reach is None:
        raise _no_right(decision, person, "transfers", governance.transfers)
    require_reach(decision, person, reach, command.holder, "holder")
    require_reach(decision, person, reach, command.to_holder, "to_holder")
    _refuse_return(decision.budget(f"agent:{person.agent_id}", rules), command.to_holder)


def _no_right(decision: Decision, person: Agent, right: str, roles: Iterable[str]) -> RequestError:
    decision.need(Retry.AFTER_CATCH_UP)
    named = ", ".join(roles) or "operators alone"
    message = f"{person.agent_id!r} ({person.role}) has no {right}: the policy in force names {named}"
    return RequestError(CODE, message, "granted_by")


def _refuse_second_currency(giver: Budget, decision: Decision, rules: Rules) -> None:
    """Refuse a grant beside grants in another currency for the same time: the amount a period counts once."""
    key = BudgetKey(giver.holder, giver.currency)
    other = next((one for one in decision.running_elsewhere(key, rules) if one.given_minor), None)
    if other is not None:
        message = f"{giver.holder} has granted in {other.currency} in {other.period}, which has not ended"
        raise RequestError("insufficient", message, "amount.currency")


def _refuse_return(budget: Budget, holder: str) -> None:
    """Refuse to give to the person who gave to the giver in this period; ``budget`` is the giver's."""
    name = holder.removeprefix("agent:")
    if holder != name and name in budget.received_from:
        message = f"{name!r} gave to {budget.holder} in this period: nobody grants or transfers in return"
        raise RequestError(CODE, message, "granted_by")
