"""Escalations: filed, approved, denied, withdrawn, forwarded, and expired by the timer."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from domain.budgets import postings
from domain.commands import RequestError, action_id_of, escalation_id_of
from domain.decisions import approvals, authority
from domain.decisions.approvals import Approver
from domain.decisions.context import (
    customer_charge,
    decision_context,
    known_agent,
    order_charge,
    refuse_reported,
    required_rules,
    seen_order,
    team_pool,
)
from domain.decisions.decision import Retry
from domain.decisions.streams import CustomerStream, OrderStream
from domain.events.decisions import AuthorityFellShort, Limit, Reason
from domain.money import Money

if TYPE_CHECKING:
    from domain.budgets.budget import Budget
    from domain.commands import EscalationAsk, EscalationDecision
    from domain.decisions.approvals import Open
    from domain.decisions.authority import Agent, DecisionContext, OwedPart, Verdict
    from domain.decisions.decision import Decision
    from domain.events.decisions import CustomerCharged, EscalationRequested, OrderCharged
    from domain.policy.model import Rules


_APPROVALS_CHARGE_SINCE = 2
"""Rules of version 1 recorded an approved action for its customer nowhere else."""


class OverdueEscalation(NamedTuple):
    """The command of the timer for an escalation without an answer at its deadline, ``due`` (seconds since 1970)."""

    holder: str
    id: str
    due: float


def request_escalation(command: EscalationAsk, decision: Decision) -> Decision:
    """File an escalation, or record that it is refused."""
    rules = required_rules(decision)
    context = decision_context(decision, command, rules)
    refuse_reported(decision, decision.cause.action_id, context.budget, "request_id")
    verdict = authority.judge(context, command.amount)
    if verdict.outcome != "refused":
        filed, to, pool = route_escalation(context, verdict, decision)
        if filed.outcome != "refused":
            return decision.answer_with(file_escalation(context, verdict, decision, to, pool, answers=True))
        verdict = filed
    short = authority.fell_short(command, command.amount, verdict, decision.cause, asking=context)
    decision.write(context.budget, short)
    return decision.answer_with(short, context.budget)


def route_escalation(
    context: DecisionContext, verdict: Verdict, decision: Decision
) -> tuple[Verdict, tuple[str, ...], Budget | None]:
    """Return the verdict, the people to ask, and the team pool that would pay.

    The verdict is a refusal where no role may approve the amount, or the pool does not reach.
    """
    command, agent, policy = context.request, context.agent, context.rules.policy
    assert command.amount is not None
    amount, staff = verdict.counted(command.amount), decision.state.staff

    def refused(reason: Reason) -> tuple[Verdict, tuple[str, ...], Budget | None]:
        return msgspec.structs.replace(verdict, outcome="refused", reasons=(*verdict.reasons, reason)), (), None

    if not any(approvals.approves(role, command.kind, amount, policy) for role in policy.roles):
        message = f"no role approves a {command.kind} of {amount.text}"
        return refused(Reason(rule="approves", message=message, asked=amount))
    pool = None
    if policy.escalation.payer == "team" and (command.basis == "goodwill" or verdict.owed is not None):
        pool = team_pool(decision, agent, command, context.rules)
    if pool is not None and (short := approvals.payer_short(pool, amount, "")):
        return refused(short)
    to = approvals.whom_to_ask(
        agent,
        command.kind,
        amount,
        policy,
        lambda agent_id: staff.agent(agent_id, policy.default_role),
        lambda: staff.everybody(policy.default_role),
    )
    return verdict, to, pool


def file_escalation(
    context: DecisionContext,
    verdict: Verdict,
    decision: Decision,
    to: tuple[str, ...],
    pool: Budget | None,
    *,
    answers: bool,
) -> EscalationRequested:
    """Write an escalation and the reservation in the pool; ``answers``: it is the answer to the command."""
    cause = decision.cause
    ids = escalation_id_of(cause.source, cause.request_id), action_id_of(cause.source, cause.request_id)
    record = approvals.requested(context, verdict, cause, ids, to, pool, answers=answers)
    decision.write(context.budget, record)
    if pool is not None:
        decision.write(pool, approvals.reserved(context, record, pool, cause))
    return record


def decide_escalation(command: EscalationDecision, decision: Decision) -> Decision:
    """Approve, deny, withdraw or forward an escalation, or record that the person may not do so."""
    rules, cause, now = required_rules(decision), decision.cause, decision.now
    escalation, budget = _open_escalation(command.escalation_id, decision, rules)
    if command.operation == "approve":
        refuse_reported(decision, escalation.asked.action_id, budget, "escalation_id")
    amount = _amount(command, escalation)
    owed = _owed_now(escalation.asked, amount, decision, rules) if command.operation == "approve" else None
    counted = amount if owed is None else Money(amount.minor - owed.amount.minor, amount.currency)
    person = known_agent(decision, command.decided_by, rules, "decided_by")
    approver, reasons = _approver(command.operation, escalation, person, counted, rules, decision)
    payer = None
    if command.operation == "approve" and not reasons:
        holder = escalation.asked.holder or f"agent:{approver.authority.agent_id}"
        payer = decision.budget(holder, rules, escalation.asked.currency)
    if payer is not None and (escalation.asked.basis == "goodwill" or (owed is not None and counted.minor)):
        short = approvals.payer_short(payer, counted, escalation.asked.action_id)
        reasons = (short,) if short else ()
    if reasons:
        refused = _refused_attempt(escalation, command, person, amount, reasons, rules, budget, decision)
        decision.write(budget, refused)
        return decision.answer_with(refused, budget)
    if payer is not None:
        asked = escalation.asked
        charge = _customer_charge(asked, counted, decision, rules) if owed or asked.basis == "goodwill" else None
        on_order = _order_charge(asked, amount, owed, decision, rules)
        step, action = approvals.approved(escalation, command, approver, rules, amount, owed, budget, payer, now, cause)
        decision.write(budget, step)
        decision.write(payer, action)
        if charge is not None:
            decision.write_to(CustomerStream(charge.customer_id), charge)
        if on_order is not None:
            decision.write_to(OrderStream(on_order.order_id), on_order)
        return decision.answer_with(step)
    if command.operation == "forward":
        to = _forward_to(command, escalation, rules, decision)
        sent = approvals.forwarded(escalation, to, budget, now, rules, cause, request=command, approver=approver)
        decision.write(budget, sent)
        return decision.answer_with(sent)
    pool = _reserving_pool(escalation, decision, rules)
    denied = approvals.denied(escalation, command, approver, budget, now, cause)
    decision.write(budget, denied)
    _release(escalation, decision, pool, command.operation)
    return decision.answer_with(denied)


def _customer_charge(
    asked: EscalationRequested, amount: Money, decision: Decision, rules: Rules
) -> CustomerCharged | None:
    """Return an approved action's record on the customer's stream; ``None`` unless the customer is near the cap."""
    role = rules.policy.roles.get(asked.role)
    cap = None if role is None or decision.cause.rules_version < _APPROVALS_CHARGE_SINCE else role.per_customer
    if cap is None or cap.hard_above is None or asked.customer_id is None:
        return None
    actions = decision.state.actions
    group = actions.group_of(asked.customer_id)
    used = authority.given_in_days(actions.to_group(group), cap, decision.now, amount.currency)
    if amount.currency != cap.amount.currency or not amount.minor or used + amount.minor <= cap.hard_above.minor:
        return None
    met = Limit(name="per_customer", limit=cap.amount, used=Money(used, amount.currency))
    return customer_charge(decision, min(group), asked.action_id, amount, met, cap.days)


def _owed_now(asked: EscalationRequested, amount: Money, decision: Decision, rules: Rules) -> OwedPart | None:
    """Return the part of an approved amount that is owed by now; ``None`` where no proof is asked for."""
    if asked.basis == "goodwill" or not rules.is_strict:
        return None
    order = seen_order(decision, asked.order_id, amount.currency, asked.source)
    return authority.owed_part(rules.policy, asked.role, asked.kind, asked.basis, amount, order)


def _order_charge(
    asked: EscalationRequested, amount: Money, owed: OwedPart | None, decision: Decision, rules: Rules
) -> OrderCharged | None:
    """Return an approved action's record on the order's stream; ``None`` where the owed part needs none."""
    if owed is None or owed.by_policy or not owed.amount.minor or asked.order_id is None:
        return None
    order = seen_order(decision, asked.order_id, amount.currency, asked.source)
    near = authority.is_near(rules.policy.roles.get(asked.role), order, amount)
    return order_charge(decision, asked.order_id, asked.action_id, amount, order) if near else None


def expire_escalation(command: OverdueEscalation, decision: Decision) -> Decision:
    """Forward an escalation without an answer to the next level, or end it; end that of an agent who has left."""
    rules = required_rules(decision)
    escalation = decision.state.pending.open.get(command.id)
    if escalation is None or escalation.due.timestamp() > command.due:
        return decision  # it was decided or forwarded in the meantime
    budget = decision.budget(f"agent:{escalation.asked.agent_id}", rules, escalation.asked.currency, late=True)
    decision.require_read(budget)
    if command.id not in budget.escalations:
        return decision
    requester = decision.state.staff.agent(escalation.asked.agent_id, rules.policy.default_role)
    has_left = requester is not None and requester.left
    to: tuple[str, ...] = ()
    if rules.policy.escalation.then == "next_level" and not has_left:
        to = _next_level(escalation, rules, decision)
    if to:
        decision.write(budget, approvals.forwarded(escalation, to, budget, decision.now, rules, decision.cause))
    else:
        pool = _reserving_pool(escalation, decision, rules)
        reason = approvals.REQUESTER_LEFT if has_left else approvals.NO_ANSWER
        decision.write(budget, approvals.expired(escalation, budget, decision.now, decision.cause, reason))
        _release(escalation, decision, pool, "expired")
    return decision


def _next_level(escalation: Open, rules: Rules, decision: Decision) -> tuple[str, ...]:
    default_role = rules.policy.default_role
    return approvals.next_level(escalation, rules.policy, lambda name: decision.state.staff.agent(name, default_role))


def _open_escalation(escalation_id: str, decision: Decision, rules: Rules) -> tuple[Open, Budget]:
    """Return an open escalation and its requester's budget.

    Raises:
        RequestError: the escalation is unknown, or decided already.

    """
    escalation = decision.state.pending.open.get(escalation_id)
    if escalation is not None:
        budget = decision.budget(f"agent:{escalation.asked.agent_id}", rules, escalation.asked.currency)
        if escalation_id in budget.escalations:
            return escalation, budget
    decision.need(Retry.AFTER_CATCH_UP)
    verdict = decision.state.pending.verdict_on(escalation_id)
    if verdict is None and escalation is None:
        message = f"there is no escalation {escalation_id!r}; see resolution.notify.escalation.<source>"
        raise RequestError("unknown_escalation", message, "escalation_id")
    message = f"this escalation is {verdict or 'decided'} already; a new case needs a new request"
    raise RequestError("already_decided", message, "escalation_id")


def _approver(
    operation: str, escalation: Open, person: Agent, amount: Money, rules: Rules, decision: Decision
) -> tuple[Approver, tuple[Reason, ...]]:
    """Return the authority to use, and the reasons against it.

    It is the person's own, or where that does not suffice, the authority of an absent agent that the person replaces.
    """
    policy, staff, source = rules.policy, decision.state.staff, decision.cause.source
    group: frozenset[str] = frozenset()
    if escalation.asked.customer_id is not None:
        group = decision.state.actions.group_of(escalation.asked.customer_id)
    own = Approver(person, person)
    requester = staff.agent(escalation.asked.agent_id, policy.default_role)
    if refusal := approvals.requester_refusal(operation, requester):
        return own, (refusal,)
    reasons = approvals.refusals(operation, escalation, own, amount, policy, source, group)
    for absent_id in staff.stood_in_for(person.agent_id, decision.now) if reasons else ():
        absent = staff.agent(absent_id, policy.default_role)
        if absent is None:
            continue
        stand_in = Approver(person, absent)
        if not approvals.refusals(operation, escalation, stand_in, amount, policy, source, group):
            return stand_in, ()
    return own, reasons


def _amount(command: EscalationDecision, escalation: Open) -> Money:
    asked = escalation.asked.amount
    if command.amount is None or command.operation != "approve":
        return asked
    if command.amount.currency != asked.currency:
        raise RequestError("currency", f"the escalation asks for {asked.currency}", "amount.currency")
    if command.amount.minor > asked.minor:
        raise RequestError("invalid", f"approve at most the requested amount, {asked.text}", "amount.amount")
    return command.amount


def _forward_to(command: EscalationDecision, escalation: Open, rules: Rules, decision: Decision) -> tuple[str, ...]:
    if command.to is None:
        to = _next_level(escalation, rules, decision)
        if not to:
            raise RequestError("nobody_above", "no manager above may approve this; name a person in `to`", "to")
        return to
    person = known_agent(decision, command.to, rules, "to")
    if person.agent_id == escalation.asked.agent_id or not approvals.may_decide(person):
        message = "forward it to an announced person at work, other than the requester"
        raise RequestError("invalid", message, "to")
    return (person.agent_id,)


def _reserving_pool(escalation: Open, decision: Decision, rules: Rules) -> Budget | None:
    """Return the pool in which an escalation's amount is reserved, or ``None``."""
    holder = escalation.asked.holder
    return None if holder is None else decision.budget(holder, rules, escalation.asked.currency, late=True)


