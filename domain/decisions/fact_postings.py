"""Postings of facts to budgets."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from domain.budgets import postings
from domain.decisions.authority import owed_part
from domain.decisions.context import required_rules, seen_order
from domain.events.facts import ActionReported, RefundSettled

if TYPE_CHECKING:
    from domain.decisions.decision import Decision
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


def _owed(fact: ActionReported, action_id: str, decision: Decision, rules: Rules) -> Money:
    """Return the part of a reported entitlement or correction that is owed, apart from this action itself."""
    agent = decision.state.staff.agent(fact.agent_id, rules.policy.default_role)
    role = "" if agent is None else agent.role
    order = seen_order(decision, fact.order_id, fact.amount.currency, decision.cause.source, action_id)
    return owed_part(rules.policy, role, fact.kind, fact.basis, fact.amount, order).amount


def post_fact(command: PostingCommand, decision: Decision) -> Decision:
    """Post a fact's amount to its budget, once."""
    due, fact = command.due, command.fact
    if due.position not in decision.state.pending.dues:
        return decision
    rules = required_rules(decision)
    action = decision.state.actions.action(due.action_id)
    fact_currency = fact.amount.currency if isinstance(fact, ActionReported) else fact.total.currency
    budget = decision.budget(due.holder, rules, action.budget_currency if action else fact_currency, late=True)
    decision.require_read(budget)
    if isinstance(fact, ActionReported):
        owed = None
        if fact.basis != "goodwill" and rules.is_strict:
            owed = _owed(fact, due.action_id, decision, rules)
        decision.write(budget, postings.charged(fact, due.action_id, due.position, budget, decision.cause, owed))
        return decision
    hold = budget.holds.get(due.action_id)
    if hold is None or action is None or fact.total.currency != action.currency:
        return decision
    decision.write(
        budget, postings.settled_by_fact(action, hold.minor, fact.total, due.position, budget, decision.cause)
    )
    return decision
