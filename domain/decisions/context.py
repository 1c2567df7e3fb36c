"""Lookups and checks that commands share. They end a decision with a retry where the state may be stale."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from domain.commands import RequestError
from domain.currencies import currency_fault
from domain.decisions.authority import DAY_SECONDS, NOTHING_SEEN, DecisionContext, SoftState, owed_part
from domain.decisions.decision import Retry, RetryError
from domain.decisions.owed import NOTHING_PAID, OrderAccount, order_account
from domain.decisions.streams import BudgetKey, CustomerStream, OrderStream
from domain.events.decisions import CustomerCharged, Limit, OrderCharged
from domain.money import Money

if TYPE_CHECKING:
    from collections.abc import Sequence

    from domain.budgets.budget import Budget
    from domain.commands import Preview
    from domain.decisions.authority import Agent, Gift
    from domain.decisions.decision import Decision
    from domain.decisions.known import KnownAction
    from domain.policy.model import Role, Rules


def rules_in_force(decision: Decision) -> Rules | None:
    """Return the policy in force, or ``None``."""
    rules = decision.state.policies.in_force(decision.now)
    if rules is None:
        decision.need(Retry.AFTER_CATCH_UP)
    return rules


def required_rules(decision: Decision, consequence: str = "nothing can be decided") -> Rules:
    """Return the policy in force.

    Raises:
        RequestError: no policy is in force.

    """
    rules = rules_in_force(decision)
    if rules is None:
        raise RequestError("no_policy", f"no policy is in force, so {consequence}; publish one")
    return rules


def known_agent(decision: Decision, agent_id: str, rules: Rules, field: str) -> Agent:
    """Return an agent.

    Raises:
        RequestError: the agent, named in this field, is unknown.

    """
    agent = decision.state.staff.agent(agent_id, rules.policy.default_role)
    if agent is not None:
        return agent
    decision.need(Retry.AFTER_CATCH_UP)
    message = (
        f"the agent {agent_id!r} is unknown: publish resolution.employee.joined.v1 first, "
        "or give the policy a default_role"
    )
    raise RequestError("unknown_agent", message, field)


def known_action(decision: Decision, action_id: str) -> KnownAction:
    """Return an action.

    Raises:
        RequestError: the action is unknown.

    """
    action = decision.state.actions.action(action_id)
    if action is None:
        decision.need(Retry.AFTER_CATCH_UP)
        raise RequestError("unknown_action", f"there is no action {action_id!r}", "action_id")
    return action


REPORTS_COUNT_ONCE_SINCE = 3
"""Rules of version 2 took an action although a fact had reported one with the same id."""


def refuse_reported(decision: Decision, action_id: str, budget: Budget, field: str) -> None:
    """Refuse to take an action that a fact of its source has reported: it is recorded, and charged to a budget.

    Raises:
        RequestError: the decision state has the report, or the budget has its charge.

    """
    if decision.cause.rules_version < REPORTS_COUNT_ONCE_SINCE:
        return
    known = decision.state.actions.reported(action_id)
    position = budget.charged.get(action_id) if known is None else known.position
    if position is not None:
        message = (
            f"an action.reported with this id is recorded at position {position} and charged, so the action counts "
            "already: do not take it again"
        )
        raise RequestError("already_reported", message, field)


def decision_context(decision: Decision, command: Preview, rules: Rules) -> DecisionContext:
    """Return a request together with the state that its decision needs.

    Raises:
        RequestError: the agent is unknown, or a currency is not valid.

    """
    agent = decision.state.staff.agent(command.agent_id, rules.policy.default_role)
    if agent is None:
        agent = known_agent(decision, command.agent_id, rules, "agent_id")
    budget = decision.budget(f"agent:{command.agent_id}", rules)
    amount: Money | None = command.amount
    other_currency = amount is not None and amount.currency != budget.currency
    if other_currency or currency_fault(budget.currency, decision.now):
        check_currencies(decision, budget, amount)
    is_goodwill = command.basis == "goodwill"
    draws = is_goodwill and (amount is None or amount.minor > budget.remaining_minor)
    pool = team_pool(decision, agent, command, rules) if draws else None
    seen = NOTHING_SEEN
    if command.customer_id is not None or command.interaction_id is not None or rules.caps_unnamed:
        seen = _soft_state(decision, command, rules, rules.policy.roles.get(agent.role))
    context = DecisionContext(
        request=command,
        agent=agent,
        rules=rules,
        source=decision.cause.source,
        now=decision.now,
        budget=budget,
        pool=pool,
        seen=seen,
    )
    return context if is_goodwill else _with_order(decision, context)


def _with_order(decision: Decision, context: DecisionContext) -> DecisionContext:
    """Return the context of an entitlement or a correction: with the account of its order, and a pool if it draws."""
    command, rules, amount = context.request, context.rules, context.request.amount
    currency = rules.policy.currency if amount is None else amount.currency
    order = seen_order(decision, command.order_id, currency, context.source)
    context = msgspec.structs.replace(context, seen=msgspec.structs.replace(context.seen, order=order))
    if not rules.is_strict:
        return context
    asked = rules.policy.zero() if amount is None else amount
    owed = owed_part(rules.policy, context.agent.role, command.kind, command.basis, asked, order).amount
    if amount is not None and asked.minor - owed.minor <= context.budget.remaining_minor:
        return context
    return msgspec.structs.replace(context, pool=team_pool(decision, context.agent, command, rules))


def seen_order(decision: Decision, order_id: str | None, currency: str, source: str, without: str = "") -> OrderAccount:
    """Return the account of an order as it shows what is owed to a request of this source."""
    if order_id is None:
        return NOTHING_PAID
    state = decision.state
    return order_account(state.orders.of_order(order_id), state.actions.on_order(order_id), currency, source, without)


def _soft_state(decision: Decision, command: Preview, rules: Rules, role: Role | None) -> SoftState:
    actions = decision.state.actions
    group: frozenset[str] = frozenset()
    interaction: Sequence[Gift] = ()
    customer: Sequence[Gift] = ()
    cap = None if role is None else role.per_customer
    if command.customer_id is not None:
        group = actions.group_of(command.customer_id)
        if cap is not None:
            customer = actions.to_group(group)
    elif cap is not None and cap.unnamed is not None and rules.is_strict:
        until = decision.now.timestamp()
        customer = actions.unnamed_by(command.agent_id, until - cap.days * DAY_SECONDS, until)
    if command.interaction_id is not None and role is not None and role.per_interaction is not None:
        interaction = actions.on_interaction(command.interaction_id)
    return SoftState(group=group, interaction=interaction, customer=customer)


def require_known(decision: Decision, stream: BudgetKey | CustomerStream | OrderStream) -> None:
    """End the decision with a retry unless the known state contains all that other deciders wrote to a stream."""
    if not decision.streams.is_known(stream):
        raise RetryError(Retry.AFTER_CATCH_UP)


def customer_charge(
    decision: Decision, customer_id: str, action_id: str, amount: Money, met: Limit, days: int
) -> CustomerCharged:
    """Return the record of an action on the stream of a customer near the cap."""
    require_known(decision, CustomerStream(customer_id))
    assert met.limit is not None
    return CustomerCharged(
        customer_id=customer_id,
        action_id=action_id,
        amount=amount,
        limit=met.limit,
        used=met.used,
        days=days,
        **decision.cause.fields(),
    )


def order_charge(decision: Decision, order_id: str, action_id: str, amount: Money, order: OrderAccount) -> OrderCharged:
    """Return the record of an action on the stream of an order, of which much is given back."""
    require_known(decision, OrderStream(order_id))
    return OrderCharged(
        order_id=order_id,
        action_id=action_id,
        amount=amount,
        paid=Money(order.paid, amount.currency),
        used=Money(order.back, amount.currency),
        **decision.cause.fields(),
    )


def team_pool(decision: Decision, agent: Agent, command: Preview, rules: Rules) -> Budget | None:
    """Return the budget of the team pool that an agent may draw on, or ``None``."""
    team = rules.pool_team(agent.teams_for(command.team_id))
    return decision.budget(f"team:{team}", rules) if team is not None else None


def check_currencies(decision: Decision, budget: Budget, amount: Money | None) -> None:
    """Refuse a payment in a currency that is not valid now.

    A budget that was opened while its currency was valid may be used up.
    """
    fault = currency_fault(budget.currency, decision.now)
    if fault and (decision.opens(budget) or currency_fault(budget.currency, budget.created_on)):
        message = f"{fault}; the policy in force gives in {budget.currency}, so publish another first"
        raise RequestError("invalid", message, "amount.currency")
    if amount is not None and amount.currency != budget.currency:
        fault = currency_fault(amount.currency, decision.now)
        if fault:
            raise RequestError("invalid", fault, "amount.currency")