def _release(escalation: Open, decision: Decision, pool: Budget | None, reason: str) -> None:
    """Release the reservation of an escalation that was not approved."""
    asked = escalation.asked
    hold = pool.holds.get(asked.action_id) if pool is not None else None
    if pool is not None and hold is not None:
        escalation_id = asked.escalation_id
        decision.write(
            pool, postings.voided(asked, hold.minor, reason, pool, decision.cause, escalation_id=escalation_id)
        )


def _refused_attempt(
    escalation: Open,
    command: EscalationDecision,
    person: Agent,
    amount: Money,
    reasons: tuple[Reason, ...],
    rules: Rules,
    budget: Budget,
    decision: Decision,
) -> AuthorityFellShort:
    """Return the record of a decision that this person may not make."""
    asked = escalation.asked
    return AuthorityFellShort(
        agent_id=person.agent_id,
        role=person.role,
        kind=asked.kind,
        basis=asked.basis,
        amount=amount,
        reason=command.reason or f"{command.operation} an escalation",
        outcome="refused",
        reasons=reasons,
        preview=False,
        team_id=asked.team_id,
        manager_id=person.manager_id,
        agent_kind=person.kind,
        customer_id=asked.customer_id,
        interaction_id=asked.interaction_id,
        order_id=asked.order_id,
        holder=budget.holder,
        period=budget.period,
        policy_version=rules.version,
        escalation_id=asked.escalation_id,
        **decision.cause.answer(),
    )
