"""Escalations: approvers, payers, and the records of each step."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from domain.actions import action_fields
from domain.decisions.authority import (
    Agent,
    DecisionContext,
    OwedPart,
    Verdict,
    person_refusal,
    requested_fields,
    source_refusal,
)
from domain.events.decisions import (
    ActionHeld,
    ActionTaken,
    EscalationApproved,
    EscalationDenied,
    EscalationExpired,
    EscalationForwarded,
    EscalationRequested,
    EscalationWithdrawn,
    Limit,
    Reason,
)
from domain.managers import managers_above
from domain.money import Money

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from domain.budgets.budget import Budget
    from domain.budgets.postings import RequestContext
    from domain.commands import EscalationDecision
    from domain.policy.model import Limits, Policy, Rules


class Open(NamedTuple):
    """An open escalation: its request, its time, the people asked now and their deadline."""

    asked: EscalationRequested
    at: datetime
    to: tuple[str, ...]
    due: datetime


class Approver(NamedTuple):
    """A person with the power to decide, and the agent whose authority is used: the same person, or an absent one."""

    person: Agent
    authority: Agent

    @property
    def on_behalf_of(self) -> str | None:
        """The id of the absent agent that lends the authority; ``None`` where the person's own is used."""
        return None if self.person is self.authority else self.authority.agent_id


def may_decide(agent: Agent) -> bool:
    """Return whether escalations may be put before this agent: an announced person who has not left."""
    return agent.announced and agent.kind == "human" and not agent.left


def approves(role: str, kind: str, amount: Money, policy: Policy) -> bool:
    """Return whether a role may approve this kind and amount for others."""
    limits: Limits = policy.roles[role].approves if role in policy.roles else {}
    if kind not in limits:
        return False
    limit = limits[kind]
    return limit is None or (amount.currency == limit.currency and amount.minor <= limit.minor)


def whom_to_ask(
    agent: Agent,
    kind: str,
    amount: Money,
    policy: Policy,
    agent_of: Callable[[str], Agent | None],
    everybody: Callable[[], Sequence[Agent]],
) -> tuple[str, ...]:
    """Return the nearest manager with the right to approve; where no manager has it, all such people (20 at most).

    The escalation of an AI agent goes to the person who answers for it first, with or without that right.
    """

    def may(one: Agent) -> bool:
        return may_decide(one) and approves(one.role, kind, amount, policy)

    above = _line_above(agent, agent_of)
    nearest = next((one.agent_id for one in above if may(one)), None)
    to: tuple[str, ...] = () if nearest is None else (nearest,)
    if not to:
        to = tuple(one.agent_id for one in everybody() if one.agent_id != agent.agent_id and may(one))
    if agent.kind == "ai" and above and may_decide(above[0]):
        to = (above[0].agent_id, *(one for one in to if one != above[0].agent_id))
    return to[:_ASKED_AT_MOST]


_ASKED_AT_MOST = 20


def _line_above(agent: Agent, agent_of: Callable[[str], Agent | None]) -> list[Agent]:
    """Return the managers above an agent, the nearest first; an AI's line begins with the person answering for it."""
    if agent.kind == "human":
        return managers_above(agent, agent_of)
    person = None if agent.accountable_id is None else agent_of(agent.accountable_id)
    return [] if person is None else [person, *managers_above(person, agent_of)]


def requested(
    asking: DecisionContext,
    verdict: Verdict,
    cause: RequestContext,
    ids: tuple[str, str],
    to: tuple[str, ...],
    pool: Budget | None,
    *,
    answers: bool,
) -> EscalationRequested:
    """Return the record of an escalation; ``ids`` are the escalation's own and that of the action it asks for."""
    escalating = asking.rules.policy.escalation
    return EscalationRequested(
        escalation_id=ids[0],
        action_id=ids[1],
        role=asking.agent.role,
        reasons=verdict.reasons,
        payer="team" if pool is not None else "approver",
        to=to,
        due=asking.now + escalating.after,
        policy_version=asking.rules.version,
        budget=asking.budget.holder,
        period=asking.budget.period,
        currency=asking.budget.currency,
        holder=pool.holder if pool is not None else None,
        owed=verdict.owed,
        **(cause.answer() if answers else cause.fields()),
        **requested_fields(asking),
    )


