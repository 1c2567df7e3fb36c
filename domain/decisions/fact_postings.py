"""Postings of facts to budgets."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from domain.budgets import postings
from domain.decisions.authority import owed_part
from domain.decisions.context import REPORTS_COUNT_ONCE_SINCE, required_rules, seen_order
from domain.events.facts import ActionReported, RefundSettled

if TYPE_CHECKING:
    from domain.decisions.decision import Decision
    from domain.decisions.known import KnownAction
    from domain.money import Money
    from domain.policy.model import Rules


class DuePosting(NamedTuple):
    """A fact whose amount must be posted: its position, the posting, the action and the holder of the budget."""

    position: int
    kind: str
    """`charge` or `settle`."""
    action_id: str
    holder: str


class PostingCommand(NamedTuple):
    """The command to post a fact's amount to its budget."""

    due: DuePosting
    fact: ActionReported | RefundSettled


GRANTED = ("taken", "held", "settled")
"""The states of an action that a decision granted, and that was not voided."""


def _owed(fact: ActionReported, action_id: str, decision: Decision, rules: Rules) -> Money:
    """Return the part of a reported entitlement or correction that is owed, apart from this action itself."""
    agent = decision.state.staff.agent(fact.agent_id, rules.policy.default_role)
    role = "" if agent is None else agent.role
    order = seen_order(decision, fact.order_id, fact.amount.currency, decision.cause.source, action_id)
    return owed_part(rules.policy, role, fact.kind, fact.basis, fact.amount, order).amount


def _post_report_of(
    action: KnownAction, fact: ActionReported, position: int, decision: Decision, rules: Rules
) -> Decision:
    """Post the report of an action that the ledger granted: it settles a hold, and adds only what lies beyond."""
    budget = decision.budget(action.holder, rules, action.budget_currency, late=True)
    decision.require_read(budget)
    decided = action.amount
    hold = budget.holds.get(action.action_id)
    if hold is not None and fact.amount.currency == decided.currency:
        settled = postings.settled_by_report(action, hold.minor, fact.amount, budget, decision.cause)
        decision.write(budget, settled)
        decided = settled.amount
    owed = None
    if action.owed_minor is not None:
        owed = _owed(msgspec.structs.replace(fact, basis=action.basis), action.action_id, decision, rules).minor
    decision.write(budget, postings.added_by_report(fact, action, decided, position, budget, decision.cause, owed))
    return decision


def post_fact(command: PostingCommand, decision: Decision) -> Decision:
    """Post a fact's amount to its budget, once."""
    due, fact = command.due, command.fact
    if due.position not in decision.state.pending.dues:
        return decision
    rules = required_rules(decision)
    action = decision.state.actions.action(due.action_id)
    if isinstance(fact, ActionReported):
        counts_once = decision.cause.rules_version >= REPORTS_COUNT_ONCE_SINCE
        if counts_once and action is not None and action.state in GRANTED:
            return _post_report_of(action, fact, due.position, decision, rules)
        budget = decision.budget(due.holder, rules, fact.amount.currency, late=True)
        decision.require_read(budget)
        owed = None
        if fact.basis != "goodwill" and rules.is_strict:
            owed = _owed(fact, due.action_id, decision, rules)
        decision.write(budget, postings.charged(fact, due.action_id, due.position, budget, decision.cause, owed))
        return decision
    currency = action.budget_currency if action else fact.total.currency
    budget = decision.budget(due.holder, rules, currency, late=True)
    decision.require_read(budget)
    hold = budget.holds.get(due.action_id)
    if hold is None or action is None or fact.total.currency != action.currency:
        return decision
    decision.write(
        budget, postings.settled_by_fact(action, hold.minor, fact.total, due.position, budget, decision.cause)
    )
    return decision
