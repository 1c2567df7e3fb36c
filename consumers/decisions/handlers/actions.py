"""Actions and their previews."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, cast

from config import topology
from consumers.decisions.handlers.context import decision_context, known_agent, rules_in_force
from consumers.decisions.handlers.escalations import file_escalation, route_escalation
from consumers.decisions.responses import preview_answer
from consumers.decisions.unit_of_work import CommandResult
from domain.budgets import postings
from domain.commands import ActionRequest, escalation_id_of
from domain.decisions import authority

if TYPE_CHECKING:
    from consumers.decisions.unit_of_work import UnitOfWork
    from domain.commands import Preview
    from domain.decisions.authority import DecisionContext, Verdict
    from domain.events.decisions import Shadow


def take_action(command: ActionRequest, unit: UnitOfWork) -> CommandResult:
    """Take an action, hold its amount, file an escalation, or record that the authority fell short."""
    rules, cause = rules_in_force(unit), unit.cause
    if rules is None:
        record = authority.fell_short(command, command.amount, authority.NO_POLICY, cause)
        # A subject for each request: of two deciders that answer it at once, the second gets a conflict.
        token = hashlib.sha256(f"{cause.source} {cause.request_id}".encode()).hexdigest()[:32]
        unit.write_after(f"{topology.REFUSED_SUBJECT}.{token}", 0, record)
        return CommandResult.of(unit, record)
    agent = known_agent(unit, command.agent_id, rules, "agent_id")
    context = decision_context(unit, command, agent, rules)
    verdict = authority.judge(context, command.amount)
    shadow = authority.shadowed(context, command.amount, unit.state.policies.in_shadow(unit.now))
    if verdict.outcome == "taken":
        return _take(context, verdict, unit, shadow)
    to: tuple[str, ...] = ()
    filed, escalation_id, pool = verdict, None, None
    if command.escalate and verdict.outcome == "escalate":
        filed, to, pool = route_escalation(context, verdict, unit)
        if filed.outcome == "escalate":
            escalation_id = escalation_id_of(cause.source, command.request_id)
    record = authority.fell_short(
        command, command.amount, filed, cause, asking=context, shadow=shadow, escalation_id=escalation_id
    )
    unit.write(context.budget, record)
    if escalation_id is not None:
        file_escalation(context, verdict, unit, to, pool, answers=False)
    return CommandResult.of(unit, record, context.budget)


def _take(context: DecisionContext, verdict: Verdict, unit: UnitOfWork, shadow: Shadow | None) -> CommandResult:
    command, cause = cast("ActionRequest", context.request), unit.cause
    guard, charge = None, None
    if command.customer_id is not None and verdict.guarded is not None:
        customer = min(context.seen.group)
        guard = unit.customer_stream(customer)
        charge = authority.guarding(verdict, customer, command.amount, cause, cause.action_id)
    if verdict.draw is not None and context.pool is not None:
        out, into = postings.drawn(context.pool, context.budget, verdict.draw, cause.action_id, cause)
        unit.write(context.pool, out)
        unit.write(context.budget, into)
    make = authority.held if command.hold else authority.taken
    record = make(context, context.rules.version, verdict, cause, cause.action_id, shadow)
    unit.write(context.budget, record)
    if guard is not None and charge is not None:
        unit.write_guard(guard, charge)
    return CommandResult.of(unit, record, context.budget)


def preview_action(command: Preview, unit: UnitOfWork) -> CommandResult:
    """Return the answer of an action without taking it.

    A preview that falls short is recorded once for each agent, interaction and kind.
    """
    rules = rules_in_force(unit)
    if rules is None:
        return CommandResult(None, preview_answer(authority.NO_POLICY, None, None))
    agent = known_agent(unit, command.agent_id, rules, "agent_id")
    context = decision_context(unit, command, agent, rules)
    if command.amount is None:
        available, verdict = authority.available(context)
        answer = preview_answer(verdict, rules.version, context.budget) | {"available": available.wire()}
        return CommandResult(None, answer)
    verdict = authority.judge(context, command.amount)
    if verdict.outcome == "escalate" and command.escalate:
        verdict, _, _ = route_escalation(context, verdict, unit)
    answer = preview_answer(verdict, rules.version, context.budget, hold=command.hold)
    noted = (command.interaction_id, command.kind) in context.budget.noted_previews
    if verdict.outcome == "taken" or command.interaction_id is None or noted:
        return CommandResult(None, answer)
    record = authority.fell_short(command, command.amount, verdict, unit.cause, asking=context, preview=True)
    unit.write(context.budget, record)
    return CommandResult(unit, answer)