def reserved(
    asking: DecisionContext, escalation: EscalationRequested, pool: Budget, cause: RequestContext
) -> ActionHeld:
    """Return the record that reserves an escalation's amount in the team's pool until the decision."""
    used = pool.money(pool.spent_minor + pool.reserved_minor)
    return ActionHeld(
        action_id=escalation.action_id,
        escalation_id=escalation.escalation_id,
        role=asking.agent.role,
        holder=pool.holder,
        period=pool.period,
        policy_version=asking.rules.version,
        training=(),
        limits=(Limit(name="pool", limit=pool.money(pool.granted_minor), used=used),),
        owed=escalation.owed,
        **cause.fields(),
        **requested_fields(asking),
    )


def refusals(  # noqa: PLR0911 - one for each rule
    operation: str, waiting: Open, approver: Approver, amount: Money, policy: Policy, source: str, group: frozenset[str]
) -> tuple[Reason, ...]:
    """Return the reasons why this person may not make this decision; empty if they may."""
    asked_for, person = waiting.asked, approver.person
    if operation == "withdraw" and person.agent_id == asked_for.agent_id:
        refusal = person_refusal(None, person, group)
        return () if refusal is None else (refusal,)
    if operation == "withdraw":
        return (Reason(rule="not_requester", message="only the requester may withdraw; others may deny"),)
    if asked_for.agent_id in (person.agent_id, approver.authority.agent_id):
        return (Reason(rule="own_request", message="requesters may not decide their own request"),)
    for one in (approver.authority, person):
        if refusal := person_refusal(asked_for.customer_id, one, group) or _unfit(one):
            return (refusal,)
    if refusal := source_refusal(person, policy, source):
        return (refusal,)
    role = approver.authority.role
    limits: Limits = policy.roles[role].approves if role in policy.roles else {}
    asked_personally = approver.authority.agent_id in waiting.to
    if asked_for.kind not in limits and not (asked_personally and operation != "approve"):
        message = f"the role {role} does not approve a {asked_for.kind}"
        return (Reason(rule="approves", message=message, asked=amount),)
    if operation == "approve" and not approves(role, asked_for.kind, amount, policy):
        limit = limits[asked_for.kind]
        message = f"more than the role {role} approves"
        return (Reason(rule="approves", message=message, limit=limit, used=policy.zero(), asked=amount),)
    return ()


def _unfit(agent: Agent) -> Reason | None:
    """Return the reason why an agent decides no escalation at all, or ``None``."""
    if not agent.announced:
        message = f"no source announced {agent.agent_id} as an employee, and a default role decides no escalation"
        return Reason(rule="not_announced", message=message)
    if agent.kind == "ai":
        return Reason(rule="agent_kind", message=f"{agent.agent_id} is an AI agent: a person decides escalations")
    return None


def requester_refusal(operation: str, requester: Agent | None) -> Reason | None:
    """Return the reason why no person may allow a requester's action any more, or ``None``."""
    if requester is None or operation not in ("approve", "forward"):
        return None
    if requester.left:
        message = f"the requester {requester.agent_id} has left the company, so the escalation ends"
        return Reason(rule="left", message=message)
    if not requester.answered_for:
        message = f"no person at work answers for the AI agent {requester.agent_id}"
        return Reason(rule="accountable", message=message)
    return None


def payer_short(payer: Budget, amount: Money, action_id: str) -> Reason | None:
    """Return the reason why the payer's budget does not reach, or ``None``.

    The amount that is reserved for this action counts as left.
    """
    held = payer.holds.get(action_id)
    left = payer.remaining_minor + (held.minor if held else 0)
    if amount.currency == payer.currency and amount.minor <= left:
        return None
    used = payer.money(payer.spent_minor + payer.reserved_minor - (held.minor if held else 0))
    message = f"more than the payer {payer.holder} has left"
    return Reason(rule="payer", message=message, limit=payer.money(payer.granted_minor), used=used, asked=amount)


def approved(
    waiting: Open,
    request: EscalationDecision,
    approver: Approver,
    rules: Rules,
    amount: Money,
    owed: OwedPart | None,
    budget: Budget,
    payer: Budget,
    now: datetime,
    cause: RequestContext,
) -> tuple[EscalationApproved, ActionTaken]:
    """Return the records of an approval: the decision, and the action that it allows."""
    asked_for = waiting.asked
    limit = rules.policy.roles[approver.authority.role].approves[asked_for.kind]
    used = payer.money(payer.spent_minor + payer.reserved_minor)
    step = EscalationApproved(
        asked=asked_for.amount,
        action_id=asked_for.action_id,
        paid_by=payer.holder,
        **_step(waiting, budget, amount, now, request.decided_by, approver.on_behalf_of, request.reason, cause),
        **cause.answer(),
    )
    action = ActionTaken(
        action_id=asked_for.action_id,
        role=asked_for.role,
        holder=payer.holder,
        period=payer.period,
        policy_version=rules.version,
        training=(),
        limits=(
            Limit(name="approves", limit=limit, used=payer.money(0)),
            Limit(name="payer", limit=payer.money(payer.granted_minor), used=used),
            *(() if owed is None else (_proof(owed),)),
        ),
        owed=None if owed is None else owed.amount,
        authority="approved",
        escalation_id=asked_for.escalation_id,
        decided_by=request.decided_by,
        on_behalf_of=approver.on_behalf_of,
        requested_by_source=_other_source(waiting, cause),
        team_filled=asked_for.team_filled,
        manager_id=asked_for.manager_id,
        agent_kind=asked_for.agent_kind,
        **cause.fields(),
        **action_fields(asked_for, amount),
    )
    return step, action


