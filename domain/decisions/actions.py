"""Actions and their previews."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import msgspec

from domain.budgets import postings
from domain.commands import ActionRequest, escalation_id_of
from domain.decisions import authority
from domain.decisions.answers import preview_answer
from domain.decisions.context import (
    customer_charge,
    decision_context,
    order_charge,
    refuse_reported,
    require_known,
    rules_in_force,
    team_pool,
)
from domain.decisions.decision import Retry
from domain.decisions.escalations import file_escalation, route_escalation
from domain.decisions.streams import BudgetKey, CustomerStream, OrderStream, RefusalStream

if TYPE_CHECKING:
    from domain.commands import Preview
    from domain.decisions.authority import DecisionContext, Verdict
    from domain.decisions.decision import Decision
    from domain.events.decisions import Shadow
    from domain.policy.model import Rules


def take_action(command: ActionRequest, decision: Decision) -> Decision:
    """Take an action, hold its amount, file an escalation, or record that the authority fell short."""
    cause, term = decision.cause, decision.state.policies.at(decision.now)
    rules = term.enforced
    if rules is None:
        decision.need(Retry.AFTER_CATCH_UP)
        record = authority.fell_short(command, command.amount, authority.NO_POLICY, cause)
        # A stream for each request: of two deciders that answer it at once, the second gets a conflict.
        decision.write_to(RefusalStream(cause.source, cause.request_id), record, begins=True)
        return decision.answer_with(record)
    context = decision_context(decision, command, rules)
    refuse_reported(decision, cause.action_id, context.budget, "request_id")
    verdict = authority.judge(context, command.amount)
    shadow = None if term.shadow is None else _shadowed(context, command, decision, term.shadow)
    if verdict.outcome == "taken":
        return _take(context, verdict, decision, shadow)
    to: tuple[str, ...] = ()
    filed, escalation_id, pool = verdict, None, None
    if command.escalate and verdict.outcome == "escalate":
        filed, to, pool = route_escalation(context, verdict, decision)
        if filed.outcome == "escalate":
            escalation_id = escalation_id_of(cause.source, command.request_id)
    record = authority.fell_short(
        command, command.amount, filed, cause, asking=context, shadow=shadow, escalation_id=escalation_id
    )
    decision.write(context.budget, record)
    if escalation_id is not None:
        file_escalation(context, verdict, decision, to, pool, answers=False)
    return decision.answer_with(record, context.budget)


def _shadowed(context: DecisionContext, command: ActionRequest, decision: Decision, rules: Rules) -> Shadow:
    """Return the verdict of the policy in shadow mode; it may need the pool where the one in force does not."""
    if authority.draws_in_shadow(context, command.amount, rules):
        context = msgspec.structs.replace(context, pool=team_pool(decision, context.agent, command, context.rules))
    return authority.shadowed(context, command.amount, rules)


def _take(context: DecisionContext, verdict: Verdict, decision: Decision, shadow: Shadow | None) -> Decision:
    command, cause = cast("ActionRequest", context.request), decision.cause
    charge = None
    if verdict.guarded is not None and command.customer_id is None:
        require_known(decision, BudgetKey(context.budget.holder, context.budget.currency))
    elif verdict.guarded is not None:
        met = next(limit for limit in verdict.limits if limit.name == "per_customer")
        group, days = context.seen.group, verdict.guarded
        charge = customer_charge(decision, min(group), cause.action_id, verdict.counted(command.amount), met, days)
    order_id, on_order = command.order_id, None
    if verdict.guards_order and order_id is not None:
        on_order = order_charge(decision, order_id, cause.action_id, command.amount, context.seen.order)
    if verdict.draw is not None and context.pool is not None:
        out, into = postings.drawn(context.pool, context.budget, verdict.draw, cause.action_id, cause)
        decision.write(context.pool, out)
        decision.write(context.budget, into)
    make = authority.held if command.hold else authority.taken
    record = make(context, context.rules.version, verdict, cause, cause.action_id, shadow)
    decision.write(context.budget, record)
    if charge is not None:
        decision.write_to(CustomerStream(charge.customer_id), charge)
    if on_order is not None:
        decision.write_to(OrderStream(on_order.order_id), on_order)
    return decision.answer_with(record, context.budget)


def preview_action(command: Preview, decision: Decision) -> Decision:
    """Return the answer of an action without taking it.

    A preview that falls short is recorded once for each agent, interaction and kind.
    """
    rules = rules_in_force(decision)
    if rules is None:
        return decision.answer_only(preview_answer(authority.NO_POLICY, None, None))
    context = decision_context(decision, command, rules)
    if command.amount is None:
        available, verdict = authority.available(context)
        answer = preview_answer(verdict, rules.version, context.budget, kind=context.agent.kind)
        if available is not None:
            answer["available"] = available.wire()
        return decision.answer_only(answer)
    verdict = authority.judge(context, command.amount)
    if verdict.outcome == "escalate" and command.escalate:
        verdict, _, _ = route_escalation(context, verdict, decision)
    answer = preview_answer(
        verdict, rules.version, context.budget, hold=command.hold, kind=context.agent.kind, amount=command.amount
    )
    noted = (command.interaction_id, command.kind) in context.budget.noted_previews
    if verdict.outcome == "taken" or command.interaction_id is None or noted:
        return decision.answer_only(answer)
    record = authority.fell_short(command, command.amount, verdict, decision.cause, asking=context, preview=True)
    decision.write(context.budget, record)
    return decision.answer_only(answer)