def _other_source(waiting: Open, cause: RequestContext) -> str | None:
    """Return the source of an escalation, where it is not that of the decision."""
    return waiting.asked.source if waiting.asked.source != cause.source else None


def _proof(owed: OwedPart) -> Limit:
    limit, currency = owed.proof.limit, owed.amount.currency
    shown = None if limit is None else Money(limit, currency)
    return Limit(name=owed.proof.name, limit=shown, used=Money(owed.proof.used, currency))


def denied(
    waiting: Open, request: EscalationDecision, approver: Approver, budget: Budget, now: datetime, cause: RequestContext
) -> EscalationDenied | EscalationWithdrawn:
    """Return the record of a denial, or of a withdrawal."""
    cls = EscalationWithdrawn if request.operation == "withdraw" else EscalationDenied
    by, behalf = request.decided_by, approver.on_behalf_of
    step = _step(waiting, budget, waiting.asked.amount, now, by, behalf, request.reason, cause)
    return cls(**step, **cause.answer())


def forwarded(
    waiting: Open,
    to: tuple[str, ...],
    budget: Budget,
    now: datetime,
    rules: Rules,
    cause: RequestContext,
    *,
    request: EscalationDecision | None = None,
    approver: Approver | None = None,
) -> EscalationForwarded:
    """Return the record that passes an escalation on, with a new full deadline; without ``request`` a timer did it."""
    behalf = approver.on_behalf_of if approver else None
    reason = request.reason if request else "no answer in time"
    by = request.decided_by if request else None
    step = _step(waiting, budget, waiting.asked.amount, now, by, behalf, reason, cause)
    return EscalationForwarded(
        to=to, due=now + rules.policy.escalation.after, **step, **(cause.answer() if request else cause.fields())
    )


def expired(waiting: Open, budget: Budget, now: datetime, cause: RequestContext, reason: str) -> EscalationExpired:
    """Return the record of an escalation that ended without a decision."""
    step = _step(waiting, budget, waiting.asked.amount, now, None, None, reason, cause)
    return EscalationExpired(**step, **cause.fields())


NO_ANSWER = "no answer in time, and no higher level to ask"
REQUESTER_LEFT = "the requester has left the company"


def next_level(waiting: Open, policy: Policy, agent_of: Callable[[str], Agent | None]) -> tuple[str, ...]:
    """Return the next manager above the people asked with the right to approve; empty where the chain ends."""
    asked_for = waiting.asked
    for agent_id in waiting.to:
        agent = agent_of(agent_id)
        for above in managers_above(agent, agent_of) if agent else ():
            allowed = may_decide(above) and above.agent_id not in (*waiting.to, asked_for.agent_id)
            if allowed and approves(above.role, asked_for.kind, asked_for.counted, policy):
                return (above.agent_id,)
    return ()


def _step(
    waiting: Open,
    budget: Budget,
    amount: Money,
    now: datetime,
    decided_by: str | None,
    on_behalf_of: str | None,
    reason: str | None,
    cause: RequestContext,
) -> dict[str, Any]:
    """Return the fields of ``EscalationStep``."""
    return {
        "escalation_id": waiting.asked.escalation_id,
        "agent_id": waiting.asked.agent_id,
        "budget": budget.holder,
        "period": budget.period,
        "amount": amount,
        "waited_seconds": max(0.0, (now - waiting.at).total_seconds()),
        "decided_by": decided_by,
        "on_behalf_of": on_behalf_of,
        "reason": reason,
        "interaction_id": waiting.asked.interaction_id,
        "customer_id": waiting.asked.customer_id,
        "team_id": waiting.asked.team_id,
        "requested_by_source": _other_source(waiting, cause),
    }
